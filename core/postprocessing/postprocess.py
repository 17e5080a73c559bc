"""A run of postprocessing.py: stored pre-explanations refined with each of several settings, by the code of main.py."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch

from ace_counterfactuals.core.base.notices import notice
from ace_counterfactuals.core.base.settings import FlagError
from ace_counterfactuals.core.data.datasets import spec_of
from ace_counterfactuals.core.data.imageset import ImageSet, select
from ace_counterfactuals.core.data.pictures import picture_size
from ace_counterfactuals.core.data.specs import UNKNOWN
from ace_counterfactuals.core.method.attacking import full
from ace_counterfactuals.core.method.explain import refine
from ace_counterfactuals.core.method.task import Task
from ace_counterfactuals.core.postprocessing.settings import Setting, make_settings
from ace_counterfactuals.core.postprocessing.stored import AttackedRun, open_run
from ace_counterfactuals.core.postprocessing.sweep import write_sweep
from ace_counterfactuals.core.runs.begin import begin, describe
from ace_counterfactuals.core.runs.layout import ResultFolder
from ace_counterfactuals.core.runs.recording import draw_refined
from ace_counterfactuals.core.runs.run import complete, load_region
from ace_counterfactuals.core.runs.setup import (
    check,
    compile_networks,
    load_denoiser,
    load_explained,
    prepare_device,
    task_of,
)
from ace_counterfactuals.core.runs.status import selected_pictures
from ace_counterfactuals.core.runs.tables import write_tables
from ace_counterfactuals.core.runs.work import Found, Given, Work


def postprocess(post: Any) -> Path | None:
    """Refine what is not refined yet, with every setting of the flags, and write the tables of each and the sweep.

    post: a ``PostConfig``.  Returns the experiment's sweep.png, None where no setting has its tables.
    Raises ValueError for what the user can mend: flags, files, data.
    """
    run = open_run(Path(post.output.output_path), post.output.exp_name, post.data.data_dir)
    settings = make_settings(post, run)
    for setting in settings:
        check(setting.config)
    check_size(run.images.records[0].original, settings[0].config.data.image_size)
    everything = select(run.images, num_samples=post.data.num_samples)
    if post.run.merge_chunks:
        for setting in settings:
            folder = folder_of(setting)
            write_tables(setting.config, folder, {stored.index for stored in everything.records}, *folder.read())
    else:
        tell_run(run)
        refine_all(settings, run, everything)
    return write_sweep(run.results.root)


def folder_of(setting: Setting) -> ResultFolder:
    """Where its results lie."""
    return ResultFolder(Path(setting.config.output.output_path), setting.config.output.exp_name)


def check_size(original: Path, image_size: int) -> None:
    """Raises FlagError for an image_size that is not the stored pictures'."""
    width, height = picture_size(original)
    if height != image_size or width not in (image_size, 2 * image_size):
        raise FlagError("image_size", f"{image_size}: {original} is {width} x {height} pixels; give {height}")


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


def refine_all(settings: list[Setting], run: AttackedRun, everything: ImageSet) -> None:
    """Refine this chunk's pictures with each setting."""
    config = settings[0].config
    selected = select(everything, chunk=config.run.chunk, chunks=config.run.chunks)
    region, device = load_region(config, selected), prepare_device(config)
    moved: set[int] = set()
    for setting, task in zip(settings, load_each(settings, device), strict=True):
        folder = folder_of(setting)
        notice(f"refining into {folder.root}")
        classes = run.settings["classes"] if run.settings else task.classifier.class_names
        config = begin(setting.config, folder, describe(setting.config, classes, setting.digests))
        refine_samples = partial(refine_stored, task, moved)
        draw = partial(draw_refined, span=config.data.span)
        complete(Work(config, folder, selected, len(everything), device, region, refine_samples, draw))
    if moved:
        others = f"about {len(moved)} of {len(selected)} originals than when their pre-explanations were made"
        notice(f"the classifier decides otherwise {others}; the tables go by what it says now")


def load_each(settings: list[Setting], device: torch.device) -> Iterator[Task]:
    """The networks with each setting, loaded once: settings of one diffusion model lie together."""
    data = settings[0].config.data
    query = data.label_query if isinstance(data.label_query, int) else UNKNOWN
    if spec_of(data.dataset).binary and query != data.label_query:
        reason = f"{data.label_query}: give the attribute's index, since the data set is not opened here"
        raise FlagError("label_query", reason)
    classifier, denoiser, loaded = load_explained(settings[0].config, query, device), None, None
    compile_networks(settings[0].config, {"the classifier": classifier})
    for config in (setting.config for setting in settings):
        if config.weights.model_path != loaded:
            denoiser = None  # the last one makes room first
            denoiser, loaded = load_denoiser(config, device), config.weights.model_path
            compile_networks(config, {"the diffusion model": denoiser.network})
        yield task_of(config, classifier, denoiser)


def refine_stored(task: Task, moved: set[int], given: Given, *_: Any) -> Found:
    """``refine``, of stored pictures.  moved: collects those that the classifier now decides otherwise."""
    padded = full(given.samples, len(given.indices))
    target = torch.tensor([sample.target for sample in padded], device=given.image.device)
    stored = torch.stack([sample.pre_explanation for sample in padded]).to(given.image.device)
    free = bool((target == UNKNOWN).all())  # as the targets are for all pictures of a run or for none
    wanted = {"target": None if free else target, "indices": given.indices, "region": given.region}
    explanation = refine(given.image, stored, task, **wanted)
    now = zip(given.samples, explanation.prediction.tolist(), strict=False)
    moved.update(sample.index for sample, prediction in now if sample.prediction != prediction)
    yield [sample.index for sample in given.samples], explanation
