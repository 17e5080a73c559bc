"""What stands in the config.yaml of a result folder alone is not fetched, and opened only where its digest fits."""

import urllib.request
from types import SimpleNamespace

import pytest
import yaml

from ace_counterfactuals.core.cli.refine import main as refine
from ace_counterfactuals.core.evaluation.metrics.cd import annotations_of
from ace_counterfactuals.core.evaluation.session import Unavailable
from tests.support.paths import GOLDEN
from tests.support.result_folders import evaluate, figures
from tests.support.toys import Workshop

ADDRESS = "http://127.0.0.1:9/weights.pt"


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    workshop = Workshop(tmp_path_factory.mktemp("whole"))
    workshop.run()
    return workshop


@pytest.fixture
def copy(whole, tmp_path, monkeypatch):
    """A copy of the run, while every request is a failure."""
    monkeypatch.setattr(urllib.request, "urlopen", lambda *_, **__: pytest.fail("a request was made"))
    return whole.copy(tmp_path)


def change(workshop, part="flags", **values) -> None:
    path = workshop.results() / "config.yaml"
    stored = yaml.safe_load(path.read_text())
    stored[part] |= values
    path.write_text(yaml.safe_dump(stored))


@pytest.mark.parametrize("name", ["classifier_path", "model_path"])
def test_an_address_of_a_stranger_is_not_fetched_by_evaluate(copy, notes, name):
    change(copy, **{name: ADDRESS})
    evaluate("--output-path", copy.output, "--denoised-validity", "True")
    assert f"{ADDRESS} is an address, and none is fetched that stands in config.yaml alone" in notes.text
    assert "denoised_validity" not in figures(copy.results() / "evaluation")


def test_the_message_says_which_flag_to_type(copy, notes):
    change(copy, classifier_path=ADDRESS)
    evaluate("--output-path", copy.output)
    assert "in config.yaml alone; give --classifier-path" in notes.text


@pytest.mark.parametrize("name", ["classifier_path", "model_path"])
def test_an_address_of_a_stranger_is_not_fetched_by_postprocessing(copy, name):
    change(copy, **{name: ADDRESS})
    arguments = ["--output_path", str(copy.output), "--sampling_dilation", "1", "--device", "cpu"]
    with pytest.raises(ValueError, match=f"{name} {ADDRESS}: .*config.yaml alone names it"):
        refine(arguments)


@pytest.mark.parametrize("name", ["classifier_path", "model_path", "region"])
def test_a_folder_of_a_stranger_is_not_read_through(copy, tmp_path, name):
    change(copy, **{name: str(tmp_path)})
    arguments = ["--output_path", str(copy.output), "--sampling_dilation", "1", "--device", "cpu"]
    with pytest.raises(ValueError, match=f"{name} {tmp_path}: .*config.yaml alone names this folder"):
        refine(arguments)


@pytest.mark.parametrize("name", ["classifier_path", "model_path"])
def test_a_folder_of_a_stranger_is_not_opened_by_evaluate(copy, notes, tmp_path, name):
    change(copy, **{name: str(tmp_path)})
    evaluate("--output-path", copy.output, "--denoised-validity", "True")
    assert f"{tmp_path} is a folder, and none is opened that stands in config.yaml alone" in notes.text


def test_an_onnx_file_of_a_stranger_is_code_which_is_not_run(copy, notes, tmp_path):
    file = tmp_path / "net.onnx"
    file.write_bytes(b"\x08\x07" + bytes(50))
    change(copy, classifier_path=str(file))
    evaluate("--output-path", copy.output)
    assert f"the run's is code ({file}), which is run only for who types it" in notes.text


def test_a_chain_without_end_is_refused_with_its_field(copy):
    change(copy, diffusion_steps=2**31)
    with pytest.raises(ValueError, match=r"config.yaml: flags.diffusion_steps: .*100000"):
        refine(["--output_path", str(copy.output), "--device", "cpu"])


def test_a_file_that_a_stranger_names_without_its_digest_is_not_opened(copy, notes):
    path = copy.results() / "config.yaml"
    stored = yaml.safe_load(path.read_text())
    del stored["weights"]["classifier_path"]
    path.write_text(yaml.safe_dump(stored))
    evaluate("--output-path", copy.output)
    assert f"config.yaml has no digest of the run's classifier {copy.classifier}; give --classifier-path" in notes.text


def test_annotations_in_a_folder_that_a_stranger_names_are_not_read():
    networks = SimpleNamespace(celeba_path="")
    session = SimpleNamespace(config=SimpleNamespace(networks=networks))
    stored = SimpleNamespace(flags={"data_dir": str(GOLDEN / "data/celeba")})
    subject = SimpleNamespace(session=session, stored=stored, dataset="CelebA")
    with pytest.raises(Unavailable, match="celeba_path .*give --celeba-path"):
        annotations_of(subject)
    networks.celeba_path = str(GOLDEN / "data/celeba")
    assert annotations_of(subject).shape == (200, 40)
