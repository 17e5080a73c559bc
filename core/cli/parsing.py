"""From a command line to settings, and from errors to exit codes."""

import argparse
import functools
import logging
import re
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

from ace_counterfactuals.core.base import signals
from ace_counterfactuals.core.base.notices import NOTICES, plain
from ace_counterfactuals.core.base.presets import read_preset
from ace_counterfactuals.core.base.settings import (
    Config,
    FlagError,
    convert,
    describe_range,
    did_you_mean,
    flag_items,
    flags_of,
    from_dict,
    hyphenated,
    shown_default,
)
from ace_counterfactuals.core.cli.streams import settle_streams

Settle = Callable[[Any, dict[str, Any], dict[str, Any]], Any]


class Parser(argparse.ArgumentParser):
    """An argparse parser whose errors are the project's: one line, exit code 2."""

    def error(self, message: str) -> NoReturn:
        if message.startswith("unrecognized arguments: "):
            unknown = message.split()[2]
            known = [option for action in self._actions for option in action.option_strings]
            typed = unknown.split("=")[0]
            begun = [option for option in known if option.startswith(typed)][:1]
            message = f"{unknown}: no such flag{did_you_mean(typed, begun or known, otherwise='see --help')}"
        raise ValueError(message)


def make_parser(config: type, description: str, *, hyphens: bool = False) -> Parser:
    """One argument group for each dataclass that is a field of ``config``."""
    parser = Parser(description=description, allow_abbrev=False, formatter_class=argparse.RawTextHelpFormatter)
    if not hyphens:
        parser.add_argument(
            "--preset", metavar="NAME|FILE", help="settings to start from: a name in configs/, or a YAML file"
        )
    for group in fields(config):
        titled = parser.add_argument_group(group.metadata["title"])
        for name, known in flags_of(group.type).items():
            extent = describe_range(known)
            shown = shown_default(known.default)
            titled.add_argument(
                f"--{hyphenated(name) if hyphens else name}",
                nargs="+" if known.many else None,
                metavar=known.kind.__name__.upper(),
                help=f"{known.help} (default {shown}{'; ' + extent if extent else ''})".replace("%", "%%"),
            )
    return parser


def parse(
    config: type[Config],
    description: str,
    argv: Sequence[str] | None = None,
    *,
    hyphens: bool = False,
    dataset: str = "",
) -> Config:
    """Defaults, overridden by ``--preset``, overridden by what is typed; see ``given``."""
    typed, others = given(config, description, argv, hyphens=hyphens, dataset=dataset)
    return from_dict(config, {**others, **typed})


