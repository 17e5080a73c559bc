"""Settings declared once: a flag is a field of a frozen dataclass, from which parser, help, tables and records come."""

import difflib
import math
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields, replace
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


@dataclass(frozen=True, kw_only=True)
class Flag:
    """What is known of a flag beside its name.

    kind: text -> value.  choices: read when they are needed, so that a table may still grow.  aliases: other spellings
    of a choice.  low, high: inclusive bounds.  path: a relative value in a preset file is relative to that file; a
    function says of which values that holds.  result: whether the result of a picture depends on the flag, so that an
    experiment cannot be continued with another value.  many: takes one value or more, and gives a tuple.
    told: describes a diffusion model, so that its file, or what lies beside that, may tell it.
    whole: typed, it goes before all that a preset says in flags that begin with its name, too.
    """

    default: Any
    help: str
    kind: Callable[[str], Any]
    choices: Collection[str] | None = None
    aliases: Mapping[str, str] = field(default_factory=dict)
    low: float | None = None
    high: float | None = None
    path: bool | Callable[[str], bool] = False
    result: bool = True
    many: bool = False
    told: bool = False
    whole: bool = False

    def field(self) -> Any:
        """Of a dataclass that declares the flag."""
        return field(default=self.default, metadata={"flag": self})


def flag(default: Any, help: str, *, kind: Callable[[str], Any] | None = None, **facts: Any) -> Any:
    """A dataclass field that is a flag of the same name.  kind: the default's type if not given; facts: of ``Flag``."""
    kind = kind or (boolean if isinstance(default, bool) else type(default))
    return Flag(default=default, help=help, kind=kind, **facts).field()


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


AUTO = "auto"


def part(text: str) -> int | str:
    """A number, or 'auto'."""
    return text if text == AUTO else int(text)


part.__name__ = "number or auto"


def channels(text: str) -> int | str:
    """Of pictures, or 'auto'."""
    if text not in (AUTO, "1", "3"):
        raise ValueError
    return part(text)


channels.__name__ = "auto, 1 or 3"


def colour(text: str) -> str:
    """As Pillow knows it."""
    from PIL import ImageColor

    ImageColor.getrgb(text)
    return text


colour.__name__ = "name or #rrggbb"


def interval(text: str) -> str:
    """LOW,HIGH, or ''."""
    bounds(text)
    return text


interval.__name__ = "LOW,HIGH"


def bounds(text: str) -> tuple[float, float] | None:
    """Of 'LOW,HIGH'; None of ''.  Raises ValueError."""
    if not text:
        return None
    low, high = map(float, text.split(","))
    if not -LARGEST < low < high < LARGEST:
        raise ValueError(text)
    return low, high


def is_path(text: str) -> bool:
    """Or what stands before a function in a file, but not a module's."""
    return not is_function(text) or ".py:" in text


def names_a_file(text: str) -> bool:
    """Or a folder; otherwise --region is a rectangle."""
    return re.fullmatch(r"[\s\d+-]*(,[\s\d+-]*)+", text) is None


def is_function(text: str) -> bool:
    """FILE.py:FUNCTION or MODULE:FUNCTION."""
    return re.fullmatch(r".+\.py:[A-Za-z_]\w*|[A-Za-z_][\w.]*:[A-Za-z_]\w*", text) is not None


def describe_range(known: Flag) -> str:
    """'one of a, b', '[0, 1]', '>= 1' or ''."""
    if known.choices:
        return "one of " + ", ".join(known.choices)
    if known.low is not None and known.high is not None:
        return f"[{known.low:g}, {known.high:g}]"
    return "" if known.low is None else f">= {known.low:g}"


def convert(name: str, known: Flag, given: Any) -> Any:
    """The value of a flag from its text, within its range; a tuple where it takes ``many``.  Raises FlagError."""
    if known.many:
        one = replace(known, many=False)
        return tuple(convert(name, one, text) for text in (given if isinstance(given, list | tuple) else [given]))
    text = str(given)
    try:
        value = known.kind(text)
    except ValueError as error:
        reason = str(error) if known.kind is boolean else f"wanted {known.kind.__name__}"
        raise FlagError(name, f"{text}: {reason}") from None
    value = known.aliases.get(value, value)
    if known.choices and value not in known.choices:
        hint = did_you_mean(str(value), known.choices)
        raise FlagError(name, f"{text}: wanted one of {', '.join(known.choices)}{hint}")
    if isinstance(value, float) and not abs(value) < LARGEST:
        raise FlagError(name, f"{text}: wanted a finite number, less than {LARGEST:g}")
    low, high = (-math.inf if known.low is None else known.low), (math.inf if known.high is None else known.high)
    if isinstance(value, int | float) and not low <= value <= high:
        raise FlagError(name, f"{text}: out of range, wanted {describe_range(known)}")
    return value


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
    for part, kind in groups(config).items():
        parts[part] = kind(**{name: values[name] for name in flags_of(kind) if name in values})
    return config(**parts)


def to_dict(config: "DataclassInstance") -> dict[str, Any]:
    """Flat flag values, in the order of declaration."""
    return {name: value for part in asdict(config).values() for name, value in part.items()}


def groups(config: "type[DataclassInstance]") -> dict[str, Any]:
    """Name -> dataclass of flags, of a config."""
    return {item.name: item.type for item in fields(config)}


def flags_of(part: "type[DataclassInstance]") -> dict[str, Flag]:
    """Name -> flag, of a dataclass of flags."""
    return {item.name: item.metadata["flag"] for item in fields(part)}


def flag_items(config: "type[DataclassInstance]") -> dict[str, Flag]:
    """Name -> flag, of a config."""
    return {name: item for part in groups(config).values() for name, item in flags_of(part).items()}
