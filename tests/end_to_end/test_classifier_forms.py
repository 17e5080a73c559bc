"""One network in five forms, by ``--classifier SPEC``: the attack takes the same way, and finds the same pictures."""

import numpy as np
import pytest
import timm
import torch
from PIL import Image

from ace_counterfactuals import ACE
from ace_counterfactuals.core.method.attacking import make_grad_fn
from ace_counterfactuals.core.method.attacks import ATTACKS
from ace_counterfactuals.core.method.task import judge
from ace_counterfactuals.core.runs.setup import task_of
from tests.support.toys import SIDE, Workshop, pictures, randomised, relative_distance, toy_unet

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # of the exporters
NAME = "test_resnet"
BUILD = f"""
import timm

def build(classes):
    return timm.create_model("{NAME}", num_classes=classes)
"""
SAID = {"classifier_mean": "0.5", "classifier_std": "0.5"}  # timm says its own
FORMS = {
    "onnx": {"classifier": "net.onnx", **SAID},
    "torch.export": {"classifier": "net.pt2", **SAID},
    "torchscript": {"classifier": "net.pt", **SAID},
    "a function, its weights by Lightning": {
        "classifier": "my_net.py:build",
        "classifier_path": "w.ckpt",
        "classifier_args": '{"classes": 3}',
        **SAID,
    },
    "timm": {"classifier": f"timm:{NAME}", "classifier_path": "w.pt"},
}


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """A file of each form."""
    pytest.importorskip("onnx2fx")
    folder = tmp_path_factory.mktemp("forms")
    network = randomised(timm.create_model(NAME, num_classes=3))
    state, example = network.state_dict(), (torch.rand(2, 3, SIDE, SIDE),)
    batch = ({0: torch.export.Dim.DYNAMIC},)
    (folder / "my_net.py").write_text(BUILD)
    torch.save(state, folder / "w.pt")
    lightning = {f"model.{name}": value for name, value in state.items()}
    torch.save({"state_dict": lightning, "hyper_parameters": {"lr": 0.1}, "epoch": 2}, folder / "w.ckpt")
    torch.jit.trace(network, example).save(folder / "net.pt")
    torch.export.save(torch.export.export(network, example, dynamic_shapes=batch), folder / "net.pt2")
    torch.onnx.export(network, example, str(folder / "net.onnx"), dynamo=True, dynamic_shapes=batch, verbose=False)
    return Workshop(folder)


def first_gradient(flags, images):
    spec, settings = flags["classifier"], {name: value for name, value in flags.items() if name != "classifier"}
    ace = ACE(spec, toy_unet(), diffusion_steps=100, learn_sigma=True, timestep_respacing="10", image_size=SIDE,
              sampling_time_fraction=0.2, device="cpu", **settings)  # fmt: skip
    batch = judge(images, task_of(ace.config, ace.classifier, ace.denoiser)).aimed()
    return make_grad_fn(batch, ATTACKS["PGD"])(images, 0)


@pytest.fixture(scope="module")
def wanted(shop):
    """By the form that is no other's conversion."""
    return found(shop, "timm")


def found(shop, form):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(shop.folder)
        gradient = first_gradient(FORMS[form], pictures(2))
        shop.run(exp_name=form.replace(" ", "-").strip("."), attack_iterations=3, label_query="boot",
                 **{"label_target": "coat", "classifier_path": None, **FORMS[form]})  # fmt: skip
    files = sorted(shop.results(form.replace(" ", "-")).glob("explanation/*/*/CF/*.png"))
    return gradient, np.stack([np.asarray(Image.open(file)) for file in files]).astype(int)


@pytest.mark.parametrize("form", [form for form in FORMS if form != "timm"])
def test_a_spec_of_any_form_has_the_same_first_gradient_and_counterfactuals(shop, wanted, form):
    gradient, levels = found(shop, form)
    assert relative_distance(gradient, wanted[0]) < 1e-4
    assert levels.size and levels.shape == wanted[1].shape and (abs(levels - wanted[1]) <= 1).mean() > 0.95