def given(
    config: type, description: str, argv: Sequence[str] | None = None, *, hyphens: bool = False, dataset: str = ""
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The settings that are typed, and the others that ``--preset`` gives.

    dataset: the one that a ``data_dir`` without any is of; '' is the default.
    hyphens: flags are spelled as in --batch-size, --batch_size is understood, and there are no presets.
    Raises FlagError for an unreadable or out-of-range value, ValueError for an unknown flag.
    """
    argv = with_signed_values(sys.argv[1:] if argv is None else argv)
    if hyphens:
        split = (word.partition("=") for word in argv)
        argv = ["".join((hyphenated(n) if n.startswith("--") else n, *rest)) for n, *rest in split]
    words = vars(make_parser(config, description, hyphens=hyphens).parse_args(argv))
    typed = {name: text for name, text in words.items() if text is not None}
    preset = typed.pop("preset", None)
    others = read_preset(config, preset, given=typed) if preset else {}
    if dataset and "data_dir" in {**typed, **others} and "dataset" not in typed:
        others.setdefault("dataset", dataset)
    return {name: convert(name, flag_items(config)[name], text) for name, text in typed.items()}, others


def with_signed_values(argv: Sequence[str]) -> list[str]:
    """Each flag with a value such as -1,0,5,5 as one word: argparse would take the value for a flag."""
    words: list[str] = []
    for word in argv:
        if re.match(r"-\d", word) and words and re.fullmatch(r"--\w[\w-]*", words[-1]):
            words[-1] += f"={word}"
        else:
            words.append(word)
    return words


def flags_table(config: type) -> str:
    """The flags as Markdown tables, a group each, for the README."""
    lines = []
    for group in fields(config):
        lines += [f"**{group.metadata['title']}**", "", "| flag | default | range | meaning |", "|---|---|---|---|"]
        for name, known in flags_of(group.type).items():
            default = known.default if known.default is None else f"`{shown_default(known.default)}`"
            extent = ", ".join(filter(None, (describe_range(known), known.many and "several")))
            lines.append(f"| `--{name}` | {default or ''} | {extent} | {known.help} |")
        lines.append("")
    return "\n".join(lines)


def choose(argv: Sequence[str] | None, table: Mapping[str, str], kind: str) -> tuple[str, list[str]]:
    """The entry of the table that is typed first, and the words after it.  --help prints the table, and exits.

    table: name -> what it is for.  Raises ValueError for an entry that there is not.
    """
    name, *words = (sys.argv[1:] if argv is None else argv) or ["--help"]
    if name in ("-h", "--help"):
        print(f"usage: {Path(sys.argv[0]).name} {kind} [flag ...]      {kind} --help tells its flags\n")
        print("\n".join(f"  {entry:<20}{text}" for entry, text in table.items()))
        sys.exit(0)
    if name not in table:
        hint = did_you_mean(name, table, otherwise=f"there are {', '.join(table)}")
        raise ValueError(f"{name}: no such {kind.lower()}{hint}")
    return name, words


def program(config: type[Config], description: str, *, hyphens: bool = False, settle: Settle | None = None) -> Callable:
    """Make ``main(settings) -> exit code`` a program ``main(argv=None, dataset="") -> exit code``, which shows notices.

    config, dataset, hyphens: see ``given``.  settle: (settings, those typed, those of the preset) -> what is taken.
    """

    def decorate(main: Callable) -> Callable:
        @functools.wraps(main)
        def run(argv: Sequence[str] | None = None, *, dataset: str = "") -> int:
            try:
                with showing_notices():
                    typed, others = given(config, description, argv, hyphens=hyphens, dataset=dataset)
                    settings = from_dict(config, {**others, **typed})
                    return main(settle(settings, typed, others) if settle else settings)
            except FlagError as error:
                error.field = hyphenated(error.field) if hyphens else error.field
                raise

        return run

    return decorate


@contextmanager
def showing_notices() -> Iterator[None]:
    """Within, notices are shown on stderr, so that tables can be piped."""
    handler, level = logging.StreamHandler(), NOTICES.level
    handler.setFormatter(logging.Formatter("note: %(message)s"))
    NOTICES.addHandler(handler)
    NOTICES.setLevel(logging.INFO)
    try:
        yield
    finally:
        NOTICES.removeHandler(handler)
        NOTICES.setLevel(level)


def run_script(main: Callable[..., int] | str, *words: str) -> NoReturn:
    """Call a program, and exit with its code.

    main: a program, or the name of a module of this package that has it, which is imported once signals are answered.
    words: what is typed before the command line's own.
    A user's mistake is one line on stderr and exit code 2, a signal is 130 or 143.
    """
    settle_streams()
    try:
        with signals.handled(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"PIL\.")  # of pictures that are read in spite of a flaw
            if isinstance(main, str):
                main = import_module(f"{__package__}.{main}").main
            code = main([*words, *sys.argv[1:]]) if words else main()
            sys.stdout.flush()
        sys.exit(code)
    except KeyboardInterrupt as error:
        print(signals.INTERRUPTED, file=sys.stderr)
        sys.exit(error.code if isinstance(error, signals.Stopped) else 130)
    except RuntimeError as error:
        if not FAILED_DEVICE.match(str(error)):
            raise
        print(f"error: the device failed ({plain(str(error).splitlines()[0])}); {KEPT}", file=sys.stderr)
        sys.exit(2)
    except (OSError, ValueError, FloatingPointError) as error:
        print(f"error: {plain(' '.join(told(error).split()))}", file=sys.stderr)
        sys.exit(2)


def told(error: Exception) -> str:
    """What a user is told of a mistake."""
    if isinstance(error, FlagError):
        return f"--{error.field} {error.reason}"
    if isinstance(error, OSError) and error.strerror:
        said = next((f"{error.strerror}; {remedy}" for kind, remedy in REMEDIES if isinstance(error, kind)), "")
        return f"{error.filename}: {said or error.strerror}" if error.filename else error.strerror
    return str(error)


FAILED_DEVICE = re.compile(r"(CUDA|HIP|XPU|MPS|cuDNN|CUBLAS|MIOpen)[\w ]* error\b")
"""How what torch says of a device begins that was lost, or that nothing can be asked of any more"""
KEPT = "what was finished is kept, and the same command continues"
REMEDIES = (
    (IsADirectoryError, "a file is wanted there: move the folder away"),
    ((NotADirectoryError, FileExistsError), "a folder is wanted there: move the file away"),
)
"""Of what may lie in the way"""
