"""What an attack needs of a classifier, tried on a few pictures before hours are spent."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.dropout import _DropoutNd

FAILURES = (RuntimeError, AssertionError, TypeError, IndexError)
"""What a network raises that is asked about pictures of another shape than it wants"""
ROUNDING = 0.01  # of the answers' length: half precision, and kernels that go by the batch


def trial(ask: Callable[[Tensor], Tensor], pixels: Tensor) -> Tensor:
    """The answers to N pictures (N, C, H, W), with their graph.

    Raises ValueError, without the classifier's name, for answers that are no finite logits, that change
    from call to call or with the batch, and that no gradient leads to; and whatever ``ask`` raises.
    """
    pixels, gradient = pixels.detach().clone().requires_grad_(), None
    with torch.enable_grad():
        found, alone = ask(pixels), ask(pixels[:1])
        if not isinstance(found, Tensor) or found.ndim not in (1, 2) or len(found) != len(pixels):
            kind = f"a tensor of {tuple(found.shape)}" if isinstance(found, Tensor) else type(found).__name__
            raise ValueError(f"answers with {kind}, wanted logits (N,) or (N, K)")
        if found.requires_grad:
            rows = found.reshape(len(found), -1)
            total = (rows * torch.linspace(1, 2, rows.shape[1]).to(rows)).sum()
            gradient = torch.autograd.grad(total, pixels, retain_graph=True, allow_unused=True)[0]
    if not found.isfinite().all():
        raise ValueError("answers with NaN or infinity")
    if not (found[:1] - alone).float().norm() <= ROUNDING * found[:1].float().norm():
        raise ValueError("answers differ from one call to the next; put or save it in evaluation mode, by eval()")
    if gradient is None or not gradient.abs().max() > 0:
        raise ValueError("its answers have no gradient, which an attack follows: does it round, detach or saturate?")
    return found


def in_training(network: nn.Module) -> bool:
    """Whether a layer of it computes as in training: by its batch, or at random."""
    return any(module.training for module in network.modules() if isinstance(module, _NormBase | _DropoutNd))
