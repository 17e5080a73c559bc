"""LPIPS diversity, sigma_L (Jeanneret et al. 2022): do runs with other seeds give other counterfactuals?

Population: pictures that every run has in the same of the four folders CC/CCF, CC/ICF, IC/CCF, IC/ICF.
"""

from collections.abc import Callable, Sequence
from itertools import combinations

import torch
from torch import Tensor


@torch.no_grad()
def diversities(distance: Callable[[Tensor, Tensor], Tensor], runs: Sequence[Tensor]) -> Tensor:
    """Counterfactuals (N, 3, H, W) of each of R >= 2 runs -> (N,) mean distance over all pairs of runs, float64.

    The mean over pictures is sigma_L, >= 0: 0 for runs that are alike, higher is more diverse.
    """
    between = [distance(a, b).cpu().double() for a, b in combinations(runs, 2)]
    return torch.stack(between).mean(0)
