"""An experiment as a whole: its tables, its chunks, and going on where it stopped."""

import csv
import io
import json
import shutil
from contextlib import redirect_stderr, redirect_stdout

import pytest
import torch
import yaml
from PIL import Image

from ace_counterfactuals.core.base.settings import flag_items
from ace_counterfactuals.core.cli.explain import main
from ace_counterfactuals.core.runs.config import MainConfig
from ace_counterfactuals.models.loading import digest
from tests.support.toys import CLASSES, Workshop, toy_unet, tree, write_classifier


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run over six pictures and what it printed."""
    workshop = Workshop(tmp_path_factory.mktemp("finished"))
    with redirect_stdout(io.StringIO()) as out, redirect_stderr(io.StringIO()) as err:
        assert workshop.run() == 0
    workshop.printed, workshop.noted = out.getvalue(), err.getvalue()
    return workshop


@pytest.fixture
def workshop(tmp_path):
    return Workshop(tmp_path)


def read_yaml(path):
    return yaml.safe_load(path.read_text())


def read_csv(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def logs(workshop):
    """What each process logged: its command, and its rows of seconds."""
    paths = sorted((workshop.results() / "log").glob("*.json"))
    return [(json.loads(path.read_text()), read_csv(path.with_suffix(".csv"))) for path in paths]


def test_every_picture_has_a_row_in_the_order_of_their_indices(finished):
    rows = read_csv(finished.results() / "results.csv")
    assert [row["index"] for row in rows] == [str(i) for i in range(6)]
    assert [row["file"] for row in rows] == [f"{CLASSES[i // 2]}/{i // 2 + 3 * (i % 2):03d}.png" for i in range(6)]
    assert [row["label"] for row in rows] == ["0", "0", "1", "1", "2", "2"]


def test_the_summary_is_the_mean_of_the_rows(finished):
    rows, summary = read_csv(finished.results() / "results.csv"), read_yaml(finished.results() / "summary.yaml")
    assert summary["n"] == 6
    assert summary["clean acc"] == pytest.approx(sum(r["label"] == r["prediction"] for r in rows) / 6)
    for kind, short in (("explanation", "ce"), ("pre-explanation", "pre")):
        assert summary[kind]["cf"] == pytest.approx(sum(r[f"{short}_success"] == "True" for r in rows) / 6)
        assert summary[kind]["l1"] == pytest.approx(sum(float(r[f"{short}_l1"]) for r in rows) / 6)
        assert summary[kind]["l inf"] == pytest.approx(sum(float(r[f"{short}_l_inf"]) for r in rows) / 6)


def test_an_untargeted_run_has_no_target_in_its_rows(finished):
    assert {(r["target"], r["target_prob"]) for r in read_csv(finished.results() / "results.csv")} == {("-1", "")}


def test_the_configuration_holds_what_results_depend_on_versions_digests_and_classes(finished):
    stored = read_yaml(finished.results() / "config.yaml")
    entering = {name for name, item in flag_items(MainConfig).items() if item.result}
    assert set(stored["flags"]) == entering | {"data_dir", "model_path", "classifier_path", "attack_student"}
    assert stored["flags"]["attack_step"] == 8.0 and stored["flags"]["timestep_respacing"] == "10"
    assert stored["threads"] == torch.get_num_threads()
    assert {"python", "torch", "torchvision", "numpy", "pillow"} <= set(stored["versions"])
    assert stored["versions"]["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert stored["weights"] == {
        "model_path": f"sha256:{digest(finished.model)}",
        "classifier_path": f"sha256:{digest(finished.classifier)}",
    }
    assert stored["classes"] == list(CLASSES)


def test_a_process_logs_its_command_and_its_seconds_apart_from_what_does_not_change(finished):
    values, rows = logs(finished)[0]
    assert set(values["flags"]) == set(flag_items(MainConfig))
    assert (values["pictures"], values["selected"], values["ended"]) == (6, 6, "finished")
    assert {"host", "pid", "start", "end"} <= set(values)
    assert [row["index"] for row in rows] == [str(i) for i in range(6)]
    assert all(float(row["seconds"]) > 0 for row in rows)
    assert not any("second" in column or "time" in column for column in read_csv(finished.results() / "results.csv")[0])


def test_the_run_prints_a_table_and_where_to_look(finished):
    lines = finished.printed.splitlines()
    assert [line.split()[:2] for line in lines[1:3]] == [["pre-explanation", "6"], ["explanation", "6"]]
    assert str(finished.results() / "sheet.png") in lines[3]
    assert str(finished.results()) in lines[4]
    assert len(lines) == 5


def test_the_sheet_is_a_picture(finished):
    with Image.open(finished.results() / "sheet.png") as sheet:
        sheet.verify()


def test_doing_it_again_changes_nothing(finished):
    before = tree(finished.results())
    with redirect_stderr(io.StringIO()) as noted:
        finished.run()
    assert "6 of 6 pictures are finished already" in noted.getvalue()
    assert tree(finished.results()) == before


def test_a_run_that_is_continued_does_only_the_rest(workshop, capsys):
    workshop.run(batch_size=1, num_samples=2)
    workshop.run(batch_size=1)
    assert "2 of 6 pictures are finished already; continuing" in capsys.readouterr().err
    timed = sorted([row["index"] for row in rows] for _, rows in logs(workshop))
    assert timed == [["0", "1"], ["2", "3", "4", "5"]]


def test_the_tables_of_a_smaller_selection_are_over_that_selection(workshop):
    workshop.run()
    workshop.run(num_samples=4)
    assert read_yaml(workshop.results() / "summary.yaml")["n"] == 4
    assert len(read_csv(workshop.results() / "results.csv")) == 4


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"seed": 5}, "seed 5 (there: 4)"),
        ({"attack_step": 4}, "attack_step 4.0 (there: 8.0)"),
        ({"timestep_respacing": "20"}, "timestep_respacing 20 (there: '10')"),
        ({"label_target": "coat", "label_query": "boot"}, "label_target 1 (there: -1)"),
    ],
)
def test_going_on_with_other_settings_is_refused_by_name(finished, changes, named):
    before = tree(finished.output, without=())
    with pytest.raises(ValueError) as caught:
        finished.run(**changes)
    assert named in str(caught.value) and "choose another exp_name, or overwrite True" in str(caught.value)
    assert tree(finished.output, without=()) == before


def test_going_on_with_other_weights_is_refused_by_name(finished, tmp_path):
    with pytest.raises(ValueError, match="classifier_path is another file"):
        finished.run(classifier_path=write_classifier(tmp_path / "c.pt", seed=9))
    state = toy_unet().state_dict()
    state["out.2.bias"] += 1
    torch.save(state, tmp_path / "m.pt")
    with pytest.raises(ValueError, match="model_path is another file"):
        finished.run(model_path=tmp_path / "m.pt")


@pytest.mark.parametrize(
    "changes",
    [
        {"batch_size": 5, "num_workers": 1},
        {"attack_joint_checkpoint": True, "attack_checkpoint_backward_steps": 2},
        {"use_checkpoint": True, "gpu": 3, "chunks": 2},
    ],
)
def test_going_on_with_settings_that_do_not_enter_the_result_is_allowed(finished, changes):
    assert finished.run(**changes) == 0


def test_weights_that_lie_elsewhere_are_the_same_weights(finished, tmp_path):
    (tmp_path / "m.pt").write_bytes(finished.model.read_bytes())
    assert finished.run(model_path=tmp_path / "m.pt") == 0


def test_pictures_may_be_saved_from_the_second_half_on(workshop):
    workshop.run(save_images=False, num_samples=2)
    assert not (workshop.results() / "sheet.png").exists()
    assert not list(workshop.output.rglob("*.png"))
    assert workshop.run(save_images=True) == 0
    assert (workshop.results() / "sheet.png").exists()


def test_an_experiment_without_pictures_has_its_tables(workshop, capsys):
    assert workshop.run(save_images=False) == 0
    assert "sheet.png" not in capsys.readouterr().out
    names = {"config.yaml", "summary.yaml", "results.csv"}
    assert names == {path.name for path in workshop.results().iterdir() if path.is_file()}


def test_chunks_have_tables_of_their_own_and_merge_into_those_of_all(workshop):
    for chunk in range(3):
        workshop.run(batch_size=1, chunk=chunk, chunks=3)
        assert read_yaml(workshop.results() / f"c-{chunk}_3-summary.yaml")["n"] == 2
        rows = read_csv(workshop.results() / f"c-{chunk}_3-results.csv")
        assert [int(row["index"]) % 3 for row in rows] == [chunk, chunk]
        assert (workshop.results() / f"c-{chunk}_3-sheet.png").exists()
    assert not (workshop.results() / "summary.yaml").exists()
    workshop.run(merge_chunks=True, chunks=3)
    assert read_yaml(workshop.results() / "summary.yaml")["n"] == 6
    assert [row["index"] for row in read_csv(workshop.results() / "results.csv")] == list("012345")


def test_merging_refuses_what_is_incomplete_and_names_it(workshop):
    workshop.run(chunk=1, chunks=3)
    with pytest.raises(ValueError, match="4 of 6 pictures are missing in .*: 0000000, 0000002, 0000003, 0000005; "):
        workshop.run(merge_chunks=True, chunks=3)
    assert not (workshop.results() / "summary.yaml").exists()


def test_merging_nothing_is_refused(workshop):
    with pytest.raises(ValueError, match="config.yaml: no such file; run main.py"):
        workshop.run(merge_chunks=True)


def test_merging_needs_no_weights(workshop):
    workshop.run()
    (workshop.results() / "summary.yaml").unlink()
    workshop.run(merge_chunks=True, model_path=None, classifier_path=None)
    assert read_yaml(workshop.results() / "summary.yaml")["n"] == 6


def test_a_skipped_picture_does_not_keep_chunks_from_merging(workshop):
    (workshop.data / "boot" / "000.png").write_bytes(b"no picture")
    for chunk in range(2):
        workshop.run(chunk=chunk, chunks=2)
    workshop.run(merge_chunks=True, chunks=2)
    summary = read_yaml(workshop.results() / "summary.yaml")
    assert (summary["n"], summary["skipped"]) == (5, 1)


def test_a_class_is_given_by_name_or_by_index(workshop):
    workshop.run(label_query="coat", label_target="shirt", exp_name="names")
    workshop.run(label_query=1, label_target=2, exp_name="numbers")
    names, numbers = (workshop.results(name) for name in ("names", "numbers"))
    assert (names / "results.csv").read_bytes() == (numbers / "results.csv").read_bytes()
    assert {row["label"] for row in read_csv(names / "results.csv")} == {"1"}
    flags = [read_yaml(folder / "config.yaml")["flags"] for folder in (names, numbers)]
    assert flags[0]["label_target"] == flags[1]["label_target"] == 2


def test_labels_follow_the_classifiers_own_order_of_classes(workshop):
    classifier = write_classifier(workshop.folder / "other.pt", ("shirt", "hat", "boot", "coat"))
    workshop.run(classifier_path=classifier, label_query="boot", label_target="shirt")
    rows = read_csv(workshop.results() / "results.csv")
    assert {row["label"] for row in rows} == {"2"}
    assert {row["file"].split("/")[0] for row in rows} == {"boot"}
    assert {row["target"] for row in rows if row["prediction"] == "2"} <= {"0"}


def test_classes_are_given_by_name_where_only_the_folders_have_names(workshop):
    """torchvision's files name no classes: the folders' names count."""
    from torchvision.models import squeezenet1_1

    with torch.random.fork_rng():
        torch.manual_seed(0)
        torch.save(squeezenet1_1(num_classes=3).state_dict(), workshop.folder / "s.pt")
    settings = {"classifier_path": workshop.folder / "s.pt", "classifier_arch": "squeezenet1_1"}
    settings |= {"image_size": 32, "attention_resolutions": 16}
    for path in workshop.data.rglob("*.png"):
        with Image.open(path) as picture:
            larger = picture.resize((32, 32))
        larger.save(path)
    workshop.run(label_query="boot", label_target="coat", **settings)
    assert {row["label"] for row in read_csv(workshop.results() / "results.csv")} == {"0"}
    workshop.run(label_query="boot", label_target="coat", merge_chunks=True, **settings)


def test_pictures_of_a_csv_may_lie_anywhere(workshop):
    table = workshop.folder / "table"
    table.mkdir()
    lines = [f"{workshop.data / 'boot' / '000.png'},boot", "../pictures/coat/001.png,coat"]
    (table / "labels.csv").write_text("\n".join(["file,label", *lines]) + "\n")
    workshop.run(dataset="CSV", data_dir=table)
    files = [row["file"] for row in read_csv(workshop.results() / "results.csv")]
    assert files == ["../pictures/boot/000.png", "../pictures/coat/001.png"]


def test_pictures_without_labels_have_no_accuracy(workshop, capsys):
    workshop.run(data_dir=workshop.data / "boot")
    assert read_yaml(workshop.results() / "summary.yaml")["clean acc"] is None
    assert "unknown" in capsys.readouterr().out


def test_a_record_is_plain_json(finished):
    values = json.loads((finished.results() / "records/0000002.json").read_text())
    assert (values["index"], values["file"]) == (2, "coat/001.png")


def test_main_takes_its_arguments_as_a_list(workshop):
    assert main([*workshop.arguments(), "--num_samples", "1"]) == 0


def test_going_on_with_pictures_of_other_names_is_refused(finished, tmp_path):
    other = tmp_path / "pictures"
    shutil.copytree(finished.data, other)
    for path in sorted(other.rglob("*.png")):
        path.rename(path.with_name(f"other-{path.name}"))
    with pytest.raises(ValueError, match="made with other pictures: 0000000 is .* and .*other-"):
        finished.run(data_dir=str(other))
