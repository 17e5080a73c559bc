"""What any classifier sees in a picture, before it decides: the input of its last linear layer."""

from collections.abc import Mapping

from torch import Tensor, nn

from ace_counterfactuals.models.classifiers import Classifier, classifier_of, is_ours, load_classifier, open_ours
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


def architecture(path, *, heads: Mapping[int, int] | None = None, arch: str = "") -> str:
    """What to call the network of ``load_features``."""
    tree = load_weights(path)
    if is_ours(tree):
        return str(tree.get("arch"))
    return arch or ("densenet121" if heads else "resnet50")


def load_features(path, *, heads: Mapping[int, int] | None = None, arch: str = "") -> Features:
    """Of a file of ours, or of another that ``load_classifier`` reads; frozen.

    heads: as ``load_classifier`` takes them.  arch: torchvision's name; '' is resnet50 where there are no heads.
    """
    tree = load_weights(path)
    if is_ours(tree):
        return Features(classifier_of(*open_ours(tree, str(path))).eval().requires_grad_(False), str(path))
    if arch or not heads:
        return Features(load_classifier(path, arch=arch or "resnet50"), str(path))
    query = next(iter(heads))  # any: the last layer is not looked at
    return Features(load_classifier(path, query=query, heads=heads), str(path))
