"""The original's commands of one figure each: their flags, and what they print.

python -m ace_counterfactuals.core.cli.compute FVA --output-path OUT ...; compute_FVA.py and the others call it, too. A
folder is read in place, without config.yaml and records, as the original reads it; nothing is written but ``--json``.
"""

import sys
import tempfile
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import make_dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ace_counterfactuals.core.base import atomic
from ace_counterfactuals.core.base.config import DeviceConfig
from ace_counterfactuals.core.base.notices import notice
from ace_counterfactuals.core.base.runtime import choose_device
from ace_counterfactuals.core.base.settings import FlagError, did_you_mean, flag, from_dict, group, to_dict
from ace_counterfactuals.core.cli.figures import COMMANDS, Command, Found
from ace_counterfactuals.core.cli.parsing import program, run_script
from ace_counterfactuals.core.data.datasets import spec_of
from ace_counterfactuals.core.evaluation.config import EvaluateConfig
from ace_counterfactuals.core.evaluation.judges import HUB, Session
from ace_counterfactuals.core.evaluation.metric import METRICS
from ace_counterfactuals.core.evaluation.read import open_plain
from ace_counterfactuals.core.evaluation.run import ask
from ace_counterfactuals.core.runs.experiment import stored_originals
from ace_counterfactuals.models.classifiers import load_classifier


def config_of(command: Command) -> type:
    """The settings of a command."""
    own = {"batch_size": command.batch, "json": flag("", "file to write the figure to, beside printing it")}
    where = _dataclass("Where", {**own, **command.where}, DeviceConfig)
    titled = {title: _dataclass("Flags", flags) for title, flags in command.groups.items()}
    groups = [(f"g{i}", config, group(config, title)) for i, (title, config) in enumerate(titled.items())]
    groups.append(("where", where, group(where, "where")))
    return make_dataclass("Config", groups, frozen=True, kw_only=True)


def _dataclass(name: str, flags: dict[str, Any], *bases: type) -> type:
    items = [(name, Any, item) for name, item in flags.items()]
    return make_dataclass(name, items, bases=bases, frozen=True, kw_only=True)


def run(name: str, argv: Sequence[str] | None = None) -> int:
    """The command ``name`` of COMMANDS."""
    wanted = COMMANDS[name]
    return program(config_of(wanted), wanted.text, hyphens=True)(partial(carry_out, wanted))(argv)


def carry_out(wanted: Command, config: Any) -> int:
    flags = to_dict(config)
    if not Path(flags["json"]).parent.is_dir():
        raise FlagError("json", f"{flags['json']}: its folder does not exist")
    with spelled_as(wanted), tempfile.TemporaryDirectory() as cache:
        metric = METRICS[wanted.metric]
        names = flags.get("exp_name") or run_names(flags)
        names = (names,) if isinstance(names, str) else names
        output, settings = Path(flags["output_path"]), wanted.metric == "transfer"
        experiments = [open_plain(output, exp, metric.population, settings=settings) for exp in names]
        originals = stored_originals(output)
        further = tuple({**originals["Incorrect"], **originals["Correct"]}.values()) if metric.asked == "sets" else ()
        values = {wanted.names.get(flag, flag): value for flag, value in flags.items()} | {"exp_name": names}
        some = any(stored.pairs for stored in experiments)
        if wanted.hub and some:
            values[wanted.hub] = values[wanted.hub] or HUB
        if experiments[0].settings:
            values["dataset"] = ""  # the run's own
        if wanted.metric == "cout" and flags["dataset"] == "ImageNet" and not flags["weights_path"]:
            load_classifier("", **spec_of("ImageNet").classifier())  # torchvision's, fetched on first use
        session = Session(from_dict(EvaluateConfig, values), Path(cache), choose_device(flags["device"], flags["gpu"]))
        for stored in experiments:
            notice(f"{len(stored.pairs)} pairs ({metric.population.name}) of {stored.name}")
        found = wanted.find(metric, ask(session, experiments, [metric], strict=some, further=further), flags)
        shown = {key: "n/a (0 images)" if v is None else format(v, wanted.form) for key, v in found.figures.items()}
        for line in found.lines or wanted.lines:
            print(line.format(n=found.n, **shown))
        write(wanted, found, flags, session)
    return 0


def write(wanted: Command, found: Found, flags: dict[str, Any], session: Session) -> None:
    """The file of --json, if one is wanted: figures, on what they were computed, and digests of the weights."""
    if not flags["json"]:
        return
    files = {name: flags[name] for name in wanted.weights if flags[name]}
    for name, several in list(files.items()):
        if isinstance(several, tuple):
            files |= {f"{name} {i}": file for i, file in enumerate(files.pop(name))}
    digests = {name: {"file": file, "sha256": session.digest(file)} for name, file in files.items()}
    values = {"figures": found.figures, "population": found.population, "n": found.n}
    values |= {"output_path": flags["output_path"], "exp_name": flags.get("exp_name") or flags["exp_pattern"]}
    atomic.write_json(Path(flags["json"]), {**values, "weights": digests, **found.more})


@contextmanager
def spelled_as(wanted: Command):
    """Errors name this command's flags."""
    own = {theirs: flag for flag, theirs in wanted.names.items()}
    try:
        yield
    except FlagError as error:
        raise FlagError(own.get(error.field, error.field), error.reason) from None


def run_names(flags: dict[str, Any]) -> list[str]:
    """Of LPIPS: the pattern with each value in it."""
    pattern, values = flags["exp_pattern"], flags["exp_values"]
    if "*" not in pattern:
        raise FlagError("exp_pattern", f"{pattern}: wanted a name with a * in it")
    if len(set(values)) < max(2, len(values)):
        raise FlagError("exp_values", f"{' '.join(values)}: wanted two or more, all different")
    return [pattern.replace("*", value) for value in values]


def main(argv: Sequence[str] | None = None) -> int:
    """``argv``: the name of a command, then its flags.  Raises ValueError for a name that there is not."""
    name, *words = (sys.argv[1:] if argv is None else argv) or ["--help"]
    if name in ("-h", "--help"):
        print(f"usage: {Path(sys.argv[0]).name} FIGURE [flag ...]      FIGURE --help tells its flags\n")
        print("\n".join(f"  {figure:<20}{command.text.splitlines()[0]}" for figure, command in COMMANDS.items()))
        return 0
    if name not in COMMANDS:
        there = f"there are {', '.join(COMMANDS)}"
        raise ValueError(f"{name}: no such figure{did_you_mean(name, COMMANDS, otherwise=there)}")
    return run(name, words)


if __name__ == "__main__":
    run_script(main)
