"""The sum over attributes of how far the correlation of its changes with those of the explained attribute is from their
correlation in the training annotations (Jeanneret et al. 2022): MNAC corrected for attributes that belong together.

    python compute_CD.py --output-path OUT --exp-name exp/explanation --oracle-path oracle.pth --celeba-path CELEBA \\
        --dataset CelebA --query-label 31

Between 0 and 80; lower is better. An attribute that never changes has no correlation and counts as 0, so CD of few
pictures, or of an explained attribute on which the oracle never changes its mind, means little.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cache

import numpy as np

from ace_counterfactuals.core.base.settings import FlagError, blaming
from ace_counterfactuals.core.data.datasets import celeba_attributes, spec_of
from ace_counterfactuals.core.evaluation import intervals
from ace_counterfactuals.core.evaluation.judges import ORACLE
from ace_counterfactuals.core.evaluation.metric import LENGTH, LOWER, Metric, Quantity, none, register
from ace_counterfactuals.core.evaluation.metrics.mnac import decisions
from ace_counterfactuals.core.evaluation.model import FLIPPED, Figure
from ace_counterfactuals.core.evaluation.session import Network, Session, Subject, Unavailable

RESAMPLES = 200


def correlations(values: np.ndarray, query: int) -> np.ndarray:
    """(N, A) -> (A,) in [-1, 1]: Pearson correlation of every column with column ``query``, 0 where undefined."""
    values = values.astype(np.float64)
    centred = values - values.mean(0)
    centred[:, np.ptp(values, axis=0) == 0] = 0  # the mean of a constant column is off by rounding
    lengths = np.linalg.norm(centred, axis=0)
    products, scale = centred.T @ centred[:, query], lengths * lengths[query]
    return np.divide(products, scale, out=np.zeros(values.shape[1]), where=scale > 0).clip(-1, 1)


def correlation_difference(
    originals: np.ndarray, counterfactuals: np.ndarray, training: np.ndarray, query: int
) -> float:
    """Sum over attributes of |corr(delta_i, delta_query) - corr_train(i, query)|, in [0, 2 A].

    originals, counterfactuals: (N, A) decisions, N >= 1.  training: (A,) ``correlations`` of the annotations.
    """
    delta = counterfactuals.astype(np.float64) - originals.astype(np.float64)
    return float(np.abs(correlations(delta, query) - training).sum())


@cache
def annotations(folder: str, dataset: str) -> np.ndarray:
    """(n, 40) attributes of CelebA's or CelebA-HQ's training pictures."""
    with blaming("celeba_path"):
        return celeba_attributes(folder, dataset)


def annotations_of(subject: Subject) -> np.ndarray:
    """Of --celeba-path alone: config.yaml, a stranger's perhaps, names no file to read.  Raises ``Unavailable``."""
    folder = subject.session.config.networks.celeba_path
    if not folder or not spec_of(subject.dataset).faces:
        raise Unavailable("celeba_path", "the annotations are not known; give --celeba-path")
    return annotations(folder, subject.dataset)


def open_annotated(session: Session, subject: Subject) -> dict[str, Network]:
    """The oracle, where the annotations are there, too."""
    if not session.config.networks.oracle_path:
        return {}
    attributes = annotations_of(subject).shape[1]
    if not 0 <= subject.query < attributes:
        reason = f"{subject.query}: wanted the explained attribute, 0 to {attributes - 1}, for CD"
        raise FlagError("query_label", reason)
    return ORACLE.open(session, subject)


def figures(metric: Metric, subject: Subject) -> Iterator[Figure]:
    """CD, its standard error by drawing the pictures again with replacement."""
    pairs, query = subject.of(FLIPPED), subject.query
    if not pairs:
        yield CD.figure(None, population=FLIPPED.name, n=0)
        return
    decided, annotated = [decisions(side) for side in metric.features(subject, pairs)], annotations_of(subject)
    if (known := decided[0].shape[1]) != annotated.shape[1]:
        reason = f"{subject.session.config.networks.oracle_path}: knows {known} attributes, but celeba_path annotates "
        raise FlagError("oracle_path", f"{reason}{annotated.shape[1]}")
    yield figure_of(decided, correlations(annotated, query), query, subject.session.seed)


def figure_of(decided: Sequence[np.ndarray], training: np.ndarray, query: int, seed: int) -> Figure:
    """decided: (N, A) decisions on originals and counterfactuals, N >= 1."""
    n = len(decided[0])
    value = correlation_difference(*decided, training, query)
    rng = np.random.default_rng(np.random.SeedSequence([seed, n]))
    drawn = (rng.integers(0, n, n) for _ in range(RESAMPLES))
    again = [correlation_difference(*(side[rows] for side in decided), training, query) for rows in drawn]
    constant = np.ptp(decided[1].astype(int) - decided[0], axis=0) == 0
    notes = ()
    if constant[query]:
        notes = ("the oracle decides the explained attribute alike for all pictures: no correlation is defined",)
    elif constant.any():
        notes = (f"{constant.sum()} of {len(constant)} attributes never change and count as uncorrelated",)
    bounds = intervals.around(value, float(np.std(again, ddof=1)))
    how = "standard error by bootstrap over pictures"
    return CD.figure(value, bounds, interval=how, population=FLIPPED.name, n=n, notes=notes)


MEANING = "How far attributes change together otherwise than they occur together."
CD = Quantity("cd", "CD", LOWER, LENGTH, MEANING)
ANNOTATED = replace(ORACLE, open=open_annotated)
register(Metric("cd", 31, (CD,), __doc__, FLIPPED, ANNOTATED, figures=figures, differences=none))
