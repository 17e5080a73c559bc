"""An experiment's folder as a whole: what it was made with (config.yaml), its tables, and merging its chunks."""

import os
import sys
from collections.abc import Container, Mapping, Sequence
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from itertools import chain
from pathlib import Path
from typing import Any

import yaml

from ace_counterfactuals.core.base import atomic
from ace_counterfactuals.core.base.notices import notice
from ace_counterfactuals.core.base.settings import UserError, flag_items, to_dict
from ace_counterfactuals.core.data.regions import region_digest
from ace_counterfactuals.core.runs.config import MainConfig
from ace_counterfactuals.core.runs.layout import REFINED, ResultFolder
from ace_counterfactuals.core.runs.locks import hold
from ace_counterfactuals.core.runs.records import KINDS, Record, summarise
from ace_counterfactuals.core.runs.sheet import draw_sheet
from ace_counterfactuals.models.loading import digest

CONFIG = "config.yaml"
WEIGHTS = ("model_path", "classifier_path")
CLEARING = "log/clearing"  # there from the first to the last file that begin_anew removes
DERIVED = (REFINED, "sweep.", "evaluation")  # how the names of what other programs made begin
RESTARTS = ("SLURM_RESTART_COUNT", "TORCHELASTIC_RESTART_COUNT")


def check_folder(results: ResultFolder, described: dict, *, anew: bool = False) -> None:
    """Refuse a folder that was made by another program or, unless it begins ``anew``, with other settings.

    Changes nothing.
    """
    outer = [results.output / "Results" / name for name in Path(results.exp_name).parents]
    if not results.refined and (around := next((path for path in outer if (path / CONFIG).exists()), None)):
        raise UserError(f"--exp_name {results.exp_name}: lies in the experiment {around}; choose a name beside it")
    if (results.root / CLEARING).exists():
        return  # somebody began anew, and did not come to the end of what was there
    if (results.root / CONFIG).exists():
        if not anew:
            refuse_other_settings(results, read_config(results.root), described)
    elif there := next(chain(results.own_files(), results.strangers()), None):
        raise UserError(
            f"{results.root} holds {there.relative_to(results.root)} but no {CONFIG}: it was not made by main.py, or "
            "is half deleted, and cannot be continued (evaluate.py reads it); choose another --exp_name"
        )


def begin_anew(results: ResultFolder) -> None:
    """Remove what the experiment holds, the log apart.  If this is cut short, the next run goes on with it."""
    with hold(results.log):
        atomic.write_bytes(results.root / CLEARING, b"")
        for path in (*results.own_files(), *results.tables(), results.root / CONFIG):
            path.unlink(missing_ok=True)
        (results.root / CLEARING).unlink()
    if left := sorted(path.name for path in results.root.iterdir() if path.name.startswith(DERIVED)):
        notice(f"{results.root}: {', '.join(left)}: made from what is overwritten, and left; delete or make it anew")


def wants_anew(config: MainConfig) -> bool:
    """--overwrite, which a restarted job must not obey: it would throw away what it did before."""
    restarts = [name for name in RESTARTS if os.environ.get(name, "0") not in ("", "0")]
    if config.run.overwrite and restarts:
        notice(f"--overwrite True is ignored: this job was restarted ({restarts[0]}) and goes on with what it has")
    return config.run.overwrite and not restarts


def make_folder(results: ResultFolder, described: dict) -> None:
    """Create the result folder, or check that what is in it was made as ``described``."""
    check_folder(results, described)
    results.create()
    if not atomic.write_once(results.root / CONFIG, atomic.to_yaml(described).encode()):
        refuse_other_settings(results, read_config(results.root), described)  # another process may have been first


def read_config(root: Path) -> dict:
    """What config.yaml of an experiment's folder holds.  Raises UserError if it is not there or not ours."""
    path = root / CONFIG
    try:
        stored = yaml.safe_load(path.read_text())
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; run main.py with this --output_path and --exp_name first") from None
    except yaml.YAMLError as error:
        raise UserError(f"{path}: is not YAML ({error})") from None
    if not isinstance(stored, dict) or not {"flags", "weights"} <= stored.keys():
        raise UserError(f"{path}: has no flags and weights; it was not written by main.py")
    return stored


def stored_classes(results: ResultFolder) -> tuple[str, ...] | None:
    """The names of the classifier's outputs that the experiment was made with, if they are known."""
    classes = read_config(results.root).get("classes")
    return tuple(classes) if classes else None


def refuse_other_settings(results: ResultFolder, stored: dict, described: dict) -> None:
    """A picture's result must not depend on when its folder was continued."""
    other = [
        f"--{name} is another file" for name, sha in described["weights"].items() if stored["weights"].get(name) != sha
    ]
    refuse_other_flags(results, stored, described["flags"], other)


