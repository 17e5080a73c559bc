"""A run of main.py: from flags to a result folder. Loads what the flags name, explains batch by batch, sums up."""

import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path

import torch

from ace_counterfactuals.core.base import atomic
from ace_counterfactuals.core.base.memory import blaming_memory
from ace_counterfactuals.core.base.notices import notice
from ace_counterfactuals.core.base.settings import AUTO, FlagError, blaming, to_dict
from ace_counterfactuals.core.base.signals import asked, patient, stop_if_asked
from ace_counterfactuals.core.data.imageset import ImageSet, Sample, prefetch, readable
from ace_counterfactuals.core.data.measured import as_measured
from ace_counterfactuals.core.data.pictures import to_pil
from ace_counterfactuals.core.data.regions import Region, open_region
from ace_counterfactuals.core.method.attacking import OnIteration, attacked, full
from ace_counterfactuals.core.method.checks import check_classifier
from ace_counterfactuals.core.method.explain import Explanation, conclude_all
from ace_counterfactuals.core.method.fit import fit
from ace_counterfactuals.core.method.progress import Progress
from ace_counterfactuals.core.method.task import Batch, Task, judge
from ace_counterfactuals.core.runs.begin import begin, describe, refuse_other_settings
from ace_counterfactuals.core.runs.config import MainConfig
from ace_counterfactuals.core.runs.described import read_config
from ace_counterfactuals.core.runs.keeping import Kept
from ace_counterfactuals.core.runs.layout import ResultFolder, fingerprint
from ace_counterfactuals.core.runs.locks import Lock, hold
from ace_counterfactuals.core.runs.plan import decide
from ace_counterfactuals.core.runs.recording import draw_pictures, make_record, to_npy
from ace_counterfactuals.core.runs.records import Record
from ace_counterfactuals.core.runs.setup import (
    align_classes,
    check,
    check_labels,
    compile_networks,
    judged,
    load_networks,
    open_images,
    prepare_device,
    select_images,
    settle_channels,
    task_of,
    with_predictions,
)
from ace_counterfactuals.core.runs.status import run_log
from ace_counterfactuals.core.runs.tables import growing_sheet, write_tables
from ace_counterfactuals.core.runs.telling import Telling
from ace_counterfactuals.core.runs.work import Found, Given, Hand, More, Work, file_name
from ace_counterfactuals.core.runs.writing import AHEAD, Writer
from ace_counterfactuals.models.classifiers import Classifier
from ace_counterfactuals.models.denoisers import DiffusionModel

TRIED = 2  # pictures that show whether the networks fit
SHARE = 4  # where pictures end one by one, this part of a batch waits to be refined together
DECODED = 16  # finished pictures that are compared with those of the data folder


def run(
    config: MainConfig,
    networks: tuple[Classifier, DiffusionModel] | None = None,
    on_iteration: OnIteration | None = None,
) -> ResultFolder:
    """Explain what is not finished yet, and write tables over all that is. Returns the result folder.

    networks: those of the flags, where they are loaded, compiled and tried already.  on_iteration: called after each
    iteration of an attack; what it raises ends the run.
    Raises ValueError for what the user can mend: flags, files, data.
    """
    check(config, automatic=True)
    results = ResultFolder(Path(config.output.output_path), config.output.exp_name)
    if results.refined:
        raise FlagError("exp_name", f"{results.exp_name}: is a name of postprocessing.py's folders; choose another")
    config, images = settle_channels(config, open_images(config), results.root)
    if config.run.merge_chunks:
        return merge(config, results, images)
    device = prepare_device(config)
    classifier, denoiser = networks or load_networks(config, images.query, device)
    config, images = align_classes(config, images, classifier.class_names)
    check_labels(config, images, classifier.num_outputs)
    images = with_predictions(config, images, classifier)
    selected = select_images(images, config)
    region = load_region(config, selected)
    tried = [*islice(readable(selected), TRIED)]
    if tried:
        with blaming("classifier_path"):
            check_classifier(classifier, torch.stack([sample.image for sample in tried]).to(device))
    automatic = config.run.batch_size == AUTO
    batch = judged(tried, task_of(config, classifier, denoiser), device) if tried else None
    config = decide(config, results.root, batch, len(selected))
    config = begin(config, results, describe(config, images.class_names or classifier.class_names))
    total = len(select_images(images, config, all_chunks=True))
    task = task_of(config, classifier, denoiser)
    if batch and not networks and not any(results.record_paths()):
        tell_misfit(batch)
    if not networks:
        compile_networks(config, {"the classifier": classifier, "the diffusion model": denoiser.network})

    inpaint = config.sampling.sampling_inpaint if config.output.save_float else None
    draw = partial(draw_pictures, inpaint=inpaint, span=config.data.span)
    explained = partial(explain_given, task)
    work = Work(config, results, selected, total, device, region, explained, draw, on_iteration)
    complete_sparingly(work, automatic=automatic)
    return results


