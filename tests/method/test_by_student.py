"""Gradients through a student of the diffusion model, in the place of most of those through the model."""

import pytest
import torch

from ace_counterfactuals.core.base.settings import FlagError
from ace_counterfactuals.core.method.attacking import attack, make_grad_fn
from ace_counterfactuals.core.method.attacks import find_attack
from ace_counterfactuals.core.method.task import judge
from ace_counterfactuals.core.runs.plan import calls_of
from ace_counterfactuals.models.denoisers import DiffusionModel
from ace_counterfactuals.models.student import new_student
from tests.support.toys import SIDE, ToyClassifier, ToyDenoiser, pictures, randomised, toy_diffusion, toy_task

SETTINGS = {"attack_filter": "one-step", "attack_student": "student.pt", "label_target": 1}


class Counted(ToyDenoiser):
    calls = 0

    def forward(self, x_t, timesteps, classes=None):
        type(self).calls += len(x_t)
        return super().forward(x_t, timesteps, classes)


def make_batch(count=4, network=ToyDenoiser, dtype=torch.float64, signal=None, **settings):
    """Whose student was trained at the last step of its filter, if no other ``signal`` is given."""
    process = toy_diffusion()
    signal = process.alphas_cumprod.values[2].item() if signal is None else signal
    student = randomised(new_student(3, (SIDE, SIDE), 8, signal)).to(dtype)
    model = DiffusionModel(network(dtype), process, student=student)
    task = toy_task(dtype, classifier=ToyClassifier(dtype=dtype), denoiser=model, **SETTINGS | settings)
    return judge(pictures(count, dtype), task).aimed()


def gradient(batch, iterations):
    return make_grad_fn(batch, find_attack("PGD", targeted=True))(batch.image, iterations)


@pytest.mark.parametrize(("every", "through_the_model"), [(0, 0), (1, 8), (3, 2), (4, 2), (9, 0)])
def test_every_nth_iteration_goes_through_the_model_itself(every, through_the_model):
    batch, Counted.calls = make_batch(2, Counted, attack_iterations=8, attack_student_every=every), 0
    attack(batch)
    assert Counted.calls == 2 * through_the_model == 2 * calls_of(batch.task.attack, 3, 8)[0]


def test_a_student_that_predicts_what_the_model_does_has_the_models_gradient():
    batch = make_batch()
    other = make_batch(attack_student_every=1)
    batch.filter.__dict__["student"] = batch.filter.expected
    torch.testing.assert_close(gradient(batch, 0), gradient(other, 0))


def test_the_gradient_through_a_student_is_that_of_its_prediction():
    batch = make_batch()
    picture = batch.image.clone().requires_grad_()
    x_t = batch.filter.start(picture, batch.noise(0))
    loss = torch.nn.functional.cross_entropy(
        batch.task.classifier((batch.filter.student(x_t).clamp(-1, 1) + 1) / 2), batch.target, reduction="sum"
    )
    torch.testing.assert_close(gradient(batch, 0), torch.autograd.grad(loss, picture)[0])


def test_pictures_at_different_iterations_have_the_gradients_that_each_has_alone():
    batch, iterations = make_batch(), [0, 3, 7, 6]
    together = gradient(batch, iterations)
    for i, iteration in enumerate(iterations):
        alone = gradient(batch.take([i]), [iteration])
        torch.testing.assert_close(together[i : i + 1], alone)


def test_the_refinement_does_not_know_the_student():
    assert make_batch().refiner.student is None


def test_a_student_of_other_noise_is_refused():
    with pytest.raises(FlagError, match=r"trained where alphas_cumprod is 0\.900, but at the filter's last step it is"):
        make_batch(signal=0.9)


def test_a_student_that_no_setting_names_is_left_alone():
    batch, Counted.calls = make_batch(1, Counted, attack_student="", signal=0.9), 0
    attack(batch)
    assert Counted.calls == batch.task.attack.attack_iterations
