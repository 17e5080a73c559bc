"""What a file is to hold, said by a dataclass, and checked when it is read."""

import json
import types
from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin, get_type_hints

from ace_counterfactuals.core.base.settings import LARGEST

Schema = TypeVar("Schema")

Count = Annotated[int, 0, 2**53]
Label = Annotated[int, -1, 2**31]
"""A class or an attribute; -1 where it is unknown or free"""
Plain = bool | int | float | str
BOUNDS = {int: 2.0**62, float: LARGEST}


def checked(schema: type[Schema], values: Any, path: Path) -> Schema:
    """The values of a file as the dataclass that says what it holds, whose annotations are the kinds of its fields.

    Those are plain ones, numbers within bounds (``Annotated[int, low, high]``), None beside them, lists, tuples,
    dicts by text and other dataclasses. Numbers are finite. A field may have another name in the file, its metadata's
    ``key``; other fields than those of the schema are refused, unless it has ``OPEN``.
    """
    kind: Any = schema
    try:
        return fitting(kind)(values)
    except Misfit as misfit:
        place = ".".join(reversed(misfit.names)) or "all of it"
        raise ValueError(f"{path}: {place}: {misfit.reason}") from None


class Misfit(Exception):
    """What was wanted and what was found. names: of the fields on the way to it, the innermost first."""

    def __init__(self, reason: str) -> None:
        self.reason, self.names = reason, list[str]()


def wanted(what: str, found: Any) -> Misfit:
    endless = isinstance(found, int) and abs(found) > 2**64  # Python does not even write some of these
    shown = json.dumps(found) if isinstance(found, Plain | None) and not endless else f"a {type(found).__name__}"
    return Misfit(f"wanted {what}, found {shown[:60]}")


@cache
def fitting(kind: Any) -> Callable[[Any], Any]:
    """A function that gives a value as the kind that it is to have, and raises Misfit for one that is not."""
    origin, arguments = get_origin(kind), get_args(kind)
    if is_dataclass(kind):
        return _fields(kind)
    if origin is Annotated:
        return _number(*arguments)
    if origin in (Union, types.UnionType):
        return _one_of(arguments)
    if origin is dict:
        return _mapping(fitting(arguments[1]))
    if origin in (list, tuple):
        return _sequence(origin, arguments)
    if kind in BOUNDS:
        return _number(kind, -BOUNDS[kind], BOUNDS[kind])
    return _plain(kind)


def _plain(kind: type) -> Callable[[Any], Any]:
    def fit(value: Any) -> Any:
        if isinstance(value, kind):
            return value
        raise wanted({bool: "true or false", str: "text"}.get(kind, "nothing"), value)

    return fit


def _number(kind: type, low: float, high: float) -> Callable[[Any], Any]:
    """Neither true nor NaN is one."""
    what = "a whole number" if kind is int else "a number"
    extent = f" from {low} to {high}" if high < BOUNDS[kind] else ""

    def fit(value: Any) -> Any:
        if type(value) in (int, kind) and low <= value <= high:
            return kind(value)
        raise wanted(what + extent, value)

    return fit


def _one_of(kinds: tuple[Any, ...]) -> Callable[[Any], Any]:
    each = [fitting(kind) for kind in kinds]

    def fit(value: Any) -> Any:
        refused = []
        for fit_one in each:
            try:
                return fit_one(value)
            except Misfit as misfit:
                refused.append(misfit)
        raise max(refused, key=lambda misfit: len(misfit.names))  # of the kind that came furthest

    return fit


def _mapping(fit_one: Callable[[Any], Any]) -> Callable[[Any], dict[str, Any]]:
    def fit(value: Any) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise wanted("named values", value)
        return {name: _within(name, fit_one, one) for name, one in value.items()}

    return fit


def _sequence(origin: type, arguments: tuple[Any, ...]) -> Callable[[Any], Any]:
    """list[X] or tuple[X, ...] of any length, tuple[X, Y] of two."""
    one_kind = origin is list or arguments[-1] is Ellipsis
    each = [fitting(kind) for kind in (arguments[:1] if one_kind else arguments)]

    def fit(value: Any) -> Any:
        if not isinstance(value, list | tuple) or not (one_kind or len(value) == len(each)):
            raise wanted("a list" if one_kind else f"a list of {len(each)}", value)
        kinds = each * len(value) if one_kind else each
        return origin(_within(str(i), kinds[i], one) for i, one in enumerate(value))

    return fit


def _fields(schema: Any) -> Callable[[Any], Any]:
    hints, known, needed = get_type_hints(schema, include_extras=True), {}, set()
    for item in fields(schema):
        key = item.metadata.get("key", item.name)
        known[key] = (item.name, fitting(hints[item.name]))
        if item.default is MISSING and item.default_factory is MISSING:
            needed.add(key)

    def fit(value: Any) -> Any:
        if not isinstance(value, Mapping):
            raise wanted("named values", value)
        if missing := sorted(needed - value.keys()):
            raise Misfit(f"{missing[0]} is missing")
        if not getattr(schema, "OPEN", False) and (other := [name for name in value if name not in known]):
            raise Misfit(f"{str(other[0])[:60]!r} is not known here")
        return schema(**{known[n][0]: _within(n, known[n][1], one) for n, one in value.items() if n in known})

    return fit


def _within(name: Any, fit_one: Callable[[Any], Any], value: Any) -> Any:
    """Raises Misfit that knows the name, too."""
    try:
        if isinstance(name, str):
            return fit_one(value)
        raise wanted("a name that is text", name)
    except Misfit as misfit:
        misfit.names.append(str(name)[:60])
        raise
