"""Whether a diffusion model is of the pictures and of the flags that it is given.

Some pictures are noised a little and denoised by one call of the network, as its flags say and in other ways. A
network that denoises clearly better when it is told another step, or shown other pictures, has other flags or data.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial

import torch
from torch import Tensor

from ace_counterfactuals.core.method.filtering import step_tensor, to_diffusion
from ace_counterfactuals.core.method.noise import Draw, image_noise
from ace_counterfactuals.core.method.task import Batch
from ace_counterfactuals.guided_diffusion.gaussian_diffusion import GaussianDiffusion

LEVEL = 0.5  # standard deviation of the noise, of pictures in [-1, 1]
BETTER = 0.75  # of the error as the flags say; on the demo's model 1.25 with right ones, 0.35 with steps x 2
LEFT = 0.5  # of the noise; the demo's model leaves 0.1 to 0.2 of its pictures', and 0.9 of random pixels'
FACTORS = (1 / 8, 1 / 4, 1 / 2, 2, 4, 8)
SHOWN: dict[str, Callable[[Tensor], Tensor]] = {
    "their channels in reverse order": lambda x: x.flip(1),
    "them in [0, 1] instead of [-1, 1]": lambda x: (x + 1) / 2,
    "their negatives": lambda x: -x,
}


def as_they_are(x: Tensor) -> Tensor:
    return x


@dataclass(frozen=True)
class Fit:
    """step: of the whole chain.  l1: mean absolute change of a value in [0, 1] by noising and denoising once.

    left: that over the change by the noise alone.  fault: what looks wrong, and what to look at; '' if nothing does.
    named: whether that is known to be better in another way.
    """

    step: int
    l1: float
    left: float
    fault: str
    named: bool


@dataclass(frozen=True)
class Trial:
    """Pictures that are noised to one step of a chain, each with noise of its own."""

    batch: Batch
    chain: GaussianDiffusion
    step: int

    @cached_property
    def x_0(self) -> Tensor:
        """The pictures as the model has them, (N, C, H, W) in [-1, 1]."""
        image = self.batch.image
        return to_diffusion(image.expand(-1, 3, -1, -1) if self.batch.filter.grey else image)

    @cached_property
    def eps(self) -> Tensor:
        """Their noise."""
        return image_noise(self.batch.task.seed, self.batch.indices, 0)(Draw.START, self.step, self.x_0)

    @property
    def taken_for(self) -> str:
        """What the network's prediction might be instead."""
        return "x_0" if self.chain.predicts == "noise" else "noise"

    def predicted(self, told: int, shown: Callable[[Tensor], Tensor] = as_they_are, *, other: bool = False) -> Tensor:
        """The noise that the network finds when it is told this step.

        shown: what becomes of x_0 before.  other: what it predicts is taken for what the flags do not say.
        """
        steps, x_0 = step_tensor(self.step, self.x_0), shown(self.x_0)
        x_t = self.chain.q_sample(x_0, steps, self.eps)
        model, classes = self.batch.task.denoiser, self.batch.filter.classes
        output = self.chain.denoiser_output(model, x_t, step_tensor(told, x_0), classes)[:, : x_0.shape[1]]
        kind = self.taken_for if other else self.chain.predicts
        if kind == "noise":
            return output
        x_0 = output if kind == "x_0" else self.chain.xstart_from_output(x_t, steps, output)
        signal, noise = self.chain.sqrt_alphas_cumprod, self.chain.sqrt_one_minus_alphas_cumprod
        return (x_t - signal.at(steps, x_t) * x_0) / noise.at(steps, x_t)

    def error(self, told: int, shown: Callable[[Tensor], Tensor] = as_they_are, *, other: bool = False) -> float:
        """Mean square, over that of predicting nothing."""
        off = self.predicted(told, shown, other=other) - self.eps
        return (off.double().square().mean() / self.eps.double().square().mean()).item()


@torch.no_grad()
def fit(batch: Batch) -> Fit:
    """Of pictures whose filter takes at least one step; some eleven calls of the network."""
    filter_, chain = batch.filter, batch.task.diffusion.respaced("")
    top = int(filter_.diffusion.timestep_map.values[filter_.steps - 1])
    step = min(top, max(0, int((chain.sqrt_one_minus_alphas_cumprod.values <= LEVEL).sum()) - 1))
    trial = Trial(batch, chain, step)
    scale = chain.sqrt_recipm1_alphas_cumprod.values[step].item() / 2  # of the noise in a picture in [0, 1]
    change = (trial.predicted(step) - trial.eps).double().abs().mean().item()
    base, noise = trial.error(step), trial.eps.double().abs().mean().item()
    others = {text: error() / base for text, error in ways(trial)} if base > 0 else {}
    best = min(others, key=lambda text: others[text], default="")
    named, fault = bool(best) and others[best] < BETTER and others[best] * base < LEFT**2, ""
    if named:
        fault = f"its error is {others[best]:.2g} times as large when {best}"
    elif change > LEFT * noise:
        fault = f"it leaves {change / noise:.0%} of the noise; check what it was trained on, and its size"
    known = fault and f"the diffusion model may be of other flags or pictures: {fault}"
    return Fit(step, scale * change, change / noise, known, named)


def ways(trial: Trial) -> Iterator[tuple[str, Callable[[], float]]]:
    """What a network of other flags or data is told or shown, with what to look at -> its error."""
    config, t = trial.chain.config, trial.step
    for told in dict.fromkeys(round(factor * t) for factor in FACTORS):
        if told != t and told < config.diffusion_steps:
            steps = f"check diffusion_steps {config.diffusion_steps}, noise_schedule {config.noise_schedule}"
            advice = f"{steps} and rescale_timesteps {config.rescale_timesteps}"
            yield f"told step {told} instead of {t}; {advice}", partial(trial.error, told)
    kind = f"taken to predict {'x_0' if trial.taken_for == 'x_0' else 'the noise'}"
    set_so = "predict v" if config.predict == "v" else f"predict_xstart {config.predict_xstart}"
    yield f"{kind}; check {set_so}", partial(trial.error, t, other=True)
    differing = {what: change for what, change in SHOWN.items() if not torch.equal(change(trial.x_0), trial.x_0)}
    for what, change in differing.items():
        yield f"shown {what}; check how its pictures were prepared", partial(trial.error, t, change)
