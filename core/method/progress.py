"""Where the attack of the pictures in hand stands: all that it goes on from, so that it can be kept in a file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ace_counterfactuals.core.base.runtime import upload
from ace_counterfactuals.core.method.attacks import Attack, find_attack, shown
from ace_counterfactuals.core.method.checks import check_finite
from ace_counterfactuals.core.method.task import Batch, rows

OF_THE_ATTACK = ("variable", "found", "iterations", "average", "above")
OF_EACH = (*OF_THE_ATTACK, "broken")
SOUND = 2**62


@dataclass(frozen=True)
class Progress:
    """N pictures, each after ``iterations`` updates of an attack of its own.

    variable: (N, ...), what the attack moves.  found: (N, C, H, W) in [0, 1], the pictures as they stand.
    iterations: (N,) int64.  average: (N,) float64 and above: (N,) int64, see ``Stopping``.
    broken: (N,) int64, the iteration whose gradient was not finite, where a picture stays from then on; else SOUND.
    variable, found and broken are on the pictures' device, the others on the CPU.
    """

    batch: Batch
    variable: Tensor
    found: Tensor
    iterations: Tensor
    average: Tensor
    above: Tensor
    broken: Tensor

    @staticmethod
    def begin(batch: Batch) -> Progress:
        """Before the first update.  Raises FlagError if the attack is targeted and the batch is not."""
        attack, none = attack_of(batch), torch.zeros(len(batch.indices), dtype=torch.int64)
        variable = attack.encode(batch.image) if attack else batch.image
        found = shown(attack, variable, batch.image, batch.region) if attack else batch.image
        return Progress(batch, variable, found, none, none.double(), none, sound(found))

    def __len__(self) -> int:
        return len(self.batch.indices)

    @property
    def attack(self) -> Attack | None:
        return attack_of(self.batch)

    @property
    def iteration(self) -> int:
        """The most updates of a picture."""
        return int(self.iterations.max())

    @property
    def told(self) -> str:
        """'12', or '3 to 12', of how many iterations."""
        least, most = int(self.iterations.min()), self.iteration
        return f"{most if least == most else f'{least} to {most}'} of {self.batch.task.attack.attack_iterations}"

    @property
    def tensors(self) -> dict[str, Tensor]:
        """What is kept, the classifier's logits on the originals too, since they may go by who was judged together."""
        return {"logits": self.batch.logits, **{name: getattr(self, name) for name in OF_THE_ATTACK}}

    def take(self, places: list[int]) -> Progress:
        """The pictures at these places, which may repeat."""
        if places == [*range(len(self))]:
            return self
        values = {name: rows(getattr(self, name), places) for name in OF_EACH}
        return Progress(self.batch.take(places), **values)

    def put(self, places: list[int], part: Progress) -> Progress:
        """With the first of ``part`` in these places, one each."""
        if len(places) == len(part) == len(self):
            return part
        values = {name: getattr(self, name).clone() for name in OF_EACH}
        for name, value in values.items():
            value[upload(torch.tensor(places), value.device)] = getattr(part, name)[: len(places)]
        return replace(self, **values)

    def joined(self, other: Progress) -> Progress:
        """The other's pictures after these."""
        values = {name: torch.cat([getattr(self, name), getattr(other, name)]) for name in OF_EACH}
        return Progress(self.batch.joined(other.batch), **values)

    def moved(self, gradient: Tensor, variable: Tensor, found: Tensor) -> Progress:
        """After an update by this gradient: whether it is finite is not asked, but remembered."""
        finite = gradient.isfinite().flatten(1).all(1)
        broken = self.broken.minimum(upload(self.iterations, finite.device).masked_fill(finite, SOUND))

        def unless_broken(new: Tensor, old: Tensor) -> Tensor:
            return new.where((broken == SOUND).view(-1, *[1] * (new.ndim - 1)), old)

        variable, found = unless_broken(variable, self.variable), unless_broken(found, self.found)
        return replace(self, variable=variable, found=found, iterations=self.iterations + 1, broken=broken)

    def check(self) -> None:
        """Raise NonFiniteError of the first gradient that was not finite, if any was not.  Waits for the device."""
        first, batch = int(self.broken.min()), self.batch
        if first < SOUND:
            result = self.found.new_zeros(len(self)).masked_fill(self.broken == first, torch.nan)
            where, noise = f"iteration {first} of the attack", batch.noise(first)
            check_finite(result, where, batch.filter, self.found, noise, batch.indices)

    def fitting(self, tensors: Mapping[str, Tensor]) -> Progress:
        """What ``tensors``, by their names, say of the same pictures at another time.

        Raises ValueError where they are not what such an attack could have left.
        """
        own, limit = self.tensors, self.batch.task.attack.attack_iterations
        if tensors.keys() != own.keys():
            raise ValueError(f"wanted {', '.join(own)}, found {', '.join(tensors) or 'nothing'}")
        for name, value in tensors.items():
            wanted = (own[name].dtype, tuple(own[name].shape))
            if (value.dtype, tuple(value.shape)) != wanted or not value.isfinite().all():
                raise ValueError(f"{name}: wanted finite {wanted}, found {(value.dtype, tuple(value.shape))}")
        moved = {name: value.to(own[name].device) for name, value in tensors.items()}
        found = Progress(replace(self.batch, logits=moved.pop("logits")), **moved, broken=sound(self.found))
        if not 0 <= found.iterations.min() <= found.iterations.max() <= limit or found.above.min() < 0:
            raise ValueError("its numbers are out of range")
        if not 0 <= found.found.min() <= found.found.max() <= 1:
            raise ValueError("found: wanted pictures in [0, 1]")
        return found


def sound(found: Tensor) -> Tensor:
    """``Progress.broken`` of pictures that are all sound."""
    return torch.full((len(found),), SOUND, device=found.device)


def attack_of(batch: Batch) -> Attack | None:
    return find_attack(batch.task.attack.attack_method, targeted=batch.target is not None)
