"""Command-line flags as fields of frozen dataclasses: parser, help, README table and run record come from there."""

import argparse
import difflib
import math
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, field, fields
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import yaml

from core import interrupt

PRESETS = Path(__file__).resolve().parent.parent / "configs"
Config = TypeVar("Config")


class UserError(ValueError):
    """Something that the person at the keyboard can mend; printed as one line, exit code 2."""


def flag(
    default: Any,
    help: str,
    *,
    choices: Sequence[str] | None = None,
    aliases: dict[str, str] | None = None,
    low: float | None = None,
    high: float | None = None,
    kind: Any = None,
    path: bool | Callable[[str], bool] = False,
    result: bool = True,
    many: bool = False,
) -> Any:
    """A dataclass field that is a flag of the same name.

    aliases: other spellings of a choice.  low, high: inclusive bounds.  kind: text -> value, the default's type if
    not given.  path: a relative value in a preset file is relative to that file; a function says of which values that
    holds.  result: whether the result of a picture depends on the flag, so that an experiment cannot be continued with
    another value.  many: takes one value
    or more, each of ``kind``, and gives a tuple.
    """
    metadata = {
        "help": help,
        "choices": tuple(choices) if choices else None,
        "aliases": aliases or {},
        "low": low,
        "high": high,
        "kind": kind or (boolean if isinstance(default, bool) else type(default)),
        "path": path,
        "result": result,
        "many": many,
    }
    return field(default=default, metadata=metadata)


def boolean(text: str) -> bool:
    lowered = text.lower()
    if lowered in ("yes", "true", "t", "y", "1"):
        return True
    if lowered in ("no", "false", "f", "n", "0"):
        return False
    raise ValueError("wanted True or False")


boolean.__name__ = "bool"


def label(text: str) -> int | str:
    """A label's index, or its name."""
    try:
        return int(text)
    except ValueError:
        return text


def part(text: str) -> int | str:
    """A chunk's number, or 'auto'."""
    return text if text == "auto" else int(text)


part.__name__ = "number or auto"


def names_a_file(text: str) -> bool:
    """Or a folder; otherwise --region is a rectangle."""
    return re.fullmatch(r"[\s\d+-]*(,[\s\d+-]*)+", text) is None


def describe_range(metadata: dict) -> str:
    """'one of a, b', '[0, 1]', '>= 1' or ''."""
    low, high = metadata["low"], metadata["high"]
    if metadata["choices"]:
        return "one of " + ", ".join(metadata["choices"])
    if low is not None and high is not None:
        return f"[{low:g}, {high:g}]"
    if low is not None:
        return f">= {low:g}"
    return ""


def convert(name: str, metadata: dict, text: str) -> Any:
    """The value of a flag from its text, within its range."""
    kind = metadata["kind"]
    try:
        value = kind(text)
    except ValueError as error:
        reason = str(error) if kind is boolean else f"wanted {kind.__name__}"
        raise UserError(f"--{name} {text}: {reason}") from None
    value = metadata["aliases"].get(value, value)
    choices, low, high = metadata["choices"], metadata["low"], metadata["high"]
    if choices and value not in choices:
        spelled = {choice.lower(): choice for choice in choices}
        close = difflib.get_close_matches(str(value).lower(), spelled, 1)
        hint = f"; did you mean {spelled[close[0]]}?" if close else ""
        raise UserError(f"--{name} {text}: wanted one of {', '.join(choices)}{hint}")
    if isinstance(value, float) and not math.isfinite(value):
        raise UserError(f"--{name} {text}: wanted a finite number")
    number = isinstance(value, int | float)
    if number and ((low is not None and value < low) or (high is not None and value > high)):
        raise UserError(f"--{name} {text}: out of range, wanted {describe_range(metadata)}")
    return value


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


def shown_default(default: Any) -> Any:
    if isinstance(default, tuple):
        default = " ".join(map(str, default))
    return "''" if default == "" else "as in the run" if default is None else default


def hyphenated(name: str) -> str:
    """How the original's evaluation scripts spell a flag: --batch-size."""
    return name.replace("_", "-")


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


def from_dict(config: type[Config], values: dict[str, Any]) -> Config:
    """A config from flat flag values; what is not named keeps its default."""
    groups = {}
    for group in fields(config):
        names = {item.name for item in fields(group.type)}
        groups[group.name] = group.type(**{name: value for name, value in values.items() if name in names})
    return config(**groups)


def to_dict(config: Any) -> dict[str, Any]:
    """Flat flag values, in the order of declaration."""
    return {name: value for group in asdict(config).values() for name, value in group.items()}


def flag_items(config: type) -> dict[str, Any]:
    """Flag name -> its dataclass field."""
    return {item.name: item for group in fields(config) for item in fields(group.type)}


def read_preset(config: type, preset: str) -> dict[str, Any]:
    """Flag values of a preset, checked as if they were typed."""
    file = Path(preset) if preset.endswith((".yaml", ".yml")) else PRESETS / f"{preset}.yaml"
    try:
        settings = yaml.safe_load(file.read_text())
    except FileNotFoundError:
        if file == Path(preset):
            raise UserError(f"--preset {preset}: no such file") from None
        names = ", ".join(sorted(path.stem for path in PRESETS.glob("*.yaml")))
        raise UserError(f"--preset {preset}: no such preset; there are {names}, or name a .yaml file") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"--preset {preset}: cannot be read: {' '.join(str(error).split())}") from None
    if not isinstance(settings, dict):
        raise UserError(f"--preset {preset}: wanted lines of 'flag: value'")
    known, values = flag_items(config), {}
    for name, value in settings.items():
        if name not in known:
            close = difflib.get_close_matches(str(name), known, 1)
            raise UserError(
                f"{file}: {name} is no flag of this program" + (f"; did you mean {close[0]}?" if close else "")
            )
        metadata = known[name].metadata
        read = [preset_value(name, metadata, one, file) for one in (value if isinstance(value, list) else [value])]
        if len(read) > 1 and not metadata["many"]:
            raise UserError(f"{file}: {name}: wanted one value, found {len(read)}")
        values[name] = tuple(read) if metadata["many"] else read[0]
    return values


def preset_value(name: str, metadata: dict, value: Any, file: Path) -> Any:
    """A value as if it were typed; a relative path is relative to the file."""
    value = convert(name, metadata, "" if value is None else str(value))
    is_path = metadata["path"](value) if callable(metadata["path"]) else metadata["path"]
    if is_path and value and "://" not in value:
        return str((file.parent / value).resolve())
    return value


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
        with interrupt.handled():
            code = main()
        sys.exit(code)
    except KeyboardInterrupt as error:
        print(interrupt.INTERRUPTED, file=sys.stderr)
        sys.exit(error.code if isinstance(error, interrupt.Stopped) else 130)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        print(f"error: {where}{error.strerror or error}", file=sys.stderr)
        sys.exit(2)
    except (ValueError, FloatingPointError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(2)
