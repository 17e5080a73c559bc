"""An experiment that is there, opened: its settings, its records, its pictures in pairs, and what it lacks.

It may be of main.py (``EXP``), of postprocessing.py (``EXP/all_filtered_...``), or of the original program, which keeps
neither settings nor records.
"""

from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from ace_counterfactuals.core.base.notices import notice
from ace_counterfactuals.core.data.folders import first, picture_names
from ace_counterfactuals.core.runs.described import CONFIG, read_config
from ace_counterfactuals.core.runs.layout import FOLDERS, TABLE, ResultFolder, no_such_experiment
from ace_counterfactuals.core.runs.records import KINDS, Record, read_info
from ace_counterfactuals.core.runs.status import selected_pictures
from ace_counterfactuals.core.runs.tables import read_summary


@dataclass(frozen=True)
class Pair:
    """A stored original and what was made of it. name: of both files; folder: such as CC/CCF."""

    name: str
    folder: str
    original: Path
    counterfactual: Path

    @property
    def info(self) -> Path:
        """The Info file of the counterfactual."""
        return (self.counterfactual.parents[1] / "Info" / self.name).with_suffix(".txt")

    def read_info(self) -> dict[str, float]:
        """What it says (see ``records.read_info``)."""
        return read_info(self.info)


@dataclass(frozen=True)
class StoredExperiment:
    """The pictures of one kind in a result folder, with all that is known of them.

    results: the folder of its settings and records.  root: the folder that holds CC and IC.  name: its path below
    Results, such as exp/explanation.  kind: a key of the records' outcomes.  pairs: in the order of their names.
    records: of the finished pictures, by file name; {} if there are none.  settings: what config.yaml holds, of what
    was refined, else of the run; {} without one.  problems: what is missing or wrong, one line each.
    """

    results: ResultFolder
    root: Path
    name: str
    kind: str
    pairs: tuple[Pair, ...]
    records: dict[str, Record] = field(default_factory=dict)
    settings: dict = field(default_factory=dict)
    problems: tuple[str, ...] = ()

    @cached_property
    def by_name(self) -> dict[str, Pair]:
        return {pair.name: pair for pair in self.pairs}

    @property
    def flags(self) -> dict:
        return self.settings.get("flags", {})


def open_experiment(output: Path, exp_name: str) -> StoredExperiment:
    """All of an experiment but its pictures' content.  Raises ValueError if there is none, and as ``read_pairs``."""
    root = find_experiment(output, exp_name)
    name = root.relative_to(output / "Results").as_posix()
    inner = root.name in KINDS
    results = ResultFolder(output, name.rpartition("/")[0] if inner else name)
    kind = root.name if inner else "explanation"
    pairs = tuple(read_pairs(output, name))
    finished, skipped = results.read()
    records = {f"{index:07d}.png": record for index, record in finished.items()}
    odd = lacking_records(records, kind, pairs) if records else unexplained(output, pairs)
    problems = (*odd, *unfinished(results, len(finished) + len(skipped)))
    return StoredExperiment(results, root, name, kind, pairs, records, read_settings(results.root), problems)


def find_experiment(output: Path, exp_name: str) -> Path:
    """The folder that holds CC and IC: ``Results/EXP``, or ``Results/EXP/explanation`` where that holds them.

    Raises ValueError naming the experiments that are there.
    """
    root = output / "Results" / exp_name
    for place in (root, root / "explanation"):
        if any((place / folder).is_dir() for folder in FOLDERS):
            if place != root:
                notice(f"exp_name {exp_name} is read as {exp_name}/explanation")
            return place
    raise no_such_experiment(output, exp_name)


def read_pairs(output: Path, exp_name: str, folders: Collection[str] = FOLDERS) -> list[Pair]:
    """The pairs of an experiment that lie in ``folders``, by name; no file is opened.

    Raises ValueError for counterfactuals whose original is missing, and for names that are in two folders.
    """
    root = find_experiment(output, exp_name)
    stored = stored_originals(output)
    pairs: dict[str, Pair] = {}
    orphans = []
    for folder in FOLDERS:
        own, other = ("Correct", "Incorrect") if folder.startswith("CC") else ("Incorrect", "Correct")
        for name, counterfactual in pictures_in(root / folder / "CF").items():
            original = stored[own].get(name) or stored[other].get(name)  # another classifier moves it
            if original is None:
                orphans.append(f"{folder}/CF/{name}")
            elif name in pairs:
                both = f"{pairs[name].folder} and {folder}"
                raise ValueError(f"{root}: {name} is in both {both}, one of them left by an earlier run; delete it")
            else:
                pairs[name] = Pair(name, folder, original, counterfactual)
    if orphans:
        lacking = f"{len(orphans)} counterfactuals have no original in {output / 'Original'}"
        raise ValueError(f"{root}: {lacking}: {first(orphans, 5)}")
    return [pair for _, pair in sorted(pairs.items()) if pair.folder in folders]


def stored_originals(output: Path) -> dict[str, dict[str, Path]]:
    """Correct and Incorrect -> name -> path."""
    return {name: pictures_in(output / "Original" / name) for name in ("Correct", "Incorrect")}


def pictures_in(folder: Path) -> dict[str, Path]:
    """Name -> path, by name; {} if there is no such folder."""
    return {name: folder / name for name in picture_names(folder)} if folder.is_dir() else {}


def read_settings(root: Path) -> dict:
    """config.yaml of a run, or, for what was refined by a version that wrote none, of the run above it."""
    return next((read_config(folder) for folder in (root, root.parent) if (folder / CONFIG).exists()), {})


def lacking_records(records: dict[str, Record], kind: str, pairs: Sequence[Pair]) -> Iterator[str]:
    """Where the records of the finished pictures and the folders say different things."""
    there = {pair.name: pair for pair in pairs}
    for name, record in records.items():
        folder = record.folder(kind)
        if name not in there:
            yield f"{name} is recorded as finished, but {folder}/CF/{name} is missing"
        elif there[name].folder != folder:
            yield f"{name} is recorded as {folder}, but lies in {there[name].folder}"
    yield from (f"{pair.folder}/CF/{name} has no record" for name, pair in there.items() if name not in records)


def unfinished(results: ResultFolder, done: int) -> Iterator[str]:
    """Chunks without a summary, and fewer pictures ``done`` than the run selected."""
    tables = [TABLE.fullmatch(path.name).groups() for path in results.tables()]
    ran = {(chunk, chunks) for chunk, chunks, name in tables if name == "summary.yaml"}
    if len({chunks for _, chunks in ran}) == 1 and (None, None) not in ran:
        count = int(max(ran)[1])
        if missing := [str(chunk) for chunk in range(count) if (str(chunk), str(count)) not in ran]:
            yield f"of its {count} chunks, {', '.join(missing)} did not run"
    selected = selected_pictures(results.log)
    if not selected:
        with suppress(OSError, ValueError):
            selected = int(read_summary(results.root / "summary.yaml")["n"])
    if done and selected > done:
        yield f"{selected} pictures were selected, and {done} are finished"


def unexplained(output: Path, pairs: Sequence[Pair]) -> Iterator[str]:
    """Originals without a counterfactual: where there are no records, nothing else tells what was to be explained."""
    there = {pair.name for pair in pairs}
    for side, names in stored_originals(output).items():
        yield from (f"Original/{side}/{name} has no counterfactual" for name in names if name not in there)
