"""One thread and fixed seeds for every test; the recorded weights; the length of the fuzzer's run."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import functools
import importlib.util
import warnings
from pathlib import Path

import pytest
import torch

torch.set_num_threads(1)

GOLDEN = Path(__file__).parent / "golden"
SHARED = Path(__file__).parents[2] / "shared" / "golden"  # the ImageNet head is too large for this repository


def pytest_addoption(parser):
    parser.addoption("--fuzz-runs", type=int, default=int(os.environ.get("FUZZ_RUNS", 400)), metavar="N",
                     help="mutated files that the fuzzers try (10000 for the long run)")  # fmt: skip


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def golden_weights(tmp_path_factory):
    """Function: name of a recorded checkpoint ('dive.pth') -> its path, written on first use."""
    folder = tmp_path_factory.mktemp("weights")
    source = SHARED if (SHARED / "weights-resnet50.npz").exists() else GOLDEN

    def path(name: str) -> Path:
        if name == "resnet50.pth" and not (source / "weights-resnet50.npz").exists():
            pytest.skip("the recorded ResNet-50 head is not here")
        if not (folder / name).exists():
            make_weights = _module(source / "make_weights.py")
            make_weights.write(name, folder)
        return folder / name

    return path


@functools.cache
def _module(path: Path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # it leaves its archives to the garbage collector
        spec.loader.exec_module(module)
    return module
