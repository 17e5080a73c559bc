"""The wheel, an editable install and a clone hold the same package, ace_counterfactuals, under no other name."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import ace_counterfactuals
from ace_counterfactuals.core.base import presets
from ace_counterfactuals.core.base.settings import FlagError
from ace_counterfactuals.core.cli.parsing import parse
from ace_counterfactuals.core.runs.config import MainConfig
from tests.support.paths import ROOT

tomllib = pytest.importorskip("tomllib")
SETUP = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
TOPS = ("core", "models", "guided_diffusion")


def test_every_package_is_listed_for_the_wheel():
    folders = {path.parent for top in TOPS for path in (ROOT / top).rglob("*.py")}
    packages = {f"ace_counterfactuals.{folder.relative_to(ROOT).as_posix().replace('/', '.')}" for folder in folders}
    assert set(SETUP["packages"]) == packages | {"ace_counterfactuals", "ace_counterfactuals.configs"}
    mapped = {f"ace_counterfactuals.{name}": name for name in (*TOPS, "configs")}
    assert SETUP["package-dir"] == mapped


def test_every_file_that_is_no_code_is_listed_for_the_wheel():
    tops = [ROOT / name for name in (*TOPS, "configs", "ace_counterfactuals")]
    there = {path for top in tops for path in top.rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    listed = set()
    for package, patterns in SETUP["package-data"].items():
        folder = ROOT / package.removeprefix("ace_counterfactuals.").replace(".", "/")
        listed |= {path for pattern in patterns for path in folder.glob(pattern)}
    assert {path for path in there if path.suffix != ".py"} == listed


def test_a_clone_resolves_to_its_own_folders():
    assert list(ace_counterfactuals.__path__) == [str(ROOT / "ace_counterfactuals"), str(ROOT)]


def test_a_preset_says_where_the_demo_is_if_it_is_not_here(tmp_path, monkeypatch):
    """As in a wheel; what is typed in place of it will do."""
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs/fashion.yaml").write_text((presets.PRESETS / "fashion.yaml").read_text())
    monkeypatch.setattr(presets, "PRESETS", tmp_path / "configs")
    with pytest.raises(FlagError, match="clone of the repository") as caught:
        parse(MainConfig, "", ["--preset", "fashion"])
    assert caught.value.field == "preset"
    paths = ("data_dir", "model_path", "classifier_path")
    words = ["--preset", "fashion", *(word for name in paths for word in (f"--{name}", "elsewhere"))]
    assert parse(MainConfig, "", words).data.data_dir == "elsewhere"


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The Python of an environment that has the wheel, and torch and the like from this one."""
    folder = tmp_path_factory.mktemp("installed")
    source = folder / "source"  # a build leaves files beside it
    for name in (*TOPS, "configs", "ace_counterfactuals"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", folder, source]
    if subprocess.run([*build, "--no-build-isolation"], capture_output=True).returncode:
        subprocess.run(build, check=True)  # which fetches setuptools
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / "venv"], check=True)
    python = folder / "venv/bin/python"
    ask = "import sysconfig; print(sysconfig.get_path('purelib'))"
    target = subprocess.run([python, "-c", ask], capture_output=True, text=True, check=True).stdout.strip()
    wheel = next(folder.glob("*.whl"))
    install = ["-m", "pip", "--quiet", "--python", python, "install", "--no-deps", "--no-index", wheel]
    subprocess.run([sys.executable, *install], check=True)
    outer = [path for path in sys.path if path.endswith(("site-packages", "dist-packages"))]
    # Unlike a .pth file's, these are not searched for .pth files, of which one is this clone's own editable install.
    (Path(target) / "outer.pth").write_text("".join(f"{path}\n" for path in outer))
    return python


def typed(installed, cwd, *words, code=0) -> str:
    """What a command prints in a folder outside of the clone."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run([str(word) for word in words], cwd=cwd, env=environment, capture_output=True, text=True)
    assert done.returncode == code, done.stderr
    return done.stdout + done.stderr


@pytest.mark.slow
def test_a_wheel_explains_a_picture_from_another_folder(installed, tmp_path):
    demo, ace = ROOT / "demo", installed.with_name("ace")
    shown = typed(installed, tmp_path, installed, "-c", "import ace_counterfactuals.core as c; print(c.__file__)")
    assert str(installed.parent.parent) in shown
    paths = {"data_dir": demo / "pictures", "model_path": demo / "ddpm.pt", "classifier_path": demo / "classifier.pt"}
    words = [word for name, path in paths.items() for word in (f"--{name}", path)]
    few = ["--num_samples", 2, "--attack_iterations", 2, "--output_path", "out", "--device", "cpu"]
    said = typed(installed, tmp_path, ace, "explain", "--preset", "fashion", *words, *few)
    names = "import ace_counterfactuals as a; print(a.ACE, a.explain, a.load_denoiser)"
    assert "core.api.ace.ACE" in typed(installed, tmp_path, installed, "-c", names)
    assert "flip rate" in said and (tmp_path / "out/Results/exp/summary.yaml").exists()
    assert "clone of the repository" in typed(installed, tmp_path, ace, "explain", "--preset", "fashion", code=2)
