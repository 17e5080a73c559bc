"""postprocessing.py: stored pre-explanations refined again, as main.py would have."""

import csv
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from toys import Workshop, exit_code, toy_unet, tree

import core.postprocess
import postprocessing
from core.config import PostConfig
from core.evaluation.read import companions, open_source, outcome_kind
from core.flags import UserError, flag_items
from core.layout import FOLDERS, ResultFolder
from core.locks import hold
from core.results import read_pairs
from core.verify import verify

ROOT = Path(__file__).parents[1]
OWN = "all_filtered_r-10_i-0.5_d-1_f-0.2"
RUN = {"attack_method": "GD", "attack_step": 60, "sampling_inpaint": 0.5, "sampling_dilation": 1, "batch_size": 1}


class Refinery(Workshop):
    """A workshop whose run keeps about a sixth of each picture's pixels in the mask."""

    def refine(self, *words, exp_name: str = "exp", **changes) -> int:
        """postprocessing.py's exit code; its errors are raised.  words: flags with several values."""
        flags = {"output_path": self.output, "exp_name": exp_name, "device": "cpu", "num_workers": 0, "batch_size": 1}
        typed = [part for name, value in {**flags, **changes}.items() for part in (f"--{name}", str(value))]
        return postprocessing.main([*typed, *map(str, words)])

    def error(self, capsys, *words, **changes) -> str:
        assert exit_code(lambda: self.refine(*words, **changes)) == 2
        lines = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("note: ")]
        assert len(lines) == 1
        return lines[0]

    def levels(self, content: str, folder: str) -> dict[str, np.ndarray]:
        """Name -> the 8-bit picture, of an experiment's folder that holds CC and IC."""
        paths = sorted((self.output / "Results" / folder).glob(f"*/*/{content}/*.png"))
        return {path.name: np.asarray(Image.open(path)).astype(int) for path in paths}

    def originals(self) -> dict[str, np.ndarray]:
        paths = (self.output / "Original").glob("*/*.png")
        return {path.name: np.asarray(Image.open(path)).astype(int) for path in paths}

    def forget_all_but_the_pictures(self):
        """Leave what the original program would have left."""
        for path in self.results().iterdir():
            if path.name not in ("pre-explanation", "explanation"):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        for path in self.results().rglob("*.npy"):
            path.unlink()


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    refinery = Refinery(tmp_path_factory.mktemp("finished"))
    refinery.run(save_float=True, **RUN)
    return refinery


@pytest.fixture
def refinery(finished, tmp_path):
    """A finished run in a folder of its own."""
    copy = Refinery.__new__(Refinery)
    copy.__dict__.update(finished.__dict__, output=tmp_path / "out")
    shutil.copytree(finished.output, copy.output)
    return copy


def rows(path: Path) -> list[dict]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_the_runs_own_settings_give_its_counterfactuals_again(refinery, capsys):
    refinery.refine()
    again, run = refinery.levels("CF", f"exp/{OWN}"), refinery.levels("CF", "exp/explanation")
    assert again.keys() == run.keys() and len(run) == 6
    assert max(np.abs(again[name] - run[name]).max() for name in run) <= 1
    assert "8 bits" not in capsys.readouterr().err
    areas = [
        [row["mask_area"] for row in rows(refinery.results(name) / "results.csv")] for name in ("exp", f"exp/{OWN}")
    ]
    assert areas[0] == areas[1]


def test_without_stored_numbers_a_notice_says_what_to_expect(refinery, capsys):
    for path in sorted(refinery.results().rglob("*.npy"))[:4]:
        path.unlink()
    refinery.refine()
    assert "4 of 6 pre-explanations are stored with 8 bits only" in capsys.readouterr().err


