"""Attacks: one loop over a gradient function, and what each attack does with the gradient.

Pictures are (N, 3, H, W) in [0, 1]; steps and radii are in the same units.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

GradFn = Callable[[Tensor, int], Tensor]
"""(pictures, iteration) -> gradient of the loss to descend, at the pictures"""


@dataclass(frozen=True)
class Attack:
    """The variable that an attack moves.

    encode: picture -> variable;  decode: variable -> picture;
    update: (variable, gradient at the picture, original picture) -> variable.
    """

    encode: Callable[[Tensor], Tensor]
    decode: Callable[[Tensor], Tensor]
    update: Callable[[Tensor, Tensor, Tensor], Tensor]

    def __call__(self, grad_fn: GradFn, image: Tensor, iterations: int, region: Tensor | None = None) -> Tensor:
        """The picture after ``iterations`` updates, starting at ``image`` itself.

        region: (N or 1, 1, H, W) bool; outside it the picture is ``image`` at every iteration.
        """

        def picture(variable: Tensor) -> Tensor:
            decoded = self.decode(variable)
            return decoded if region is None else torch.where(region, decoded, image)

        variable = self.encode(image)
        for i in range(iterations):
            variable = self.update(variable, grad_fn(picture(variable), i), image)
        return picture(variable)


def identity(x: Tensor) -> Tensor:
    return x


def projected_descent(*, step: float, epsilon: float, direction: Callable[[Tensor], Tensor]) -> Attack:
    """Descend along ``direction(gradient)`` inside the L-inf ball around the picture."""

    def update(adversary: Tensor, gradient: Tensor, image: Tensor) -> Tensor:
        adversary = adversary - step * direction(gradient)
        return adversary.clamp(image - epsilon, image + epsilon).clamp(0, 1)

    return Attack(identity, identity, update)


pgd = partial(projected_descent, direction=torch.sign)
"""Madry et al. 2018: the gradient's sign."""

gradient_descent = partial(projected_descent, direction=identity)
"""The gradient itself."""

CW_MARGIN = 1e-5


def cw_encode(image: Tensor) -> Tensor:
    return torch.atanh(2 * image / (1 + CW_MARGIN) - 1)


def cw_decode(w: Tensor) -> Tensor:
    """Not the exact inverse of ``cw_encode``, as in the original: a round trip is off by up to the margin."""
    return (torch.tanh(w) + 1) * (0.5 + CW_MARGIN)


def carlini_wagner(*, step: float) -> Attack:
    """Gradient descent in w, with picture = (tanh(w) + 1) / 2 up to a margin (Carlini and Wagner 2017, section V)."""

    def update(w: Tensor, gradient: Tensor, image: Tensor) -> Tensor:
        return (w - step * gradient * (0.5 + CW_MARGIN) * (1 - torch.tanh(w) ** 2)).clamp(-3, 3)

    return Attack(cw_encode, cw_decode, update)


def make_attack(method: str, *, step: float, epsilon: float) -> Attack:
    """The attack that ``--attack_method`` names."""
    if method == "C&W":
        return carlini_wagner(step=step)
    return {"PGD": pgd, "GD": gradient_descent}[method](step=step, epsilon=epsilon)
