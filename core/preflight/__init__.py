"""``--check True``: load everything, explain nothing, write nothing, and say what a run would meet."""

from pathlib import Path

import torch

from ace_counterfactuals.core.base.settings import UserError
from ace_counterfactuals.core.data.imageset import Sample
from ace_counterfactuals.core.data.pictures import UnreadableImage
from ace_counterfactuals.core.preflight.data import Budget, measure_classifier, measure_disk, survey
from ace_counterfactuals.core.preflight.model import (
    first_pictures,
    make_trial,
    measure_cost,
    measure_denoiser,
    measure_filter,
)
from ace_counterfactuals.core.preflight.report import Report
from ace_counterfactuals.core.runs import begin
from ace_counterfactuals.core.runs.config import MainConfig
from ace_counterfactuals.core.runs.layout import ResultFolder
from ace_counterfactuals.core.runs.run import load_region
from ace_counterfactuals.core.runs.setup import (
    Networks,
    align_classes,
    check,
    check_labels,
    diffusion_of,
    load_denoiser,
    load_explained,
    open_images,
    prepare_device,
)

SECONDS = 50.0


def preflight(config: MainConfig, seconds: float = SECONDS) -> Report:
    """Check the run that the flags describe in about ``seconds``, on samples as small as that takes.

    Raises ValueError where flags contradict each other or the data set cannot be read; the rest goes on around what
    is wrong, and says so in the report.
    """
    budget = Budget(seconds)
    check(config)
    if config.run.merge_chunks:
        raise UserError("--merge_chunks True explains nothing, so that --check True has nothing to check; give one")
    results = ResultFolder(Path(config.output.output_path), config.output.exp_name)
    images = open_images(config, quiet=True)
    device = prepare_device(config)
    faults: list[str] = []
    classifier = attempt(faults, load_explained, config, images.query, device)
    denoiser = attempt(faults, load_denoiser, config, device)
    if classifier is not None:
        aligned = attempt(faults, align_classes, config, images, classifier.class_names)
        config, images = aligned or (config, images)
        classifier = classifier if aligned else None
    if classifier is not None:
        attempt(faults, check_labels, config, images, classifier.num_outputs)
    attempt(faults, check_folder, results, config)
    pictures, pending = attempt(faults, survey, images, config, results) or (None, images)
    attempt(faults, load_region, config, pending)
    report = Report(config=config, device=device, faults=faults, pictures=pictures)
    if classifier is not None:
        report.trained_size = classifier.image_size
        sample = {"seed": config.run.seed, "workers": config.run.num_workers, "budget": budget.share(0.4)}
        report.classifier, unreadable = measure_classifier(images, classifier, device, **sample)
        remember(report, unreadable)
    samples, unreadable = first_pictures(pending)
    remember(report, unreadable)
    if samples:
        report.disk = attempt(faults, measure_disk, samples[0], config, diffusion_of(config), pictures)
    if samples and classifier is not None:
        networks = Networks(classifier, denoiser, diffusion_of(config), device)
        attempt(faults, measure_run, report, samples, networks, budget)
    return report


def attempt(faults: list[str], function, *arguments):
    """What ``function`` returns, or None after its complaint is added to ``faults``."""
    try:
        return function(*arguments)
    except (ValueError, OSError, torch.OutOfMemoryError) as error:
        faults.append(" ".join(str(error).split()))
        return None


def check_folder(results: ResultFolder, config: MainConfig) -> None:
    """Refuse a result folder that a run would refuse."""
    anew = config.run.overwrite and config.run.chunks == 1
    begin.check_folder(results, begin.describe(config, None), anew=anew)


def remember(report: Report, unreadable: list[UnreadableImage]) -> None:
    known = {error.index for error in report.unreadable}
    report.unreadable += [error for error in unreadable if error.index not in known]


def measure_run(report: Report, samples: list[Sample], networks: Networks, budget: Budget) -> None:
    """Try on a few pictures what the run would do with all; fill ``report``."""
    report.trial = trial = make_trial(samples, report.config, networks)
    if networks.denoiser is None:
        return
    call_seconds = 0.0
    if trial.filter.steps:
        report.denoiser = measure_denoiser(trial, budget.share(0.25))
        if not report.denoiser.finite:
            return
        call_seconds = report.denoiser.seconds
        report.filter = measure_filter(trial, call_seconds, budget.share(0.4))
    report.cost = measure_cost(trial, call_seconds, report.pictures.pending if report.pictures else 0, budget)
