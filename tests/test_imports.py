"""What importing costs and changes, looked at in one process of its own, step by step."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.paths import ROOT

PROCESS = """
import importlib, json, logging, signal, sys, time, warnings
asked, said = set(), {}
sys.addaudithook(lambda event, args: asked.add(args[0].partition(".")[0]) if event == "import" else None)
import ace_counterfactuals.core.method.config
said["torch"] = "torch" in sys.modules

import numpy, torch, torch.utils.checkpoint, PIL.Image
def state():
    import torch.backends
    return repr([
        warnings.filters, sys.excepthook, sys.displayhook, [signal.getsignal(n) for n in signal.valid_signals()],
        logging.root.handlers, logging.root.level, logging.getLogger("ace_counterfactuals").handlers,
        torch.get_num_threads(), torch.get_default_dtype(), torch.is_grad_enabled(), torch.initial_seed(),
        torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark, torch.get_rng_state().sum(),
        numpy.random.get_state()[1].sum(), PIL.Image.MAX_IMAGE_PIXELS, sys.path,
    ])
before, held, started = state(), set(sys.modules), time.process_time()
import ace_counterfactuals
for name in ace_counterfactuals.__all__: getattr(ace_counterfactuals, name)
said["seconds"] = time.process_time() - started
said["heavy"] = sorted({"torchvision", "matplotlib", "scipy", "pandas", "sympy", "jinja2"} & set(sys.modules) - held)

asked.clear()
import ace_counterfactuals.core.cli.explain, ace_counterfactuals.core.runs.run, ace_counterfactuals.core.preflight
import ace_counterfactuals.core.evaluation.model, ace_counterfactuals.core.data.regions
said["asked"] = sorted(asked)
said["same"] = before == state()

for program in sys.argv[1:]: importlib.import_module(program)
from ace_counterfactuals.core.cli.ace import COMMANDS, module_of
for program in map(module_of, COMMANDS): importlib.import_module(program)
said["files"] = [getattr(module, "__file__", None) for name, module in sys.modules.items() if name != "__main__"]
print(json.dumps(said))
"""


@pytest.fixture(scope="module")
def said():
    programs = [path.stem for path in ROOT.glob("*.py")]
    done = subprocess.run([sys.executable, "-c", PROCESS, *programs], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    return json.loads(done.stdout)


def test_importing_changes_nothing(said):
    assert said["same"]


def test_importing_takes_half_a_second_beside_torch(said):
    assert said["heavy"] == [] and said["seconds"] < 0.5


def test_the_settings_name_the_attacks_without_importing_torch(said):
    assert not said["torch"]


def test_main_asks_for_nothing_that_is_optional(said):
    optional = {"mpi4py", "lpips", "pytorch_fid", "h5py", "pandas", "blobfile", "scipy"}
    assert optional & set(said["asked"]) == set()


def test_no_source_file_is_loaded_under_two_names(said):
    own = sorted(file for file in said["files"] if file and Path(file).is_relative_to(ROOT))
    assert own and len(own) == len(set(own))
