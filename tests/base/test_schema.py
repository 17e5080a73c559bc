"""A file's values are checked against a dataclass: the message names file, field and what was wanted."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, ClassVar

import pytest

from ace_counterfactuals.core.base.schema import Label, checked


@dataclass(frozen=True)
class Inner:
    share: Annotated[float, 0, 1]
    pairs: tuple[tuple[Label, float], ...] = ()


@dataclass(frozen=True)
class Outer:
    count: int
    text: str
    flag: bool = False
    perhaps: float | None = None
    parts: dict[str, Inner] = field(default_factory=dict)
    names: list[str] | None = None
    spaced: int = field(default=0, metadata={"key": "with space"})


@dataclass(frozen=True)
class Open:
    OPEN: ClassVar = True
    count: int


WHOLE = {"count": 1, "text": "a", "perhaps": 2, "parts": {"x": {"share": 0.5, "pairs": [[-1, 1]]}}, "with space": 3}
WRONG = {
    "count: wanted a whole number, found true": {"count": True},
    "count: wanted a whole number, found 1.5": {"count": 1.5},
    'count: wanted a whole number, found "1"': {"count": "1"},
    "count: wanted a whole number, found 1" + "0" * 19: {"count": 10**19},
    "text: wanted text, found null": {"text": None},
    "flag: wanted true or false, found 0": {"flag": 0},
    "perhaps: wanted a number, found Infinity": {"perhaps": float("inf")},
    "perhaps: wanted a number, found NaN": {"perhaps": float("nan")},
    "perhaps: wanted a number, found a list": {"perhaps": []},
    "parts: wanted named values, found a list": {"parts": []},
    "parts.x: share is missing": {"parts": {"x": {}}},
    "parts.x.share: wanted a number from 0 to 1, found 1.5": {"parts": {"x": {"share": 1.5}}},
    "parts.x.pairs.0.0: wanted a whole number from -1 to 2147483648, found -2": {
        "parts": {"x": {"share": 1, "pairs": [[-2, 0]]}}
    },
    "parts.x.pairs.0: wanted a list of 2, found a list": {"parts": {"x": {"share": 1, "pairs": [[1]]}}},
    "names.1: wanted text, found 5": {"names": ["a", 5]},
    "all of it: 'spaced' is not known here": {"spaced": 1},
}


def test_values_become_the_dataclass():
    made = checked(Outer, json.loads(json.dumps(WHOLE)), Path("file"))
    assert made == Outer(1, "a", False, 2.0, {"x": Inner(0.5, ((-1, 1.0),))}, None, 3)
    assert type(made.perhaps) is float


@pytest.mark.parametrize("told", WRONG)
def test_a_value_of_another_kind_is_told_by_file_field_and_what_was_wanted(told):
    with pytest.raises(ValueError) as refused:
        checked(Outer, WHOLE | WRONG[told], Path("file"))
    assert str(refused.value) == f"file: {told}"


@pytest.mark.parametrize("values", [5, [], None, "text", [["count", 1]]])
def test_a_file_that_holds_no_named_values_is_told(values):
    with pytest.raises(ValueError, match="^file: all of it: wanted named values, found "):
        checked(Outer, values, Path("file"))


def test_a_number_without_end_is_told_without_writing_it():
    with pytest.raises(ValueError, match="file: count: wanted a whole number, found a int"):
        checked(Outer, WHOLE | {"count": 16**9999}, Path("file"))


def test_an_open_schema_lets_other_fields_stand_and_looks_at_its_own():
    assert checked(Open, {"count": 1, 5: "other"}, Path("file")) == Open(1)
    with pytest.raises(ValueError, match="count is missing"):
        checked(Open, {"other": 1}, Path("file"))
