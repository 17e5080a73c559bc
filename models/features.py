"""What any classifier sees in a picture, before it decides: the input of its last linear layer."""

from torch import Tensor, nn

from ace_counterfactuals.models.classifiers import FLAG, LOGITS, Classifier, is_ours, load_classifier, open_ours
from ace_counterfactuals.models.loading import WeightsError, load_weights


class Features(nn.Module):
    """Images (N, 3, H, W) in [0, 1] -> features (N, D)."""

    def __init__(self, classifier: Classifier, name: str):
        """name: of the file, for the error of a network without a linear layer."""
        super().__init__()
        self.classifier = classifier
        linear = [module for module in classifier.modules() if isinstance(module, nn.Linear)]
        if not linear:
            raise WeightsError(f"{name}: has no linear layer whose input could be its features")
        linear[-1].register_forward_pre_hook(self._keep)

    def _keep(self, _, inputs: tuple[Tensor, ...]) -> None:
        self.kept = inputs[0].flatten(1)

    def forward(self, images: Tensor) -> Tensor:
        self.classifier(images)
        return self.kept


def architecture(path, *, dataset: str = "", arch: str = "") -> str:
    """What to call the network of ``load_features``."""
    tree = load_weights(path, flag=FLAG)
    published = "densenet121" if dataset in LOGITS else "resnet50"
    return tree["arch"] if is_ours(tree) and isinstance(tree.get("arch"), str) else arch or published


def load_features(path, *, dataset: str = "", arch: str = "") -> Features:
    """Of a file of ours, of torchvision's ``arch``, or of the published classifier of ``dataset``; frozen."""
    tree = load_weights(path, flag=FLAG)
    name = f"{FLAG} {path}"
    if is_ours(tree):
        network, header = open_ours(tree, name)
        classifier = Classifier(network, (header["mean"], header["std"]), num_outputs=len(header["class_names"]))
        classifier.eval().requires_grad_(False)
    else:
        query = next(iter(LOGITS.get(dataset, {0: 0})))  # any: the last layer is not looked at
        classifier = load_classifier(path, dataset=dataset or "ImageNet", query=query, arch=arch or None)
    return Features(classifier, name)
