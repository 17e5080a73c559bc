"""The figures of one experiment, from the answers of the networks."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from ace_counterfactuals.core.base.settings import UserError
from ace_counterfactuals.core.evaluation.cache import joined
from ace_counterfactuals.core.evaluation.meanings import key_of, make_figure
from ace_counterfactuals.core.evaluation.metrics import cd, flips, fva, intervals, mnac
from ace_counterfactuals.core.evaluation.metrics.transfer import Verdicts, transfer
from ace_counterfactuals.core.evaluation.metrics.unseen import judge_known
from ace_counterfactuals.core.evaluation.model import Figure
from ace_counterfactuals.core.evaluation.passes import Task
from ace_counterfactuals.core.evaluation.pictures import CORRECT, EVERY, FLIPPED, Population
from ace_counterfactuals.core.evaluation.plan import Plan
from ace_counterfactuals.core.runs.experiment import Pair
from ace_counterfactuals.core.runs.records import Outcome

MEAN, SHARE = "studentised bootstrap over pictures", "Wilson"
SHARES = ("flip_rate", "fva")
CD_RESAMPLES = 200


@dataclass(frozen=True, eq=False)
class Answers:
    """values: file name -> key -> number of a picture, filled by the figures that are means over pictures."""

    plan: Plan
    pairs: tuple[Pair, ...]
    digests: dict[Path, bytes]
    seed: int
    values: dict[str, dict[str, float]] = field(default_factory=dict)

    def of(self, population: Population) -> list[Pair]:
        return [pair for pair in self.pairs if pair.folder in population.folders]

    def rows(self, task: Task, paths: Sequence[Path]) -> np.ndarray:
        return task.store.rows([self.digests[path] for path in paths])

    def sides(self, role: Task, pairs: Sequence[Pair]) -> tuple[torch.Tensor, torch.Tensor]:
        """(N, D) of the originals and of the counterfactuals."""
        before, after = (self.rows(role, paths) for paths in columns(pairs))
        return torch.from_numpy(before), torch.from_numpy(after)

    def of_pairs(self, task: Task, pairs: Sequence[Pair]) -> np.ndarray:
        """(N, W) of pairs that were asked about together."""
        both = ((pair.original, pair.counterfactual) for pair in pairs)
        return task.store.rows([joined([self.digests[path] for path in paths]) for paths in both])

    def keep(self, key: str, pairs: Sequence[Pair], values: np.ndarray) -> None:
        for pair, value in zip(pairs, values.tolist(), strict=True):
            self.values.setdefault(pair.name, {})[key] = value

    def mean(self, key: str, pairs: Sequence[Pair], values: np.ndarray, population: Population, **more) -> Figure:
        """The figure that is a mean over pictures, or a share of them."""
        self.keep(key, pairs, np.asarray(values, np.float64))
        return mean_figure(key, values, population.name, self.seed, **more)


def columns(pairs: Sequence[Pair]) -> tuple[list[Path], list[Path]]:
    return [pair.original for pair in pairs], [pair.counterfactual for pair in pairs]


def mean_figure(key: str, values: np.ndarray, population: str, seed: int, *, notes: tuple[str, ...] = ()) -> Figure:
    n = len(values)
    if n == 0:
        return make_figure(key, None, None, population=population, n=0)
    share = key in SHARES
    interval = intervals.wilson(float(np.sum(values)), n) if share else intervals.mean_interval(values, seed)
    if interval is None:
        notes += (f"fewer than {intervals.FEWEST} pictures tell too little of an interval",)
    how = SHARE if share else MEAN
    value = float(np.mean(values))
    return make_figure(key, value, interval, interval=how, population=population, n=n, notes=notes)


def distance_figures(answers: Answers) -> Iterator[Figure]:
    """Flip rate, l1, l2 and l_inf, of all pictures."""
    pairs = answers.of(EVERY)
    yield answers.mean("flip_rate", pairs, flips.flipped(pairs), EVERY)
    measured = answers.of_pairs(answers.plan.tasks["distances"], pairs)
    for place, key in enumerate(("l1", "l2", "l_inf")):
        yield answers.mean(key, pairs, measured[:, place] if pairs else np.zeros(0), EVERY)


def recorded_figures(answers: Answers) -> Iterator[Figure]:
    """Mask area, where records tell; with it, what they tell of probabilities is kept of each picture."""
    records, pairs = answers.plan.source.records, []
    for pair in answers.of(EVERY):
        if record := records.get(pair.name):
            pairs.append(pair)
            after: Outcome = record.outcomes[answers.plan.source.kind]
            known = {"source_prob": record.source_prob, "target_prob": record.target_prob}
            known |= {"cf_source_prob": after.source_prob, "cf_target_prob": after.target_prob}
            known = {key: value for key, value in known.items() if value is not None}
            answers.values.setdefault(pair.name, {}).update(known)
    if records:
        yield answers.mean("mask_area", pairs, np.array([records[pair.name].mask_area for pair in pairs]), EVERY)


def cout_figures(answers: Answers) -> Iterator[Figure]:
    pairs = answers.of(CORRECT)
    areas = answers.of_pairs(answers.plan.tasks["cout"], pairs) if pairs else np.zeros((0, 2))
    yield answers.mean("cout", pairs, areas[:, 0], CORRECT)
    yield answers.mean("cout_normalised", pairs, areas[:, 0] / areas[:, 1], CORRECT)


def face_figures(answers: Answers) -> Iterator[Figure]:
    """FVA and FS."""
    pairs = answers.of(FLIPPED)
    cosines = fva.cosines(*answers.sides(answers.plan.tasks["vggface2"], pairs))
    yield answers.mean("fva", pairs, fva.verified(cosines), FLIPPED)
    yield answers.mean("fs", pairs, cosines, FLIPPED)


def simsiam_figures(answers: Answers) -> Iterator[Figure]:
    pairs = answers.of(CORRECT)
    yield answers.mean("s3", pairs, fva.cosines(*answers.sides(answers.plan.tasks["simsiam"], pairs)), CORRECT)


def oracle_figures(answers: Answers) -> Iterator[Figure]:
    """MNAC, and CD where the annotations are given."""
    pairs, plan = answers.of(FLIPPED), answers.plan
    decided = [mnac.decisions(side) for side in answers.sides(plan.tasks["oracle"], pairs)]
    yield answers.mean("mnac", pairs, mnac.changes(*decided), FLIPPED)
    if plan.annotated is None:
        return
    attributes = plan.annotated.shape[1]
    if pairs and decided[0].shape[1] != attributes:
        known = decided[0].shape[1]
        raise UserError(f"--oracle-path knows {known} attributes, but --celeba-path annotates {attributes}")
    yield cd_figure(decided, cd.correlations(plan.annotated, plan.query), plan.query, answers.seed)


def cd_figure(decided: list[np.ndarray], training: np.ndarray, query: int, seed: int) -> Figure:
    n = len(decided[0])
    if n == 0:
        return make_figure("cd", None, None, population=FLIPPED.name, n=0)
    value = cd.correlation_difference(*decided, training, query)
    rng = np.random.default_rng(np.random.SeedSequence([seed, n]))
    drawn = (rng.integers(0, n, n) for _ in range(CD_RESAMPLES))
    again = [cd.correlation_difference(*(side[rows] for side in decided), training, query) for rows in drawn]
    delta = decided[1].astype(int) - decided[0]
    constant = np.ptp(delta, axis=0) == 0
    notes = ()
    if constant[query]:
        notes = ("the oracle decides the explained attribute alike for all pictures: no correlation is defined",)
    elif constant.any():
        notes = (f"{constant.sum()} of {len(constant)} attributes never change and count as uncorrelated",)
    interval = intervals.around(value, float(np.std(again, ddof=1)))
    how = "standard error by bootstrap over pictures"
    return make_figure("cd", value, interval, interval=how, population=FLIPPED.name, n=n, notes=notes)


def transfer_figures(answers: Answers) -> Iterator[Figure]:
    """Per unseen classifier, and pooled over several."""
    pairs, verdicts = answers.of(FLIPPED), {}
    for name, task in answers.plan.unseen.items():
        verdicts[name] = judged(answers, task, pairs, name)
    for name, several in {**{name: [v] for name, v in verdicts.items()}, "pooled": list(verdicts.values())}.items():
        if name == "pooled" and len(verdicts) < 2:
            continue
        found = transfer(several)
        population = {"population": f"{FLIPPED.name}, originals classified alike", "n": found.n}
        interval = None if found.share is None else (found.low, found.high)
        yield make_figure("transfer", found.share, interval, interval=SHARE, network=name, **population)
        if len(several) == 1:
            counted = several[0].counted
            moved = several[0].movement[counted].numpy()
            reached = several[0].reached[counted].double().numpy()
            asked = [pair for pair, counts in zip(pairs, counted.tolist(), strict=True) if counts]
            answers.keep(key_of("transfer", name), asked, reached)
            interval = intervals.mean_interval(moved, answers.seed)
            yield make_figure("movement", found.movement, interval, interval=MEAN, network=name, **population)


def judged(answers: Answers, task: Task, pairs: Sequence[Pair], name: str) -> Verdicts:
    seen = torch.tensor([seen_by_attacked(answers.plan, pair) for pair in pairs], dtype=torch.long).view(-1, 3).T
    return judge_known(f"--unseen {name}", seen, *answers.sides(task, pairs))


def seen_by_attacked(plan: Plan, pair: Pair) -> tuple[int, int, int]:
    """Prediction, prediction of the counterfactual, and target, from the record or else the Info file."""
    if record := plan.source.records.get(pair.name):
        after = record.outcomes[plan.source.kind]
        return record.prediction, after.prediction, record.target
    info = pair.read_info()
    return int(info["pred"]), int(info["cf pred"]), int(info["target"])
