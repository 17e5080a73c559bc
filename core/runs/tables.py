"""The tables of an experiment or of a chunk: summary.yaml, results.csv and sheet.png, and gathering those of chunks."""

import csv
import io
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar

from ace_counterfactuals.core.base import atomic
from ace_counterfactuals.core.base.cells import from_cell
from ace_counterfactuals.core.base.notices import notice
from ace_counterfactuals.core.base.reading import read_text, read_yaml
from ace_counterfactuals.core.base.schema import Count, checked
from ace_counterfactuals.core.base.settings import FlagError, to_dict
from ace_counterfactuals.core.data.folders import first
from ace_counterfactuals.core.runs.config import MainConfig
from ace_counterfactuals.core.runs.described import read_config
from ace_counterfactuals.core.runs.layout import ResultFolder
from ace_counterfactuals.core.runs.records import KINDS, WEAK, Record
from ace_counterfactuals.core.runs.sheet import LIMIT, draw_sheet

LARGEST_TABLE = 2**26  # bytes of results.csv: some 300,000 pictures
Share = Annotated[float, 0, 1]


def chunk_name(config: MainConfig, name: str) -> str:
    """A table's name: of the whole, or of one chunk of several."""
    run = config.run
    return name if run.chunks == 1 or run.merge_chunks else f"c-{run.chunk}_{run.chunks}-{name}"


def write_tables(
    config: MainConfig,
    results: ResultFolder,
    indices: Collection[int],
    finished: Mapping[int, Record],
    skipped: Collection[int],
) -> None:
    """Write the tables over the finished pictures among ``indices``, if there are any.

    finished, skipped: as ``results.read`` gives them.  Raises FlagError where chunks are merged and some of the
    pictures are neither.
    """
    if config.run.merge_chunks:
        refuse_missing(config, results, sorted({*indices} - {*finished} - {*skipped}), len(indices))
    records = [record for index, record in finished.items() if index in indices]
    if not records:
        return
    summary = summarise(records, skipped=sum(index in skipped for index in indices), flags=to_dict(config))
    atomic.write_yaml(results.root / chunk_name(config, "summary.yaml"), summary)
    rows = [record.row() for record in records]
    atomic.write_csv(results.root / chunk_name(config, "results.csv"), rows, list(rows[0]))
    if config.output.save_images:
        classes = read_config(results.root).get("classes")
        draw_sheet(results, records, classes, results.root / chunk_name(config, "sheet.png"))


def growing_sheet(
    config: MainConfig, results: ResultFolder, finished: list[Record]
) -> Callable[[Sequence[Record]], None]:
    """A function that takes what is written, after what was finished, and draws the first pictures of an experiment
    that has no tables yet: whenever they are twice as many."""
    path, shown, drawn = results.root / chunk_name(config, "sheet.png"), finished, 0
    classes = read_config(results.root).get("classes")

    def show(records: Sequence[Record]) -> None:
        nonlocal drawn
        shown.extend(records)
        if drawn < LIMIT and len(shown) >= 2 * drawn:
            draw_sheet(results, shown, classes, path)
            drawn = len(shown)

    if not config.output.save_images or path.with_name(chunk_name(config, "results.csv")).exists():
        return lambda records: None
    notice(f"the first counterfactuals, as they are done: {path}")
    return show


def refuse_missing(config: MainConfig, results: ResultFolder, missing: Sequence[int], wanted: int) -> None:
    """Raises FlagError, saying which chunks to run, for pictures that are missing of those wanted."""
    if not missing:
        return
    names = first((f"{index:07d}" for index in missing), 10)
    chunks, run = config.run.chunks, "the chunks that hold them (index % chunks == chunk)"
    if chunks > 1:
        run = f"chunk {', '.join(map(str, sorted({index % chunks for index in missing})))} of {chunks}"
    lacking = f"{len(missing)} of {wanted} pictures are missing in {results.root}: {names}"
    raise FlagError("merge_chunks", f"True: {lacking}; run {run}")


