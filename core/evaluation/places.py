"""Where an evaluation writes: its own folder, which it marks, and the cache, which lies in no result folder."""

import fcntl
import hashlib
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import platformdirs

from ace_counterfactuals.core.base import atomic, guard
from ace_counterfactuals.core.base.notices import notice
from ace_counterfactuals.core.base.settings import FlagError
from ace_counterfactuals.core.data.folders import first
from ace_counterfactuals.core.evaluation.tables import TABLES
from ace_counterfactuals.core.runs.experiment import StoredExperiment

LONGEST = 120
MARKER = ".evaluation"
OWN = (*TABLES, "report.html", "report")


def place_of(config: Any, output: Path, experiments: Sequence[StoredExperiment]) -> Path:
    """Of one experiment its own folder, beside those of main.py's pictures, else one that names them all."""
    if config.results.evaluation_path:
        guard.give(place := Path(config.results.evaluation_path))
        return place
    if len(experiments) == 1:
        root = experiments[0].root
        return (root.parent if root.name == "explanation" else root) / "evaluation"
    name = "+".join(stored.name.removesuffix("/explanation").replace("/", ".") for stored in experiments)
    if len(name) > LONGEST:
        name = name[: LONGEST - 9] + "-" + hashlib.sha256(name.encode()).hexdigest()[:8]
    return output / "Results" / "evaluation" / name


def claim(place: Path) -> None:
    """Make and mark the folder, before any work is done.

    Raises FlagError where it cannot be written to, or holds a file of a name in OWN that no evaluation wrote; one of
    before the marker is known by its four tables.
    """
    guard.refuse_links(place / name for name in (*OWN, MARKER))
    there = [name for name in OWN if (place / name).exists()]
    if there and not (place / MARKER).exists() and not {*TABLES} <= {*there}:
        reason = f"{place}: holds {first(there)}, which evaluate.py did not write and would overwrite"
        raise FlagError("evaluation_path", f"{reason}; name another folder")
    try:
        guard.make_folder(place)
        atomic.write_text(place / MARKER, "evaluate.py wrote this folder, and overwrites its own files here.\n")
    except OSError as error:
        reason = f"{place}: cannot be written to ({error.strerror}); name another folder"
        raise FlagError("evaluation_path", reason) from None


@contextmanager
def open_cache(config: Any) -> Iterator[Path]:
    """Within, the folder of the cache: ``--cache_path``, or one for each output folder in the user's own, or none that
    outlives the evaluation.

    What a result folder brings along is never taken for it.  Raises FlagError for a ``--cache_path`` that cannot be.
    """
    output, named = Path(config.results.output_path), config.results.cache_path
    own = platformdirs.user_cache_path("ace-counterfactuals", appauthor=False)
    place = Path(named) if named else own / hashlib.sha256(os.fsencode(output.resolve())).hexdigest()[:16]
    if named and place.resolve().is_relative_to(output.resolve()):
        reason = f"{named}: lies in the result folder {output}, which may be another's; name one outside it"
        raise FlagError("cache_path", reason)
    guard.give(place)
    try:
        guard.make_folder(place)
        with guard.open_to_write(place / ".trial", "ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
    except OSError as error:
        if named:
            raise FlagError("cache_path", f"{named}: cannot be written to ({error.strerror})") from None
        notice(f"{place}: cannot be written to ({error.strerror}); nothing is kept in a cache, see --cache-path")
        with TemporaryDirectory() as passing:
            yield Path(passing)
        return
    yield place
