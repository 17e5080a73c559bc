"""A metric is added as a user's module would, without touching another file; evaluate() computes what is asked for."""

from dataclasses import replace

import numpy as np
import pytest

from ace_counterfactuals import evaluate as evaluate_from_a_program
from ace_counterfactuals.core.base.settings import FlagError, flag
from ace_counterfactuals.core.cli.parsing import make_parser
from ace_counterfactuals.core.evaluation.config import evaluate_config
from ace_counterfactuals.core.evaluation.metric import (
    HIGHER,
    METRICS,
    SHARE,
    Metric,
    Quantity,
    all_metrics,
    described,
    register,
)
from ace_counterfactuals.core.evaluation.model import FLIPPED
from ace_counterfactuals.core.evaluation.session import Judge, Network
from tests.support.paths import ROOT
from tests.support.result_folders import evaluate, figures, metrics, write_experiment

MIXED = ["CC/CCF"] * 8 + ["CC/ICF"] + ["IC/CCF"] * 2


def open_lamp(session, subject):
    """A network that tells how bright a picture is, if --lamp turns it on."""
    if not (gain := session.config.networks.lamp):
        return {}
    return {"": Network(lambda: lambda images: gain * images.mean((2, 3)), {"gain": gain})}


@pytest.fixture
def brightness():
    quantity = Quantity("brightness", "brightness", HIGHER, SHARE, "Mean level of the counterfactual.")
    lamp = Judge("lamp", open_lamp, {"lamp": flag(0.0, "gain of the lamp")})
    yield register(
        Metric(
            "brightness", 99, (quantity,), "How bright it is.", FLIPPED, lamp,
            asked="changed", measure=lambda levels: (levels.mean(1),),
        )
    )  # fmt: skip
    del METRICS["brightness"]


def test_a_metric_that_a_module_registers_is_computed_written_compared_and_described(brightness, tmp_path, capsys):
    for name, seed in (("a", 1000), ("b", 2000)):
        write_experiment(tmp_path, MIXED, f"{name}/explanation", seed=seed)
    evaluate("--output-path", tmp_path, "--exp-name", "a", "b", "--lamp", "0.5")
    place = tmp_path / "Results/evaluation/a+b"
    figure = figures(place)["brightness"]
    assert figure["n"] == 10 and figure["population"] == FLIPPED.name and figure["better"] == "higher"
    assert figure["value"] == pytest.approx(0.25, abs=0.01) and figure["low"] < figure["value"] < figure["high"]
    assert [d["n"] for d in metrics(place)["differences"] if d["key"] == "brightness"] == [10]
    assert "| brightness ↑ |" in (place / "table.md").read_text() and "brightness" in capsys.readouterr().out
    assert "brightness" in (place / "metrics.csv").read_text().splitlines()[0]
    assert "brightness" in (place / "report.html").read_text()
    assert "How bright it is." in described(all_metrics())
    assert "--lamp" in make_parser(evaluate_config(), "", hyphens=True).format_help()


def test_a_judge_whose_flag_is_not_given_gives_no_figure(brightness, tmp_path):
    write_experiment(tmp_path, MIXED)
    evaluate("--output-path", tmp_path)
    assert "brightness" not in figures(tmp_path / "Results/exp/evaluation")


def test_only_the_metrics_that_are_asked_for_are_computed_and_must_be_possible(brightness, tmp_path):
    write_experiment(tmp_path, MIXED)
    found = evaluate_from_a_program(str(tmp_path), only=("brightness",), lamp=1.0, device="cpu")
    assert [figure.key for figure in found.experiments[0].figures] == ["brightness"]
    with pytest.raises(FlagError) as refused:
        evaluate_from_a_program(str(tmp_path), only=("brightness", "flips"), device="cpu")
    assert refused.value.field == "lamp"
    with pytest.raises(ValueError, match="darkness.*brightness"):
        evaluate_from_a_program(str(tmp_path), only=("darkness",), device="cpu")


@pytest.mark.parametrize("only", ["flips", "brightness"])
def test_two_experiments_are_compared_by_one_metric_alone(only, brightness, tmp_path):
    for name, seed in (("a", 1000), ("b", 2000)):
        write_experiment(tmp_path, MIXED, f"{name}/explanation", seed=seed)
    found = evaluate_from_a_program(str(tmp_path), ("a", "b"), only=(only,), lamp=1.0, device="cpu")
    key = brightness.quantities[0].key if only == "brightness" else "flip_rate"
    assert [difference.key for difference in found.differences] == [key]


def answering(answer):
    """A judge whose network answers so."""
    return Judge("lamp", lambda *_: {"": Network(lambda: answer, {}, "lamp.pt")}, {"lamp": flag(0.0, "gain")})


def too_small(images):
    raise RuntimeError("kernel size can't be greater than input\nmore")


@pytest.mark.parametrize(
    ("answer", "said"),
    [(too_small, "lamp.pt: cannot take pictures of 16 x 16: kernel size can't be greater than input"),
     (lambda images: images.sum(1) / 0, "lamp.pt: its output is NaN or infinity")],
)  # fmt: skip
def test_a_network_that_cannot_answer_is_named_by_its_flag_and_file(answer, said, brightness, tmp_path):
    write_experiment(tmp_path, MIXED)
    METRICS["brightness"] = replace(brightness, judge=answering(answer))
    with pytest.raises(FlagError) as refused:
        evaluate("--output-path", tmp_path)
    assert (refused.value.field, refused.value.reason) == ("lamp", said)


def test_the_metrics_are_described_in_the_documentation():
    assert described(all_metrics()) in (ROOT / "docs/metrics.md").read_text()


@pytest.mark.parametrize("name", sorted(METRICS))
def test_every_metric_says_what_it_means(name):
    metric = METRICS[name]
    assert len(metric.text) > 60 and all(q.text and np.diff(q.span) > 0 for q in metric.quantities)