def complete_sparingly(work: Work, *, automatic: bool) -> None:
    """``complete``; an ``automatic`` batch size is halved where there turns out to be too little memory for it."""
    while True:
        run = work.config.run
        try:
            return complete(work)
        except FlagError as error:
            if not automatic or error.field != "batch_size" or run.batch_size == 1 or run.cudnn_deterministic:
                raise
        fewer = replace(run, batch_size=run.batch_size // 2)
        notice(f"batch_size {run.batch_size} takes more memory than there is; going on with {fewer.batch_size}")
        work = replace(work, config=replace(work.config, run=fewer))


def tell_misfit(batch: Batch) -> None:
    """Say where the diffusion model looks as if it were of other flags or pictures, tried on these."""
    if batch.filter.steps and (fault := fit(batch).fault):
        notice(f"{fault}; --check True tells more")


def explain_given(task: Task, given: Given, more: More, kept: Kept, on_iteration: OnIteration) -> Found:
    """Attack the pictures, and the next ones where some are done before the others; refine those that are done."""
    size = kept.size
    group = -(-size // SHARE) if task.attack.attack_stop_confidence < 1 else size

    def batch_of(given: Given) -> Batch:
        labels = [sample.label for sample in full(given.samples, size)]
        batch = judge(given.image, task, given.indices, given.region)
        return batch.aimed(torch.tensor(labels, device=given.image.device)).take(range(len(given.samples)))

    def more_of(room: int) -> Batch | None:
        given = more(room)
        return given and batch_of(given)

    for done in attacked(kept.start(batch_of(given)), size, group, more_of, on_iteration):
        yield done.batch.indices, conclude_all(done, group)


def merge(config: MainConfig, results: ResultFolder, images: ImageSet) -> ResultFolder:
    """Write the tables of the whole experiment from what its chunks finished; refuse if pictures are missing."""
    stored = read_config(results.root)
    config, images = align_classes(config, images, tuple(stored.get("classes") or ()) or None)
    refuse_other_settings(results, {"flags": to_dict(config), "weights": {}})
    images = with_predictions(config, images)
    selected = select_images(images, config, all_chunks=True)
    finished, skipped = results.read_whole()
    refuse_other_pictures(results, config, selected, finished)
    write_tables(config, results, {entry.index for entry in selected.records}, finished, skipped)
    return results


def complete(work: Work) -> None:
    """Explain what is not finished of the work's pictures, and write the tables over all that is."""
    config, results, images = work.config, work.results, work.images
    told = {"pictures": len(images), "selected": work.total, "threads": torch.get_num_threads()}
    told |= {"flags": to_dict(config)}
    with hold(results.log, config.run.chunk, config.run.chunks) as lock, run_log(results.log, told) as timed:
        atomic.remove_strays(results.folders())
        finished, _ = results.read_whole()
        refuse_other_pictures(results, config, images, finished)
        restore_originals(work, finished)
        positions = [i for i, entry in enumerate(images.records) if entry.index not in finished]
        if len(positions) < len(images):
            notice(f"{len(images) - len(positions)} of {len(images)} pictures are finished already; continuing")
        show = growing_sheet(config, results, [*finished.values()])
        try:
            explain_missing(work, positions, lock, timed, show)
        finally:
            write_tables(config, results, {entry.index for entry in images.records}, *results.read())


def refuse_other_pictures(
    results: ResultFolder, config: MainConfig, images: ImageSet, finished: dict[int, Record]
) -> None:
    """An experiment holds the pictures of one data set: what is finished must bear the same names, and a few of them,
    spread over all, must show the same when decoded."""
    known = [i for i, entry in enumerate(images.records) if entry.index in finished]
    for entry in (images.records[i] for i in known):
        file, now = finished[entry.index].file, file_name(config, entry.path)
        if file != now:
            there = f"data_dir {config.data.data_dir}"
            raise of_others(results, f"{entry.index:07d} is {file} there and {now} in {there}")
    for sample in prefetch(images, known[:: -(-len(known) // DECODED) or 1], config.run.num_workers):
        if isinstance(sample, Sample):
            refuse_other_pixels(results, config, finished[sample.index], sample)


def refuse_other_pixels(results: ResultFolder, config: MainConfig, stored: Record, sample: Sample) -> None:
    """Raises ValueError for a picture that is not the one that was explained."""
    if stored.pixels not in ("", fingerprint(to_pil(sample.image))):
        there = f"{stored.file} in data_dir {config.data.data_dir}"
        raise of_others(results, f"{there} has other pixels than the one that was explained")


def of_others(results: ResultFolder, what: str) -> ValueError:
    """That an experiment holds other pictures than the data folder; what: of which that shows."""
    return ValueError(f"{results.root} was made with other pictures: {what}; choose another exp_name")


def restore_originals(work: Work, finished: dict[int, Record]) -> None:
    """Write originals of finished pictures that were deleted again; postprocessing's are main.py's."""
    lacking = set() if work.results.refined else work.results.lack_original(finished)
    positions = [i for i, entry in enumerate(work.images.records) if entry.index in lacking]
    for sample in prefetch(work.images, positions, work.config.run.num_workers):
        if isinstance(sample, Sample):
            record = finished[sample.index]
            refuse_other_pixels(work.results, work.config, record, sample)
            place = work.results.original(record.index, record.correct)
            if span := work.config.data.span:
                atomic.write_bytes(place.with_suffix(".npy"), to_npy(as_measured(sample.image, span)))
            atomic.write_png(place, to_pil(sample.image))
    if positions:
        notice(f"{work.results.root}: {len(positions)} originals of finished pictures were gone, and are written again")


def load_region(config: MainConfig, images: ImageSet) -> Region | None:
    """Where the pictures may change; None: everywhere.  Raises ValueError for a picture that cannot."""
    region = open_region(config.region.region, invert=config.region.region_invert)
    first = next(readable(images), None) if region else None
    if first is not None:
        region.check([file_name(config, entry.path) for entry in images.records], *first.image.shape[1:])
    return region


def explain_missing(
    work: Work,
    positions: list[int],
    lock: Lock,
    timed: Callable[[list[int], float], None],
    show: Callable[[list[Record]], None],
) -> None:
    """``explain_all``; what is in hand at a signal is kept.  Raises FlagError where memory is short."""
    config = work.config
    fewer = "the device has too little memory for so many pictures; choose a smaller one, or auto, or"
    short = f"{config.run.batch_size}: {fewer} attack_joint_checkpoint True"
    with blaming_memory("batch_size", short), Writer() as writer:
        kept = Kept(config, work.results, lock, writer)
        try:
            with patient():
                explain_all(work, positions, kept, timed, show)
        except KeyboardInterrupt:
            kept.write()
            raise


def explain_all(
    work: Work,
    positions: list[int],
    kept: Kept,
    timed: Callable[[list[int], float], None],
    show: Callable[[list[Record]], None],
) -> None:
    """Explain the pictures at ``positions`` and write each as soon as it is done, while the next ones are explained.

    timed: as ``run_log``'s.  show: takes what is written.
    """
    writer = kept.writer
    missing = {work.images.records[i].index: i for i in positions}
    hand, telling = Hand(work, missing, kept), Telling(len(positions))

    def see(at: Progress) -> None:
        writer.settle(AHEAD)
        kept.see(at)
        telling.see(at)
        if work.on_iteration:
            work.on_iteration(at)

    with telling.bar:
        for given in hand.batches():
            started = time.monotonic()
            for indices, explanation in work.explain(given, hand.more, kept, see):
                writer.give(kept.lock.check)
                samples = [hand.samples.pop(index) for index in indices]
                records = write_found(work, writer, explanation, samples, missing)
                kept.done(indices)
                now = time.monotonic()
                each = (now - started) / max(len(records), 1)
                writer.give(partial(timed, [record.index for record in records], each))
                started = now
                writer.give(partial(telling.add, records))
                if missing:  # else the tables follow at once
                    writer.give(partial(show, records))
                if asked():
                    writer.settle()
                stop_if_asked()
        writer.settle()


def write_found(
    work: Work, writer: Writer, explanation: Explanation, samples: list[Sample], missing: dict[int, int]
) -> list[Record]:
    """Have what was found of the samples written, the first pictures of it, as far as they are missing, and no more
    then."""
    records = []
    for i, sample in enumerate(samples):
        if missing.pop(sample.index, None) is not None:
            file = file_name(work.config, sample.path)
            record = make_record(explanation, i, index=sample.index, file=file, label=sample.label)
            drawn = work.draw(explanation, i) if work.config.output.save_images else None
            writer.give(partial(work.results.write, record, drawn))
            records.append(record)
    return records
