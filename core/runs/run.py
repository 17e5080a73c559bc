"""A run of main.py: from flags to a result folder. Loads what the flags name, explains batch by batch, sums up."""

import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from tqdm import tqdm

from ace_counterfactuals.core.base import atomic
from ace_counterfactuals.core.base.notices import notice
from ace_counterfactuals.core.base.settings import UserError, to_dict
from ace_counterfactuals.core.data.imageset import ImageSet, Sample, prefetch
from ace_counterfactuals.core.data.pictures import UnreadableImage, to_pil
from ace_counterfactuals.core.data.regions import Region, open_region
from ace_counterfactuals.core.method.explain import Explanation, explain
from ace_counterfactuals.core.runs.config import MainConfig
from ace_counterfactuals.core.runs.experiment import (
    CLEARING,
    begin_anew,
    check_folder,
    describe,
    first_batch_size,
    make_folder,
    read_config,
    refuse_other_flags,
    stored_classes,
    wants_anew,
    write_tables,
    write_tables_of,
)
from ace_counterfactuals.core.runs.layout import Pictures, ResultFolder, fingerprint
from ace_counterfactuals.core.runs.locks import Lock, hold
from ace_counterfactuals.core.runs.recording import draw_pictures, make_record
from ace_counterfactuals.core.runs.records import Record
from ace_counterfactuals.core.runs.runlog import RunLog
from ace_counterfactuals.core.runs.setup import (
    Networks,
    align_classes,
    check,
    check_labels,
    load_networks,
    open_images,
    select_images,
    task_of,
)
from ace_counterfactuals.core.runs.signals import patient, stop_if_asked


@dataclass(frozen=True)
class Method:
    """explain: decoded pictures -> what was found; draw: what to store of the i-th of these."""

    explain: Callable[[list[Sample]], Explanation]
    draw: Callable[[Explanation, int], Pictures]


QUIET = 300.0  # seconds between two lines of progress where there is no terminal
DECODED = 16  # finished pictures that are compared with those of the data folder


def run(config: MainConfig) -> ResultFolder:
    """Explain what is not finished yet, and write tables over all that is. Returns the result folder.

    Raises ValueError for what the user can mend: flags, files, data.
    """
    check(config)
    results = ResultFolder(Path(config.output.output_path), config.output.exp_name)
    if results.refined:
        raise UserError(
            f"--exp_name {config.output.exp_name}: is a name of postprocessing.py's folders; choose another"
        )
    images = open_images(config)
    if config.run.merge_chunks:
        return merge(config, results, images)
    networks = load_networks(config, images.query)
    classes = networks.classifier.class_names
    config, images = align_classes(config, images, classes)
    check_labels(config, images, networks.classifier.num_outputs)
    selected = select_images(images, config)
    region = load_region(config, selected)
    begin(config, results, describe(config, images.class_names or classes))
    total = len(select_images(images, config, all_chunks=True))
    finish(config, results, selected, total, explaining(config, networks, region))
    return results


def begin(config: MainConfig, results: ResultFolder, described: dict) -> None:
    """Make the result folder, anew if the flags say so, or check that it was made as ``described``."""
    anew, chunk, chunks = wants_anew(config), config.run.chunk, config.run.chunks
    check_folder(results, described, anew=anew and chunks == 1)
    if (anew and chunks == 1) or (results.root / CLEARING).exists():
        begin_anew(results)
    elif anew:
        with hold(results.log, chunk, chunks):
            for path in results.record_paths():
                if int(path.stem) % chunks == chunk:
                    results.forget(int(path.stem))
    make_folder(results, described)


