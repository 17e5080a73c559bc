"""Before anything is written: what an experiment is made with (config.yaml), and whether its folder fits that.

Two runs of one experiment describe it alike, however the work is split or computed.
"""

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from itertools import chain
from pathlib import Path

import torch

from ace_counterfactuals.core.base import atomic, guard
from ace_counterfactuals.core.base.notices import notice
from ace_counterfactuals.core.base.settings import FlagError, flag_items, is_function, to_dict
from ace_counterfactuals.core.data.regions import region_digest
from ace_counterfactuals.core.runs.config import MainConfig
from ace_counterfactuals.core.runs.described import (
    CONFIG,
    STUDENT,
    WEIGHTS,
    described_flags,
    read_config,
    sealed,
    settings_digest,
)
from ace_counterfactuals.core.runs.layout import REFINED, ResultFolder
from ace_counterfactuals.core.runs.locks import hold
from ace_counterfactuals.core.runs.records import KINDS
from ace_counterfactuals.models.loading import digest

CLEARING = "log/clearing"  # there from the first to the last file that begin_anew removes
DERIVED = (REFINED, "sweep.", "evaluation")  # how the names of what other programs made begin
RESTARTS = ("SLURM_RESTART_COUNT", "TORCHELASTIC_RESTART_COUNT")


def begin(config: MainConfig, results: ResultFolder, described: dict) -> MainConfig:
    """Make the result folder, anew if the flags say so, or check that it was made as ``described``.

    Returns the flags with the batch size that the folder began with, where kernels are deterministic: then bytes go by
    the shape of a batch.
    """
    anew, chunk, chunks = config.run.overwrite, config.run.chunk, config.run.chunks
    if anew and (restarts := [name for name in RESTARTS if os.environ.get(name, "0") not in ("", "0")]):
        anew = False  # it would throw away what the job did before
        notice(f"overwrite True is ignored: this job was restarted ({restarts[0]}) and goes on with what it has")
    check_folder(results, described, anew=anew and chunks == 1)
    if (anew and chunks == 1) or (results.root / CLEARING).exists():
        begin_anew(results)
    elif anew:
        with hold(results.log, chunk, chunks):
            for path in results.record_paths():
                if int(path.stem) % chunks == chunk:
                    results.forget(int(path.stem))
            guard.remove(path for first, path in results.states().items() if first % chunks == chunk)
    results.create()
    if not atomic.write_once(results.root / CONFIG, sealed(described)):
        refuse_other_settings(results, described)  # another process may have been first
    own = config.run.batch_size
    first = read_config(results.root).get("batch_size", own)
    if not config.run.cudnn_deterministic or first == own:
        return config
    notice(f"batch_size {own} is taken as {first}, with which {results.root} began, for equal bytes")
    return replace(config, run=replace(config.run, batch_size=first))


def check_folder(results: ResultFolder, described: dict, *, anew: bool = False) -> None:
    """Refuse a folder that was made by another program or, unless it begins ``anew``, with other settings.

    Changes nothing.
    """
    outer = [results.output / "Results" / name for name in Path(results.exp_name).parents]
    if not results.refined and (around := next((path for path in outer if (path / CONFIG).exists()), None)):
        raise FlagError("exp_name", f"{results.exp_name}: lies in the experiment {around}; choose a name beside it")
    if (results.root / CLEARING).exists():
        return  # somebody began anew, and did not come to the end of what was there
    if (results.root / CONFIG).exists():
        if not anew:
            refuse_other_settings(results, described)
        return
    if lost_config(results, described):
        return
    foreign = [] if results.refined else [*results.root.glob("*/[CI]C"), *results.root.glob("[CI]C")]
    foreign = [path for path in foreign if path.parent.name not in KINDS]
    if there := next(chain(results.own_files(), foreign, results.tables()), None):
        raise ValueError(
            f"{results.root} holds {there.relative_to(results.root)} but no {CONFIG}: it was not made by main.py, or "
            "is half deleted, and cannot be continued (evaluate.py reads it); choose another exp_name"
        )


def lost_config(results: ResultFolder, described: dict) -> bool:
    """Whether the records know a config.yaml that is gone, and this describes the experiment as that did."""
    made_with = {record.settings for record in results.read()[0].values()}
    return made_with == {settings_digest(described)}


def begin_anew(results: ResultFolder) -> None:
    """Remove what the experiment holds, the log apart.  If this is cut short, the next run goes on with it."""
    with hold(results.log):
        old = [*results.own_files(), *results.tables(), results.root / CONFIG]
        guard.refuse_links(old)
        atomic.write_bytes(results.root / CLEARING, b"")
        guard.remove(old)
        guard.remove([results.root / CLEARING])
    if left := sorted(path.name for path in results.root.iterdir() if path.name.startswith(DERIVED)):
        notice(f"{results.root}: {', '.join(left)}: made from what is overwritten, and left; delete or make it anew")


def refuse_other_settings(results: ResultFolder, described: dict) -> None:
    """A picture's result must not depend on when its folder was continued.

    A flag that config.yaml does not name is younger than the experiment, which was made as by its default.
    """
    stored, flags = read_config(results.root), described["flags"]
    made = {name: stored["flags"][name] for name, known in flag_items(MainConfig).items() if known.result}
    differences = [f"{name} {flags[name]} (there: {old!r})" for name, old in made.items() if old != flags[name]]
    given, there = described["weights"], stored["weights"]
    differences += [f"{name} is another file" for name in {**given, STUDENT: ""} if there.get(name) != given.get(name)]
    if differences:
        raise ValueError(
            f"{results.root} was made with other settings: {'; '.join(differences)}; "
            "choose another exp_name, or overwrite True to start anew"
        )


def describe(config: MainConfig, classes: Sequence[str] | None, digests: Mapping[str, str] | None = None) -> dict:
    """What config.yaml holds: what results depend on, where it came from, and the names of the classifier's outputs.

    digests: of the weights by flag, where they are known already.
    """
    packages = ("ace-counterfactuals", "torch", "torchvision", "numpy", "pillow")
    return {
        "flags": described_flags(to_dict(config)),
        "versions": {"python": sys.version.split()[0], **{name: package_version(name) for name in packages}},
        "threads": torch.get_num_threads(),
        "weights": weight_digests(config) if digests is None else dict(digests),
        "classes": list(classes) if classes else None,
        **({"batch_size": config.run.batch_size} if config.run.cudnn_deterministic else {}),
    }


def weight_digests(config: MainConfig) -> dict[str, str]:
    """Flag -> digest of the file that it names, of the weights and of the region."""
    files = {name: file_of(getattr(config.weights, name)) for name in WEIGHTS}
    files[STUDENT] = config.attack.attack_student
    files["classifier"] = code_of(config.weights.classifier)
    digests = {name: digest(path) for name, path in files.items() if path}
    digests["region"] = region_digest(config.region.region)
    return {name: f"sha256:{sha}" for name, sha in digests.items() if sha}


def file_of(weights: str) -> str:
    """The file of weights, or of the code that makes a network; '' for a module's."""
    return code_of(weights) if is_function(weights) else weights


def code_of(classifier: str) -> str:
    """The file whose function makes the classifier, '' if it is no such."""
    file, _, function = classifier.rpartition(":")
    return file if function and file.endswith(".py") else ""


def package_version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"
