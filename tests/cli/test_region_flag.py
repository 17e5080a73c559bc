"""--region as it is typed: what may change in the saved pictures, and what is refused in one line."""

from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from ace_counterfactuals.core.base.presets import read_preset
from ace_counterfactuals.core.runs.config import MainConfig
from ace_counterfactuals.core.runs.layout import ResultFolder
from ace_counterfactuals.core.runs.verify import verify
from tests.support.toys import CLASSES, SIDE, Workshop, tree, write_pictures


@pytest.fixture
def workshop(tmp_path):
    return Workshop(tmp_path)


def draw_region(path: Path, size=(SIDE, SIDE), *, white=(0, 4, 8, 8)) -> Path:
    """Black, with a white rectangle."""
    picture = Image.new("L", size)
    if white:
        picture.paste(255, white)
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path)
    return path


def rectangle(x0, y0, x1, y1) -> np.ndarray:
    mask = np.zeros((SIDE, SIDE), bool)
    mask[y0:y1, x0:x1] = True
    return mask


def changes(workshop, exp_name="exp") -> list[np.ndarray]:
    """(H, W) of each explained picture, in order: where one of its two saved results is not the original."""
    found = {}
    for result in workshop.results(exp_name).glob("*explanation/*/*/CF/*.png"):
        (original,) = workshop.output.glob(f"Original/*/{result.name}")
        changed = (np.asarray(Image.open(result)) != np.asarray(Image.open(original))).any(2)
        found.setdefault(result.name, []).append(changed)
    assert found and all(len(kinds) == 2 for kinds in found.values())
    return [np.logical_or(*found[name]) for name in sorted(found)]


def only_inside(changed: np.ndarray, inside: np.ndarray) -> bool:
    return changed[inside].any() and not changed[~inside].any()


def refused(workshop, capsys, **flags) -> str:
    assert workshop.exit_code(**flags) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("note: ")]
    assert len(lines) == 1 and not workshop.results().exists()
    return lines[0].removeprefix("error: ")


@pytest.mark.parametrize("method", ["PGD", "GD", "C&W", "None"])
@pytest.mark.parametrize("inpaint", [0, 0.5])
def test_the_saved_pictures_are_the_original_outside_the_region(workshop, method, inpaint):
    labels = {"label_query": "boot", "label_target": "coat"}
    workshop.run(attack_method=method, sampling_inpaint=inpaint, region="0,5,8,8", attack_step=60, **labels)
    found = changes(workshop)
    assert len(found) == 2 and all(only_inside(changed, rectangle(0, 5, 8, 8)) for changed in found)


def test_a_rectangle_beyond_the_pictures_is_told(workshop, capsys):
    workshop.run(region="0,5,99,8", num_samples=1)
    assert "region 0,5,99,8: reaches beyond the pictures, which are 8 x 8" in capsys.readouterr().err


@pytest.mark.parametrize("invert", [False, True])
def test_a_whole_experiment_with_a_region_is_found_whole(workshop, invert):
    workshop.run(region="0,4,8,8", region_invert=invert, num_samples=2)
    assert verify(ResultFolder(workshop.output, "exp")) == []


def test_an_inverted_region_is_what_may_not_change(workshop):
    workshop.run(region="0,5,8,8", region_invert=True, num_samples=2)
    assert all(only_inside(changed, ~rectangle(0, 5, 8, 8)) for changed in changes(workshop))


def test_a_picture_of_the_region_gives_the_bytes_of_the_rectangle(workshop):
    region = draw_region(workshop.folder / "region.png", white=(0, 4, 8, 8))
    workshop.run(region=region, exp_name="picture", num_samples=2)
    workshop.run(region="0,4,8,8", exp_name="rectangle", num_samples=2)
    kinds = [tree(workshop.results(name) / "explanation") for name in ("picture", "rectangle")]
    assert kinds[0] == kinds[1]


def test_a_folder_holds_a_region_for_each_picture_by_path_or_by_name(workshop):
    folder = workshop.folder / "regions"
    draw_region(folder / "boot/000.png", white=(0, 0, 8, 4))
    draw_region(folder / "001.png", white=(0, 4, 8, 8))
    draw_region(folder / "003.png", white=(0, 0, 4, 8))
    workshop.run(region=folder, num_samples=3)
    first, second, third = changes(workshop)  # boot/000, boot/003, coat/001
    assert only_inside(first, rectangle(0, 0, 8, 4)) and only_inside(second, rectangle(0, 0, 4, 8))
    assert only_inside(third, rectangle(0, 4, 8, 8))


def test_batches_and_chunks_do_not_move_a_region(workshop):
    folder = workshop.folder / "regions"
    for i in range(6):
        draw_region(folder / f"{CLASSES[i % 3]}/{i:03d}.png", white=(i, 0, i + 2, 8))
    settings = {"region": folder, "cudnn_deterministic": True, "batch_size": 4}
    workshop.run(exp_name="whole", **settings)
    for chunk in (1, 0):
        workshop.run(exp_name="parts", chunks=2, chunk=chunk, **settings)
    folder.rename(workshop.folder / "not needed any more")
    workshop.run(exp_name="parts", chunks=2, merge_chunks=True, **settings)
    pictures = [tree(workshop.results(name) / "explanation") for name in ("whole", "parts")]
    assert pictures[0] == pictures[1] != {}
    for i, changed in zip((0, 3, 1, 4, 2, 5), changes(workshop, "whole"), strict=True):
        assert only_inside(changed, rectangle(i, 0, i + 2, 8))


