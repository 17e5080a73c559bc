"""Classifiers of other makers: one network in many forms gives one answer, and what cannot be explained is refused."""

import json
import warnings
import zipfile

import pytest
import torch
from torch import nn

from ace_counterfactuals.core.base.settings import FlagError
from ace_counterfactuals.core.cli import evaluate, refine
from ace_counterfactuals.models.classifiers import load_classifier
from ace_counterfactuals.models.config import ClassifierConfig
from ace_counterfactuals.models.loading import digest
from ace_counterfactuals.models.specs import Spec, program_of, said_of
from tests.support.toys import SIDE, Workshop, relative_distance

MY_NET = """
from torch import nn

def build(width=4, last=None):
    layers = [nn.Conv2d(3, width, 3, padding=1), nn.BatchNorm2d(width), nn.SiLU(), nn.AdaptiveAvgPool2d(2)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(4 * width, 3), *([getattr(nn, last)()] if last else []))

def answer():
    return 42
"""
FORMS = ["function", "lightning", "torchscript", "pt2", "onnx", "onnx of before"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """One network in many forms."""
    folder = tmp_path_factory.mktemp("forms")
    (folder / "my_net.py").write_text(MY_NET)
    made = {}
    exec(MY_NET, made)
    torch.manual_seed(0)
    network = made["build"]()
    network(torch.rand(16, 3, SIDE, SIDE))  # statistics of its batches
    network.eval()
    state, image = network.state_dict(), torch.rand(2, 3, SIDE, SIDE)
    torch.save(state, folder / "w.pt")
    lightning = {f"model.{name}": value for name, value in state.items()} | {"loss.weight": torch.ones(3)}
    torch.save({"state_dict": lightning, "epoch": 3, "hyper_parameters": {"lr": 0.1}}, folder / "w.ckpt")
    batch = ({0: torch.export.Dim.DYNAMIC},)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporters
        torch.jit.trace(network, image).save(folder / "net.pt")
        torch.export.save(torch.export.export(network, (image,), dynamic_shapes=batch), folder / "net.pt2")
    return folder


def opened(folder, form, **changes):
    named = f"{folder}/my_net.py:build"
    name, file = {
        "function": (named, "w.pt"),
        "lightning": (named, "w.ckpt"),
        "torchscript": ("", "net.pt"),
        "pt2": ("", "net.pt2"),
        "onnx": ("", "net.onnx"),
        "onnx of before": ("", "old.onnx"),
    }[form]
    if form.startswith("onnx"):
        pytest.importorskip("onnx2fx")
        export(folder, folder / file)
    return load_classifier(folder / file, arch=Spec(name=name, image_size=SIDE, **changes))


def export(folder, file):
    pytest.importorskip("onnxscript")
    network = load_classifier(folder / "w.pt", arch=Spec(name=f"{folder}/my_net.py:build", image_size=SIDE)).network
    image = (torch.rand(2, 3, SIDE, SIDE),)
    if file.name == "old.onnx":
        axes = {"input_names": ["x"], "dynamic_axes": {"x": {0: "n"}}}
        torch.onnx.export(network.network, image, str(file), dynamo=False, **axes)
    else:
        batch = ({0: torch.export.Dim.DYNAMIC},)
        torch.onnx.export(network.network, image, str(file), dynamo=True, dynamic_shapes=batch, verbose=False)


def gradient(classifier, image):
    image = image.clone().requires_grad_()
    return torch.autograd.grad(classifier(image)[:, 1].sum(), image)[0]


@pytest.mark.filterwarnings("ignore")  # of the exporters
@pytest.mark.parametrize("form", FORMS)
def test_a_network_has_the_same_answers_and_gradient_in_any_form(folder, form):
    image, plain = torch.rand(3, 3, SIDE, SIDE), opened(folder, "function")
    other = opened(folder, form)
    assert relative_distance(other(image), plain(image)) < 1e-5  # float32, other orders of summing
    assert relative_distance(gradient(other, image), gradient(plain, image)) < 1e-4
    assert not other.binary and other.num_outputs == 3 and not other.training


@pytest.mark.parametrize("form", ["torchscript", "pt2"])
def test_a_program_is_known_by_its_content(folder, form):
    assert program_of(folder / ("net.pt2" if form == "pt2" else "net.pt")) == form
    assert program_of(folder / "w.pt") == program_of(folder / "my_net.py") == program_of(folder / "none.pt") == ""


def test_an_exported_program_of_an_older_torch_is_known_too(tmp_path):
    with zipfile.ZipFile(tmp_path / "net.pt2", "w") as archive:
        archive.writestr("serialized_exported_program.json", "{}")
    assert program_of(tmp_path / "net.pt2") == "pt2"


def test_mean_and_std_of_the_input_are_taken_as_given(folder):
    image, plain = torch.rand(2, 3, SIDE, SIDE), opened(folder, "function")
    normalised = opened(folder, "function", mean=(0.5,), std=(0.25, 0.5, 1.0))
    wanted = plain.network((image - 0.5) / torch.tensor([0.25, 0.5, 1.0]).view(3, 1, 1))
    assert torch.allclose(normalised(image), wanted, atol=1e-6)


def test_pictures_are_resized_for_a_network_of_one_size_and_so_is_their_gradient(folder):
    sized = opened(folder, "function", size=2 * SIDE)
    image = torch.rand(2, 3, SIDE, SIDE)
    larger = nn.functional.interpolate(image, (2 * SIDE, 2 * SIDE), mode="bilinear", antialias=True)
    assert torch.allclose(sized(image), opened(folder, "function")(larger), atol=1e-6)
    assert gradient(sized, image).abs().max() > 0


@pytest.mark.parametrize(("last", "outputs"), [("Sigmoid", "sigmoid"), ("Softmax", "softmax")])
@pytest.mark.filterwarnings("ignore:Implicit dimension choice for softmax")
def test_probabilities_are_found_said_and_made_logits(folder, notes, last, outputs):
    spec = Spec(name=f"{folder}/my_net.py:build", args={"last": last}, image_size=SIDE)
    image, logits = torch.rand(2, 3, SIDE, SIDE), opened(folder, "function")
    found = load_classifier(folder / "w.pt", arch=spec, query=0)
    assert f"gives probabilities ({outputs})" in notes.text
    wanted = logits(image)[:, 0] if last == "Sigmoid" else logits(image).log_softmax(1)
    assert torch.allclose(found(image), wanted, atol=1e-4)


def test_timms_network_is_loaded_with_as_many_classes_and_channels_as_the_file_has(tmp_path):
    timm = pytest.importorskip("timm")
    network = timm.create_model("test_resnet", num_classes=5, in_chans=1).eval()
    torch.save({f"model.{key}": value for key, value in network.state_dict().items()}, tmp_path / "w.pt")
    spec = Spec(name="timm:test_resnet", image_size=32, mean=(0.4,), std=(0.2,))
    classifier = load_classifier(tmp_path / "w.pt", arch=spec)
    image = torch.rand(2, 1, 32, 32)
    assert classifier.channels == 1 and classifier.num_outputs == 5
    assert torch.allclose(classifier(image), network((image - 0.4) / 0.2), atol=1e-5)
    with pytest.raises(ValueError, match="timm:test_resnte: no such network; did you mean test_resnet"):
        load_classifier(tmp_path / "w.pt", arch=Spec(name="timm:test_resnte"))


def test_a_folder_of_transformers_has_its_processors_size_and_normalisation_and_its_names(tmp_path):
    transformers = pytest.importorskip("transformers")
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    config = transformers.ViTConfig(
        image_size=16, patch_size=8, **sizes, id2label={0: "cat", 1: "dog"}, label2id={"cat": 0, "dog": 1}
    )
    network = transformers.ViTForImageClassification(config).eval()
    network.save_pretrained(tmp_path / "vit")
    about = {
        "do_normalize": True,
        "image_mean": [0.5] * 3,
        "image_std": [0.25] * 3,
        "size": {"height": 16, "width": 16},
    }
    (tmp_path / "vit/preprocessor_config.json").write_text(json.dumps(about))
    flags = ClassifierConfig(classifier=f"hf:{tmp_path}/vit")
    classifier = load_classifier(flags.classifier_path, arch=said_of(flags, 16))
    image = torch.rand(2, 3, 16, 16)
    wanted = network(pixel_values=(image - 0.5) / 0.25).logits
    assert classifier.class_names == ("cat", "dog") and torch.allclose(classifier(image), wanted, atol=1e-5)
    assert classifier(torch.rand(2, 3, 8, 8)).shape == (2, 2)
    before = digest(flags.classifier_path)
    (tmp_path / "vit/preprocessor_config.json").write_text("{}")
    assert digest(flags.classifier_path) != before
    for content, said in (("{", "cannot be read as JSON"), ("[]", "holds a list, wanted an object")):
        (tmp_path / "vit/preprocessor_config.json").write_text(content)
        with pytest.raises(ValueError, match=f"preprocessor_config.json: {said}"):
            load_classifier(flags.classifier_path, arch=said_of(flags, 16))


@pytest.mark.parametrize(
    ("said", "flags"),
    [
        ({"classifier": "torchvision:resnet18"}, {"classifier": "", "classifier_arch": "resnet18"}),
        ({"classifier": "w.onnx"}, {"classifier": "", "classifier_path": "w.onnx"}),
        ({"classifier": "https://host/w.pt"}, {"classifier": "", "classifier_path": "https://host/w.pt"}),
        ({"classifier": "hf:vit"}, {"classifier": "hf", "classifier_path": "vit"}),
        ({"classifier": "net.py:build"}, {"classifier": "net.py:build", "classifier_path": ""}),
        ({"classifier": "w.pt", "classifier_path": "w.pt"}, {"classifier": "", "classifier_path": "w.pt"}),
    ],
)
def test_what_is_said_in_one_flag_is_said_in_those_that_there_were(said, flags):
    found = ClassifierConfig(**said)
    assert {name: getattr(found, name) for name in flags} == flags


@pytest.mark.parametrize(
    ("flags", "field", "said"),
    [
        ({"classifier": "a.pt", "classifier_path": "b.pt"}, "classifier", "is not classifier_path b.pt"),
        ({"classifier": "torchvision:a", "classifier_arch": "b"}, "classifier", "is not classifier_arch b"),
        ({"classifier_mean": "0.5,x"}, "classifier_mean", "wanted numbers with commas"),
        ({"classifier_std": "0"}, "classifier_std", "above 0"),
        ({"classifier_mean": "0.5,0.5"}, "classifier_mean", "one number or three"),
        ({"classifier": "a.py:b", "classifier_args": "[1]"}, "classifier_args", "wanted an object"),
        ({"classifier": "a.py:b", "classifier_args": "{"}, "classifier_args", "is not JSON"),
    ],
)
def test_flags_that_cannot_be_are_refused_by_name(flags, field, said):
    with pytest.raises(FlagError) as refused:
        said_of(ClassifierConfig(**flags), SIDE)
    assert refused.value.field == field and said in refused.value.reason


@pytest.mark.parametrize(
    ("name", "file", "said"),
    [
        ("my_net.py:bild", "w.pt", "my_net.py:bild: AttributeError"),
        ("my_net.py:answer", "w.pt", "returned int, wanted a torch.nn.Module"),
        ("none.py:build", "w.pt", "none.py:build: FileNotFoundError"),
        ("no_such_module:build", "w.pt", "no_such_module:build: ModuleNotFoundError"),
        ("my_net.py:build", "none.pt", "none.pt: no such file"),
    ],
)
def test_a_function_that_makes_no_classifier_is_refused_in_one_line(folder, monkeypatch, name, file, said):
    monkeypatch.chdir(folder)
    with pytest.raises(ValueError) as refused:
        load_classifier(file, arch=Spec(name=name, image_size=SIDE))
    assert said in str(refused.value) and "\n" not in str(refused.value)


class Faulty(nn.Module):
    def __init__(self, fault):
        super().__init__()
        self.fault, self.calls = fault, 0

    def forward(self, image):
        assert self.fault != "size" or image.shape[2] == 32, "wanted 32 x 32"
        logits = image.mean((2, 3))
        if self.fault == "dropout":
            return nn.functional.dropout(logits, training=True)
        if self.fault == "rounding":
            return logits.round()
        return {"NaN": logits / 0, "dict": {"logits": logits}}.get(self.fault, logits)


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("dropout", "answers differ from one call to the next"),
        ("rounding", "no gradient"),
        ("NaN", "NaN or infinity"),
        ("dict", "answers with dict, wanted logits"),
        ("size", "cannot be asked about pictures of 8 x 8 .*give classifier_size"),
    ],
)
def test_a_network_that_cannot_be_explained_is_refused_before_a_run(monkeypatch, fault, said):
    import sys
    from types import ModuleType

    module = ModuleType("faulty_nets")
    module.build = lambda: Faulty(fault)
    monkeypatch.setitem(sys.modules, "faulty_nets", module)
    with pytest.raises(ValueError, match=f"faulty_nets:build: .*{said}"):
        load_classifier("", arch=Spec(name="faulty_nets:build", image_size=SIDE))