def test_with_no_steps_the_masked_pixels_are_the_pre_explanations_and_the_others_the_originals(refinery):
    refinery.refine(sampling_time_fraction=0, sampling_inpaint=0.3)
    folder = "exp/all_filtered_r-10_i-0.3_d-1_f-0.0"
    originals, attacked = refinery.originals(), refinery.levels("CF", "exp/pre-explanation")
    masks, found = refinery.levels("SM", folder), refinery.levels("CF", folder)
    for name, picture in found.items():
        keep = (masks[name] == 255)[..., None]
        assert 0 < keep.mean() < 1
        assert np.array_equal(picture, np.where(keep, originals[name], attacked[name]))


def test_kept_pixels_are_the_originals_and_white_in_the_mask(refinery):
    refinery.refine()
    masks, found, originals = (
        refinery.levels("SM", f"exp/{OWN}"),
        refinery.levels("CF", f"exp/{OWN}"),
        refinery.originals(),
    )
    for name, mask in masks.items():
        assert set(np.unique(mask)) == {0, 255}
        assert np.array_equal(found[name][mask == 255], originals[name][mask == 255])
        assert not np.array_equal(found[name][mask == 0], originals[name][mask == 0])


def test_defect_11_the_dilation_is_honoured(refinery):
    refinery.refine("--sampling_dilation", 1, 3, 5)
    kept = {
        d: {
            name: mask == 255
            for name, mask in refinery.levels("SM", f"exp/all_filtered_r-10_i-0.5_d-{d}_f-0.2").items()
        }
        for d in (1, 3, 5)
    }
    for name, keep in kept[1].items():
        changed = torch.from_numpy(~keep)[None].float()
        for dilation in (3, 5):
            grown = torch.nn.functional.max_pool2d(changed, dilation, 1, dilation // 2)[0].bool().numpy()
            assert np.array_equal(kept[dilation][name], ~grown)
    assert sum(keep.sum() for keep in kept[5].values()) < sum(keep.sum() for keep in kept[1].values())


@pytest.mark.parametrize(
    "changes",
    [
        {"sampling_inpaint": 0.2},
        {"sampling_dilation": 3},
        {"timestep_respacing": "20"},
        {"sampling_time_fraction": 0.4},
        {"seed": 5},
        {"sampling_stochastic": False},
        {"predict_xstart": True},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_every_setting_has_a_folder_and_pictures_of_its_own(refinery, changes):
    refinery.refine()
    refinery.refine(**changes)
    folders = sorted(path.name for path in refinery.results().glob("all_filtered_*"))
    assert len(folders) == 2 and OWN in folders
    own, other = (refinery.levels("CF", f"exp/{name}") for name in sorted(folders, key=lambda name: name != OWN))
    assert any(not np.array_equal(own[name], other[name]) for name in own)


def test_a_folder_names_a_seed_and_a_model_that_are_not_the_runs(refinery, tmp_path):
    other = tmp_path / "other.pt"
    torch.save(toy_unet().state_dict() | {"out.2.bias": torch.ones(6)}, other)
    refinery.refine("--model_path", refinery.model, other, "--seed", 4, 5)
    names = sorted(path.name for path in refinery.results().glob("all_filtered_*"))
    suffixes = [name.removeprefix(OWN) for name in names]
    model = suffixes[1]
    assert model.startswith("_m-other-") and len(model) == len("_m-other-") + 8
    assert suffixes == ["", model, "_s-5", f"_s-5{model}"]


def test_a_model_is_told_by_its_content_and_not_by_its_path(refinery, tmp_path):
    shutil.copy(refinery.model, tmp_path / "moved.pt")
    refinery.refine(model_path=tmp_path / "moved.pt")
    assert [path.name for path in refinery.results().glob("all_filtered_*")] == [OWN]


def test_many_settings_load_each_network_once(refinery, tmp_path, monkeypatch):
    loaded = []
    for name in ("load_denoiser", "load_explained"):
        load = getattr(core.postprocess, name)
        monkeypatch.setattr(
            core.postprocess, name, lambda *args, load=load, name=name: loaded.append(name) or load(*args)
        )
    refinery.refine("--sampling_inpaint", 0.1, 0.5, "--sampling_dilation", 1, 3)
    assert sorted(loaded) == ["load_denoiser", "load_explained"]
    assert len(list(refinery.results().glob("all_filtered_*/summary.yaml"))) == 4


def test_a_setting_has_the_tables_of_a_run_and_the_run_keeps_its_own(refinery):
    before = tree(refinery.output)
    refinery.refine()
    after = tree(refinery.output)
    assert {name: data for name, data in after.items() if name in before} == before
    made = {name.removeprefix(f"Results/exp/{OWN}/") for name in after.keys() - before.keys()}
    assert made >= {"config.yaml", "summary.yaml", "results.csv", "sheet.png", "records/0000000.json"}
    assert all((refinery.results() / OWN / folder / "Info").is_dir() for folder in FOLDERS)
    summary = yaml.safe_load((refinery.results() / OWN / "summary.yaml").read_text())
    run = yaml.safe_load((refinery.results() / "summary.yaml").read_text())
    assert summary["explanation"]["cf"] == run["explanation"]["cf"] and summary["n"] == 6
    assert summary["explanation"]["l1"] == pytest.approx(run["explanation"]["l1"], rel=0.01)


def test_it_goes_on_where_it_was_killed(refinery):
    refinery.refine()
    whole = tree(refinery.output)
    for index in (1, 4):
        (refinery.results() / OWN / f"records/{index:07d}.json").unlink()
    (refinery.results() / OWN / "summary.yaml").unlink()
    refinery.refine()
    assert tree(refinery.output) == whole


def test_it_begins_anew_if_it_is_asked_to(refinery):
    refinery.refine()
    whole = tree(refinery.output)
    picture = next((refinery.results() / OWN).glob("*/*/CF/*.png"))
    picture.write_bytes(b"spoilt")
    refinery.refine(overwrite=True)
    assert tree(refinery.output) == whole


def test_what_is_damaged_is_found_and_done_again(refinery, capsys):
    refinery.refine()
    whole = tree(refinery.output)
    results = ResultFolder(refinery.output, f"exp/{OWN}")
    assert verify(results) == []
    picture = next(results.root.glob("*/*/CF/0000004.png"))
    picture.write_bytes(picture.read_bytes()[:-20])
    assert [finding.damaged for finding in verify(results)] == [4]
    refinery.refine()
    assert tree(refinery.output) == whole


def test_a_run_of_main_does_not_take_the_name_of_a_setting(refinery):
    refinery.refine()
    with pytest.raises(UserError, match="is a name of postprocessing.py's folders"):
        refinery.run(exp_name=f"exp/{OWN}")


def test_a_second_process_on_the_same_setting_is_refused(refinery, capsys):
    refinery.refine()
    with hold(refinery.results() / OWN / "log"):
        assert f"process {os.getpid()} on" in refinery.error(capsys)


def test_the_status_tells_of_every_setting(refinery, capsys):
    assert "nothing was refined" in refinery.error(capsys, status=True)
    refinery.refine("--sampling_inpaint", 0.2, 0.5)
    capsys.readouterr()
    refinery.refine(status=True)
    assert capsys.readouterr().out.count("6 of 6 pictures done, 0 skipped, 0 missing") == 2


def test_chunks_merge_into_the_whole(refinery, monkeypatch):
    refinery.refine("--sampling_inpaint", 0.2, 0.5)
    whole = tree(refinery.output)
    for path in [*refinery.results().glob("all_filtered_*"), *refinery.results().glob("sweep.*")]:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    for chunk in (2, 0):
        assert not (refinery.results() / "sweep.csv").exists()
        refinery.refine("--sampling_inpaint", 0.2, 0.5, chunks=3, chunk=chunk)
    for name, value in {"RANK": 1, "WORLD_SIZE": 3, "LOCAL_RANK": 1}.items():
        monkeypatch.setenv(name, str(value))
    refinery.refine("--sampling_inpaint", 0.2, 0.5, chunk="auto")
    refinery.refine("--sampling_inpaint", 0.2, 0.5, chunks=3, merge_chunks=True)
    assert {name: data for name, data in tree(refinery.output).items() if "/c-" not in name} == whole


def test_merging_names_what_is_missing(refinery, capsys):
    refinery.refine(chunks=3, chunk=1)
    assert "4 of 6 pictures are missing" in refinery.error(capsys, chunks=3, merge_chunks=True)


def test_a_sweep_has_a_row_for_every_setting_that_is_there(refinery, capsys):
    refinery.refine("--sampling_inpaint", 0.2, 0.5)
    refinery.refine("--sampling_inpaint", 0.5, 0.7, "--sampling_dilation", 1, 3)
    table = rows(refinery.results() / "sweep.csv")
    settings = [(row["sampling_dilation"], row["sampling_inpaint"]) for row in table]
    assert settings == [("1", "0.2"), ("1", "0.5"), ("1", "0.7"), ("3", "0.5"), ("3", "0.7")]
    areas = [float(row["mask_area"]) for row in table]
    assert areas[0] > areas[1] > areas[2] and areas[3] > areas[1]
    summary = yaml.safe_load((refinery.results() / table[0]["setting"] / "summary.yaml").read_text())
    assert float(table[0]["flip_rate"]) == summary["explanation"]["cf"] and table[0]["n"] == "6"
    with Image.open(refinery.results() / "sweep.png") as picture:
        assert picture.format == "PNG" and picture.width > 600
    assert table[0]["setting"] in capsys.readouterr().out


def test_evaluation_reads_a_setting_by_its_name(refinery):
    refinery.refine()
    pairs = read_pairs(refinery.output, f"exp/{OWN}")
    assert len(pairs) == 6 and pairs[0].counterfactual.is_relative_to(refinery.results() / OWN)
    assert pairs[0].read_info()["label"] == 0
    source = open_source(refinery.output, f"exp/{OWN}", allow_partial=False)
    assert source.problems == () and outcome_kind(source.records["0000000.png"], source.kind) == "explanation"
    before, masks = companions(source)
    assert len(before) == 6 and masks == {}


def test_the_whole_command_line_of_the_run_is_understood(refinery):
    known = flag_items(PostConfig)
    arguments = refinery.arguments(**RUN, label_target=-1, attack_joint=True, dist_l1=0)
    names = [word for word in arguments if word.startswith("--")]
    assert [name for name in names if name[2:] not in known] == []
    assert postprocessing.main(arguments) == 0
    assert [path.name for path in refinery.results().glob("all_filtered_*")] == [OWN]


def test_a_folder_of_the_original_program_gives_what_our_own_does(refinery, finished, capsys):
    """Which keeps no records and no numbers, and whose settings must be given."""
    for path in refinery.results().rglob("*.npy"):
        path.unlink()
    refinery.refine()
    ours = {content: refinery.levels(content, f"exp/{OWN}") for content in ("CF", "SM", "Noise")}
    refinery.forget_all_but_the_pictures()
    assert postprocessing.main(refinery.arguments(**RUN)) == 0
    for content, pictures in ours.items():
        found = refinery.levels(content, f"exp/{OWN}")
        assert pictures.keys() == found.keys()
        assert all(np.array_equal(found[name], pictures[name]) for name in pictures)
    assert "folder of the original program" in capsys.readouterr().err


def test_two_models_on_a_folder_of_the_original_program_have_two_folders(refinery, tmp_path):
    other = tmp_path / "other.pt"
    torch.save(toy_unet().state_dict() | {"out.2.bias": torch.ones(6)}, other)
    refinery.forget_all_but_the_pictures()
    for model in (refinery.model, other, refinery.model):
        postprocessing.main(refinery.arguments(**RUN | {"model_path": model}))
    names = sorted(path.name for path in refinery.results().glob("all_filtered_*"))
    assert len(names) == 2 and names[0] == OWN and names[1].startswith(f"{OWN}_m-other-")


def test_targets_left_free_stay_free_and_given_ones_stay_given(finished, tmp_path):
    workshop = Refinery(tmp_path)
    workshop.run(label_query="boot", label_target="shirt", **RUN)
    workshop.refine()
    assert [row["target"] for row in rows(workshop.results() / OWN / "results.csv")] == ["2", "2"]
    assert {row["target"] for row in rows(finished.results() / "results.csv")} == {"-1"}


def test_a_region_of_the_run_holds_for_its_refinements(tmp_path):
    workshop = Refinery(tmp_path)
    workshop.run(region="2,2,6,6", num_samples=2, **RUN)
    workshop.refine(sampling_inpaint=0)
    found, originals = workshop.levels("CF", "exp/all_filtered_r-10_i-0.0_d-1_f-0.2"), workshop.originals()
    for name, picture in found.items():
        changed = (picture != originals[name]).any(-1)
        assert changed[2:6, 2:6].all() and changed.sum() == 16


def test_a_classifier_that_decides_otherwise_about_originals_is_noticed(refinery, capsys):
    for path in refinery.results().glob("pre-explanation/CC/*/Info/*.txt"):
        path.write_text(path.read_text().replace("pred: 0", "pred: 1"))
    refinery.forget_all_but_the_pictures()
    postprocessing.main(refinery.arguments(**RUN))
    assert "decides otherwise about" in capsys.readouterr().err


def test_a_truncated_picture_is_named_and_passed_over(refinery, capsys):
    for path in refinery.results().rglob("0000002.npy"):
        path.unlink()
    png = next(refinery.results().glob("pre-explanation/*/*/CF/0000002.png"))
    data = png.read_bytes()
    png.write_bytes(data[:-30])
    refinery.refine()
    assert f"skipped: {png}: unreadable picture" in capsys.readouterr().err
    assert yaml.safe_load((refinery.results() / OWN / "summary.yaml").read_text())["skipped"] == 1
    png.write_bytes(data)
    refinery.refine()
    assert yaml.safe_load((refinery.results() / OWN / "summary.yaml").read_text())["n"] == 6


def test_an_original_of_another_size_than_its_pre_explanation_is_named(refinery, capsys):
    original = next((refinery.output / "Original").glob("*/0000003.png"))
    Image.new("RGB", (8, 16)).save(original)
    refinery.refine()
    assert "original and pre-explanation are 8 x 16 and 8 x 8 pixels" in capsys.readouterr().err


def test_a_run_without_stored_pictures_cannot_be_refined(tmp_path, capsys):
    workshop = Refinery(tmp_path)
    workshop.run(num_samples=2, attack_iterations=1, save_images=False)
    assert "2 of 2 finished pictures have no stored original or pre-explanation" in workshop.error(capsys)


def test_a_run_that_is_not_finished_is_refined_as_far_as_it_is(tmp_path, capsys):
    workshop = Refinery(tmp_path)
    workshop.run(chunks=3, chunk=1, **RUN)
    workshop.refine()
    assert "2 of the 6 pictures" in capsys.readouterr().err
    workshop.run(**RUN)
    workshop.refine()
    assert "of the 6 pictures" not in capsys.readouterr().err
    assert yaml.safe_load((workshop.results() / OWN / "summary.yaml").read_text())["n"] == 6


def test_an_experiment_that_is_not_there_names_those_that_are(refinery, capsys):
    assert "--exp_name typo: no such experiment" in (error := refinery.error(capsys, exp_name="typo"))
    assert error.endswith("there are: exp")


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"attack_step": 4}, "--attack_step 4.0 (there: 60.0)"),
        ({"region": "0,0,4,4"}, "--region 0,0,4,4 (there: '')"),
        ({"image_size": 16}, "--image_size 16 (there: 8)"),
        ({"label_target": "coat"}, "--label_target coat (there: -1)"),
        ({"dataset": "ImageNet"}, "--dataset ImageNet (there: 'Folder')"),
        ({"sampling_inpaint": 1.5}, "--sampling_inpaint 1.5: out of range"),
        ({"sampling_dilation": 4}, "--sampling_dilation 4 is even"),
        ({"sampling_time_fraction": 0.01}, "--sampling_time_fraction 0.01 of 10 respaced steps"),
        ({"timestep_respacing": "101"}, "--timestep_respacing 101"),
        ({"model_path": "/nowhere.pt"}, "/nowhere.pt"),
        ({"num_channels": 64}, "--num_channels"),
        ({"chunk": 3}, "--chunk 3"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_mistake_is_named_and_nothing_is_written(refinery, capsys, changes, named):
    before = tree(refinery.output)
    assert named in refinery.error(capsys, **changes)
    assert tree(refinery.output) == before


def test_another_size_than_the_stored_pictures_is_named(refinery, capsys):
    refinery.forget_all_but_the_pictures()
    assert exit_code(lambda: postprocessing.main(refinery.arguments(**RUN, image_size=16))) == 2
    assert "is 8 x 8 pixels; give --image_size 8" in capsys.readouterr().err


def test_another_classifier_or_a_changed_model_is_refused(refinery, tmp_path, capsys):
    shutil.copy(refinery.model, tmp_path / "model.pt")
    assert "--classifier_path" in refinery.error(capsys, classifier_path=tmp_path / "model.pt")
    config = refinery.results() / "config.yaml"
    config.write_text(config.read_text().replace("model_path: sha256:", "model_path: sha256:0"))
    assert f"--model_path {refinery.model}: is not what" in refinery.error(capsys)


@pytest.mark.slow
def test_postprocessing_as_it_is_typed(tmp_path):
    workshop = Refinery(tmp_path)

    def typed(script, *words):
        command = [sys.executable, str(ROOT / script), *map(str, words)]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    typed("main.py", *workshop.arguments(save_float=True, **RUN))
    where = ("--output_path", workshop.output, "--exp_name", "exp")
    printed = typed("postprocessing.py", *where, "--sampling_inpaint", 0.05, 0.15, "--sampling_dilation", 5)
    for inpaint in (0.05, 0.15):
        name = f"all_filtered_r-10_i-{inpaint}_d-5_f-0.2"
        assert name in printed and len(workshop.levels("CF", f"exp/{name}")) == 6
    assert "sweep.png" in printed
    assert "--sampling_inpaint FLOAT [FLOAT ...]" in typed("postprocessing.py", "--help")


@pytest.mark.slow
def test_postprocessing_that_is_killed_between_two_settings_ends_with_the_same_tree(refinery):
    sweep = ("--sampling_inpaint", "0.2", "0.5", "--sampling_dilation", "1", "3")
    refinery.refine(*sweep)
    whole = tree(refinery.output)
    for path in refinery.results().glob("all_filtered_*"):
        shutil.rmtree(path)
    where = ("--output_path", str(refinery.output), "--device", "cpu", "--batch_size", "1", "--num_workers", "0")
    command = [sys.executable, str(ROOT / "postprocessing.py"), *where, *sweep]
    for number, records in ((signal.SIGKILL, 2), (signal.SIGTERM, 9), (signal.SIGKILL, 15)):
        running = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        while running.poll() is None and len(list(refinery.results().glob("all_filtered_*/records/*.json"))) < records:
            time.sleep(0.02)
        running.send_signal(number)
        assert running.wait() in (-9, 143)
    assert len(list(refinery.results().glob("all_filtered_*/records/*.json"))) < 24
    refinery.refine(*sweep)
    assert tree(refinery.output) == whole
