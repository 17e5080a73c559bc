"""ace COMMAND: every program under one name."""

import pydoc
import subprocess
import sys
from importlib import import_module

import pytest

from ace_counterfactuals.core.cli import ace, explain
from tests.support.paths import ROOT
from tests.support.toys import Workshop, exit_code


@pytest.fixture(autouse=True)
def typed(monkeypatch):
    """The program's name is taken from here, and set."""
    monkeypatch.setattr(sys, "argv", ["ace"])


def test_help_lists_every_command_with_what_it_is_for_and_imports_no_torch():
    script = "import sys\nsys.modules['torch'] = None\nfrom ace_counterfactuals.core.cli.ace import main\nmain([])"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    for command in ace.COMMANDS:
        module = import_module(ace.module_of(command))
        assert f"{command} " in done.stdout and pydoc.splitdoc(module.__doc__)[0] in done.stdout


@pytest.mark.parametrize("command", ace.COMMANDS)
def test_every_command_tells_its_own_flags(command, capsys):
    assert exit_code(lambda: ace.main([command, "--help"])) == 0
    assert f"usage: ace {command} " in capsys.readouterr().out


def test_a_command_is_its_program(tmp_path, capsys):
    shop = Workshop(tmp_path)
    assert ace.main(["explain", *shop.arguments(num_samples=1)]) == 0
    assert ace.main(["verify", str(shop.output), "exp"]) == 0
    assert "all is as its records say" in capsys.readouterr().out


@pytest.mark.parametrize(("word", "said"), [("explan", "did you mean explain?"), ("xyzzy", "refine"), ("-v", "refine")])
def test_a_command_that_is_not_there_is_answered_with_one_that_is(word, said):
    with pytest.raises(ValueError, match=said):
        ace.main([word])


def test_ace_takes_a_folder_of_pictures_where_no_data_set_is_named(tmp_path, monkeypatch):
    taken = []
    monkeypatch.setattr("ace_counterfactuals.core.cli.explain.explain", lambda config, **_: taken.append(config) or 0)
    (tmp_path / "mine.yaml").write_text("dataset: CSV\n")
    words = ["--data_dir", str(tmp_path)]
    ace.main(["explain", *words])
    explain.main(words)
    ace.main(["explain", *words, "--preset", str(tmp_path / "mine.yaml")])
    ace.main(["explain", *words, "--dataset", "CelebA"])
    ace.main(["explain"])
    assert [config.data.dataset for config in taken] == ["Folder", "ImageNet", "CSV", "CelebA", "ImageNet"]
