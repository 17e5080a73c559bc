"""Whatever is wrong with a classifier that is named: one line that says what to do."""

import sys
import warnings

import pytest
import torch
from torch import nn

from tests.support.toys import SIDE, Workshop, randomised


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    shop = Workshop(tmp_path_factory.mktemp("shop"))
    trace(shop.folder / "net.pt")
    trace(shop.folder / "grey.pt", channels=1)
    trace(shop.folder / "two.pt", outputs=2)
    trace(shop.folder / "training.pt", dropout=True)
    torch.save(network().state_dict(), shop.folder / "w.pt")
    (shop.folder / "my_net.py").write_text("def build(width=4):\n    raise RuntimeError(width)\n")
    return shop


def network(channels=3, outputs=3):
    layers = [nn.Conv2d(channels, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(144, outputs)]
    return randomised(nn.Sequential(*layers))


def trace(file, *, dropout=False, **shape):
    made = nn.Sequential(network(**shape), nn.Dropout().train(dropout))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it is deprecated
        torch.jit.trace(made, torch.rand(2, shape.get("channels", 3), SIDE, SIDE), check_trace=False).save(file)


def onnx_of(folder, operator):
    """A model of one operator."""
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnx2fx")
    shape = [2, 3, SIDE, SIDE]
    ends = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape) for name in "xy"]
    graph = onnx.helper.make_graph([onnx.helper.make_node(operator, ["x"], ["y"])], "g", ends[:1], ends[1:])
    onnx.save(onnx.helper.make_model(graph), folder / "odd.onnx")


MISTAKES = {
    "training mode": ({"classifier": "training.pt"}, "answers differ", "evaluation mode"),
    "wrong size": (
        {"classifier": "net.pt", "classifier_size": 16},
        "mat1 and mat2 shapes cannot be multiplied",
        "give classifier_size",
    ),
    "wrong channels": ({"classifier": "grey.pt", "image_channels": 3}, "takes grey pictures", "image_channels"),
    "channels said": ({"classifier": "net.pt", "classifier_channels": 1}, "expected input", "classifier_channels"),
    "labels outside the head": ({"classifier": "two.pt"}, "has 2 outputs", "labels up to 2"),
    "an unknown class": (
        {"label_query": "boot", "label_target": "coatt"},
        "--label_target coatt",
        "did you mean coat?",
    ),
    "an unknown torchvision": ({"classifier": "torchvision:resnet51"}, "resnet51", "near it: resnet50"),
    "an unknown timm": ({"classifier": "timm:test_resnte"}, "no such network", "did you mean test_resnet?"),
    "an unknown kind": ({"classifier": "tim:resnet50"}, "tim:resnet50", "did you mean timm?"),
    "a kind mistyped": ({"classifier": "torchvison:resnet50"}, "torchvison:resnet50", "did you mean torchvision?"),
    "no kind": ({"classifier": "resnet50"}, "resnet50: no such file", "did you mean torchvision:resnet50?"),
    "an unknown function": ({"classifier": "my_net.py:biuld"}, "AttributeError", "did you mean build?"),
    "an unknown file of code": ({"classifier": "my_nte.py:build"}, "my_nte.py", "did you mean my_net.py?"),
    "code without a function": ({"classifier": "my_net.py"}, "--classifier my_net.py", "wanted FILE.py:FUNCTION"),
    "a function that fails": (
        {"classifier": "my_net.py:build", "classifier_args": '{"width": 64}'},
        "my_net.py:build",
        "RuntimeError: 64",
    ),
    "weights of nobody knows what": ({"classifier": "w.pt"}, "w.pt: is an unknown network", "my_net.py:build"),
    "a folder where a file is wanted": ({"classifier": "pictures"}, "pictures", "is a directory; give the weight file"),
    "a file where a folder is wanted": ({"classifier": "hf:w.pt"}, "w.pt: is a file", "wanted the folder"),
    "no such folder": ({"classifier": "hf:vti"}, "vti: no such folder", "save_pretrained"),
    "two files": ({"classifier": "net.pt", "classifier_path": "w.pt"}, "is not classifier_path w.pt", "give one"),
    "an operator that is not converted": ({"classifier": "odd.onnx"}, "cannot be converted", "torch.export"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_about_the_classifier_is_one_line_with_the_remedy(shop, monkeypatch, capsys, mistake):
    flags, *said = MISTAKES[mistake]
    monkeypatch.chdir(shop.folder)
    if "timm" in mistake:
        pytest.importorskip("timm")
    if "hf:" in flags.get("classifier", ""):
        pytest.importorskip("transformers")
    if "operator" in mistake:
        onnx_of(shop.folder, "OfNobody")
    flags = flags if "classifier" not in flags else {"classifier_path": None, **flags}
    assert shop.exit_code(**flags) == 2
    *notes, line = capsys.readouterr().err.splitlines()
    assert all(note.startswith("note: ") for note in notes) and line.startswith("error: ")
    assert [text for text in said if text not in line] == [], line
    assert not shop.output.exists()


@pytest.mark.parametrize(
    ("spec", "package"), [("timm:resnet18", "timm"), ("hf:pictures", "transformers"), ("odd.onnx", "onnx2fx")]
)
def test_an_extra_that_is_not_installed_is_named_with_the_command_that_installs_it(
    shop, monkeypatch, capsys, spec, package
):
    monkeypatch.chdir(shop.folder)
    monkeypatch.setitem(sys.modules, package, None)
    (shop.folder / "odd.onnx").write_bytes(b"\x08\x08")
    assert shop.exit_code(classifier=spec, classifier_path=None) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"pip install {'onnx onnx2fx' if package == 'onnx2fx' else package}" in line
