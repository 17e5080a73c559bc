"""Settings declared once: a flag is a field of a frozen dataclass, from which parser, help, tables and records come."""

import difflib
import re
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, field, fields
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


def group(config: type, title: str):
    """A field holding one dataclass of flags."""
    return field(default_factory=config, metadata={"title": title})


Config = TypeVar("Config", bound="DataclassInstance")


LARGEST = 3.4e38  # beyond it single precision has infinity alone


class FlagError(ValueError):
    """A setting that cannot be used as it is.

    field: its name as declared, which a command line spells as its flag; reason: begins with the value, names other
    settings as declared, and says what was wanted and what to do.
    """

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field} {reason}")
        self.field, self.reason = field, reason


def did_you_mean(text: str, names: Iterable[str], *, otherwise: str = "") -> str:
    """'; did you mean NAME?' for the end of a message, or what to say where no name comes close."""
    by_lower = {name.lower(): name for name in names}
    close = difflib.get_close_matches(text.lower(), by_lower, 1)
    return f"; did you mean {by_lower[close[0]]}?" if close else otherwise and f"; {otherwise}"


@contextmanager
def blaming(field: str) -> Iterator[None]:
    """Within, a ValueError that names no setting is this one's."""
    try:
        yield
    except FlagError:
        raise
    except ValueError as error:
        raise FlagError(field, str(error)) from None


def flag(
    default: Any,
    help: str,
    *,
    choices: Collection[str] | None = None,
    aliases: dict[str, str] | None = None,
    low: float | None = None,
    high: float | None = None,
    kind: Any = None,
    path: bool | Callable[[str], bool] = False,
    result: bool = True,
    many: bool = False,
) -> Any:
    """A dataclass field that is a flag of the same name.

    choices: read when they are needed, so that a table may still grow.  aliases: other spellings of a choice.
    low, high: inclusive bounds.  kind: text -> value, the default's type if not given.  path: a relative value in a
    preset file is relative to that file; a function says of which values that holds.  result: whether the result of
    a picture depends on the flag, so that an experiment cannot be continued with another value.  many: takes one
    value or more, each of ``kind``, and gives a tuple.
    """
    metadata = {
        "help": help,
        "choices": choices,
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
        raise FlagError(name, f"{text}: {reason}") from None
    value = metadata["aliases"].get(value, value)
    choices, low, high = metadata["choices"], metadata["low"], metadata["high"]
    if choices and value not in choices:
        raise FlagError(name, f"{text}: wanted one of {', '.join(choices)}{did_you_mean(str(value), choices)}")
    if isinstance(value, float) and not abs(value) < LARGEST:
        raise FlagError(name, f"{text}: wanted a finite number, less than {LARGEST:g}")
    number = isinstance(value, int | float)
    if number and ((low is not None and value < low) or (high is not None and value > high)):
        raise FlagError(name, f"{text}: out of range, wanted {describe_range(metadata)}")
    return value


def convert_all(name: str, metadata: dict, values: Any) -> Any:
    """The same of the values of a setting that takes ``many``, as a tuple, and of the one of another."""
    if not metadata["many"]:
        return convert(name, metadata, str(values))
    several = values if isinstance(values, list | tuple) else [values]
    return tuple(convert(name, metadata, str(value)) for value in several)


def shown_default(default: Any) -> Any:
    if isinstance(default, tuple):
        default = " ".join(map(str, default))
    return "''" if default == "" else "as in the run" if default is None else default


def hyphenated(name: str) -> str:
    """How the original's evaluation scripts spell a flag: --batch-size."""
    return name.replace("_", "-")


def from_dict(config: type[Config], values: dict[str, Any]) -> Config:
    """A config from flat flag values; what is not named keeps its default."""
    parts = {}
    for group in groups_of(config):
        names = {item.name for item in fields(group.type)}
        parts[group.name] = group.type(**{name: value for name, value in values.items() if name in names})
    return config(**parts)


def to_dict(config: Any) -> dict[str, Any]:
    """Flat flag values, in the order of declaration."""
    return {name: value for group in asdict(config).values() for name, value in group.items()}


def groups_of(config: "type[DataclassInstance]") -> tuple[Any, ...]:
    """The fields of a config, each of which holds a dataclass of flags."""
    return fields(config)


def flag_items(config: "type[DataclassInstance]") -> dict[str, Any]:
    """Flag name -> its dataclass field."""
    return {item.name: item for group in groups_of(config) for item in fields(group.type)}
