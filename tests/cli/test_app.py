"""app.py: what it starts with, and what it says where it cannot."""

import sys

import pytest

from ace_counterfactuals.core.app.config import AppConfig
from ace_counterfactuals.core.base.presets import PRESETS
from ace_counterfactuals.core.base.settings import FlagError
from ace_counterfactuals.core.cli import app
from ace_counterfactuals.core.cli.parsing import parse
from tests.support.toys import Workshop


@pytest.fixture
def started(monkeypatch):
    """The settings that the server was started with."""
    serving, taken = pytest.importorskip("ace_counterfactuals.core.app.serving"), []
    monkeypatch.setattr(serving, "serve", lambda config, ready: taken.append(config) or 0)
    return taken


def test_without_flags_it_has_the_demos_networks_pictures_and_judges(started):
    assert app.main([]) == 0
    config = started[0]
    assert config.weights.model_path.endswith("demo/ddpm.pt") and config.data.data_dir.endswith("demo/pictures")
    assert {*config.serving.unseen} == {str(path) for path in app.DEMO.glob("unseen_*.pt")} != set()
    assert config.main.run.batch_size == 1


def test_with_networks_it_has_these_under_whole_paths(started, tmp_path, monkeypatch):
    shop = Workshop(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert app.main(shop.arguments(model_path="model.safetensors")) == 0
    assert started[0].weights.model_path == str(shop.model) and started[0].serving.unseen == ()


def test_without_networks_it_says_in_one_line_what_to_give(monkeypatch, tmp_path):
    monkeypatch.setattr(app, "DEMO", tmp_path)
    with pytest.raises(ValueError, match=r"^no networks.*--model_path and --classifier, or a --preset$"):
        app.main([])


def test_without_its_packages_it_says_how_to_install_them(monkeypatch):
    monkeypatch.setitem(sys.modules, "starlette.applications", None)
    for module in ("serving", "server"):
        monkeypatch.delitem(sys.modules, f"ace_counterfactuals.core.app.{module}", raising=False)
        monkeypatch.delattr(f"ace_counterfactuals.core.app.{module}", raising=False)
    with pytest.raises(ValueError, match=r"pip install 'ace-counterfactuals\[app\]'"):
        app.main([])


def test_an_open_address_without_a_password_is_refused_before_anything_is_loaded(monkeypatch):
    pytest.importorskip("starlette")
    monkeypatch.delenv("ACE_APP_AUTH", raising=False)
    with pytest.raises(FlagError) as caught:
        app.main(["--host", "0.0.0.0"])
    assert caught.value.field == "host"


def test_a_classifier_of_ones_own_is_none_of_imagenets_as_for_files_of_main_py():
    words = ["--model_path", "ddpm.pt", "--classifier", "torchvision:resnet18", "--classifier_path", "mine.pt"]
    assert parse(AppConfig, "", words).main.data.dataset == "Folder"
    assert parse(AppConfig, "", words[:2]).main.data.dataset == "ImageNet"


@pytest.mark.parametrize("preset", sorted(path.stem for path in PRESETS.glob("*.yaml")))
def test_every_preset_that_explains_can_be_taken(preset):
    if "attack_" in (PRESETS / f"{preset}.yaml").read_text():
        assert parse(AppConfig, "", ["--preset", preset]).main.run.batch_size == 1