def summarise(records: Sequence[Record], *, skipped: int, flags: Mapping[str, Any]) -> dict:
    """Means over all n pictures, the accuracy over those whose label is known.

    weak flips: how many of the counterfactuals' are, where there are any.
    cf: the flip rate; untargeted: the share whose prediction changed; 5: among the five likeliest classes.
    flags: of the run; those that config.yaml holds will do.
    """
    known = [record for record in records if record.label >= 0]
    summary: dict[str, Any] = {
        "n": len(records),
        "clean acc": mean(record.correct for record in known),
        "clean acc5": mean(record.correct5 for record in known),
    }
    fields = {"cf": "success", "cf5": "success5", "untargeted": "changed", "untargeted5": "changed5"}
    fields |= {"l1": "l1", "l inf": "l_inf"}
    for kind in reversed(KINDS):
        outcomes = [record.outcomes[kind] for record in records]
        summary[kind] = {shown: mean(getattr(outcome, name) for outcome in outcomes) for shown, name in fields.items()}
    summary["skipped"] = skipped
    if weak := sum(record.outcomes["explanation"].weak for record in records):
        summary["weak flips"] = weak
    if region := flags.get("region"):
        where = ("everywhere but " if flags["region_invert"] else "") + region
        summary["region"] = {"where": where, "flip rate": summary["explanation"]["cf"]}
    return summary


def mean(values: Iterable[float]) -> float | None:
    """None of nothing."""
    values = list(values)
    return sum(values) / len(values) if values else None


def summary_table(summary: dict) -> str:
    """The summary for a terminal."""
    lines = [f"{'':<17}{'n':>6}{'accuracy':>10}{'flip rate':>11}{'l1':>8}{'l_inf':>8}"]
    accuracy = "unknown" if summary["clean acc"] is None else f"{summary['clean acc']:.3f}"
    for kind in KINDS:
        means = summary[kind]
        distances = f"{means['l1']:>8.4f}{means['l inf']:>8.3f}"
        lines.append(f"{kind:<17}{summary['n']:>6}{accuracy:>10}{means['cf']:>11.3f}{distances}")
    if summary["skipped"]:
        lines.append(f"skipped: {summary['skipped']}")
    if weak := summary.get("weak flips"):
        lines.append(f"weak flips, to under {WEAK:.0%}: {weak}")
    if "region" in summary:
        lines.append("flip rate {flip rate:.3f} where this may change: {where}".format(**summary["region"]))
    return "\n".join(lines)


def key(name: str, **default: Any) -> Any:
    """A field that has this name in its file."""
    return field(metadata={"key": name}, **default)


@dataclass(frozen=True)
class Means:
    """Of one kind of pictures, as far as they are read."""

    OPEN: ClassVar = True
    cf: Share
    l1: float
    l_inf: float = key("l inf")


@dataclass(frozen=True)
class Region:
    """The flip rate where this may change."""

    where: str
    flip_rate: Share = key("flip rate")


@dataclass(frozen=True)
class Summary:
    """What summary.yaml holds, as far as it is read."""

    OPEN: ClassVar = True
    n: Annotated[int, 1, 2**53]
    skipped: Count
    explanation: Means
    pre_explanation: Means = key("pre-explanation")
    clean_acc: Share | None = key("clean acc")
    region: Region | None = None
    weak_flips: Count = key("weak flips", default=0)


def read_summary(path: Path) -> dict:
    """The statistics of an experiment or of a chunk (see ``summarise``).  Raises OSError too."""
    summary = read_yaml(path)
    checked(Summary, summary, path)
    return summary


def read_table(path: Path, *wanted: str) -> Iterator[dict[str, str]]:
    """The rows of results.csv as text, one by one, which have the ``wanted`` columns.  Raises OSError too."""
    rows = csv.DictReader(io.StringIO(read_text(path, LARGEST_TABLE), newline=""))
    try:
        for row in rows:
            if None in row or None in row.values() or not row.keys() >= {*wanted}:
                columns = f"all columns, among them {', '.join(wanted)}"
                raise ValueError(f"{path}: line {rows.line_num}: wanted values of {columns}")
            yield {name: from_cell(text) for name, text in row.items()}
    except csv.Error as error:
        raise ValueError(f"{path}: is not CSV ({error})") from None
