"""The table of attacks, and one update by any of them.

Pictures are (N, C, H, W) in [0, 1]; steps and radii are in the same units. Importing this module does not import torch,
so that a command line can name the attacks at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ace_counterfactuals.core.base.settings import FlagError

if TYPE_CHECKING:
    from torch import Tensor

    from ace_counterfactuals.core.method.config import AttackConfig

GradFn = Callable[["Tensor", "int | Sequence[int]"], "Tensor"]
"""(pictures, iteration of all or of each) -> gradient of the loss to descend, at the pictures"""

CW_MARGIN = 1e-5


def cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy of (N,) binary or (N, K) logits with ``target``, (N,) int64, summed."""
    import torch.nn.functional as F

    if logits.ndim == 1:
        return F.binary_cross_entropy_with_logits(logits, target.to(logits.dtype), reduction="sum")
    return F.cross_entropy(logits, target, reduction="sum")


def margin(logits: Tensor, target: Tensor) -> Tensor:
    """How far the target's logit is behind the best other one (Carlini and Wagner 2017, f_6), summed."""
    if logits.ndim == 1:
        return (-2 * logits * (2 * target - 1)).clamp(min=0).sum()
    own = target[:, None]
    best_other = logits.scatter(1, own, float("-inf")).amax(1)
    return (best_other - logits.gather(1, own)[:, 0]).clamp(min=0).sum()


def into_ball(picture: Tensor, image: Tensor, epsilon: float) -> Tensor:
    """The nearest picture in the L-inf ball around ``image``."""
    return picture.clamp(image - epsilon, image + epsilon).clamp(0, 1)


def unchanged(x: Tensor) -> Tensor:
    return x


@dataclass(frozen=True, kw_only=True)
class Attack:
    """An attack moves a variable, which stands for a picture.

    step: (variable, gradient at the picture, step size) -> the moved variable.
    project: (variable, original picture, epsilon) -> the nearest one that is allowed.
    loss: (logits, target) -> what is descended, summed over pictures. An untargeted attack ascends that of the
    prediction; ``targeted`` refuses to.
    encode: picture -> variable; decode: variable -> picture.  A variable is (N, ...) of any shape: what else an attack
    carries from one iteration to the next, a momentum for example, is part of it.
    """

    step: Callable[[Tensor, Tensor, float], Tensor]
    project: Callable[[Tensor, Tensor, float], Tensor] = into_ball
    loss: Callable[[Tensor, Tensor], Tensor] = cross_entropy
    targeted: bool = False
    encode: Callable[[Tensor], Tensor] = unchanged
    decode: Callable[[Tensor], Tensor] = unchanged


def cw_encode(image: Tensor) -> Tensor:
    """w of picture = (tanh(w) + 1) / 2, up to a margin that keeps black and white finite."""
    return (2 * image / (1 + CW_MARGIN) - 1).atanh()


def cw_decode(w: Tensor) -> Tensor:
    """Not the exact inverse of ``cw_encode``, as in the original: a round trip is off by up to the margin."""
    return (w.tanh() + 1) * (0.5 + CW_MARGIN)


def cw_step(w: Tensor, gradient: Tensor, size: float) -> Tensor:
    """Along the gradient at w, by the chain rule."""
    return w - size * gradient * (0.5 + CW_MARGIN) * (1 - w.tanh() ** 2)


ATTACKS: dict[str, Attack | None] = {
    "PGD": Attack(step=lambda picture, gradient, size: picture - size * gradient.sign()),  # Madry et al. 2018
    "GD": Attack(step=lambda picture, gradient, size: picture - size * gradient),
    "C&W": Attack(  # Carlini and Wagner 2017, section V: no radius, but w stays where its gradient does not vanish
        step=cw_step,
        project=lambda w, image, epsilon: w.clamp(-3, 3),
        loss=margin,
        targeted=True,
        encode=cw_encode,
        decode=cw_decode,
    ),
    "None": None,
}
"""Name -> attack; None leaves the picture as it is. An entry that any module adds is an ``attack_method``."""


def find_attack(method: str, *, targeted: bool) -> Attack | None:
    """The attack of this name.  Raises FlagError if there is none, or none without a target."""
    if method not in ATTACKS:
        raise FlagError("attack_method", f"{method}: wanted one of {', '.join(ATTACKS)}")
    attack = ATTACKS[method]
    if attack and attack.targeted and not targeted:
        raise FlagError("attack_method", f"{method} is targeted; give a label_target")
    return attack


def shown(attack: Attack, variable: Tensor, image: Tensor, region: Tensor | None) -> Tensor:
    """The picture that the variable stands for; outside the region it is ``image``."""
    picture = attack.decode(variable)
    return picture if region is None else picture.where(region, image)


def update(
    attack: Attack,
    variable: Tensor,
    gradient: Tensor,
    image: Tensor,
    config: AttackConfig,
    region: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The variable after a step against the gradient at the picture that it stands for, and its picture then.

    region: (N or 1, 1, H, W) bool; outside it every picture is ``image``.
    """
    variable = attack.step(variable, gradient, config.attack_step / 255)
    variable = attack.project(variable, image, config.attack_epsilon / 255)
    return variable, shown(attack, variable, image, region)
