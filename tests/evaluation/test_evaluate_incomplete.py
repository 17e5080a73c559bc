"""What evaluate.py refuses, and what it makes of a part."""

import json
import shutil
from pathlib import Path

import pytest

from ace_counterfactuals.core.base import atomic
from ace_counterfactuals.core.runs.layout import FOLDERS
from tests.support.paths import ROOT
from tests.support.result_folders import (
    counterfactual,
    draw,
    evaluate,
    failure,
    figures,
    metrics,
    original,
    write_experiment,
    write_record,
)
from tests.support.toys import Workshop

PLACE = "Results/exp/evaluation"
WHOLE = ["CC/CCF", "CC/CCF", "CC/CCF", "CC/ICF", "IC/CCF"]


@pytest.fixture
def output(tmp_path):
    """Five pictures, whole."""
    write_experiment(tmp_path, WHOLE)
    return tmp_path


@pytest.fixture
def recorded(output):
    for index, folder in enumerate(WHOLE):
        write_record(output, index, folder)
    return output


def log(output: Path, selected: int) -> None:
    (output / "Results/exp/log").mkdir(exist_ok=True)
    atomic.write_json(
        output / "Results/exp/log/20260101T000000Z-host-1.json",
        {"host": "host", "pid": 1, "ended": "finished", "selected": selected},
    )


def refused_and_marked(output: Path, capsys, *, n: int) -> str:
    """The error without --allow-partial; with it, every figure says that it is of a part."""
    message = failure(capsys, "--output-path", output)
    assert "allow_partial True" in message
    evaluate("--output-path", output, "--allow-partial", "True")
    written = metrics(output / PLACE)
    assert not any(figure["complete"] for figure in figures(output / PLACE).values())
    assert not written["experiments"][0]["complete"] and written["experiments"][0]["pictures"] == n
    assert written["details"]["problems"]["exp/explanation"]
    assert "* of a part of the experiment alone: exp/explanation." in capsys.readouterr().out
    assert "of a part of the experiment alone" in (output / PLACE / "table.md").read_text()
    return message


def test_evaluate_marks_nothing_of_a_whole_experiment(recorded, capsys):
    log(recorded, selected=5)
    evaluate("--output-path", recorded)
    found = figures(recorded / PLACE)
    assert all(figure["complete"] for figure in found.values()) and found["mask_area"]["n"] == 5
    assert " of a part" not in capsys.readouterr().out


def test_evaluate_refuses_an_original_without_counterfactual(output, capsys):
    draw(output / "Original/Correct/0000009.png", 9)
    assert "Original/Correct/0000009.png has no counterfactual" in refused_and_marked(output, capsys, n=5)


def test_evaluate_refuses_a_record_whose_picture_is_missing(recorded, capsys):
    counterfactual(recorded, 1, "CC/CCF").unlink()
    assert "0000001.png is recorded as finished, but CC/CCF/CF" in refused_and_marked(recorded, capsys, n=4)


def test_evaluate_refuses_a_picture_without_record(recorded, capsys):
    (recorded / "Results/exp/records/0000002.json").unlink()
    assert "CC/CCF/CF/0000002.png has no record" in refused_and_marked(recorded, capsys, n=5)


def test_evaluate_refuses_a_picture_that_lies_elsewhere_than_recorded(recorded, capsys):
    shutil.move(counterfactual(recorded, 1, "CC/CCF"), counterfactual(recorded, 1, "CC/ICF"))
    assert "0000001.png is recorded as CC/CCF, but lies in CC/ICF" in refused_and_marked(recorded, capsys, n=5)


def test_evaluate_refuses_other_numbers_of_pictures_than_were_selected(recorded, capsys):
    log(recorded, selected=7)
    assert "7 pictures were selected, and 5 are finished" in refused_and_marked(recorded, capsys, n=5)


def test_evaluate_refuses_a_run_whose_chunks_are_not_all_there(tmp_path, capsys):
    workshop = Workshop(tmp_path)
    workshop.run(chunks=3, chunk=1)
    message = failure(capsys, "--output-path", workshop.output)
    assert "of its 3 chunks, 0, 2 did not run" in message and "6 pictures were selected, and 2 are finished" in message
    for chunk in (0, 2):
        workshop.run(chunks=3, chunk=chunk)
    evaluate("--output-path", workshop.output)
    assert figures(workshop.results() / "evaluation")["l1"]["n"] == 6


def test_evaluate_names_the_chunks_that_did_not_run(recorded, capsys):
    atomic.write_yaml(recorded / "Results/exp/c-1_3-summary.yaml", {"n": 5})
    assert "of its 3 chunks, 0, 2 did not run" in refused_and_marked(recorded, capsys, n=5)


def test_evaluate_refuses_pictures_of_other_sizes(output, capsys):
    draw(counterfactual(output, 2, "CC/CCF"), 7, side=8)
    message = refused_and_marked(output, capsys, n=4)
    assert "0000002.png is 8 x 8, others are 16 x 16: not comparable" in message


def test_evaluate_names_a_corrupt_picture_and_leaves_it_out_if_asked(output, capsys):
    path = counterfactual(output, 2, "CC/CCF")
    path.write_bytes(path.read_bytes()[:-200])
    message = refused_and_marked(output, capsys, n=4)
    assert f"{path}: unreadable picture" in message and "leave it out" in message
    assert figures(output / PLACE)["l1"]["n"] == 4
    evaluate("--output-path", output, "--allow-partial", "True", "--features", ROOT / "demo/earlier_a.pt")
    assert figures(output / PLACE)["frechet_plain-24_features_of_earlier_a.pt"]["n"] == 3


