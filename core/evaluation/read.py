"""An experiment's folder with all that is known of it: pairs, records, settings, and what keeps it from being whole."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import yaml

from ace_counterfactuals.core.base.settings import UserError
from ace_counterfactuals.core.data.folders import picture_names
from ace_counterfactuals.core.runs.experiment import CONFIG, read_config
from ace_counterfactuals.core.runs.layout import FOLDERS, REFINED, ResultFolder
from ace_counterfactuals.core.runs.records import KINDS, Record
from ace_counterfactuals.core.runs.results import Pair, find_experiment, picture_size, read_pairs, stored_originals
from ace_counterfactuals.core.runs.status import latest_selection, read_logs

LISTED = 5
CHUNK = re.compile(r"c-(\d+)_(\d+)-summary\.yaml")
MEND = "scripts/verify-results.py and then the run's command mend it"


@dataclass(frozen=True)
class Source:
    """name: such as exp/explanation; root: the folder that holds CC and IC; kind: key of the records' outcomes.

    records: by file name, of the finished pictures; settings: what config.yaml holds, {} without one.
    problems: what is missing or wrong; where it concerns a pair, this is left out of ``pairs``.
    """

    name: str
    root: Path
    pairs: tuple[Pair, ...]
    kind: str
    records: dict[str, Record]
    settings: dict
    problems: tuple[str, ...] = ()

    @cached_property
    def by_name(self) -> dict[str, Pair]:
        return {pair.name: pair for pair in self.pairs}

    @property
    def flags(self) -> dict:
        return self.settings.get("flags", {})

    @property
    def place(self) -> Path:
        """Where its evaluation goes: beside the folders of main.py, else into its own folder."""
        return (self.root.parent if self.root.name == "explanation" else self.root) / "evaluation"


def open_source(output: Path, exp_name: str, *, allow_partial: bool) -> Source:
    """Raises UserError with a list where the experiment is not whole, unless ``allow_partial``."""
    root = find_experiment(output, exp_name)
    name = root.relative_to(output / "Results").as_posix()
    run = root.parent if root.name in KINDS else root
    records, skipped = read_records(output, run)
    pairs = read_pairs(output, name)
    odd = odd_sizes(pairs)
    problems = (*lacking_records(records, root, pairs), *unfinished(run, len(records) + skipped), *odd.values())
    if not records:
        problems = (*unexplained(output, pairs), *problems)
    if problems and not allow_partial:
        raise UserError(
            f"--exp-name {name} is not whole: {shortened(problems)}; "
            f"{MEND}; or evaluate what is there with --allow-partial True"
        )
    whole = tuple(pair for pair in pairs if pair.name not in odd)
    return Source(name, root, whole, root.name, records, read_settings(run), tuple(problems))


def shortened(problems: tuple[str, ...]) -> str:
    more = f"; and {len(problems) - LISTED} more" if len(problems) > LISTED else ""
    return "; ".join(problems[:LISTED]) + more


def read_records(output: Path, run: Path) -> tuple[dict[str, Record], int]:
    """Records by file name, and the number of pictures of the data set that could not be read."""
    if not (run / "records").is_dir():
        return {}, 0
    finished, skipped = ResultFolder(output, run.relative_to(output / "Results").as_posix()).read()
    return {f"{index:07d}.png": record for index, record in finished.items()}, len(skipped)


def read_settings(run: Path) -> dict:
    """config.yaml of the run, or, for what was refined again, of the run above it."""
    for folder in (run, run.parent):
        if (folder / CONFIG).exists():
            return read_config(folder)
    return {}


def outcome_kind(record: Record, kind: str) -> str:
    """What was refined again is an explanation, whatever its folder is called."""
    return kind if kind in record.outcomes else "explanation"


def lacking_records(records: dict[str, Record], root: Path, pairs: list[Pair]) -> Iterator[str]:
    """What the records of the finished pictures and the folders say otherwise."""
    there = {pair.name: pair for pair in pairs}
    for name, record in records.items():
        folder = record.folder(outcome_kind(record, root.name))
        if name not in there:
            yield f"{name} is recorded as finished, but {folder}/CF/{name} is missing"
        elif there[name].folder != folder:
            yield f"{name} is recorded as {folder}, but lies in {there[name].folder}"
    if records:
        yield from (f"{pair.folder}/CF/{name} has no record" for name, pair in there.items() if name not in records)


def unfinished(run: Path, done: int) -> Iterator[str]:
    """Chunks without a summary, and a number of pictures that is not what the run selected."""
    chunks = {(int(m[1]), int(m[2])) for path in run.glob("c-*-summary.yaml") if (m := CHUNK.fullmatch(path.name))}
    if chunks and not (run / "summary.yaml").exists():
        count = max(chunks)[1] if len({n for _, n in chunks}) == 1 else None
        missing = sorted(set(range(count)) - {chunk for chunk, _ in chunks}) if count else []
        if missing:
            yield f"of its {count} chunks, {', '.join(map(str, missing))} did not run"
    selected = selected_pictures(run)
    if done and selected > done:
        yield f"{selected} pictures were selected, and {done} are finished"


def selected_pictures(run: Path) -> int:
    """How many pictures the latest process of the run was to explain, all chunks together; 0 if unknown."""
    return latest_selection(list(read_logs(run / "log"))) or int(read_yaml(run / "summary.yaml").get("n", 0))


def read_yaml(path: Path) -> dict:
    try:
        values = yaml.safe_load(path.read_text())
    except (OSError, yaml.YAMLError):
        return {}
    return values if isinstance(values, dict) else {}


def unexplained(output: Path, pairs: list[Pair]) -> list[str]:
    """Originals without a counterfactual: where there are no records, nothing else tells what was to be explained."""
    there = {pair.name for pair in pairs}
    stored = [(side, name) for side, files in stored_originals(output).items() for name in files]
    return [f"Original/{side}/{name} has no counterfactual" for side, name in stored if name not in there]


def odd_sizes(pairs: list[Pair]) -> dict[str, str]:
    """Name -> what is wrong, for pairs that are not of the first's size, or are no pictures."""
    odd, wanted = {}, None
    for pair in pairs:
        try:
            sizes = [picture_size(path) for path in (pair.original, pair.counterfactual)]
        except Exception as error:  # a plug-in of Pillow lets through whatever its parser stumbles on
            what = " ".join(str(error).split()) or type(error).__name__
            odd[pair.name] = f"{pair.counterfactual} or its original cannot be read: {what}"
            continue
        wanted = wanted or sizes[0]
        for path, size in zip((pair.original, pair.counterfactual), sizes, strict=True):
            if size != wanted:
                other = f"{wanted[0]} x {wanted[1]}"
                odd[pair.name] = f"{path} is {size[0]} x {size[1]}, others are {other}: not comparable"
    return odd


def companions(source: Source) -> tuple[dict[str, Path], dict[str, Path]]:
    """File name -> pre-explanation, and -> mask, of the pictures that have one."""
    pre = source.root.parent / "pre-explanation"
    before = files_of(pre, "CF") if source.root.name != "pre-explanation" else {}
    kept = source.root.name.startswith(REFINED)  # there, masks are white where nothing changes
    return before, {} if kept else files_of(source.root, "SM")


def files_of(root: Path, content: str) -> dict[str, Path]:
    folders = [root / folder / content for folder in FOLDERS]
    return {name: folder / name for folder in folders if folder.is_dir() for name in picture_names(folder)}
