"""The mean perceptual distance (LPIPS, VGG) between the counterfactuals of several runs for one picture, over all pairs
of runs: sigma_L (Jeanneret et al. 2022). Pictures count that are in the same of the four folders in every run.

    python compute_LPIPS.py --output-path OUT --exp-pattern 'seed-*/explanation' --exp-values 1 2 3 4 5

0 where all runs agree; higher is more diverse. Noise is diverse too: read it beside FID. The VGG-16 is torchvision's,
fetched on first use, or `--lpips-backbone FILE`.
"""

from collections.abc import Iterator, Sequence
from itertools import combinations

import numpy as np
from torch import Tensor, nn

from ace_counterfactuals.core.evaluation.judges import LPIPS
from ace_counterfactuals.core.evaluation.metric import HIGHER, LENGTH, Metric, Quantity, Question, none, register
from ace_counterfactuals.core.evaluation.model import Figure
from ace_counterfactuals.core.evaluation.pictures import EVERY
from ace_counterfactuals.core.evaluation.subject import Subject
from ace_counterfactuals.core.runs.experiment import Pair


def ask(_: Subject, network: nn.Module, a: Tensor, b: Tensor) -> Tensor:
    """(N, 1) distances."""
    return network(a, b).cpu().double()[:, None]  # in this order: MPS has no float64


def common(experiments: Sequence[Sequence[Pair]]) -> dict[str, tuple[Pair, ...]]:
    """Name -> its pair in each experiment, of the pictures that lie in the same of the four folders in all."""
    first, *others = [{pair.name: pair for pair in pairs} for pairs in experiments]
    found = {name: (pair, *(other.get(name) for other in others)) for name, pair in first.items()}
    return {name: pairs for name, pairs in found.items() if len({pair and pair.folder for pair in pairs}) == 1}


def together(metric: Metric, subjects: Sequence[Subject]) -> Iterator[Figure]:
    """Diversity of the experiments together; what it is of a picture is kept in each of them."""
    task, distances = subjects[0].tasks[metric.name][""], {}
    for name, pairs in common([subject.stored.pairs for subject in subjects]).items():
        digests = {p.counterfactual: s.digests[p.counterfactual] for p, s in zip(pairs, subjects, strict=True)}
        keys = [task.key(both, digests) for both in combinations(digests, 2)]
        distances[name] = float(task.store.rows(keys).mean())
    for subject in subjects:
        for name, value in distances.items():
            subject.values.setdefault(name, {})["lpips"] = value
    population = f"{EVERY.name}, in the same folder in all {len(subjects)} experiments"
    yield DIVERSITY.mean(np.array(list(distances.values())), population, subjects[0].seed)


MEANING = "Mean LPIPS between the experiments' counterfactuals of a picture."
DIVERSITY = Quantity("lpips", "σL", HIGHER, LENGTH, MEANING)
ASKED = {"asked": "runs", "question": Question(ask), "together": together, "figures": none, "differences": none}
METRIC = register(Metric("lpips", 80, (DIVERSITY,), __doc__, EVERY, LPIPS, **ASKED))
