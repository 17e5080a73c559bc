"""The mean perceptual distance (LPIPS, VGG) between the counterfactuals of several runs for one picture, over all pairs
of runs: sigma_L (Jeanneret et al. 2022). Pictures count that are in the same of the four folders in every run.

    python compute_LPIPS.py --output-path OUT --exp-pattern 'seed-*/explanation' --exp-values 1 2 3 4 5

0 where all runs agree; higher is more diverse. Noise is diverse too: read it beside FID. The VGG-16 is torchvision's,
fetched on first use, or `--lpips-backbone FILE`.
"""

from collections.abc import Iterator
from itertools import combinations

import numpy as np

from ace_counterfactuals.core.evaluation.judges import LPIPS
from ace_counterfactuals.core.evaluation.metric import HIGHER, LENGTH, Metric, Quantity, none, register
from ace_counterfactuals.core.evaluation.model import EVERY, Figure
from ace_counterfactuals.core.evaluation.session import Subject, in_all


def figures(metric: Metric, subject: Subject) -> Iterator[Figure]:
    """The diversity of all experiments together; what it is of a picture is kept in each of them."""
    (task,), subjects, distances = subject.tasks[metric.judge].values(), subject.session.subjects, []
    for pairs in in_all(subjects):
        distances.append(task.rows(list(combinations([pair.counterfactual for pair in pairs], 2))).mean())
        subject.keep("lpips", pairs[:1], distances[-1:])
    population = f"{EVERY.name}, in the same folder in all {len(subjects)} experiments"
    yield DIVERSITY.mean(np.array(distances), population, subject.session.seed)


MEANING = "Mean LPIPS between the experiments' counterfactuals of a picture."
DIVERSITY = Quantity("lpips", "σL", HIGHER, LENGTH, MEANING)
HOOKS = {"asked": "runs", "figures": figures, "differences": none}
register(Metric("lpips", 80, (DIVERSITY,), __doc__, EVERY, LPIPS, **HOOKS))