def finish(config: MainConfig, results: ResultFolder, selected: ImageSet, total: int, method: Method) -> None:
    """Explain what is not finished of the selected pictures, in a folder that exists, and write its tables.

    total: pictures of all chunks.
    """
    config = first_batch_size(config, results)
    told = {"pictures": len(selected), "selected": total, "flags": to_dict(config)}
    with hold(results.log, config.run.chunk, config.run.chunks) as lock, RunLog(results.log, told) as log:
        atomic.remove_strays(results.folders())
        finished, _ = results.read_whole()
        refuse_other_pictures(results, config, selected, finished)
        positions = [i for i, entry in enumerate(selected.records) if entry.index not in finished]
        if len(positions) < len(selected):
            notice(f"{len(selected) - len(positions)} of {len(selected)} pictures are finished already; continuing")
        try:
            with patient():
                explain_all(config, results, selected, positions, method, lock, log)
        finally:
            write_tables(config, results, {entry.index for entry in selected.records})


def refuse_other_pictures(
    results: ResultFolder, config: MainConfig, images: ImageSet, finished: dict[int, Record]
) -> None:
    """An experiment holds the pictures of one data set: what is finished must bear the same names, and a few of them,
    spread over all, must show the same when decoded."""
    known = [i for i, entry in enumerate(images.records) if entry.index in finished]
    for entry in (images.records[i] for i in known):
        if finished[entry.index].file != file_name(config, entry.path):
            raise UserError(
                f"{results.root} was made with other pictures: {entry.index:07d} is {finished[entry.index].file} there "
                f"and {file_name(config, entry.path)} in --data_dir {config.data.data_dir}; choose another --exp_name"
            )
    for sample in prefetch(images, known[:: -(-len(known) // DECODED) or 1], config.run.num_workers):
        stored = finished[sample.index].pixels
        if isinstance(sample, Sample) and stored and stored != fingerprint(to_pil(sample.image)):
            raise UserError(
                f"{results.root} was made with other pictures: {finished[sample.index].file} in --data_dir "
                f"{config.data.data_dir} has other pixels than the one that was explained; choose another --exp_name"
            )


def file_name(config: MainConfig, path: Path) -> str:
    """A picture's path below the data folder."""
    return Path(os.path.relpath(path, Path(config.data.data_dir).expanduser())).as_posix()


def load_region(config: MainConfig, images: ImageSet) -> Region | None:
    """Where the pictures may change; None: everywhere.  Raises UserError for a picture that cannot."""
    region = open_region(config.region.region, invert=config.region.region_invert)
    samples = prefetch(images, range(len(images)), 0) if region else ()
    first = next((sample for sample in samples if isinstance(sample, Sample)), None)
    if first is not None:
        region.check([file_name(config, entry.path) for entry in images.records], *first.image.shape[1:])
    return region


def merge(config: MainConfig, results: ResultFolder, images: ImageSet) -> ResultFolder:
    """Write the tables of the whole experiment from what its chunks finished; refuse if pictures are missing."""
    stored = read_config(results.root)
    config, images = align_classes(config, images, stored_classes(results))
    refuse_other_flags(results, stored, to_dict(config))
    selected = select_images(images, config, all_chunks=True)
    finished, skipped = results.read_whole()
    refuse_other_pictures(results, config, selected, finished)
    merge_tables(config, results, finished, skipped, [entry.index for entry in selected.records])
    return results


def merge_tables(
    config: MainConfig, results: ResultFolder, finished: dict[int, Record], skipped: dict[int, dict], indices: list[int]
) -> None:
    """Write the tables over the pictures ``indices``; refuse, naming them, where some are missing."""
    missing = [index for index in indices if index not in finished and index not in skipped]
    if missing:
        names = ", ".join(f"{index:07d}" for index in missing[:10]) + (", ..." if len(missing) > 10 else "")
        raise UserError(
            f"--merge_chunks True: {len(missing)} of {len(indices)} pictures are missing in {results.root}: {names}; "
            f"{lacking_chunks(config.run.chunks, missing)}"
        )
    records = [finished[index] for index in indices if index in finished]
    if records:
        write_tables_of(config, results, records, skipped=len(indices) - len(records))


def lacking_chunks(chunks: int, missing: list[int]) -> str:
    """What to run for the pictures that are missing."""
    if chunks == 1:
        return "run the chunks that hold them (index % chunks == chunk)"
    parts = ", ".join(str(chunk) for chunk in sorted({index % chunks for index in missing}))
    return f"run --chunks {chunks} with --chunk {parts}"


def explaining(config: MainConfig, networks: Networks, region: Region | None) -> Method:
    """``explain`` as the flags say."""
    task = task_of(config, networks)

    def explain_samples(samples: list[Sample]) -> Explanation:
        image = torch.stack([sample.image for sample in samples]).to(networks.device)
        return explain(
            image,
            task,
            label=torch.tensor([sample.label for sample in samples], device=networks.device),
            indices=[sample.index for sample in samples],
            region=region and region.masks([file_name(config, sample.path) for sample in samples], image),
        )

    inpaint = config.sampling.sampling_inpaint if config.output.save_float else None
    return Method(explain_samples, partial(draw_pictures, inpaint=inpaint))


def explain_all(
    config: MainConfig,
    results: ResultFolder,
    images: Sequence[Sample],
    positions: list[int],
    method: Method,
    lock: Lock,
    log: RunLog,
) -> None:
    """Explain the pictures at ``positions`` and write each as soon as its batch is done."""
    done, flips, told = 0, 0, time.monotonic()
    with Progress(total=len(positions), unit="img", disable=None, file=sys.stderr) as progress:
        for batch in batches(config, results, images, positions):
            started = time.perf_counter()
            for record in explain_batch(config, results, batch, method, lock):
                done, flips = done + 1, flips + record.outcomes["explanation"].success
            log.timed([sample.index for sample in batch], (time.perf_counter() - started) / len(batch))
            progress.set_postfix_str(f"{flips} of {done} flipped", refresh=False)
            progress.update(len(batch))
            if progress.disable and time.monotonic() - told >= QUIET:
                told = time.monotonic()
                notice(f"{done} of {len(positions)} pictures done, {flips} flipped")
            stop_if_asked()


class Progress(tqdm):
    """A progress bar that counts pictures a minute."""

    def __init__(self, *args, **kwargs):
        bar = "{n_fmt}/{total_fmt} images |{bar}| {per_minute} images/min, {remaining} left{postfix}"
        super().__init__(*args, bar_format=bar, **kwargs)

    @property
    def format_dict(self) -> dict:
        values = super().format_dict
        rate = values["n"] / values["elapsed"] * 60 if values["elapsed"] else 0.0
        return {**values, "per_minute": f"{rate:.1f}"}


def batches(
    config: MainConfig, results: ResultFolder, images: Sequence[Sample], positions: list[int]
) -> Iterator[list[Sample]]:
    """Readable pictures in batches; an unreadable one is named, remembered and passed over."""
    batch: list[Sample] = []
    for sample in prefetch(images, positions, config.run.num_workers):
        if isinstance(sample, UnreadableImage):
            notice(f"skipped: {sample}")
            results.write_skipped(sample.index, str(sample.path), sample.reason)
            continue
        batch.append(sample)
        if len(batch) == config.run.batch_size:
            yield batch
            batch = []
    if batch:
        yield batch


def explain_batch(
    config: MainConfig, results: ResultFolder, batch: list[Sample], method: Method, lock: Lock
) -> list[Record]:
    """Explain and write one batch. With ``--cudnn_deterministic`` it is padded, since kernels may go by its size."""
    count = len(batch)
    padded = batch + [batch[-1]] * (config.run.batch_size - count if config.run.cudnn_deterministic else 0)
    try:
        explanation = method.explain(padded)
    except torch.OutOfMemoryError:
        advice = "choose a smaller --batch_size, or --attack_joint_checkpoint True"
        raise UserError(f"the device has too little memory for {len(padded)} pictures: {advice}") from None
    lock.check()
    records = []
    for i, sample in enumerate(batch):
        file = file_name(config, sample.path)
        record = make_record(explanation, i, index=sample.index, file=file, label=sample.label)
        results.write(record, method.draw(explanation, i) if config.output.save_images else None)
        records.append(record)
    return records
