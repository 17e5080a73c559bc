"""An evaluation from flags to files: everything that the given weights allow, in one pass over the pictures."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from ace_counterfactuals.core.base.runtime import choose_device, notice
from ace_counterfactuals.core.base.settings import UserError
from ace_counterfactuals.core.data.datasets import spec_of
from ace_counterfactuals.core.evaluation import compare, figures, sets
from ace_counterfactuals.core.evaluation.config import EvaluateConfig
from ace_counterfactuals.core.evaluation.figures import Answers
from ace_counterfactuals.core.evaluation.model import Evaluation, Experiment, Figure, Picture
from ace_counterfactuals.core.evaluation.networks import Networks
from ace_counterfactuals.core.evaluation.passes import Job, Task, run_pass
from ace_counterfactuals.core.evaluation.plan import Plan, make_plan
from ace_counterfactuals.core.evaluation.read import MEND, companions, evaluation_folder, open_whole, shortened
from ace_counterfactuals.core.evaluation.tables import write_tables
from ace_counterfactuals.core.runs.begin import package_version
from ace_counterfactuals.core.runs.experiment import Pair, StoredExperiment

PACKAGES = ("ace-counterfactuals", "torch", "torchvision", "numpy", "pillow", "pytorch-fid", "lpips", "scipy")
LONGEST = 120


def evaluate(config: EvaluateConfig) -> tuple[Evaluation, Path]:
    """The evaluation, and the folder that its tables were written to.

    Raises ValueError for what the user can mend: an incomplete experiment, weights that do not fit, a corrupt picture.
    """
    output = Path(config.results.output_path)
    device = choose_device(config.compute.device, config.compute.gpu)
    sources = open_sources(config, output)
    place = writable(place_of(config, output, sources))
    networks = Networks(config, cache_folder(config, output, place), device)
    plans = [make_plan(source, networks) for source in sources]
    lpips = networks.lpips() if len(plans) > 1 else None
    names = sorted({pair.name for plan in plans for pair in plan.source.pairs})
    groups = [lambda name=name: list(jobs_of(name, plans, lpips)) for name in names]
    tasks, compute = list(networks.tasks.values()), config.compute
    digests, errors = run_pass(groups, tasks, batch_size=compute.batch_size, workers=compute.num_workers)
    every = [answers_of(plan, digests, errors, config) for plan in plans]
    evaluation = gather(config, networks, every, lpips)
    write_tables(evaluation, place)
    return evaluation, place


def open_sources(config: EvaluateConfig, output: Path) -> list[StoredExperiment]:
    partial = config.results.allow_partial
    sources = [open_whole(output, name, allow_partial=partial) for name in config.results.exp_name]
    if len({source.root for source in sources}) < len(sources):
        raise UserError(f"--exp-name {' '.join(config.results.exp_name)}: the same experiment twice")
    return sources


def place_of(config: EvaluateConfig, output: Path, sources: Sequence[StoredExperiment]) -> Path:
    """A folder that names the experiments."""
    if config.results.evaluation_path:
        return Path(config.results.evaluation_path)
    if len(sources) == 1:
        return evaluation_folder(sources[0])
    name = "+".join(source.name.removesuffix("/explanation").replace("/", ".") for source in sources)
    if len(name) > LONGEST:
        name = name[: LONGEST - 9] + "-" + hashlib.sha256(name.encode()).hexdigest()[:8]
    return output / "Results" / "evaluation" / name


def writable(place: Path) -> Path:
    """Made, and tried before any work is done."""
    try:
        place.mkdir(parents=True, exist_ok=True)
        (trial := place / ".trial").touch()
        trial.unlink()
    except OSError as error:
        raise UserError(
            f"{place}: cannot be written to ({error.strerror}); name another folder by --evaluation-path"
        ) from None
    return place


def cache_folder(config: EvaluateConfig, output: Path, place: Path) -> Path:
    """OUTPUT_PATH/.cache, or, where that cannot be written, one in the evaluation's own folder."""
    if config.results.cache_path:
        return writable(Path(config.results.cache_path))
    try:
        return writable(output / ".cache")
    except UserError:
        notice(f"{output} cannot be written to; features are cached in {place / '.cache'}, see --cache-path")
        return writable(place / ".cache")


