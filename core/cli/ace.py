"""Every program under one name: ``ace COMMAND`` takes the flags of COMMAND."""

import pydoc
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import NoReturn

from ace_counterfactuals.core.cli.parsing import choose, run_script

COMMANDS = ("app", "compute", "evaluate", "explain", "refine", "train-classifier", "train-diffusion", "tune", "verify")
"""Each is a module beside this one, which has a ``main(argv)``"""
OF_PICTURES = ("app", "explain", "train-classifier", "train-diffusion", "tune")
"""Those that take a folder of pictures for one of yours, whose data set the programs at the top ask for"""


def main(argv: Sequence[str] | None = None) -> int:
    """Hand the words after the command to its program.  Raises ValueError for a command that there is not."""
    command, words = choose(argv, {command: synopsis(command) for command in COMMANDS}, "COMMAND")
    figure = words[:1] if command == "compute" and words[:1] != ["--help"] else []
    sys.argv[0] = " ".join(["ace", command, *figure])  # which the program's help shows
    own = {"dataset": "Folder"} if command in OF_PICTURES else {}
    return import_module(module_of(command)).main(words, **own)


def module_of(command: str) -> str:
    """The module of a command."""
    return f"{__package__}.{command.replace('-', '_')}"


def synopsis(command: str) -> str:
    """The first line of its module, which is not imported."""
    return pydoc.synopsis(str(Path(__file__).with_name(f"{command.replace('-', '_')}.py"))) or ""


def entry() -> NoReturn:
    """The console command."""
    run_script(main)
