"""``--check True``: load everything, explain nothing, write nothing, and say what a run would meet."""

from dataclasses import dataclass, field
from pathlib import Path

import torch

from ace_counterfactuals.core.base.settings import FlagError
from ace_counterfactuals.core.data.imageset import Sample
from ace_counterfactuals.core.method.task import Batch, Task, judge
from ace_counterfactuals.core.preflight.data import check_classifier, check_disk, check_pictures, first_pictures
from ace_counterfactuals.core.preflight.model import check_cost, check_filter
from ace_counterfactuals.core.preflight.section import Budget, Section
from ace_counterfactuals.core.runs import begin
from ace_counterfactuals.core.runs.config import MainConfig
from ace_counterfactuals.core.runs.layout import ResultFolder
from ace_counterfactuals.core.runs.run import load_region
from ace_counterfactuals.core.runs.setup import (
    align_classes,
    check,
    check_labels,
    load_denoiser,
    load_explained,
    open_images,
    prepare_device,
    task_of,
)

SECONDS = 50.0
TITLES = ("pictures", "classifier", "filter", "cost", "disk")


@dataclass
class Report:
    """sections: by title; None or absent is what could not be measured.  faults: why not, or why it cannot be run."""

    sections: dict[str, Section | None] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)

    @property
    def problems(self) -> list[str]:
        """A line for each thing that is wrong or looks wrong."""
        found = (problem for title in TITLES for problem in (self.sections.get(title) or Section()).problems)
        return list(dict.fromkeys([*self.faults, *found]))

    def attempt(self, function, *arguments):
        """What ``function`` returns, or None after its complaint is added to the faults."""
        try:
            return function(*arguments)
        except (ValueError, OSError, torch.OutOfMemoryError) as error:
            self.faults.append(" ".join(str(error).split()))
            return None


def preflight(config: MainConfig, seconds: float = SECONDS) -> Report:
    """Check the run that the settings describe in about ``seconds``, on samples as small as that takes.

    Raises ValueError where settings contradict each other or the data set cannot be read; the rest goes on around what
    is wrong, and says so in the report.
    """
    budget, report = Budget(seconds), Report()
    check(config)
    if config.run.merge_chunks:
        raise FlagError("merge_chunks", "True explains nothing, so that there is nothing to check; leave out check")
    results = ResultFolder(Path(config.output.output_path), config.output.exp_name)
    images, device = open_images(config, quiet=True), prepare_device(config)
    classifier = report.attempt(load_explained, config, images.query, device)
    denoiser = report.attempt(load_denoiser, config, device)
    if classifier is not None:
        aligned = report.attempt(align_classes, config, images, classifier.class_names)
        config, images = aligned or (config, images)
        classifier = classifier if aligned else None
    if classifier is not None:
        report.attempt(check_labels, config, images, classifier.num_outputs)
        tried = (images, classifier, config, device, budget.share(0.2))
        report.sections["classifier"] = report.attempt(check_classifier, *tried)
    report.attempt(check_folder, results, config)
    section, pending, count = report.attempt(check_pictures, images, config, results) or (Section(), images, 0)
    report.attempt(load_region, config, pending)
    samples = first_pictures(pending, section)
    report.sections["pictures"] = section
    if samples:
        report.sections["disk"] = report.attempt(check_disk, samples[0], config, count)
    if samples and classifier is not None:
        task = task_of(config, classifier, denoiser)
        if (batch := report.attempt(judge_samples, samples, task, device)) is not None:
            report.attempt(try_networks, report, batch, config, count, budget)
    return report


def check_folder(results: ResultFolder, config: MainConfig) -> None:
    """Refuse a result folder that a run would refuse."""
    anew = config.run.overwrite and config.run.chunks == 1
    begin.check_folder(results, begin.describe(config, None), anew=anew)


def judge_samples(samples: list[Sample], task: Task, device: torch.device) -> Batch:
    """With their predictions and targets."""
    image = torch.stack([sample.image for sample in samples]).to(device)
    label = torch.tensor([sample.label for sample in samples], device=device)
    return judge(image, task, [sample.index for sample in samples]).aimed(label)


def try_networks(report: Report, batch: Batch, config: MainConfig, count: int, budget: Budget) -> None:
    """Try on a few pictures what the run would do with all.  count: of these."""
    if batch.target is not None and bool((batch.target == batch.prediction).all()):
        said = f"all of the {len(batch.indices)} pictures tried are predicted as their target already"
        report.sections["pictures"].problems.append(f"label_target {config.data.label_target}: {said}")
    if batch.task.denoiser is not None:
        report.sections["filter"], seconds = check_filter(batch, config.model.use_fp16, budget)
        if seconds is not None:
            report.sections["cost"] = check_cost(batch, config, count, seconds, budget)


def render(report: Report) -> str:
    """The report for a terminal, problems last."""
    lines = []
    for title in TITLES:
        text = (report.sections.get(title) or Section()).lines or ["not measured, see the problems"]
        lines += [f"{title if i == 0 else '':<12}{line}" for i, line in enumerate(text)]
    problems = [f"problem     {line}" for line in report.problems] or ["no problems"]
    return "\n".join([*lines, *problems])