def test_the_summary_has_the_flip_rate_of_the_region(workshop, capsys):
    workshop.run(region="0,0,8,4", region_invert=True, num_samples=1)
    summary = yaml.safe_load((workshop.results() / "summary.yaml").read_text())
    rate = summary["explanation"]["cf"]
    assert summary["region"] == {"where": "everywhere but 0,0,8,4", "flip rate": rate}
    line = f"flip rate {rate:.3f} where this may change: everywhere but 0,0,8,4"
    assert line in capsys.readouterr().out.splitlines()


def test_a_region_of_another_size_is_scaled_with_one_notice(workshop, capsys):
    region = draw_region(workshop.folder / "region.png", (32, 32), white=(0, 16, 32, 32))
    workshop.run(region=region, num_samples=3, batch_size=1)
    assert capsys.readouterr().err.count("region.png: is 32 x 32, scaled and cropped to 8 x 8") == 1
    assert all(only_inside(changed, rectangle(0, 4, 8, 8)) for changed in changes(workshop))


def test_a_region_drawn_on_the_file_of_a_picture_is_cropped_with_it(workshop):
    """Files of 16 x 8, of which the middle is explained: its left half may change."""
    write_pictures(workshop.folder / "wide", 3, (16, 8))
    region = draw_region(workshop.folder / "region.png", (16, 8), white=(0, 0, 8, 8))
    workshop.run(data_dir=workshop.folder / "wide", region=region, num_samples=2)
    assert all(only_inside(changed, rectangle(0, 0, 4, 8)) for changed in changes(workshop))


def test_a_folder_continued_with_another_region_of_the_same_name_is_refused(workshop, capsys):
    region = draw_region(workshop.folder / "region.png")
    workshop.run(region=region, num_samples=1)
    draw_region(region, white=(0, 0, 8, 4))
    assert workshop.exit_code(region=region, num_samples=2) == 2
    assert "region is another file" in capsys.readouterr().err
    assert workshop.exit_code(num_samples=2) == 2
    assert "region (there: " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1,2,3", "--region 1,2,3: wanted four whole numbers, x0,y0,x1,y1"),
        ("4,4,4,8", "--region 4,4,4,8: holds no pixel; wanted 0 <= x0 < x1 and 0 <= y0 < y1"),
        ("2,-1,4,4", "--region 2,-1,4,4: holds no pixel; wanted 0 <= x0 < x1 and 0 <= y0 < y1"),
        ("8,0,9,9", "--region 8,0,9,9: covers nothing of boot/000.png, which is 8 x 8"),
        ("none.png", "--region none.png: no such file; wanted x0,y0,x1,y1, a picture, or a folder of pictures"),
    ],
)
def test_a_region_that_is_none_is_refused(workshop, capsys, text, message):
    assert refused(workshop, capsys, region=text) == message


def test_a_region_that_leaves_nothing_when_inverted_is_refused(workshop, capsys):
    message = refused(workshop, capsys, region="0,0,8,8", region_invert=True)
    assert message == "--region 0,0,8,8: covers all of boot/000.png, which is 8 x 8"


def test_inverting_without_a_region_is_refused(workshop, capsys):
    message = refused(workshop, capsys, region_invert=True)
    assert message == "--region_invert True: there is nothing to invert; give a region"


def test_an_empty_or_unreadable_region_is_refused_by_name(workshop, capsys):
    region = draw_region(workshop.folder / "region.png", white=None)
    message = refused(workshop, capsys, region=region)
    assert message == f"--region {region}: covers nothing of boot/000.png, which is 8 x 8"
    region.write_text("no picture")
    assert f"--region {region}: unreadable picture" in refused(workshop, capsys, region=region)


def test_a_folder_of_regions_is_refused_before_the_run_naming_the_pictures(workshop, capsys):
    folder = workshop.folder / "regions"
    folder.mkdir()
    assert refused(workshop, capsys, region=folder) == f"--region {folder}: the folder holds no picture"
    for i in range(5):
        draw_region(folder / f"{i:03d}.png")
    message = refused(workshop, capsys, region=folder)
    assert message == f"--region {folder}: has no picture for 1 of 6: shirt/005.png"
    empty = draw_region(folder / "shirt/005.png", white=None)
    assert f"--region {empty}: covers nothing of shirt/005.png" in refused(workshop, capsys, region=folder)


def test_one_region_for_two_pictures_of_the_same_name_is_refused(workshop, capsys):
    folder = workshop.folder / "regions"
    for i in range(6):
        draw_region(folder / f"{i:03d}.png")
    (workshop.data / "coat/000.png").write_bytes((workshop.data / "boot/000.png").read_bytes())
    message = refused(workshop, capsys, region=folder)
    assert "000.png would be the region of both boot/000.png and coat/000.png" in message


def test_the_check_names_what_is_wrong_with_a_region(workshop, capsys):
    region = draw_region(workshop.folder / "region.png", white=None)
    assert workshop.exit_code(region=region, check=True) == 1
    assert "region.png: covers nothing of boot/000.png" in capsys.readouterr().out


def test_a_presets_region_is_relative_to_it_where_it_is_a_file(tmp_path):
    for text, expected in (("mask.png", str(tmp_path / "mask.png")), ("0, 20, 32, 32", "0, 20, 32, 32")):
        (tmp_path / "p.yaml").write_text(yaml.safe_dump({"region": text}))
        assert read_preset(MainConfig, str(tmp_path / "p.yaml"))["region"] == expected
