"""Split FID (Jeanneret et al. 2023): FID without the bias of counterfactuals that resemble their own originals.

Population: counterfactuals of CC+IC, CCF, and all originals, split by name.  Not guided-diffusion's spatial FID.
"""

from collections.abc import Sequence

import numpy as np

from ace_counterfactuals.core.evaluation.metrics.fid import fit, frechet_distance

SPLITS = 10


def split_names(names: Sequence[str], seed: int) -> tuple[set[str], set[str]]:
    """Two halves of the names at random, the first the smaller by one where their number is odd."""
    shuffled = np.random.default_rng(np.random.SeedSequence([seed])).permutation(sorted(names)).tolist()
    return set(shuffled[: len(names) // 2]), set(shuffled[len(names) // 2 :])


def split_distances(
    originals: np.ndarray,
    original_names: Sequence[str],
    counterfactuals: np.ndarray,
    names: Sequence[str],
    seed: int = 0,
    splits: int = SPLITS,
) -> np.ndarray:
    """Frechet distances of originals of one half and counterfactuals of the other: two a split, >= 0; their mean is
    sFID, lower is better.

    originals: (N, D); counterfactuals: (M, D); each with its names, which say who belongs together.
    Raises ValueError where a half has fewer than two pictures.
    """
    distances = []
    for split in range(splits):
        a, b = split_names(original_names, seed + split)
        for here, there in ((a, b), (b, a)):
            sides = _rows(originals, original_names, here), _rows(counterfactuals, names, there)
            if min(map(len, sides)) < 2:
                raise ValueError(f"sFID of {len(names)} counterfactuals: a half has fewer than two pictures")
            distances.append(frechet_distance(*map(fit, sides)))
    return np.array(distances)


def _rows(features: np.ndarray, names: Sequence[str], chosen: set[str]) -> np.ndarray:
    return features[[name in chosen for name in names]]
