"""From a command line to settings, and from errors to exit codes."""

import argparse
import difflib
import sys
import warnings
from collections.abc import Sequence
from dataclasses import fields
from typing import NoReturn

from ace_counterfactuals.core.base.presets import read_preset
from ace_counterfactuals.core.base.settings import (
    Config,
    FlagError,
    UserError,
    convert,
    describe_range,
    from_dict,
    hyphenated,
    shown_default,
)
from ace_counterfactuals.core.runs import signals

signals.end_in_one_line()  # what a script imports after this takes seconds


class Parser(argparse.ArgumentParser):
    """An argparse parser whose errors are the project's: one line, exit code 2."""

    def error(self, message: str) -> NoReturn:
        if message.startswith("unrecognized arguments: "):
            unknown = message.split()[2]
            known = [option for action in self._actions for option in action.option_strings]
            typed = unknown.split("=")[0]
            close = [option for option in known if option.startswith(typed)]
            close = close or difflib.get_close_matches(typed, known, 1)
            message = f"{unknown}: no such flag" + (f"; did you mean {close[0]}?" if close else "; see --help")
        raise UserError(message)


def make_parser(config: type, description: str, *, hyphens: bool = False) -> Parser:
    """One argument group for each dataclass that is a field of ``config``."""
    parser = Parser(description=description, allow_abbrev=False, formatter_class=argparse.RawTextHelpFormatter)
    if not hyphens:
        parser.add_argument(
            "--preset", metavar="NAME|FILE", help="settings to start from: a name in configs/, or a YAML file"
        )
    for group in fields(config):
        titled = parser.add_argument_group(group.metadata["title"])
        for item in fields(group.type):
            extent = describe_range(item.metadata)
            shown = shown_default(item.default)
            titled.add_argument(
                f"--{hyphenated(item.name) if hyphens else item.name}",
                nargs="+" if item.metadata["many"] else None,
                metavar=item.metadata["kind"].__name__.upper(),
                help=f"{item.metadata['help']} (default {shown}{'; ' + extent if extent else ''})".replace("%", "%%"),
            )
    return parser


def parse(
    config: type[Config], description: str, argv: Sequence[str] | None = None, *, hyphens: bool = False
) -> Config:
    """Defaults, overridden by ``--preset``, overridden by what is typed.

    hyphens: flags are spelled as in --batch-size, --batch_size is understood, and there are no presets.
    Raises UserError naming the flag for an unknown, unreadable or out-of-range value.
    """
    argv = sys.argv[1:] if argv is None else argv
    if hyphens:
        split = (word.partition("=") for word in argv)
        argv = ["".join((hyphenated(n) if n.startswith("--") else n, *rest)) for n, *rest in split]
    given = vars(make_parser(config, description, hyphens=hyphens).parse_args(argv))
    typed = {name: text for name, text in given.items() if text is not None}
    preset = typed.pop("preset", None)
    values = read_preset(config, preset) if preset else {}
    for group in fields(config):
        for item in fields(group.type):
            if item.name in typed:
                name, text = hyphenated(item.name) if hyphens else item.name, typed[item.name]
                many = item.metadata["many"]
                read = [convert(name, item.metadata, word) for word in (text if many else [text])]
                values[item.name] = tuple(read) if many else read[0]
    return from_dict(config, values)


def flags_table(config: type) -> str:
    """The flags as Markdown tables, a group each, for the README."""
    lines = []
    for group in fields(config):
        lines += [f"**{group.metadata['title']}**", "", "| flag | default | range | meaning |", "|---|---|---|---|"]
        for item in fields(group.type):
            default = item.default if item.default is None else f"`{shown_default(item.default)}`"
            extent = ", ".join(filter(None, (describe_range(item.metadata), item.metadata["many"] and "several")))
            lines.append(f"| `--{item.name}` | {default or ''} | {extent} | {item.metadata['help']} |")
        lines.append("")
    return "\n".join(lines)


def run_script(main) -> NoReturn:
    """Call ``main(argv)``; a user's mistake is one line on stderr and exit code 2, a signal is 130 or 143."""
    try:
        with signals.handled(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"PIL\.")  # pictures that are read in spite of a flaw
            code = main()
        sys.exit(code)
    except KeyboardInterrupt as error:
        print(signals.INTERRUPTED, file=sys.stderr)
        sys.exit(error.code if isinstance(error, signals.Stopped) else 130)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        print(f"error: {where}{error.strerror or error}", file=sys.stderr)
        sys.exit(2)
    except (ValueError, FloatingPointError) as error:
        said = f"--{error.field} {error.reason}" if isinstance(error, FlagError) else str(error)
        print(f"error: {' '.join(said.split())}", file=sys.stderr)
        sys.exit(2)
