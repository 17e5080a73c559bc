"""The diffusion process: q(x_t | x_0), p(x_{t-1} | x_t) and the training losses.

Images are in [-1, 1], shape (N, C, H, W); t is (N,) int64 over the respaced chain, 0 being one step of noise.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ace_counterfactuals.core.base.settings import blaming
from ace_counterfactuals.guided_diffusion.config import DiffusionConfig
from ace_counterfactuals.guided_diffusion.schedule import make_betas, respace_betas, respaced_steps

Denoiser = Callable[..., Tensor]
"""(x_t, original timesteps, classes or None) -> (N, C or 2C, H, W)"""


@dataclass(frozen=True)
class Posterior:
    """Mean and log variance of p(x_{t-1} | x_t), and the x_0 they were computed from."""

    mean: Tensor
    log_variance: Tensor
    pred_xstart: Tensor


class Table:
    """Float64 values by step, cast and moved once for every type and device that asks."""

    def __init__(self, values: np.ndarray):
        self.values = torch.as_tensor(values)
        self._copies: dict[tuple, Tensor] = {}

    def at(self, t: Tensor, like: Tensor) -> Tensor:
        """Entries ``t`` as (N, 1, 1, 1) in the type and on the device of ``like``."""
        return self.on(like.device, like.dtype)[t].view(-1, 1, 1, 1)

    def on(self, device: torch.device, dtype: torch.dtype) -> Tensor:
        """(steps,) of this type, on this device."""
        if (device, dtype) not in self._copies:
            self._copies[device, dtype] = self.values.to(dtype).to(device)
        return self._copies[device, dtype]


class GaussianDiffusion:
    """Tables of one chain of a process.  Raises FlagError for settings that make none.

    timestep_respacing: the steps that the chain keeps, as ``respaced_steps`` reads them.
    clip_denoised: a predicted x_0 is clipped to [-1, 1]; a choice of who samples, not of who trained.
    betas: (diffusion_steps,) of the whole chain, where no ``noise_schedule`` names them.
    """

    def __init__(
        self,
        config: DiffusionConfig,
        timestep_respacing: str = "",
        *,
        clip_denoised: bool = True,
        betas: np.ndarray | None = None,
    ):
        self.config, self.betas, self.predicts = config, betas, config.predicts
        self.clip_denoised = clip_denoised
        if betas is None:
            with blaming("noise_schedule"):
                betas = make_betas(config.noise_schedule, config.diffusion_steps)
        with blaming("timestep_respacing"):
            steps = respaced_steps(timestep_respacing, config.diffusion_steps)
        self.num_timesteps = len(steps)
        self.timestep_map = Table(np.array(steps))

        betas = respace_betas(betas, steps)
        alphas_cumprod = np.cumprod(1 - betas)
        alphas_cumprod_prev = np.append(1.0, alphas_cumprod[:-1])
        posterior_variance = betas * (1 - alphas_cumprod_prev) / (1 - alphas_cumprod)
        # Step 0 has posterior variance 0; its logarithm borrows step 1's. A chain of one step has only its beta.
        second = posterior_variance[1:2] if len(betas) > 1 else betas[:1]
        posterior_clipped = np.append(second, posterior_variance[1:])

        self.alphas_cumprod = Table(alphas_cumprod)
        self.sqrt_alphas_cumprod = Table(np.sqrt(alphas_cumprod))
        self.sqrt_one_minus_alphas_cumprod = Table(np.sqrt(1 - alphas_cumprod))
        self.sqrt_recip_alphas_cumprod = Table(np.sqrt(1 / alphas_cumprod))
        self.sqrt_recipm1_alphas_cumprod = Table(np.sqrt(1 / alphas_cumprod - 1))
        self.posterior_mean_coef1 = Table(betas * np.sqrt(alphas_cumprod_prev) / (1 - alphas_cumprod))
        self.posterior_mean_coef2 = Table((1 - alphas_cumprod_prev) * np.sqrt(1 - betas) / (1 - alphas_cumprod))
        self.log_betas = Table(np.log(betas))
        self.posterior_log_variance = Table(np.log(posterior_clipped))
        self.fixed_large_log_variance = Table(np.log(np.append(second, betas[1:])))

    def respaced(self, timestep_respacing: str, *, clip_denoised: bool | None = None) -> "GaussianDiffusion":
        """Another chain of the same process, clipped as this one where ``clip_denoised`` is None."""
        clip = self.clip_denoised if clip_denoised is None else clip_denoised
        return GaussianDiffusion(self.config, timestep_respacing, clip_denoised=clip, betas=self.betas)

    def q_sample(self, x_0: Tensor, t: Tensor, eps: Tensor) -> Tensor:
        """Draw x_t ~ q(x_t | x_0), DDPM eq. 4."""
        return self.sqrt_alphas_cumprod.at(t, x_0) * x_0 + self.sqrt_one_minus_alphas_cumprod.at(t, x_0) * eps

    def q_posterior(self, x_0: Tensor, x_t: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log variance of q(x_{t-1} | x_t, x_0), DDPM eq. 6 and 7."""
        mean = self.posterior_mean_coef1.at(t, x_t) * x_0 + self.posterior_mean_coef2.at(t, x_t) * x_t
        return mean, self.posterior_log_variance.at(t, x_t).expand_as(x_t)

    def predict_xstart_from_eps(self, x_t: Tensor, t: Tensor, eps: Tensor) -> Tensor:
        """The x_0 of which ``eps`` makes x_t, DDPM eq. 15."""
        return self.sqrt_recip_alphas_cumprod.at(t, x_t) * x_t - self.sqrt_recipm1_alphas_cumprod.at(t, x_t) * eps

    def xstart_from_output(self, x_t: Tensor, t: Tensor, output: Tensor) -> Tensor:
        """The x_0 of what the network predicts: the noise, x_0, or v (Salimans and Ho 2022, appendix D)."""
        if self.predicts == "noise":
            return self.predict_xstart_from_eps(x_t, t, output)
        if self.predicts == "x_0":
            return output
        return self.sqrt_alphas_cumprod.at(t, x_t) * x_t - self.sqrt_one_minus_alphas_cumprod.at(t, x_t) * output

    def target(self, x_0: Tensor, t: Tensor, eps: Tensor) -> Tensor:
        """What the network is to predict of x_t."""
        if self.predicts == "v":
            return self.sqrt_alphas_cumprod.at(t, x_0) * eps - self.sqrt_one_minus_alphas_cumprod.at(t, x_0) * x_0
        return x_0 if self.predicts == "x_0" else eps

    def ddim_step(self, x_t: Tensor, x_0: Tensor, t: Tensor) -> Tensor:
        """x_{t-1} of a predicted x_0 without noise, DDIM eq. 12 with sigma 0 (Song et al. 2021)."""
        scale, left = self.sqrt_alphas_cumprod.at(t, x_t), self.sqrt_one_minus_alphas_cumprod.at(t, x_t)
        before = (t - 1).clamp(min=0)
        eps = (x_t - scale * x_0) / left
        earlier = self.q_sample(x_0, before, eps)
        return torch.where((t == 0).view(-1, 1, 1, 1), x_0, earlier)

    def denoiser_output(self, model: Denoiser, x_t: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        """Call the network with the step numbers that it was trained with."""
        timesteps = self.timestep_map.on(t.device, torch.int64)[t]
        if self.config.rescale_timesteps:
            timesteps = timesteps * (1000.0 / self.config.diffusion_steps)
        return model(x_t, timesteps, y)

    def p_mean_variance(self, model: Denoiser, x_t: Tensor, t: Tensor, y: Tensor | None = None) -> Posterior:
        """p(x_{t-1} | x_t) with the predicted x_0 clipped to [-1, 1] where ``clip_denoised``.

        Variance: a learned range (Nichol and Dhariwal 2021, eq. 15) with ``learn_sigma``, else beta ("fixed large").
        """
        output = self.denoiser_output(model, x_t, t, y)
        return self.posterior_from_output(output, x_t, t, clip=self.clip_denoised)

    def posterior_from_output(self, output: Tensor, x_t: Tensor, t: Tensor, *, clip: bool) -> Posterior:
        """p(x_{t-1} | x_t) from what the network returned, (N, C, H, W) or (N, 2C, H, W); clip: x_0 to [-1, 1].

        Raises ValueError where the output has other channels than ``learn_sigma`` says.
        """
        channels = x_t.shape[1]
        wanted = channels * (1 + self.config.learn_sigma)
        if output.shape[1] != wanted:
            raise ValueError(
                f"learn_sigma {self.config.learn_sigma} wants {wanted} channels from the network, which returned "
                f"{output.shape[1]}; set learn_sigma {not self.config.learn_sigma}"
            )
        if self.config.learn_sigma:
            output, v = output.split(channels, dim=1)
            fraction = (v + 1) / 2
            log_variance = fraction * self.log_betas.at(t, x_t)
            log_variance = log_variance + (1 - fraction) * self.posterior_log_variance.at(t, x_t)
        else:
            log_variance = self.fixed_large_log_variance.at(t, x_t).expand_as(x_t)
        pred_xstart = self.xstart_from_output(x_t, t, output)
        if clip:
            pred_xstart = pred_xstart.clamp(-1, 1)
        return Posterior(self.q_posterior(pred_xstart, x_t, t)[0], log_variance, pred_xstart)

    def vlb_terms(self, posterior: Posterior, x_0: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        """(N,) terms of the variational bound in bits per dimension: KL for t > 0, decoder likelihood at t = 0."""
        true_mean, true_log_variance = self.q_posterior(x_0, x_t, t)
        kl = normal_kl(true_mean, true_log_variance, posterior.mean, posterior.log_variance)
        nll = -discretized_gaussian_log_likelihood(x_0, posterior.mean, 0.5 * posterior.log_variance)
        return torch.where(t == 0, mean_flat(nll), mean_flat(kl)) / math.log(2)

    def training_losses(
        self, model: Denoiser, x_0: Tensor, t: Tensor, eps: Tensor, y: Tensor | None = None
    ) -> dict[str, Tensor]:
        """(N,) losses: ``mse``, with ``learn_sigma`` also ``vb``, and their sum ``loss`` (DDPM eq. 14).

        The bound trains the variance alone: the mean is detached.  With ``rescale_learned_sigmas`` the sum is L_hybrid
        of Nichol and Dhariwal 2021, eq. 16; with ``use_kl`` it is the bound alone, times the number of steps.
        """
        config, channels = self.config, x_0.shape[1]
        x_t = self.q_sample(x_0, t, eps)
        output = self.denoiser_output(model, x_t, t, y)
        prediction, variance = output[:, :channels], output[:, channels:]
        mse = mean_flat((prediction - self.target(x_0, t, eps)) ** 2)
        if not config.learn_sigma and not config.use_kl:
            return {"loss": mse, "mse": mse}
        if not config.use_kl:
            output = torch.cat([prediction.detach(), variance], dim=1)
        posterior = self.posterior_from_output(output, x_t, t, clip=False)  # a clipped x_0 would have no gradient
        vb = self.vlb_terms(posterior, x_0, x_t, t)
        if config.use_kl:
            vb = vb * self.num_timesteps
            return {"loss": vb, "vb": vb}
        vb = vb * (self.num_timesteps / 1000 if config.rescale_learned_sigmas else 1.0)
        return {"loss": mse + vb, "mse": mse, "vb": vb}


def mean_flat(x: Tensor) -> Tensor:
    """(N, ...) -> (N,), the mean of each picture."""
    return x.flatten(1).mean(1)


def normal_kl(mean_1: Tensor, log_variance_1: Tensor, mean_2: Tensor, log_variance_2: Tensor) -> Tensor:
    """KL(N_1 || N_2) per element, in nats."""
    ratio = torch.exp(log_variance_1 - log_variance_2)
    distance = (mean_1 - mean_2) ** 2 * torch.exp(-log_variance_2)
    return 0.5 * (log_variance_2 - log_variance_1 + ratio + distance - 1)


def discretized_gaussian_log_likelihood(x: Tensor, mean: Tensor, log_scale: Tensor) -> Tensor:
    """Log probability of the 8-bit level at ``x`` in [-1, 1], per element (DDPM eq. 13).

    The exact normal CDF stands in for the tanh approximation that guided-diffusion trains with (off by up to 3e-4).
    """

    def cdf(level: Tensor) -> Tensor:
        return torch.special.ndtr((level - mean) * torch.exp(-log_scale))

    lower = torch.where(x < -0.999, torch.zeros_like(x), cdf(x - 1 / 255))
    upper = torch.where(x > 0.999, torch.ones_like(x), cdf(x + 1 / 255))
    return (upper - lower).clamp(min=1e-12).log()
