"""Pre-explanations as numbers: the mask is found again, and what did not change has not."""

import numpy as np
import pytest
import torch

from ace_counterfactuals.core.cli.explain import main
from ace_counterfactuals.core.data.pictures import UnreadableImage
from ace_counterfactuals.core.method.filtering import change_mask
from ace_counterfactuals.core.runs.recording import draw_pictures, from_stored, read_stored, to_npy, to_stored
from tests.runs.test_layout import a_record
from tests.support.toys import SIDE, Workshop, exit_code, pictures

STEPS = 20


def attacked(image, step, generator):
    """A pre-explanation after whole steps, as PGD takes them: many of its changes lie on the mask's threshold."""
    changed = image.clone()
    for _ in range(STEPS):
        move = torch.randint(-1, 2, image.shape, generator=generator) * step / 255
        changed = (changed + move).clamp(0, 1)
    return changed


def below(image, changed, inpaint):
    return change_mask(image[None], changed[None])[0] < inpaint


@pytest.mark.parametrize("step", [0.37, 1, 4])
@pytest.mark.parametrize("inpaint", [0.05, 0.15, 0.9])
def test_a_stored_pre_explanation_has_the_mask_of_the_one_that_was_stored(step, inpaint):
    generator = torch.Generator().manual_seed(0)
    moved_by_plain_rounding = 0
    for seed in range(40):
        image = pictures(1, seed=seed)[0]
        changed = attacked(image, step, generator)
        found = from_stored(to_stored(image, changed, inpaint))
        assert torch.equal(below(image, found, inpaint), below(image, changed, inpaint))
        assert (found - changed).abs().max() < 1 / 255 / 2
        plain = from_stored(changed.half())
        moved_by_plain_rounding += not torch.equal(below(image, plain, inpaint), below(image, changed, inpaint))
    if (step, inpaint) == (0.37, 0.15):
        assert moved_by_plain_rounding


def test_grey_levels_come_back_to_the_bit():
    levels = (torch.arange(256).float() / 255).expand(3, 1, 256)
    assert torch.equal(from_stored(to_stored(levels, levels, 0.15)), levels)


def test_numbers_are_read_as_they_were_written(tmp_path):
    stored = torch.rand(3, 4, 5).half()
    (tmp_path / "a.npy").write_bytes(to_npy(stored))
    assert np.load(tmp_path / "a.npy").dtype == np.float16
    assert torch.equal(read_stored(tmp_path / "a.npy"), from_stored(stored))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        to_npy(torch.rand(3, 4, 4).half())[:-5],
        to_npy(torch.rand(4, 4).half()),
        to_npy(torch.full((3, 4, 4), 2.0).half()),
        to_npy(torch.full((3, 4, 4), float("nan")).half()),
        to_npy(torch.zeros(3, 4, 4).double()),
        b"not numbers",
    ],
    ids=["empty", "truncated", "flat", "range", "nan", "double", "text"],
)
def test_a_damaged_file_of_numbers_is_named(tmp_path, data):
    path = tmp_path / "0000003.npy"
    path.write_bytes(data)
    with pytest.raises(UnreadableImage, match=r"0000003\.npy"):
        read_stored(path)


def test_numbers_lie_beside_the_picture_and_move_with_it(results, explanation):
    for flips, folder in ((True, "CC/CCF"), (False, "CC/ICF")):
        results.write(a_record(explanation, flips=flips), draw_pictures(explanation, 0, inpaint=0.9))
        files = [path.relative_to(results.root).as_posix() for path in results.root.rglob("*.npy")]
        assert files == [f"pre-explanation/{folder}/CF/0000003.npy"]
    found = read_stored(results.floats(folder, 3))
    assert (found - explanation.pre_explanation[0]).abs().max() < 1 / 255 / 4


def test_a_picture_that_is_written_again_without_numbers_keeps_no_old_ones(results, explanation):
    for inpaint in (0.9, None):
        results.write(a_record(explanation, flips=True), draw_pictures(explanation, 0, inpaint=inpaint))
    assert not list(results.root.rglob("*.npy"))


def test_a_run_keeps_numbers_where_it_is_asked_to(tmp_path):
    workshop = Workshop(tmp_path)
    workshop.run(save_float=True, num_samples=2, attack_iterations=1)
    stored = sorted(workshop.results().rglob("*.npy"))
    assert [path.name for path in stored] == ["0000000.npy", "0000001.npy"]
    assert all(path.with_suffix(".png").exists() and read_stored(path).shape == (3, SIDE, SIDE) for path in stored)


def test_numbers_without_pictures_are_refused(tmp_path, capsys):
    workshop = Workshop(tmp_path)
    assert exit_code(lambda: main(workshop.arguments(save_float=True, save_images=False))) == 2
    assert "--save_float True" in capsys.readouterr().err
