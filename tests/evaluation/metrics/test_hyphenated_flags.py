"""The evaluation scripts spell their flags as the original's do, by the same declarations as every other script."""

from dataclasses import dataclass, field

import pytest

from ace_counterfactuals.core.base.settings import flag
from ace_counterfactuals.core.cli.parsing import parse


@dataclass(frozen=True, kw_only=True)
class Options:
    batch_size: int = flag(15, "pictures at once", low=1)
    exp_values: tuple = flag((), "values", kind=str, many=True)
    name_of_it: str = flag("none", "a name")


@dataclass(frozen=True, kw_only=True)
class Toy:
    options: Options = field(default_factory=Options, metadata={"title": "options"})


def read(*words: str) -> Options:
    return parse(Toy, "toy", words, hyphens=True).options


@pytest.mark.parametrize(
    "words", [["--batch-size", "3"], ["--batch_size", "3"], ["--batch_size=3"], ["--batch-size=3"]]
)
def test_hyphens_and_underscores_mean_the_same(words):
    assert read(*words).batch_size == 3


def test_a_value_keeps_its_underscores():
    assert read("--name-of-it=a_b=c_d").name_of_it == "a_b=c_d"


def test_a_flag_of_many_values_gives_a_tuple():
    assert read("--exp-values", "1", "02", "x").exp_values == ("1", "02", "x")


def test_a_mistake_is_named_with_hyphens():
    with pytest.raises(ValueError, match="did you mean --batch-size"):
        read("--batch-sise", "1")


def test_help_shows_hyphens_alone(capsys):
    with pytest.raises(SystemExit):
        read("--help")
    shown = capsys.readouterr().out
    assert "--exp-values" in shown and "--exp_values" not in shown and "--preset" not in shown
