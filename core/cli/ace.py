"""Every program under one name: ``ace COMMAND`` takes the flags of COMMAND."""

import pydoc
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import NoReturn

from ace_counterfactuals.core.base.settings import did_you_mean
from ace_counterfactuals.core.cli.parsing import run_script

COMMANDS = ("compute", "evaluate", "explain", "refine", "train-classifier", "train-diffusion", "verify")
"""Each is a module beside this one, which has a ``main(argv)``"""


def main(argv: Sequence[str] | None = None) -> int:
    """Hand the words after the command to its program.  Raises ValueError for a command that there is not."""
    command, *words = (sys.argv[1:] if argv is None else argv) or ["--help"]
    if command in ("-h", "--help"):
        print(usage())
        return 0
    program = import_module(module_of(command))
    figure = words[:1] if command == "compute" and words[:1] != ["--help"] else []
    sys.argv[0] = " ".join(["ace", command, *figure])  # which the program's help shows
    return program.main(words)


def module_of(command: str) -> str:
    """The module of a command."""
    if command not in COMMANDS:
        hint = did_you_mean(command, COMMANDS, otherwise=f"there are {', '.join(COMMANDS)}")
        raise ValueError(f"ace {command}: no such command{hint}")
    return f"{__package__}.{command.replace('-', '_')}"


def usage() -> str:
    """The commands with the first line of each; no program is imported."""
    lines = ["usage: ace COMMAND [flag ...]      ace COMMAND --help tells the flags", ""]
    for command in COMMANDS:
        path = Path(__file__).with_name(f"{command.replace('-', '_')}.py")
        with path.open(encoding="utf-8") as source:
            lines.append(f"  {command:<18}{pydoc.source_synopsis(source)}")
    return "\n".join(lines)


def entry() -> NoReturn:
    """The console command."""
    run_script(main)
