"""Where the attack of a batch stands: all that its next iteration goes on from, so that it can be kept in a file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ace_counterfactuals.core.method.attacks import Attack, Iterate, shown


@dataclass(frozen=True)
class Progress:
    """N pictures after ``iteration`` updates of an attack.

    rows: (M,) int64, places of the pictures that are attacked still; with deterministic kernels the last may repeat.
    variable: (M, ...), what the attack moves, of these.  found: (N, C, H, W) in [0, 1], the pictures as they stand.
    iterations: (N,) int64, updates of each.  average: (N,) float64 and above: (N,) int64, see ``Stopping``.
    found and variable are on the pictures' device, the others on the CPU.
    """

    rows: Tensor
    variable: Tensor
    found: Tensor
    iterations: Tensor
    average: Tensor
    above: Tensor

    @staticmethod
    def begin(attack: Attack, image: Tensor, region: Tensor | None = None) -> Progress:
        """Before the first update."""
        variable, none = attack.encode(image), torch.zeros(len(image), dtype=torch.int64)
        found = shown(attack, variable, image, region)
        return Progress(torch.arange(len(image)), variable, found, none, none.double(), none)

    @property
    def iteration(self) -> int:
        return int(self.iterations.max())

    @property
    def picture(self) -> Tensor:
        """(M, C, H, W), those that are attacked still."""
        return self.found[self.rows]

    @property
    def iterate(self) -> Iterate:
        return Iterate(self.iteration, self.variable, self.picture)

    def moved(self, to: Iterate) -> Progress:
        """After another update."""
        found, iterations = self.found.clone(), self.iterations.clone()
        found[self.rows], iterations[self.rows] = to.picture, to.iteration
        return replace(self, variable=to.variable, found=found, iterations=iterations)

    def take(self, places: list[int]) -> Progress:
        """Of those that are attacked still, the ones at these places are from now on."""
        return replace(self, rows=self.rows[places], variable=self.variable[places])

    def fitting(self, tensors: Mapping[str, Tensor], iterations: int) -> Progress:
        """What ``tensors``, by the names of the fields, say of the same batch, an attack of so many iterations.

        Raises ValueError where they are not what such an attack could have left.
        """
        own = vars(self)
        if tensors.keys() != own.keys():
            raise ValueError(f"wanted {', '.join(own)}, found {', '.join(tensors) or 'nothing'}")
        for name, value in tensors.items():
            count = tensors["rows"].numel() if name in ("rows", "variable") else len(self.found)
            wanted = (own[name].dtype, (count, *own[name].shape[1:]))
            if (value.dtype, tuple(value.shape)) != wanted or not value.isfinite().all():
                raise ValueError(f"{name}: wanted finite {wanted}, found {(value.dtype, tuple(value.shape))}")
        found = Progress(**{name: value.to(own[name].device) for name, value in tensors.items()})
        n, rows, done = len(self.found), found.rows, found.iterations
        sound = 0 < len(rows) <= n and rows.min() >= 0 and rows.max() < n and (done[rows] == done.max()).all()
        if not sound or not 0 <= done.min() <= done.max() <= iterations or found.above.min() < 0:
            raise ValueError("its numbers are out of range")
        if not 0 <= found.found.min() <= found.found.max() <= 1:
            raise ValueError("found: wanted pictures in [0, 1]")
        return found
