"""VGGFace2's ResNet-50, whose features tell faces apart (FVA, FS)."""

from torch import Tensor, nn

from ace_counterfactuals.models.judge import Judge, channels
from ace_counterfactuals.models.loading import load_into, load_state
from ace_counterfactuals.models.resnets import build_caffe_resnet50

BGR_MEAN = (91.4953, 103.8827, 131.0912)


def _prepare(images: Tensor) -> Tensor:
    return 255 * images.flip(1) - channels(images, BGR_MEAN)


def load_vggface2(path) -> Judge:
    """Images whose shorter side is 224 -> features (N, 2048), averaged over all positions.

    path: the published ``resnet50_ft_weight.pkl``, whose 8,631 identities are left out.
    """
    state = {key: value for key, value in load_state(path).items() if not key.startswith("fc.")}
    network = build_caffe_resnet50(nn.Identity())
    load_into(network, state, path=path, what="VGGFace2's ResNet-50")
    return Judge(network, _prepare)
