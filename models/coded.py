"""A diffusion model that a function of the user's returns: a network that predicts noise, or the velocity of a flow.

To open one runs the user's code, which is done only where the user names it, never because of a stored configuration.
"""

from dataclasses import replace

import torch
from torch import Tensor, nn

from ace_counterfactuals.core.base.settings import FlagError
from ace_counterfactuals.guided_diffusion.config import DiffusionConfig
from ace_counterfactuals.guided_diffusion.gaussian_diffusion import GaussianDiffusion
from ace_counterfactuals.models.loading import WeightsError
from ace_counterfactuals.models.specs import Spec, open_code

PREDICTIONS = ("epsilon", "sample", "velocity")


class Coded(nn.Module):
    """From x_t (N, C, H, W), steps (N,) of the chain and classes (N,) or None to the noise or x_0, as the process says.

    A velocity v(x, t) is of the straight line from a picture at t = 0 to noise at t = 1, x = (1 - t) x_0 + t eps and
    v = eps - x_0 (Liu et al. 2022). It is asked at the point of that line which is as noisy as x_t = a x_0 + s eps:
    t = s / (a + s), x = x_t / (a + s).
    """

    def __init__(self, network: nn.Module, process: GaussianDiffusion, prediction: str):
        super().__init__()
        self.network, self.process, self.prediction = network, process, prediction

    def forward(self, x_t: Tensor, steps: Tensor, classes: Tensor | None = None) -> Tensor:
        given = () if classes is None else (classes,)
        if self.prediction != "velocity":
            return self.network(x_t, steps, *given)
        steps = steps.long()
        a, s = (
            t.at(steps, x_t) for t in (self.process.sqrt_alphas_cumprod, self.process.sqrt_one_minus_alphas_cumprod)
        )
        t, x = s / (a + s), x_t / (a + s)
        return x - t * self.network(x, t.flatten(), *given)


def load_coded(source: str, image_size: int, config: DiffusionConfig) -> tuple[nn.Module, GaussianDiffusion, int]:
    """Network, process and channels, on the CPU.

    The process is that of the flags. ``prediction``, if the network has it, is one of PREDICTIONS and goes before them;
    of a velocity any process can be made, so that its steps are a choice, and are not rescaled.
    Raises WeightsError for code that fails, and a network that does not answer noise with as much.
    """
    try:
        network = open_code(Spec(name=source), "").network.eval().requires_grad_(False)
    except ValueError as error:
        raise WeightsError(str(error)) from None
    prediction = getattr(network, "prediction", "sample" if config.predict_xstart else "epsilon")
    if prediction not in PREDICTIONS:
        raise WeightsError(f"{source}: its prediction is {prediction}, wanted one of {', '.join(PREDICTIONS)}")
    if prediction == "velocity" and config.learn_sigma:
        raise FlagError("learn_sigma", f"True: {source} is a velocity, which has no variance; give False")
    rescale = config.rescale_timesteps and prediction != "velocity"
    own = replace(config, predict_xstart=prediction != "epsilon", predict="noise", rescale_timesteps=rescale)
    process = GaussianDiffusion(own)
    coded = Coded(network, process, prediction)
    return coded, process, _channels(coded, image_size, source)


@torch.no_grad()
def _channels(coded: Coded, image_size: int, source: str) -> int:
    """By trying: 3 or 1.  Raises WeightsError."""
    said = ""
    for channels in (3, 1):
        noise = torch.randn(2, channels, image_size, image_size, generator=torch.Generator().manual_seed(0))
        wanted = (2, channels * (1 + coded.process.config.learn_sigma), image_size, image_size)
        try:
            found = coded(noise, torch.zeros(2, dtype=torch.int64))
        except Exception as error:  # it is the user's code, which may raise anything
            said = said or f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
            continue
        if isinstance(found, Tensor) and tuple(found.shape) == wanted and found.isfinite().all():
            return channels
        kind = f"{tuple(found.shape)}" if isinstance(found, Tensor) else type(found).__name__
        said = said or f"answers with {kind}, wanted finite numbers of {wanted}"
    raise WeightsError(f"{source}: cannot be asked about noise of {image_size} x {image_size}: {said}")
