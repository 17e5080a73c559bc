import pytest
import torch

from ace_counterfactuals.core.base.settings import FlagError
from ace_counterfactuals.models.loading import save_weights
from ace_counterfactuals.models.student import StudentConfig, levels_of, load_student, new_student
from tests.support.toys import randomised, toy_unet


@pytest.mark.parametrize(
    ("shape", "levels"), [((32, 32), 3), ((256, 256), 5), ((256, 512), 5), ((28, 28), 2), ((8, 8), 1), ((33, 33), 0)]
)
def test_a_student_halves_pictures_as_often_as_both_sides_allow(shape, levels):
    assert levels_of(*shape) == levels


@pytest.mark.parametrize(("channels", "shape"), [(1, (32, 32)), (3, (16, 24)), (3, (8, 8))])
def test_a_student_returns_pictures_of_their_size(channels, shape):
    student, x_t = new_student(channels, shape, 8, 0.5), torch.randn(2, channels, *shape)
    assert student(x_t).shape == x_t.shape


def test_sides_that_cannot_be_halved_are_refused():
    with pytest.raises(FlagError, match="33 x 33"):
        new_student(1, (33, 33), 8, 0.5)


@pytest.mark.parametrize("half", [False, True])
def test_a_file_tells_all_that_its_student_is(tmp_path, half):
    student = randomised(new_student(3, (16, 16), 16, 0.703))
    state = student.state_dict()
    save_weights(tmp_path / "s.pt", {name: value.half() if half else value for name, value in state.items()})
    loaded, x_t = load_student(tmp_path / "s.pt"), torch.randn(2, 3, 16, 16)
    assert loaded.config == StudentConfig(3, 16, 2) and loaded.signal.item() == pytest.approx(0.703, abs=5e-4)
    torch.testing.assert_close(loaded(x_t), student(x_t), **({"atol": 0.02, "rtol": 0.02} if half else {}))
    assert not any(parameter.requires_grad for parameter in loaded.parameters())


@pytest.mark.parametrize("missing", ["first.weight", "after.0.layers.1.weight", "signal"])
def test_another_file_is_refused_by_name(tmp_path, missing):
    state = new_student(3, (16, 16), 8, 0.5).state_dict()
    del state[missing]
    for name, content in (("part.pt", state), ("unet.pt", toy_unet().state_dict())):
        save_weights(tmp_path / name, content)
        with pytest.raises(ValueError, match=f"{name} is no student; train_diffusion.py --distill True makes one"):
            load_student(tmp_path / name)
