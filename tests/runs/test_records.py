"""A record holds what the summary, the tables and the sheet say of a picture."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest
import torch

from ace_counterfactuals.core.base.schema import checked
from ace_counterfactuals.core.method.explain import Explanation
from ace_counterfactuals.core.runs.recording import make_record
from ace_counterfactuals.core.runs.records import KINDS, Record, parse_record
from ace_counterfactuals.core.runs.tables import summarise

BINARY = {"logits": [2.0], "pre_logits": [-1.0], "cf_logits": [0.5]}
MANY = {
    "logits": [[3.0, 1.0, 0.0, -1.0, -2.0, -3.0, -4.0]],
    "pre_logits": [[1.0, 3.0, 0.0, -1.0, -2.0, -3.0, -4.0]],
    "cf_logits": [[-9.0, 1.0, 3.0, 2.0, 2.0, 2.0, 2.0]],
}


def explanation(logits=BINARY, target=0, change=0.25) -> Explanation:
    """One grey picture; the pre-explanation is lighter by ``change`` in one value, the counterfactual everywhere."""
    tensors = {name: torch.tensor(values) for name, values in logits.items()}
    image = torch.full((1, 3, 2, 2), 0.5)
    pre = image.clone()
    pre[0, 0, 0, 0] += change
    clean = tensors["logits"]
    return Explanation(
        image=image,
        pre_explanation=pre,
        counterfactual=image + change,
        noised=image,
        mask=torch.zeros(1, 1, 2, 2),
        keep=torch.tensor([[[[True, True], [True, False]]]]),
        prediction=(clean > 0).long() if clean.ndim == 1 else clean.argmax(1),
        target=None if target is None else torch.tensor([target]),
        iterations=None,
        **tensors,
    )


def summary_of(*records, skipped=0):
    return summarise(records, skipped=skipped, flags={})


def record(logits=BINARY, target=0, label=1, **changes):
    return make_record(explanation(logits, target, **changes), 0, index=7, file="a/b.png", label=label)


def test_the_distances_are_the_mean_and_the_largest_change():
    pre, ce = (record().outcomes[kind] for kind in KINDS)
    assert (pre.l1, pre.l_inf) == pytest.approx((0.25 / 12, 0.25))
    assert (ce.l1, ce.l_inf) == pytest.approx((0.25, 0.25))


def test_the_mask_area_is_the_share_of_pixels_that_could_change():
    assert record().mask_area == 0.25


def test_success_is_a_prediction_of_the_target_for_each_kind():
    outcomes = record().outcomes
    assert [outcomes[kind].prediction for kind in KINDS] == [0, 1]
    assert [outcomes[kind].success for kind in KINDS] == [True, False]


def test_without_a_target_success_is_any_other_prediction():
    outcomes = record(MANY, target=None, label=0).outcomes
    assert [outcomes[kind].success for kind in KINDS] == [True, True]
    assert not record({**MANY, "cf_logits": MANY["logits"]}, target=None).outcomes["explanation"].success


def test_success_and_change_among_five_look_at_the_likeliest_five():
    first = record(MANY, target=6, label=0)
    assert [first.outcomes[kind].success5 for kind in KINDS] == [False, True]
    assert [first.outcomes[kind].changed5 for kind in KINDS] == [False, True]
    assert first.correct5 and not record(MANY, target=1, label=6).correct5


def test_the_probabilities_are_of_the_prediction_its_origin_and_the_target():
    outcome = record().outcomes["pre-explanation"]
    one = torch.tensor(-1.0).sigmoid().item()
    assert (outcome.prob, outcome.source_prob, outcome.target_prob) == pytest.approx((1 - one, one, 1 - one))
    assert record(MANY, target=None).outcomes["explanation"].target_prob is None


@pytest.mark.parametrize(
    ("label", "target", "folders"),
    [(1, 0, ["CC/CCF", "CC/ICF"]), (0, 0, ["IC/CCF", "IC/ICF"]), (-1, 0, ["CC/CCF", "CC/ICF"])],
)
def test_the_folder_says_whether_the_picture_and_the_counterfactual_are_right(label, target, folders):
    made = record(label=label, target=target)
    assert [made.folder(kind) for kind in KINDS] == folders


def test_the_info_of_a_binary_picture_is_in_the_originals_format():
    lines = record().info("pre-explanation").splitlines()
    assert lines[:5] == ["label: 1.0", "pred: 1.0", "target: 0.0", "cf pred: 0.0", "l_inf: 0.25"]
    assert lines[5].startswith("l_1: 0.0208")


def test_the_info_among_more_classes_has_whole_numbers():
    assert record(MANY, target=2, label=0).info("explanation").splitlines()[:4] == [
        "label: 0",
        "pred: 0",
        "target: 2",
        "cf pred: 2",
    ]


def test_a_record_survives_json():
    for made in (record(), record(MANY, target=None, label=-1)):
        assert parse_record(made.to_bytes(), Path("0000007.json")) == made


def test_a_record_keeps_the_likeliest_five_classes_of_each_picture():
    made = record(MANY)
    assert [label for label, _ in made.top5] == [0, 1, 2, 3, 4]
    assert [made.outcomes[kind].top5[0][0] for kind in KINDS] == [1, 2]
    after = made.outcomes["explanation"]
    assert after.top5[0] == (2, pytest.approx(after.prob)) and len(after.top5) == 5
    assert record().top5 == ((1, pytest.approx(record().source_prob)), (0, pytest.approx(record().target_prob)))


def test_a_record_written_before_the_likeliest_classes_were_kept_is_read():
    values = json.loads(json.dumps(asdict(record())))
    for part in (values, *values["outcomes"].values()):
        del part["top5"]
    old = checked(Record, values, Path("0000007.json"))
    assert old.top5 == old.outcomes["explanation"].top5 == ()


def test_a_row_holds_what_results_csv_promises():
    row = record().row()
    promised = ["index", "file", "label", "prediction", "target", "source_prob", "target_prob", "mask_area"]
    for short in ("pre", "ce"):
        names = ["prediction", "success", "source_prob", "target_prob", "l1", "l_inf"]
        promised += [f"{short}_{name}" for name in names]
    assert list(row) == promised
    assert list(row.values())[:5] == ["7", "a/b.png", "1", "1", "0"]


def test_the_summary_is_the_mean_over_all_pictures():
    summary = summary_of(record(), record(label=0), record(target=1, change=0.5))
    assert (summary["n"], summary["clean acc"], summary["skipped"]) == (3, pytest.approx(2 / 3), 0)
    assert summary["pre-explanation"]["cf"] == pytest.approx(2 / 3)
    assert summary["explanation"]["cf"] == pytest.approx(1 / 3)
    assert summary["pre-explanation"]["untargeted"] == 1
    assert summary["explanation"]["l1"] == pytest.approx((0.25 + 0.25 + 0.5) / 3)
    assert summary["explanation"]["l inf"] == pytest.approx((0.25 + 0.25 + 0.5) / 3)


def test_for_a_binary_set_the_figures_among_five_are_constants():
    summary = summary_of(record(), record(label=0))
    for kind in KINDS:
        assert (summary[kind]["cf5"], summary[kind]["untargeted5"]) == (1, 0)
    assert summary["clean acc5"] == 1


def test_the_accuracy_is_over_the_pictures_of_known_label():
    assert summary_of(record(), record(label=0), record(label=-1))["clean acc"] == 0.5
    assert summary_of(record(label=-1))["clean acc"] is None


def test_nothing_explained_is_no_division_by_zero():
    assert summary_of(skipped=3)["clean acc"] is None
