"""VGGFace2's ResNet-50, whose features tell faces apart (FVA, FS)."""

from torch import Tensor, nn

from ace_counterfactuals.models.loading import load_into, load_state
from ace_counterfactuals.models.resnets import build_caffe_resnet50

BGR_MEAN = (91.4953, 103.8827, 131.0912)


class VGGFace2(nn.Module):
    """Images (N, 3, H, W) in [0, 1], the shorter side 224 -> features (N, 2048), averaged over all positions."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        return self.network(255 * images.flip(1) - images.new_tensor(BGR_MEAN).view(1, 3, 1, 1))


def load_vggface2(path) -> VGGFace2:
    """The published ``resnet50_ft_weight.pkl``, frozen and in eval mode; its 8,631 identities are left out."""
    state = {key: value for key, value in load_state(path).items() if not key.startswith("fc.")}
    network = build_caffe_resnet50(nn.Identity())
    load_into(network, state, path=path, what="VGGFace2's ResNet-50")
    return VGGFace2(network).eval().requires_grad_(False)
