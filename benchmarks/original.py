"""What the benchmarks compare with: the gradient and the attack as the original program computes them.

Written from docs/original.md. The U-Net is guided-diffusion's, operator by operator: parameters that want gradients,
contiguous features, no two operators fused, attention computed again in the backward pass. The chain's gradient keeps
the whole graph, the classifier's too; the checkpointed one filters the picture, and then comes to each segment from the
start again (defect 1). Noise, the sum over pictures and the process's tables are this implementation's.
"""

import re
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from ace_counterfactuals.core.method.attacking import OnIteration
from ace_counterfactuals.core.method.attacks import GradFn, unchanged, update
from ace_counterfactuals.core.method.filtering import Filter
from ace_counterfactuals.core.method.gradients import Objective, leaf, plain_gradient, shortcut_gradient
from ace_counterfactuals.core.method.noise import NoiseFn
from ace_counterfactuals.core.method.objectives import distance_gradient, distance_weight
from ace_counterfactuals.core.method.progress import Progress
from ace_counterfactuals.core.method.task import Batch
from ace_counterfactuals.guided_diffusion.unet import UNetModel, timestep_embedding

Layer = Callable[[Tensor, Tensor], Tensor]
"""(features, embedding of the step) -> features"""
LAYER = re.compile(r"((?:in|out)put_blocks\.\d+|middle_block)\.(\d+)\.")


