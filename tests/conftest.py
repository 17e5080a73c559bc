"""One thread and fixed seeds for every test; recorded and random weights."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import functools
import importlib.util
import itertools
import logging
import threading
import warnings
from pathlib import Path
from unittest.mock import patch

import pytest
import torch
import torchvision
from tqdm import tqdm

from tests.support.paths import GOLDEN, SHARED

torch.set_num_threads(1)
# tqdm's own is shared with children that fork, and gone with one that is killed while it holds it.
tqdm.set_lock(threading.RLock())
NUMBERS = itertools.count()


def pytest_collection_modifyitems(config, items):
    """Tests marked long run only where that mark is asked for.

    One process runs the fast tests of a file, which share what they prepare; slow ones are dealt out one by one, or by
    their group. Those of the cluster begin: they wait more than they compute.
    """
    if "long" not in config.option.markexpr:
        left_out = [item for item in items if item.get_closest_marker("long")]
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]
    for item in items:
        if not item.get_closest_marker("slow"):
            item.add_marker(pytest.mark.xdist_group(item.path.name))
    items.sort(key=lambda item: ("cluster" not in item.path.parts, item.get_closest_marker("slow") is None))


@pytest.fixture(autouse=True)
def seeded():
    """And no deterministic kernels, which a run of a test before may have asked for."""
    torch.manual_seed(0)
    torch.use_deterministic_algorithms(False)


@pytest.fixture(autouse=True, scope="session")
def no_cache_of_the_users(tmp_path_factory):
    """Not even for what is made for several tests; matplotlib's list of fonts stays where it is."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MPLCONFIGDIR", os.environ.get("MPLCONFIGDIR", str(Path.home() / ".cache/matplotlib")))
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path_factory):
    """No test finds what networks answered in another one."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder := tmp_path_factory.getbasetemp() / f"cache-{next(NUMBERS)}"))
    return folder / "ace-counterfactuals"


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@pytest.fixture
def notes(caplog):
    """What library functions tell the user: ``notes.text``, ``notes.messages``; programs print it on stderr."""
    caplog.set_level(logging.INFO, logger="ace_counterfactuals")
    return caplog


@pytest.fixture(scope="session")
def golden_weights(tmp_path_factory):
    """Function: name of a recorded checkpoint ('dive.pth') -> its path, written on first use."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "recorded-weights"  # of all processes
    folder.mkdir(exist_ok=True)
    source = SHARED if (SHARED / "weights-resnet50.npz").exists() else GOLDEN

    def path(name: str) -> Path:
        if name == "resnet50.pth" and not (source / "weights-resnet50.npz").exists():
            pytest.skip("the recorded ResNet-50 head is not here")
        if not (folder / name).exists():
            make_weights = _module(source / "make_weights.py")
            made = tmp_path_factory.mktemp("weights")
            make_weights.write(name, made)
            os.replace(made / name, folder / name)
        return folder / name

    return path


def randomise(network: torch.nn.Module) -> None:
    """Of a scale that keeps what distinguishes the pictures from layer to layer."""
    for name, values in network.named_parameters():
        if values.ndim > 1:
            values.data = torch.randn(values.shape) * 1.6 / values[0].numel() ** 0.5
        else:
            values.data = torch.rand(values.shape) + 0.5 if name.endswith("weight") else torch.randn(values.shape) / 10


@pytest.fixture(scope="session")
def inception_file(tmp_path_factory):
    """The published file's format and name, where torch.hub would keep it, with random weights."""
    inception = pytest.importorskip("pytorch_fid.inception")
    torch.manual_seed(0)
    kept = []
    with (
        patch.object(inception, "load_state_dict_from_url", lambda *_, **__: {}),
        patch.object(torchvision.models.Inception3, "load_state_dict", lambda network, _: kept.append(network)),
    ):
        inception.InceptionV3()
    randomise(kept[0])
    folder = tmp_path_factory.mktemp("hub") / "hub/checkpoints"
    folder.mkdir(parents=True)
    path = folder / inception.FID_WEIGHTS_URL.rsplit("/", 1)[1]
    torch.save(kept[0].state_dict(), path)
    return path


@pytest.fixture(scope="session")
def backbone_file(tmp_path_factory):
    """A VGG-16 without the classifier that lpips does not use."""
    torch.manual_seed(0)
    features = torchvision.models.vgg.make_layers(torchvision.models.vgg.cfgs["D"], batch_norm=False)
    randomise(features)
    path = tmp_path_factory.mktemp("vgg") / "vgg16.pth"
    torch.save({f"features.{name}": value for name, value in features.state_dict().items()}, path)
    return path


@functools.cache
def _module(path: Path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # it leaves its archives to the garbage collector
        spec.loader.exec_module(module)
    return module
