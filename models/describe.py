"""What kind of network a state dict is, in words: people swap files, and an error that says so saves an hour."""

from torch import Tensor

# A name within the state dict -> what it gives away; the first that is there decides.
KINDS = {
    "time_embed.0.weight": "a diffusion U-Net",
    "feat_extract.conv1_7x7_s2.weight": "an attribute oracle",
    "encoder.conv1.weight": "a SimSiam network",
    "feat_extract.feat_extract.features.conv0.weight": "a DiVE or STEEX DenseNet classifier",
    "features.conv0.weight": "a torchvision DenseNet classifier",
    "layer1.0.conv1.weight": "a ResNet",
    "stem.0.weight": "a small classifier of ours",
    "Mixed_5b.branch1x1.conv.weight": "an Inception network",
    "lin0.model.1.weight": "the linear layers of LPIPS",
}
HEADS = ("heads.head.weight", "head.weight", "fc.weight", "classifier.weight", "classifier.1.weight")


def describe(state: dict[str, Tensor]) -> str:
    """'a diffusion U-Net', 'a ResNet with 1000 outputs', ... from the names in a flat state dict."""
    head = next((state[name] for name in HEADS if name in state), None)
    outputs = "" if head is None or not head.dim() else f" with {head.shape[0]} outputs"
    kind = next((words for name, words in KINDS.items() if name in state), None)
    if kind is None and not outputs:
        return f"an unknown network ({len(state)} tensors, the first {next(iter(state), 'nothing')[:60]})"
    return f"{kind or 'an unknown network'}{outputs}"