class OriginalUNet:
    """A copy of ``unet``, without classes, that returns what that returns.  The weights' names tell its layers."""

    def __init__(self, unet: UNetModel):
        self.config = unet.config
        self.weights = {name: leaf(value.clone().contiguous()) for name, value in unet.state_dict().items()}
        self.blocks: dict[str, dict[str, Layer]] = {}
        for name in self.weights:
            if found := LAYER.match(name):
                layers = self.blocks.setdefault(found[1], {})
                layers.setdefault(found[2], self.layer(found[1], found[2]))

    def __call__(self, x: Tensor, timesteps: Tensor, classes: None = None) -> Tensor:
        dtype, torso = (self.weights[f"{name}.weight"].dtype for name in ("time_embed.0", "input_blocks.0.0"))
        emb = self.linear("time_embed.0", timestep_embedding(timesteps, self.config.num_channels).to(dtype))
        emb, x = self.linear("time_embed.2", F.silu(emb)), x.to(torso)
        skips: list[Tensor] = []
        for block, layers in self.blocks.items():
            x = torch.cat([x, skips.pop()], dim=1) if block.startswith("output") else x
            for layer in layers.values():
                x = layer(x, emb)
            if block.startswith("input"):
                skips.append(x)
        return self.conv("out.2", F.silu(self.norm("out.0", x.to(dtype))))

    def layer(self, block: str, place: str) -> Layer:
        """The one at this place of a block."""
        name, up = f"{block}.{place}", block.startswith("output")
        has = {kind: f"{name}.{kind}.weight" in self.weights for kind in ("op", "conv", "qkv", "in_layers.0")}
        if has["op"]:
            return lambda x, emb: self.conv(f"{name}.op", x, stride=2)
        if has["conv"]:
            return lambda x, emb: self.conv(f"{name}.conv", doubled(x))
        if has["qkv"]:
            own = [weight for key, weight in self.weights.items() if key.startswith(f"{name}.")]
            return lambda x, emb: Recomputed.apply(partial(self.attention, name, up), x, *own)
        if has["in_layers.0"]:
            ends = block.startswith("input") and not int(block.split(".")[1]) % (self.config.num_res_blocks + 1)
            resample = doubled if up and place != "0" else halved if ends else unchanged
            return lambda x, emb: self.residual(name, x, emb, resample)
        return lambda x, emb: self.conv(name, x)

    def residual(self, name: str, x: Tensor, emb: Tensor, resample: Callable[[Tensor], Tensor]) -> Tensor:
        h = resample(F.silu(self.norm(f"{name}.in_layers.0", x)))
        x = resample(x)
        h = self.conv(f"{name}.in_layers.2", h)
        emb = self.linear(f"{name}.emb_layers.1", F.silu(emb)).to(h.dtype)[:, :, None, None]
        if self.config.use_scale_shift_norm:
            scale, shift = emb.chunk(2, dim=1)
            h = self.norm(f"{name}.out_layers.0", h) * (1 + scale) + shift
        else:
            h = self.norm(f"{name}.out_layers.0", h + emb)
        h = self.conv(f"{name}.out_layers.3", F.silu(h))
        skip = f"{name}.skip_connection"
        return (self.conv(skip, x) if f"{skip}.weight" in self.weights else x) + h

    def attention(self, name: str, up: bool, x: Tensor) -> Tensor:
        n, channels, *_ = x.shape
        flat, heads = x.reshape(n, channels, -1), self.config.heads(channels, up=up)
        qkv = self.conv(f"{name}.qkv", self.norm(f"{name}.norm", flat))
        if self.config.use_new_attention_order:
            q, k, v = (part.reshape(n * heads, channels // heads, -1) for part in qkv.chunk(3, dim=1))
        else:
            q, k, v = qkv.reshape(n * heads, 3 * channels // heads, -1).chunk(3, dim=1)
        scale = (channels // heads) ** -0.25
        products = torch.einsum("bct,bcs->bts", q * scale, k * scale)
        shares = products.to(torch.promote_types(products.dtype, torch.float32)).softmax(-1).to(products.dtype)
        h = torch.einsum("bts,bcs->bct", shares, v).reshape(n, channels, -1)
        return (flat + self.conv(f"{name}.proj_out", h)).reshape(x.shape)

    def norm(self, name: str, x: Tensor) -> Tensor:
        weight, bias = self.of(name)
        return F.group_norm(x.to(weight.dtype), 32, weight, bias, eps=1e-5).to(x.dtype)

    def conv(self, name: str, x: Tensor, stride: int = 1) -> Tensor:
        """Of any size; it keeps that of its input, but for its stride."""
        weight, bias = self.of(name)
        convolve = F.conv1d if x.ndim == 3 else F.conv2d
        return convolve(x, weight, bias, stride=stride, padding=weight.shape[-1] // 2)

    def linear(self, name: str, x: Tensor) -> Tensor:
        return F.linear(x, *self.of(name))

    def of(self, name: str) -> tuple[Tensor, Tensor]:
        return self.weights[f"{name}.weight"], self.weights[f"{name}.bias"]


class Recomputed(torch.autograd.Function):
    """run(x), whose backward pass runs it again and takes the gradients of its weights, too (hence defect 20)."""

    @staticmethod
    def forward(ctx, run: Callable[[Tensor], Tensor], x: Tensor, *weights: Tensor) -> Tensor:
        ctx.run, ctx.weights = run, weights
        ctx.save_for_backward(x)
        return run(x)

    @staticmethod
    def backward(ctx, gradient: Tensor):
        x = leaf(ctx.saved_tensors[0])
        with torch.enable_grad():
            output = ctx.run(x)
        return None, *torch.autograd.grad(output, [x, *ctx.weights], gradient)


def halved(x: Tensor) -> Tensor:
    return F.avg_pool2d(x, 2)


def doubled(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2, mode="nearest")


def chain_gradient(objective: Objective, filter_: Filter, image: Tensor, noise: NoiseFn) -> Tensor:
    """One graph from the picture to the loss."""
    image = leaf(image)
    return torch.autograd.grad(objective(filter_(image, noise)), image)[0]


def checkpointed_gradient(
    objective: Objective, filter_: Filter, image: Tensor, noise: NoiseFn, *, segment: int
) -> Tensor:
    """Wrong from three segments on: the state that a segment is computed from is where the last one left it."""
    with torch.no_grad():
        filtered = filter_(image, noise)
        state = filter_.start(image, noise)
    cotangent, bounds = plain_gradient(objective, filtered), [*range(filter_.steps, 0, -segment), 0]
    for first, last in reversed(list(zip(bounds, bounds[1:], strict=False))):
        whole = first == filter_.steps
        if not whole:
            with torch.no_grad():
                state = filter_.denoise(state, noise, last=first)
        source = leaf(image if whole else state)
        output = filter_.denoise(filter_.start(source, noise) if whole else source, noise, first=first, last=last)
        output = output if last else filter_.to_picture(output)
        cotangent = torch.autograd.grad(output, source, cotangent)[0]
    return cotangent


def make_grad_fn(batch: Batch) -> GradFn:
    """As ``attacking.make_grad_fn``, of a batch with targets, by the original's ways to a gradient."""
    task, entry, way = batch.task, Progress.begin(batch).attack, chain_gradient
    if task.attack.attack_joint_shortcut:
        way = shortcut_gradient
    elif task.attack.attack_joint_checkpoint:
        way = partial(checkpointed_gradient, segment=task.attack.attack_checkpoint_backward_steps)

    def gradient(adversary: Tensor, iteration: int) -> Tensor:
        with torch.enable_grad():
            found = way(
                lambda picture: entry.loss(task.classifier(picture), batch.target),
                batch.filter,
                adversary,
                batch.noise(iteration),
            )
        weight = distance_weight(task.attack.dist_schedule, iteration, task.attack.attack_iterations)
        sizes = {"dist_l1": task.attack.dist_l1, "dist_l2": task.attack.dist_l2}
        return found + weight * distance_gradient(batch.image, adversary, **sizes)

    return gradient


def attack(batch: Batch, on_iteration: OnIteration) -> tuple[Tensor, None]:
    """As ``attacking.attack``, of a batch whose denoiser is an ``OriginalUNet``."""
    at, gradient = Progress.begin(batch), make_grad_fn(batch)
    for i in range(batch.task.attack.attack_iterations):
        moved = update(at.attack, at.variable, gradient(at.found, i), batch.image, batch.task.attack, batch.region)
        at = replace(at, variable=moved[0], found=moved[1], iterations=at.iterations + 1)
        on_iteration(at)
    return at.found, None
