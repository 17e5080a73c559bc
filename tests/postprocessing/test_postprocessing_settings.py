"""What a refinement is: the run's own again, or another by its settings; whose folder it has, and who reads it."""

import shutil

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from ace_counterfactuals.core.base.settings import flag_items
from ace_counterfactuals.core.cli import refine
from ace_counterfactuals.core.evaluation.read import companions, open_whole
from ace_counterfactuals.core.postprocessing.config import PostConfig
from ace_counterfactuals.core.runs.experiment import read_pairs
from ace_counterfactuals.core.runs.layout import FOLDERS
from tests.support.refinery import OWN, RUN, Refinery, rows
from tests.support.toys import toy_unet, tree


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


def test_a_run_whose_refinement_has_steps_of_its_own_gives_its_counterfactuals_again(tmp_path):
    refinery = Refinery(tmp_path)
    refinery.run(save_float=True, **RUN, refine_timestep_respacing=20, refine_time_fraction=0.3)
    refinery.refine()
    (folder,) = refinery.results().glob("all_filtered_*")
    assert folder.name == "all_filtered_r-20_i-0.5_d-1_f-0.3"
    again, run = refinery.levels("CF", f"exp/{folder.name}"), refinery.levels("CF", "exp/explanation")
    assert max(np.abs(again[name] - run[name]).max() for name in run) <= 1


def test_steps_that_are_said_to_be_the_attacks_are_the_runs_own(refinery):
    refinery.refine("--refine_timestep_respacing", "same", refine_time_fraction=-0.5)
    assert [path.name for path in refinery.results().glob("all_filtered_*")] == [OWN]


def test_the_refinements_own_steps_can_be_given_as_main_py_takes_them(refinery, capsys):
    refinery.refine("--refine_timestep_respacing", 20, 25, timestep_respacing=10, sampling_time_fraction=0.4)
    names = sorted(path.name for path in refinery.results().glob("all_filtered_*"))
    assert names == [f"all_filtered_r-{respacing}_i-0.5_d-1_f-0.4" for respacing in (20, 25)]
    assert "timestep_respacing is taken to be the attack's" in capsys.readouterr().err


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


def test_kept_pixels_are_the_originals_and_white_in_the_mask(refined):
    masks, found = (refined.levels(content, f"exp/{OWN}") for content in ("SM", "CF"))
    originals = refined.originals()
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
def test_every_setting_has_a_folder_and_pictures_of_its_own(again, changes):
    again.refine(**changes)
    folders = sorted(path.name for path in again.results().glob("all_filtered_*"))
    assert len(folders) == 2 and OWN in folders
    own, other = (again.levels("CF", f"exp/{name}") for name in sorted(folders, key=lambda name: name != OWN))
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


def test_a_sweep_has_a_row_for_every_setting_that_is_there(refinery, drawn, capsys):
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


def test_evaluation_reads_a_setting_by_its_name(refined):
    pairs = read_pairs(refined.output, f"exp/{OWN}")
    assert len(pairs) == 6 and pairs[0].counterfactual.is_relative_to(refined.results() / OWN)
    assert pairs[0].read_info()["label"] == 0
    source = open_whole(refined.output, f"exp/{OWN}", allow_partial=False)
    assert source.problems == () and source.kind == "explanation"
    before, masks = companions(source)
    assert len(before) == 6 and masks == {}


def test_the_whole_command_line_of_the_run_is_understood(refinery):
    known = flag_items(PostConfig)
    arguments = refinery.arguments(**RUN, label_target=-1, attack_joint=True, dist_l1=0)
    names = [word for word in arguments if word.startswith("--")]
    assert [name for name in names if name[2:] not in known] == []
    assert refine.main(arguments) == 0
    assert [path.name for path in refinery.results().glob("all_filtered_*")] == [OWN]


def test_a_folder_of_the_original_program_gives_what_our_own_does(refinery, finished, capsys):
    """Which keeps no records and no numbers, and whose settings must be given."""
    for path in refinery.results().rglob("*.npy"):
        path.unlink()
    refinery.refine()
    ours = {content: refinery.levels(content, f"exp/{OWN}") for content in ("CF", "SM", "Noise")}
    refinery.forget_all_but_the_pictures()
    assert refine.main(refinery.arguments(**RUN)) == 0
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
        refine.main(refinery.arguments(**RUN | {"model_path": model}))
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
