"""FID and LPIPS against the packages that they come from, over weight files of random numbers."""

import json
import os
import re
import shutil
import subprocess
import sys
from types import SimpleNamespace
from unittest.mock import patch

import pytest
import torch
import torchvision

from ace_counterfactuals.core.cli import compute
from ace_counterfactuals.core.cli.parsing import run_script
from ace_counterfactuals.models.judges import load_inception, load_lpips, published_inception
from tests.support.gaussians import pytorch_fids
from tests.support.paths import ROOT

FACES = ROOT / "tests/golden/eval/celeba"


def program(*words, **environment) -> str:
    done = subprocess.run(
        [str(word) for word in words],
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHON": sys.executable} | environment,
        capture_output=True,
        text=True,
        timeout=1200,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def figure(printed: str) -> float:
    return float(re.search(r"FID: +([\d.e+-]+)", printed)[1])


def test_the_inception_is_read_from_its_cache_or_from_a_file(inception_file, monkeypatch):
    monkeypatch.setattr(torch.hub, "_hub_dir", str(inception_file.parents[1]))
    images = torch.rand(1, 3, 64, 64)
    features = load_inception(published_inception())(images)
    assert features.shape == (1, 2048) and features.std() > 0
    assert torch.equal(load_inception(inception_file)(images), features)


def test_another_network_is_refused_as_inception(backbone_file):
    pytest.importorskip("pytorch_fid")
    with pytest.raises(ValueError, match="not pytorch-fid's Inception"):
        load_inception(backbone_file)


@pytest.mark.slow
def test_fid_is_what_pytorch_fids_own_command_prints(inception_file, tmp_path):
    pytorch_fids()
    for name, pattern in (("original", "Original/*/*.png"), ("changed", "Results/exp/swap/*/CCF/CF/*.png")):
        (tmp_path / name).mkdir()
        for path in FACES.glob(pattern):
            shutil.copy(path, tmp_path / name)
    home = str(inception_file.parents[2])
    sides, flags = (tmp_path / "original", tmp_path / "changed"), ("--device", "cpu", "--num-workers", "0")
    theirs = figure(program(sys.executable, "-m", "pytorch_fid", *sides, *flags, TORCH_HOME=home))
    command = ("bash", ROOT / "compute_FID.sh", FACES, "exp/swap", tmp_path / "tmp", *flags)
    assert figure(program(*command, TORCH_HOME=home)) == pytest.approx(theirs, rel=1e-6)


@pytest.mark.slow
def test_split_fid_is_repeatable_and_its_seed_decides(inception_file, tmp_path, capsys):
    words = ["--device", "cpu", "--inception-weights", str(inception_file), "--json", str(tmp_path / "out.json")]
    first = program("bash", ROOT / "compute_sFID.sh", FACES, "exp/swap", *words)
    assert json.loads((tmp_path / "out.json").read_text())["splits"] == 10
    words += ["--output-path", str(FACES), "--exp-name", "exp/swap", "--splits", "10"]
    printed = []
    for seed in ("4", "5"):
        compute.run("FID", [*words, "--seed", seed])
        printed.append(capsys.readouterr().out)
    assert printed[0] == first != printed[1]


def test_lpips_is_the_packages_own(backbone_file):
    lpips = pytest.importorskip("lpips")
    state = torch.load(backbone_file)

    def published(pretrained):
        with torch.random.fork_rng(devices=[]):
            network = torchvision.models.vgg.VGG(torchvision.models.vgg.make_layers(torchvision.models.vgg.cfgs["D"]))
        network.features.load_state_dict({key.removeprefix("features."): value for key, value in state.items()})
        return network

    with patch.object(lpips.pretrained_networks, "tv", SimpleNamespace(vgg16=published)):
        theirs = lpips.LPIPS(net="vgg", verbose=False)
    a, b = torch.rand(2, 3, 32, 32), torch.rand(2, 3, 32, 32)
    distance = load_lpips(backbone_file)(a, b)
    assert torch.equal(distance, theirs(2 * a - 1, 2 * b - 1).flatten()) and (distance > 0).all()


def test_diversity_is_over_pictures_in_the_same_folder_of_every_run(backbone_file, tmp_path, capsys):
    pytest.importorskip("lpips")
    shutil.copytree(FACES / "Original", tmp_path / "Original")
    for run in ("seed-1", "seed-2"):
        shutil.copytree(FACES / "Results/exp/swap", tmp_path / f"Results/{run}/explanation")
    moved = tmp_path / "Results/seed-2/explanation/CC"
    shutil.move(moved / "ICF/CF/0000003.png", moved / "CCF/CF/0000003.png")
    words = ["--output-path", str(tmp_path), "--exp-pattern", "seed-*", "--exp-values", "1", "2", "--device", "cpu"]
    words += ["--lpips_backbone", str(backbone_file), "--json", str(tmp_path / "out.json")]
    compute.run("LPIPS", words)
    assert capsys.readouterr().out == "LPIPS: 0.0\n"
    assert json.loads((tmp_path / "out.json").read_text())["n"] == 11
    shutil.copy(tmp_path / "Original/Correct/0000002.png", moved / "CCF/CF/0000004.png")
    compute.run("LPIPS", words)
    assert float(capsys.readouterr().out.split()[1]) > 0


@pytest.mark.parametrize("package, load", [("pytorch_fid", load_inception), ("lpips", load_lpips)])
def test_a_missing_package_is_one_line_that_says_how_to_get_it(package, load, capsys):
    missing = {name: None for name in sys.modules if name.partition(".")[0] == package} | {package: None}
    with patch.dict(sys.modules, missing), pytest.raises(SystemExit):
        run_script(lambda: load("none.pth"))
    assert capsys.readouterr().err.strip().endswith("is not installed: pip install -e .[eval]")