def jobs_of(name: str, plans: Sequence[Plan], lpips: Task | None) -> Iterator[Job]:
    """All that is asked of the pictures of a name, so that each of them is read once."""
    there = [(plan, pair) for plan in plans if (pair := plan.source.by_name.get(name))]
    for plan, pair in there:
        yield from plan.jobs(pair)
    if lpips and len(there) == len(plans) and len({pair.folder for _, pair in there}) == 1:
        yield from compare.diversity_jobs(lpips, [pair for _, pair in there])


def answers_of(plan: Plan, digests: dict[Path, bytes], errors: dict[Path, str], config: EvaluateConfig) -> Answers:
    """Without the pictures that do not decode, where that is allowed."""
    bad = {path: pair for pair in plan.source.pairs for path in (pair.original, pair.counterfactual) if path in errors}
    problems = tuple(f"{path}: unreadable picture: {errors[path]}" for path in bad)
    if problems and not config.results.allow_partial:
        raise UserError(f"{shortened(problems)}; {MEND}; or leave it out with allow_partial True")
    out = {pair.name for pair in bad.values()}
    pairs = tuple(pair for pair in plan.source.pairs if pair.name not in out)
    source = replace(plan.source, pairs=pairs, problems=plan.source.problems + problems)
    for problem in source.problems:
        notice(problem)
    return Answers(replace(plan, source=source), pairs, digests, config.compute.seed)


def gather(config: EvaluateConfig, networks: Networks, every: list[Answers], lpips: Task | None) -> Evaluation:
    diversity = compare.diversity_figure(lpips, every, config.compute.seed) if lpips else None
    found = [list(figures_of(answers, networks)) for answers in every]
    experiments = []
    for answers, own in zip(every, found, strict=True):
        own += [diversity] if diversity else []
        complete = not answers.plan.source.problems
        marked = tuple(replace(figure, complete=complete) for figure in own)
        experiments.append(experiment_of(answers, marked))
    differences = [
        difference
        for i, first in enumerate(every)
        for second in every[i + 1 :]
        for difference in compare.differences(first, second, networks.cache)
    ]
    details = {
        "seed": config.compute.seed,
        "device": str(networks.device),
        "versions": {name: package_version(name) for name in PACKAGES},
        "weights": networks.files,
        "problems": {a.plan.source.name: list(a.plan.source.problems) for a in every if a.plan.source.problems},
    }
    return Evaluation(experiments=tuple(experiments), differences=tuple(differences), details=details)


def figures_of(answers: Answers, networks: Networks) -> Iterator[Figure]:
    """In the order of the papers' tables."""
    tasks = answers.plan.tasks
    for role, task in answers.plan.frechet.items():
        yield from sets.frechet_figures(answers, role, task, networks.cache)
    if "vggface2" in tasks:
        yield from figures.face_figures(answers)
    if "oracle" in tasks:
        yield from figures.oracle_figures(answers)
    if "simsiam" in tasks:
        yield from figures.simsiam_figures(answers)
    if "cout" in tasks:
        yield from figures.cout_figures(answers)
    yield from figures.distance_figures(answers)
    yield from figures.recorded_figures(answers)
    if answers.plan.unseen:
        yield from figures.transfer_figures(answers)


def experiment_of(answers: Answers, own: tuple[Figure, ...]) -> Experiment:
    source = answers.plan.source
    classes, before, masks = source.settings.get("classes"), *companions(source)
    pictures = tuple(
        picture_of(source, pair, answers.values.get(pair.name, {}), before.get(pair.name), masks.get(pair.name))
        for pair in answers.pairs
    )
    return Experiment(
        name=source.name,
        root=source.root,
        binary=spec_of(answers.plan.dataset).binary or any(record.binary for record in source.records.values()),
        classes=tuple(classes) if classes else None,
        pictures=pictures,
        figures=own,
    )


def picture_of(source: StoredExperiment, pair: Pair, values: dict, before: Path | None, mask: Path | None) -> Picture:
    record = source.records.get(pair.name)
    if record:
        after = record.outcomes[source.kind]
        known = {"file": record.file, "label": record.label, "prediction": record.prediction, "target": record.target}
        known |= {"cf_prediction": after.prediction, "before": record.top5, "after": after.top5}
    else:
        info = pair.read_info() if pair.info.exists() else {}
        names = {"label": "label", "prediction": "pred", "target": "target", "cf_prediction": "cf pred"}
        known = {"file": ""} | {name: int(info.get(text, -1)) for name, text in names.items()}
    paths = {"original": pair.original, "counterfactual": pair.counterfactual, "pre_explanation": before, "mask": mask}
    return Picture(name=pair.name, folder=pair.folder, values=values, **known, **paths)
