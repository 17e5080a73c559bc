"""What other packages ask for: tensors and arrays of the inputs' own shape, from inputs as the model takes them."""

import numpy as np
import pytest
import torch

from ace_counterfactuals import ACE, Counterfactuals, quantus_explain
from ace_counterfactuals.models.denoisers import DiffusionModel
from tests.support.toys import ToyClassifier, ToyDenoiser, pictures, toy_diffusion

SETTINGS = {"attack_iterations": 1, "attack_step": 8, "timestep_respacing": "10", "sampling_time_fraction": 0.2}
MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.5)


@pytest.fixture
def denoiser():
    return DiffusionModel(ToyDenoiser(), toy_diffusion(""))


def normalised(images):
    return (images - torch.tensor(MEAN).view(1, 3, 1, 1)) / torch.tensor(STD).view(1, 3, 1, 1)


def test_captums_methods_give_the_counterfactual_and_the_change_in_the_inputs_own_terms(denoiser):
    images = pictures(3)
    plain = ToyClassifier()
    wanted = ACE(plain, denoiser, **SETTINGS).explain(images, 1).counterfactual
    method = Counterfactuals(lambda inputs: plain(inputs * 0.5 + 0.25), denoiser, mean=0.25, std=0.5, **SETTINGS)
    inputs = ((images - 0.25) / 0.5).requires_grad_()
    found = method.perturb(inputs, target=1)
    assert torch.allclose(found, (wanted - 0.25) / 0.5, atol=1e-5)
    assert torch.allclose(method.attribute(inputs, target=1), found - inputs, atol=1e-6)
    assert not found.requires_grad


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_answer_has_the_shape_type_and_device_of_the_inputs(denoiser, channels, dtype):
    plain = ToyClassifier()
    method = Counterfactuals(lambda x: plain(x.expand(-1, 3, -1, -1)), denoiser, mean=0.5, std=0.25, **SETTINGS)
    inputs = ((pictures(2)[:, :channels] - 0.5) / 0.25).to(dtype)
    for found in (method.perturb(inputs, 1), method.attribute(inputs, 1)):
        assert (found.shape, found.dtype, found.device) == (inputs.shape, dtype, inputs.device)


def test_each_input_may_have_a_target_of_its_own(denoiser):
    images, method = pictures(3), Counterfactuals(ToyClassifier(), denoiser, **SETTINGS)
    found = method.perturb(images, torch.tensor([1, 2, 1]))
    alone = [method.ace.explain(images[i : i + 1], target, indices=[i]) for i, target in enumerate([1, 2, 1])]
    assert torch.allclose(found, torch.cat([one.counterfactual for one in alone]), atol=1e-5)
    with pytest.raises(ValueError, match="target: 2 classes for 3 inputs"):
        method.perturb(images, [1, 2])


def test_normalised_inputs_without_their_mean_are_refused(denoiser):
    with pytest.raises(ValueError, match="give those of the inputs"):
        Counterfactuals(ToyClassifier(), denoiser, **SETTINGS).perturb(normalised(pictures(2)))


def test_quantus_gets_the_size_of_the_changes_of_numpy_inputs(denoiser):
    model, inputs = ToyClassifier(), normalised(pictures(2))
    given = {"denoiser": denoiser, "mean": MEAN, "std": STD, "target": 1, "device": "cuda:0", **SETTINGS}
    found = quantus_explain(model=model, inputs=inputs.numpy(), targets=np.array([0, 0]), **given)
    wanted = Counterfactuals(model, denoiser, mean=MEAN, std=STD, **SETTINGS).attribute(inputs, 1)
    assert isinstance(found, np.ndarray) and found.shape == inputs.shape and found.min() >= 0
    assert np.allclose(found, wanted.abs().numpy())
