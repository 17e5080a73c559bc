"""What any classifier sees in a picture, before it decides: the input of its last linear layer."""

from collections.abc import Mapping

from torch import Tensor, nn

from ace_counterfactuals.models.classifiers import Classifier, classifier_of, is_ours, load_classifier, open_ours
from ace_counterfactuals.models.judge import Judge
from ace_counterfactuals.models.loading import WeightsError, load_weights


def features_of(classifier: Classifier, name: str) -> Judge:
    """Images -> features (N, D) of a classifier.  name: of its file, for a network without a linear layer."""
    linear = [module for module in classifier.modules() if isinstance(module, nn.Linear)]
    if not linear:
        raise WeightsError(f"{name}: has no linear layer whose input could be its features")
    seen: list[Tensor] = []
    linear[-1].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].flatten(1)))
    return Judge(classifier, read=lambda _: seen.pop())


def architecture(path, *, heads: Mapping[int, int] | None = None, arch: str = "") -> str:
    """What to call the network of ``load_features``."""
    tree = load_weights(path)
    if is_ours(tree):
        return str(tree.get("arch"))
    return arch or ("densenet121" if heads else "resnet50")


def load_features(path, *, heads: Mapping[int, int] | None = None, arch: str = "") -> Judge:
    """Of a file of ours, or of another that ``load_classifier`` reads; frozen.

    heads: as ``load_classifier`` takes them.  arch: torchvision's name; '' is resnet50 where there are no heads.
    """
    tree = load_weights(path)
    if is_ours(tree):
        return features_of(classifier_of(*open_ours(tree, str(path))), str(path))
    if arch or not heads:
        return features_of(load_classifier(path, arch=arch or "resnet50"), str(path))
    query = next(iter(heads))  # any: the last layer is not looked at
    return features_of(load_classifier(path, query=query, heads=heads), str(path))