def test_evaluate_names_a_picture_that_is_none(output, capsys):
    counterfactual(output, 2, "CC/CCF").write_bytes(b"")
    assert "0000002.png: unreadable picture: the file is empty" in refused_and_marked(output, capsys, n=4)


def test_a_long_list_is_shortened(output, capsys):
    for index in range(10, 20):
        draw(original(output, index, "CC"), index)
    message = failure(capsys, "--output-path", output)
    assert "0000014.png" in message and "0000015.png" not in message and "; and 5 more; " in message


def test_an_unknown_experiment_names_those_that_are_there(output, capsys):
    assert failure(capsys, "--output-path", output, "--exp-name", "exq").endswith("did you mean exp?")


def test_the_same_experiment_twice_is_refused(output, capsys):
    message = failure(capsys, "--output-path", output, "--exp-name", "exp", "exp/explanation")
    assert "--exp-name exp exp/explanation: the same experiment twice" in message


def test_evaluate_of_no_picture_says_so_of_each_figure(tmp_path, capsys):
    for folder in FOLDERS:
        (tmp_path / f"Results/exp/explanation/{folder}/CF").mkdir(parents=True)
    evaluate("--output-path", tmp_path, "--features", ROOT / "demo/earlier_a.pt")
    found = figures(tmp_path / PLACE)
    assert len(found) == 7 and all(figure["value"] is None and figure["n"] == 0 for figure in found.values())
    assert capsys.readouterr().out.count("n/a (0 images)") == 7


def test_a_population_that_is_empty_leaves_the_other_figures(tmp_path, capsys):
    write_experiment(tmp_path, ["CC/ICF"] * 3)
    evaluate("--output-path", tmp_path, "--features", ROOT / "demo/earlier_a.pt")
    found = figures(tmp_path / PLACE)
    assert found["l1"]["n"] == 3 and found["flip_rate"]["value"] == 0
    assert found["frechet_plain-24_features_of_earlier_a.pt"]["value"] is None


def test_a_judge_of_grey_pictures_is_refused_by_name_for_pictures_in_colour(output, capsys):
    message = failure(capsys, "--output-path", output, "--features", ROOT / "demo/classifier.pt")
    assert "--features" in message and "classifier.pt: the classifier takes grey pictures, and these are in" in message


def test_a_folder_that_cannot_be_written_to_names_the_flag(output, capsys):
    (output / "Results/exp/evaluation").write_text("in the way")
    message = failure(capsys, "--output-path", output)
    assert "evaluation: cannot be written to" in message and message.startswith("error: --evaluation-path ")


def test_a_cache_that_cannot_be_written_to_names_its_flag(output, tmp_path_factory, capsys):
    (tmp_path_factory.getbasetemp() / "taken").write_text("in the way")
    message = failure(capsys, "--output-path", output, "--cache-path", tmp_path_factory.getbasetemp() / "taken")
    assert message.startswith("error: --cache-path ") and "cannot be written to" in message


def test_nothing_is_written_to_an_output_folder_that_is_evaluated_elsewhere(output, tmp_path_factory):
    elsewhere, before = tmp_path_factory.mktemp("elsewhere"), sorted(output.rglob("*"))
    evaluate("--output-path", output, "--evaluation-path", elsewhere)
    assert sorted(output.rglob("*")) == before and figures(elsewhere)["l1"]["n"] == 5


@pytest.mark.parametrize("own", [True, False])
def test_what_was_refined_again_is_evaluated_with_its_own_settings_or_else_those_of_its_run(own, output, capsys):
    again = "exp/all_filtered_r-10_i-0.2_d-5_f-0.5"
    write_experiment(output, WHOLE, again, seed=3000)
    settings = {"flags": {"dataset": "CelebA", "label_query": 31}, "weights": {}, "classes": None}
    atomic.write_yaml(output / "Results" / (again if own else "exp") / "config.yaml", settings)
    evaluate("--output-path", output, "--exp-name", "exp", again)
    written = metrics(output / "Results/evaluation" / f"exp+{again.replace('/', '.')}")
    assert [e["pictures"] for e in written["experiments"]] == [5, 5]
    assert "--dataset BDDOIA" in failure(capsys, "--output-path", output, "--exp-name", again, "--dataset", "BDDOIA")


def test_the_data_set_of_the_run_cannot_be_another(output, capsys):
    settings = {"flags": {"dataset": "CelebA", "label_query": 31}, "weights": {}, "classes": None}
    atomic.write_yaml(output / "Results/exp/config.yaml", settings)
    message = failure(capsys, "--output-path", output, "--dataset", "BDDOIA")
    assert message == "error: --dataset BDDOIA: exp/explanation explains pictures of CelebA"


def test_a_record_tells_what_was_seen_of_a_picture(recorded):
    evaluate("--output-path", recorded)
    row = (recorded / PLACE / "metrics.csv").read_text().splitlines()[1]
    assert row.startswith("exp/explanation,0000000.png,pictures/0.jpg,CC/CCF,0,0,1,1,True,")
    assert json.loads((recorded / PLACE / "metrics.json").read_text())["details"]["problems"] == {}