@pytest.fixture
def shop(tmp_path, folder):
    shop = Workshop(tmp_path)
    shop.classifier = folder / "w.pt"
    return shop


def test_a_classifier_of_ones_own_is_explained_continued_refined_and_evaluated_by_who_types_it(shop, folder, capsys):
    named = f"{folder}/my_net.py:build"
    shop.run(classifier=named, label_query="boot", label_target="coat")
    shop.run(classifier=named, label_query="boot", label_target="coat", num_samples=1)
    words = ["--output_path", str(shop.output), "--exp_name", "exp", "--device", "cpu"]
    with pytest.raises(FlagError, match="is code .*run only for who types it"):
        refine.main(words)
    assert refine.main([*words, "--classifier", named]) == 0
    results = ["--output-path", str(shop.output), "--device", "cpu", "--num-workers", "0"]
    evaluate.main(results)
    assert "no COUT, because the run's is code" in capsys.readouterr().err
    evaluate.main([*results, "--classifier", named, "--classifier-path", str(shop.classifier)])
    assert "COUT" in capsys.readouterr().out


def test_other_code_under_the_same_name_is_refused_on_continuing(shop, folder, tmp_path):
    file = tmp_path / "my_net.py"
    file.write_text(MY_NET)
    shop.run(classifier=f"{file}:build", num_samples=1)
    file.write_text(MY_NET + "\n# changed\n")
    with pytest.raises(ValueError, match="classifier is another file"):
        shop.run(classifier=f"{file}:build")


def test_a_damaged_onnx_file_is_named_in_one_line(tmp_path):
    pytest.importorskip("onnx2fx")
    (tmp_path / "x.onnx").write_bytes(b"\x08\x07" + bytes(50))
    with pytest.raises(ValueError, match="x.onnx: ONNX that cannot be converted: .*"):
        load_classifier(tmp_path / "x.onnx")
