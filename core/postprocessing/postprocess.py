"""A run of postprocessing.py: stored pre-explanations refined with each of several settings, by the code of main.py."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from ace_counterfactuals.core.base.notices import notice
from ace_counterfactuals.core.base.settings import FlagError
from ace_counterfactuals.core.data.datasets import spec_of
from ace_counterfactuals.core.data.imageset import select
from ace_counterfactuals.core.method.explain import Explanation, refine
from ace_counterfactuals.core.method.task import Task
from ace_counterfactuals.core.postprocessing.config import PostConfig
from ace_counterfactuals.core.postprocessing.settings import Setting, make_settings
from ace_counterfactuals.core.postprocessing.stored import (
    AttackedRun,
    StoredSample,
    StoredSet,
    check_size,
    open_run,
    stack_targets,
)
from ace_counterfactuals.core.postprocessing.sweep import write_sweep
from ace_counterfactuals.core.runs.begin import begin, describe
from ace_counterfactuals.core.runs.layout import ResultFolder
from ace_counterfactuals.core.runs.recording import draw_refined
from ace_counterfactuals.core.runs.run import Work, complete, load_region
from ace_counterfactuals.core.runs.setup import (
    check,
    load_denoiser,
    load_explained,
    prepare_device,
    task_of,
)
from ace_counterfactuals.core.runs.status import selected_pictures
from ace_counterfactuals.core.runs.tables import write_tables


@dataclass(frozen=True)
class Refined:
    """folders: of the settings, in their order; sweep: the experiment's sweep.png, if any setting has its tables."""

    folders: list[ResultFolder]
    sweep: Path | None


def postprocess(post: PostConfig) -> Refined:
    """Refine what is not refined yet, with every setting of the flags, and write the tables of each and the sweep.

    Raises ValueError for what the user can mend: flags, files, data.
    """
    output = Path(post.output.output_path)
    run = open_run(output, post.output.exp_name, post.data.data_dir)
    settings = make_settings(post, run)
    for setting in settings:
        check(setting.config)
    check_size(run.images.records[0], settings[0].config.data.image_size)
    everything = select(run.images, num_samples=post.data.num_samples)
    folders = [ResultFolder(output, setting.config.output.exp_name) for setting in settings]
    if post.run.merge_chunks:
        for setting, folder in zip(settings, folders, strict=True):
            write_tables(setting.config, folder, {stored.index for stored in everything.records}, *folder.read())
    else:
        tell_run(run)
        refine_all(settings, folders, run, everything)
    return Refined(folders, write_sweep(run.results.root))


def tell_run(run: AttackedRun) -> None:
    """What the user may want to know of what is refined."""
    root, count, selected = run.results.root, len(run.images), selected_pictures(run.results.log)
    if run.settings is None:
        said = "it is read as a folder of the original program, and flags that are not given have main.py's defaults"
        notice(f"{root} has no config.yaml: {said}")
    if selected > count:
        later = "the same command refines the others once main.py has finished them"
        notice(f"{count} of the {selected} pictures of {root} have pre-explanations; {later}")
    if rounded := sum(stored.pre_explanation.suffix != ".npy" for stored in run.images.records):
        edges = "so masks may differ at their edges from those of main.py; save_float True keeps more"
        notice(f"{rounded} of {count} pre-explanations are stored with 8 bits only, {edges}")


def refine_all(settings: list[Setting], folders: list[ResultFolder], run: AttackedRun, everything: StoredSet) -> None:
    """Refine this chunk's pictures with each setting."""
    config = settings[0].config
    selected = select(everything, chunk=config.run.chunk, chunks=config.run.chunks)
    region, device = load_region(config, selected), prepare_device(config)
    moved: set[int] = set()
    for setting, folder, task in zip(settings, folders, load_each(settings, device), strict=True):
        notice(f"refining into {folder.root}")
        classes = run.settings["classes"] if run.settings else task.classifier.class_names
        config = begin(setting.config, folder, describe(setting.config, classes, setting.digests))
        refine_samples = partial(refine_stored, task, moved)
        complete(Work(config, folder, selected, len(everything), device, region, refine_samples, draw_refined))
    if moved:
        notice(
            f"the classifier decides otherwise about {len(moved)} of {len(selected)} originals than when their "
            "pre-explanations were made; the tables go by what it says now"
        )


def load_each(settings: list[Setting], device: torch.device) -> Iterator[Task]:
    """The networks with each setting, loaded once: settings of one diffusion model lie together."""
    config = settings[0].config
    query = config.data.label_query
    if spec_of(config.data.dataset).binary and not isinstance(query, int):
        raise FlagError("label_query", f"{query}: give the attribute's index, since the data set is not opened here")
    classifier, denoiser, loaded = load_explained(config, query if isinstance(query, int) else -1, device), None, None
    for config in (setting.config for setting in settings):
        if config.weights.model_path != loaded:
            denoiser = None  # the last one makes room first
            denoiser, loaded = load_denoiser(config, device), config.weights.model_path
        yield task_of(config, classifier, denoiser)


def refine_stored(task: Task, moved: set[int], image: Tensor, samples: list[StoredSample], **given) -> Explanation:
    """``refine``, of stored pictures.  moved: collects those that the classifier now decides otherwise."""
    target = stack_targets(samples)
    explanation = refine(
        image,
        torch.stack([sample.pre_explanation for sample in samples]).to(image.device),
        task,
        target=None if target is None else target.to(image.device),
        **given,
    )
    now = explanation.prediction.tolist()
    moved.update(s.index for s, prediction in zip(samples, now, strict=True) if s.prediction != prediction)
    return explanation
