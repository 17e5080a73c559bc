"""A flip to under 60 % is told as a weak one: by the table, by the sheet, by the evaluation and on its page."""

import json
from dataclasses import replace

import pytest

from ace_counterfactuals.core.base.atomic import write_yaml
from ace_counterfactuals.core.report import write_report
from ace_counterfactuals.core.runs.records import KINDS, WEAK
from ace_counterfactuals.core.runs.sheet import FAIR, GOOD, caption
from ace_counterfactuals.core.runs.tables import Summary, checked, summarise, summary_table
from ace_counterfactuals.core.runs.verify import Checked, check_summary
from tests.runs.test_sheet import outcome, record
from tests.support.report_cases import make_evaluation
from tests.support.result_folders import evaluate, figures, write_experiment, write_record


def convinced(prob: float, **changes):
    return record(outcomes={kind: outcome(prob=prob, **changes) for kind in KINDS})


@pytest.mark.parametrize(
    ("prob", "success", "weak"), [(0.59, True, True), (WEAK, True, False), (0.9, True, False), (0.5, False, False)]
)
def test_a_flip_is_weak_below_sixty_per_cent(prob, success, weak):
    assert outcome(prob=prob, success=success).weak == weak


def test_the_table_counts_the_weak_flips_and_says_nothing_where_there_are_none():
    some = summarise([convinced(0.55), convinced(0.9)], skipped=0, flags={})
    checked(Summary, some, "summary.yaml")
    assert "weak flips, to under 60%: 1" in summary_table(some)
    none = summarise([convinced(0.9)], skipped=0, flags={})
    assert "weak" not in none | {"table": summary_table(none)} and "weak" not in summary_table(none)


def test_a_folder_whose_summary_is_older_than_weak_flips_is_whole(tmp_path):
    records = [convinced(0.55)]
    summary, table = tmp_path / "summary.yaml", tmp_path / "results.csv"
    told = summarise(records, skipped=0, flags={})
    checked_folder = Checked(dict(enumerate(records)), {}, {}, {})
    for left_out, fault in (("skipped", True), ("weak flips", False), ("clean acc5", True)):
        write_yaml(summary, {name: value for name, value in told.items() if name != left_out})
        assert bool(check_summary(summary, table, records, checked_folder)) == fault


def test_the_sheet_marks_a_weak_flip():
    assert caption(convinced(0.55), "explanation", ("cat", "dog")) == ("weak: dog 55%", FAIR)
    assert caption(convinced(0.9), "explanation", ("cat", "dog")) == ("dog 90%", GOOD)


def test_an_evaluation_says_how_many_flips_are_weak(tmp_path):
    folders = ["CC/CCF", "CC/CCF", "CC/ICF"]
    root = write_experiment(tmp_path, folders)
    for index, folder in enumerate(folders):
        path = write_record(tmp_path, index, folder)
        if index == 0:
            values = json.loads(path.read_text())
            values["outcomes"]["explanation"]["prob"] = 0.52
            path.write_text(json.dumps(values))
    assert evaluate("--output_path", tmp_path, "--exp_name", "exp/explanation", "--dataset", "CelebA") == 0
    notes = [figure["notes"] for key, figure in figures(root.parent / "evaluation").items() if key == "flip_rate"]
    assert "weak flips, to under 60%: 1 of 2" in notes[0]


def test_the_page_counts_the_weak_flips(tmp_path):
    evaluation = make_evaluation(tmp_path / "out", 10)  # 50 to 59 % sure, the 4th and the 8th not flipped
    assert "8</strong> of 10 change the classifier's mind</a> (8 weakly, to under 60%)" in " ".join(
        write_report(evaluation, tmp_path / "page").read_text().split()
    )
    sure = [replace(picture, after=((1, 0.8), (0, 0.2))) for picture in evaluation.experiments[0].pictures]
    evaluation = replace(evaluation, experiments=(replace(evaluation.experiments[0], pictures=tuple(sure)),))
    assert "weakly" not in write_report(evaluation, tmp_path / "page").read_text()
