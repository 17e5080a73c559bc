"""The share of pixels that the refinement could change, as the run recorded it.

Between 0 and 1; lower is better: the change stays in one place. A run with a region cannot exceed the region.
"""

from collections.abc import Iterator

import numpy as np

from ace_counterfactuals.core.evaluation.metric import LOWER, SHARE, Metric, Quantity, register
from ace_counterfactuals.core.evaluation.model import EVERY, Figure
from ace_counterfactuals.core.evaluation.session import Subject


def figures(_: Metric, subject: Subject) -> Iterator[Figure]:
    """Where there are records; with it, what they tell of probabilities is kept of each picture."""
    records, kind = subject.stored.records, subject.stored.kind
    pairs = [pair for pair in subject.stored.pairs if pair.name in records]
    for pair in pairs:
        record, after = records[pair.name], records[pair.name].outcomes[kind]
        known = {"source_prob": record.source_prob, "target_prob": record.target_prob}
        known |= {"cf_source_prob": after.source_prob, "cf_target_prob": after.target_prob}
        for key, value in known.items():
            if value is not None:
                subject.keep(key, [pair], [value])
    if records:
        areas = np.array([records[pair.name].mask_area for pair in pairs])
        subject.keep(MASK_AREA.key, pairs, areas)
        yield MASK_AREA.mean(areas, EVERY.name, subject.session.seed)


MEANING = "Share of pixels that the refinement could change."
MASK_AREA = Quantity("mask_area", "mask area", LOWER, SHARE, MEANING)
register(Metric("mask_area", 62, (MASK_AREA,), __doc__, figures=figures))
