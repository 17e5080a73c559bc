"""An evaluation from flags to files: everything that the given weights allow, in one pass over the pictures."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

from ace_counterfactuals.core.base.notices import notice
from ace_counterfactuals.core.base.runtime import choose_device
from ace_counterfactuals.core.base.settings import FlagError, to_dict
from ace_counterfactuals.core.data.datasets import spec_of
from ace_counterfactuals.core.evaluation.metric import Metric, all_metrics, judges_of
from ace_counterfactuals.core.evaluation.model import Evaluation, Experiment, Figure, Picture
from ace_counterfactuals.core.evaluation.passes import run_pass
from ace_counterfactuals.core.evaluation.places import claim, place_of
from ace_counterfactuals.core.evaluation.read import MEND, companions, open_whole, shortened
from ace_counterfactuals.core.evaluation.session import Session, Subject, Unavailable
from ace_counterfactuals.core.evaluation.tables import write_tables
from ace_counterfactuals.core.runs.begin import package_version
from ace_counterfactuals.core.runs.experiment import Pair, StoredExperiment

PACKAGES = ("ace-counterfactuals", "torch", "torchvision", "numpy", "pillow", "pytorch-fid", "lpips", "scipy")


def evaluate(
    config: Any, cache: Path, only: Sequence[str] = (), look: Callable[[Path], object] | None = None
) -> tuple[Evaluation, Path]:
    """The evaluation, and the folder that its tables were written to.

    config: of ``evaluate_config()``.  cache: of ``open_cache``.  only: names of metrics, which then must be possible;
    all that are if not given.  look: is given the folder before any work is done, and may refuse it.
    Raises ValueError for what the user can mend: an incomplete experiment, weights that do not fit, a corrupt picture.
    """
    output = Path(config.results.output_path)
    experiments = open_all(config, output)
    place = place_of(config, output, experiments)
    claim(place)
    if look:
        look(place)
    device = choose_device(config.compute.device, config.compute.gpu)
    session, metrics = Session(config, cache, device), chosen(only)
    ask(session, experiments, metrics, strict=bool(only))
    evaluation = gather(session, metrics)
    write_tables(evaluation, place)
    return evaluation, place


def chosen(names: Sequence[str]) -> list[Metric]:
    """In the order of the tables; all for no names.  Raises ValueError for a name that no metric has."""
    metrics = all_metrics()
    if unknown := set(names) - {metric.name for metric in metrics}:
        known = ", ".join(sorted(metric.name for metric in metrics))
        raise ValueError(f"no metric is called {', '.join(sorted(unknown))}; there are {known}")
    return [metric for metric in metrics if not names or metric.name in names]


def ask(
    session: Session,
    experiments: Sequence[StoredExperiment],
    metrics: Sequence[Metric],
    *,
    strict: bool,
    further: tuple[Path, ...] = (),
) -> None:
    """Give the session the experiments as its subjects, with what the judges of the metrics answered.

    strict: raise ValueError where a metric is not possible.  further: see ``Subject``.
    """
    session.subjects.extend(subject_of(experiment, session, further) for experiment in experiments)
    several = len(experiments) > 1
    for subject in session.subjects:
        open_judges(subject, [m for m in metrics if several or m.asked != "runs"], strict=strict)
    errors = run_pass(session, metrics)
    for subject in session.subjects:
        leave_out(subject, errors)


def open_all(config: Any, output: Path) -> list[StoredExperiment]:
    partial = config.results.allow_partial
    experiments = [open_whole(output, name, allow_partial=partial) for name in config.results.exp_name]
    if len({stored.root for stored in experiments}) < len(experiments):
        raise FlagError("exp_name", f"{' '.join(config.results.exp_name)}: the same experiment twice")
    return experiments


def subject_of(stored: StoredExperiment, session: Session, further: tuple[Path, ...]) -> Subject:
    """With what the run recorded of its question, or else the flags tell."""
    flags, dataset = session.config.classifier, stored.flags.get("dataset", "")
    if dataset and flags.dataset and dataset != flags.dataset:
        raise FlagError("dataset", f"{flags.dataset}: {stored.name} explains pictures of {dataset}")
    labels = {}
    for name in ("query", "target"):
        recorded = stored.flags.get(f"label_{name}")
        known = isinstance(recorded, int) and recorded >= 0
        labels[name] = recorded if known else getattr(flags, f"{name}_label")
    return Subject(stored, session, dataset or flags.dataset, **labels, further=further)


def open_judges(subject: Subject, metrics: Sequence[Metric], *, strict: bool) -> None:
    """Give the subject the tasks of each judge that can be asked.  strict: raise ValueError where one cannot."""
    session = subject.session
    for judge in judges_of(metrics):
        try:
            networks = judge.open(session, subject)
        except Unavailable as error:
            if strict:
                raise FlagError(error.field, f"{to_dict(session.config)[error.field]}: {error.reason}") from None
            for metric in metrics:
                if metric.judge is judge:
                    notice(f"{subject.stored.name}: no {metric.quantities[0].name}, because {error.reason}")
            continue
        if networks:
            subject.tasks[judge] = {name: session.task(judge, network) for name, network in networks.items()}
        elif strict:
            raise FlagError(next(iter(judge.flags)), "'': no file given")


def leave_out(subject: Subject, errors: dict[Path, str]) -> None:
    """Drop the pairs of pictures that do not decode, where that is allowed, and tell all that is missing."""
    stored = subject.stored
    bad = {path: pair.name for pair in stored.pairs for path in (pair.original, pair.counterfactual) if path in errors}
    problems = tuple(f"{path}: unreadable picture: {errors[path]}" for path in bad)
    if problems and not subject.session.config.results.allow_partial:
        raise ValueError(f"{shortened(problems)}; {MEND}; or leave it out with allow_partial True")
    left = tuple(pair for pair in stored.pairs if pair.name not in bad.values())
    subject.stored = replace(stored, pairs=left, problems=(*stored.problems, *problems))
    for problem in subject.stored.problems:
        notice(problem)


def gather(session: Session, metrics: Sequence[Metric]) -> Evaluation:
    """Figures and differences, from the answers of all judges."""
    experiments, differences = [], []
    for subject in session.subjects:
        possible = [metric for metric in metrics if metric.possible(subject)]
        ordered = sorted(possible, key=lambda metric: metric.asked != "runs")  # as the columns of metrics.csv
        found = {metric.name: list(metric.figures(metric, subject)) for metric in ordered}
        complete = not subject.stored.problems
        figures = tuple(replace(figure, complete=complete) for metric in possible for figure in found[metric.name])
        experiments.append(experiment_of(subject, figures))
    for a, b in combinations(session.subjects, 2):
        there = b.stored.by_name
        both = [(pair, there[pair.name]) for pair in a.stored.pairs if pair.name in there]
        names = [pair.name for pair, other in both if session.digest(pair.original) == session.digest(other.original)]
        for metric in sorted(metrics, key=lambda metric: metric.asked == "sets"):  # first those of single pictures
            differences += metric.differences(metric, a, b, names) if metric.possible(a, b) else ()
    details = {
        "seed": session.seed,
        "device": str(session.device),
        "versions": {name: package_version(name) for name in PACKAGES},
        "weights": session.files,
        "problems": {s.stored.name: list(s.stored.problems) for s in session.subjects if s.stored.problems},
    }
    return Evaluation(experiments=tuple(experiments), differences=tuple(differences), details=details)


def experiment_of(subject: Subject, figures: tuple[Figure, ...]) -> Experiment:
    stored = subject.stored
    classes, before, masks = stored.settings.get("classes"), *companions(stored)
    pictures = tuple(
        picture_of(stored, pair, subject.values.get(pair.name, {}), before.get(pair.name), masks.get(pair.name))
        for pair in stored.pairs
    )
    return Experiment(
        name=stored.name,
        root=stored.root,
        binary=spec_of(subject.dataset).binary or any(record.binary for record in stored.records.values()),
        classes=tuple(classes) if classes else None,
        pictures=pictures,
        figures=figures,
    )


def picture_of(stored: StoredExperiment, pair: Pair, values: dict, before: Path | None, mask: Path | None) -> Picture:
    record = stored.records.get(pair.name)
    if record:
        after = record.outcomes[stored.kind]
        known = {"file": record.file, "label": record.label, "prediction": record.prediction, "target": record.target}
        known |= {"cf_prediction": after.prediction, "before": record.top5, "after": after.top5}
    else:
        info = pair.read_info() if pair.info.exists() else {}
        names = {"label": "label", "prediction": "pred", "target": "target", "cf_prediction": "cf pred"}
        known = {"file": ""} | {name: int(info.get(text, -1)) for name, text in names.items()}
    paths = {"original": pair.original, "counterfactual": pair.counterfactual, "pre_explanation": before, "mask": mask}
    return Picture(name=pair.name, folder=pair.folder, values=values, **known, **paths)
