"""What kind of network a state dict is, in words: people swap files, and an error that says so saves an hour."""

from torch import Tensor


def _outputs(state: dict[str, Tensor], *names: str) -> str:
    found = next((state[name] for name in names if name in state), None)
    return "" if found is None or not found.dim() else f" with {found.shape[0]} outputs"


def _resnet(state: dict[str, Tensor]) -> str:
    blocks = sum(len({k.split(".")[1] for k in state if k.startswith(f"layer{i}.")}) for i in range(1, 5))
    per_block = 3 if "layer1.0.conv3.weight" in state else 2
    outputs = _outputs(state, "fc.weight")
    if "bn1.num_batches_tracked" not in state and outputs == " with 8631 outputs":
        return "the VGGFace2 face network (a ResNet-50)"
    return f"a torchvision ResNet-{blocks * per_block + 2}{outputs}"


def _densenet(state: dict[str, Tensor]) -> str:
    maker = "a torchvision" if "features.conv0.weight" in state else "a DiVE or STEEX"
    return f"{maker} DenseNet classifier{_outputs(state, 'classifier.weight')}"


# A name within the state dict -> its description; the first that is there decides.
MARKS = {
    "time_embed.0.weight": lambda s: "a diffusion U-Net",
    "feat_extract.conv1_7x7_s2.weight": lambda s: f"an attribute oracle{_outputs(s, 'classifier.weight')}",
    "encoder.conv1.weight": lambda s: "a SimSiam network",
    "feat_extract.feat_extract.features.conv0.weight": _densenet,
    "features.conv0.weight": _densenet,
    "layer1.0.conv1.weight": _resnet,
    "stem.0.weight": lambda s: f"a small classifier of ours{_outputs(s, 'head.weight')}",
    "Mixed_5b.branch1x1.conv.weight": lambda s: "an Inception network",
    "lin0.model.1.weight": lambda s: "the linear layers of LPIPS",
}


def describe(state: dict[str, Tensor]) -> str:
    """'a diffusion U-Net', 'a torchvision ResNet-50 with 1000 outputs', ... from the names in a flat state dict."""
    for mark, words in MARKS.items():
        if mark in state:
            return words(state)
    for key in ("heads.head.weight", "head.weight", "fc.weight", "classifier.weight", "classifier.1.weight"):
        if key in state:
            return f"an unknown network{_outputs(state, key)}"
    first = next(iter(state), "nothing")
    return f"an unknown network ({len(state)} tensors, the first {first[:60]})"