def refuse_other_flags(results: ResultFolder, stored: dict, flags: dict, others: Sequence[str] = ()) -> None:
    """The same of the flags alone, and of ``others`` that are known to differ.

    A flag that config.yaml does not name is younger than the experiment, which was made as by its default.
    """
    there = {
        name: stored["flags"].get(name, item.default)
        for name, item in flag_items(MainConfig).items()
        if item.metadata["result"]
    }
    differences = [f"--{name} {flags[name]} (there: {old!r})" for name, old in there.items() if old != flags[name]]
    if differences := [*differences, *others]:
        raise UserError(
            f"{results.root} was made with other settings: {'; '.join(differences)}; "
            "choose another --exp_name, or --overwrite True to start anew"
        )


def describe(config: MainConfig, classes: Sequence[str] | None, digests: Mapping[str, str] | None = None) -> dict:
    """What config.yaml holds: what results depend on, where it came from, and the names of the classifier's outputs.

    Two runs of one experiment describe it alike, however the work is split or computed.
    digests: of the weights by flag, where they are known already.
    """
    packages = ("ace-counterfactuals", "torch", "torchvision", "numpy", "pillow")
    return {
        "flags": described_flags(to_dict(config)),
        "versions": {"python": sys.version.split()[0], **{name: package_version(name) for name in packages}},
        "weights": weight_digests(config) if digests is None else dict(digests),
        "classes": list(classes) if classes else None,
        **({"batch_size": config.run.batch_size} if config.run.cudnn_deterministic else {}),
    }


def described_flags(flags: Mapping[str, Any]) -> dict[str, Any]:
    """What results depend on, and the paths of data and weights: neither where nor in which parts it is computed."""
    kept = {name for name, item in flag_items(MainConfig).items() if item.metadata["result"]} | {"data_dir", *WEIGHTS}
    return {name: value for name, value in flags.items() if name in kept}


def weight_digests(config: MainConfig) -> dict[str, str]:
    """Flag -> digest of the file that it names, of the weights and of the region."""
    digests = {name: digest(path) for name in WEIGHTS if (path := getattr(config.weights, name))}
    digests["region"] = region_digest(config.region.region)
    return {name: f"sha256:{sha}" for name, sha in digests.items() if sha}


def first_batch_size(config: MainConfig, results: ResultFolder) -> MainConfig:
    """With --cudnn_deterministic True bytes go by the shape of a batch, so that the experiment's first one is kept."""
    first = read_config(results.root).get("batch_size", config.run.batch_size)
    if not config.run.cudnn_deterministic or first == config.run.batch_size:
        return config
    notice(
        f"--batch_size {config.run.batch_size} is taken as {first}, with which {results.root} began, for equal bytes"
    )
    return replace(config, run=replace(config.run, batch_size=first))


def package_version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def chunk_name(config: MainConfig, name: str) -> str:
    run_ = config.run
    return name if run_.chunks == 1 or run_.merge_chunks else f"c-{run_.chunk}_{run_.chunks}-{name}"


def write_tables(config: MainConfig, results: ResultFolder, indices: Container[int]) -> None:
    """summary.yaml, results.csv and sheet.png over the finished pictures among ``indices``, if there are any."""
    finished, skipped = results.read()
    records = [record for index, record in finished.items() if index in indices]
    if records:
        write_tables_of(config, results, records, skipped=sum(index in indices for index in skipped))


def write_tables_of(config: MainConfig, results: ResultFolder, records: list[Record], *, skipped: int) -> None:
    """The same over these records, with the number of pictures that could not be read."""
    summary = summary_of(records, skipped=skipped, flags=to_dict(config))
    atomic.write_yaml(results.root / chunk_name(config, "summary.yaml"), summary)
    rows = [record.row() for record in records]
    atomic.write_csv(results.root / chunk_name(config, "results.csv"), rows, list(rows[0]))
    if config.output.save_images:
        draw_sheet(results, records, stored_classes(results), results.root / chunk_name(config, "sheet.png"))


def summary_of(records: Sequence[Record], *, skipped: int, flags: Mapping[str, Any]) -> dict:
    """What summary.yaml holds.  flags: of the run; those that config.yaml holds will do."""
    summary = summarise(records, skipped=skipped)
    if region := flags.get("region"):
        where = ("everywhere but " if flags["region_invert"] else "") + region
        summary["region"] = {"where": where, "flip rate": summary["explanation"]["cf"]}
    return summary


def summary_table(summary: dict) -> str:
    """The summary for a terminal."""
    lines = [f"{'':<17}{'n':>6}{'accuracy':>10}{'flip rate':>11}{'l1':>8}{'l_inf':>8}"]
    accuracy = "unknown" if summary["clean acc"] is None else f"{summary['clean acc']:.3f}"
    for kind in KINDS:
        figures = summary[kind]
        lines.append(
            f"{kind:<17}{summary['n']:>6}{accuracy:>10}{figures['cf']:>11.3f}"
            f"{figures['l1']:>8.4f}{figures['l inf']:>8.3f}"
        )
    if summary["skipped"]:
        lines.append(f"skipped: {summary['skipped']}")
    if "region" in summary:
        lines.append("flip rate {flip rate:.3f} where this may change: {where}".format(**summary["region"]))
    return "\n".join(lines)
