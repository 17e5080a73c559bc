"""What the page of a data set says to type can be typed, and its computed figures are those of its preset."""

import re
import shlex
from pathlib import Path

import pytest
import yaml

from ace_counterfactuals.core.cli.parsing import parse
from ace_counterfactuals.core.method.task import chain_of
from ace_counterfactuals.core.runs.config import MainConfig
from ace_counterfactuals.core.runs.setup import check, diffusion_of
from tests.support.paths import ROOT

PAGES = {page.stem: page.read_text() for page in sorted((ROOT / "docs/datasets").glob("*.md"))}
pages = pytest.mark.parametrize("page", PAGES)


def config_of(page: str) -> MainConfig:
    """The settings of the command of main.py on the page."""
    (command,) = re.findall(r"^python main\.py ((?:.*\\\n)*.*)$", PAGES[page], re.MULTILINE)
    return parse(MainConfig, "", shlex.split(command.replace("\\\n", "")))


def test_every_script_of_a_data_set_has_a_page():
    scripts = {path.stem for path in (ROOT / "scripts").glob("*.sh") if "\nqueries() {" in path.read_text()}
    assert scripts == set(PAGES)


@pages
def test_the_command_of_a_page_is_complete(page):
    config = config_of(page)
    check(config)
    weights = yaml.safe_load((ROOT / "scripts/weights.yaml").read_text())
    files = {entry["file"] for entry in weights.values()}
    assert {Path(path).name for path in (config.weights.model_path, config.weights.classifier_path)} <= files


@pages
def test_a_page_names_weights_of_the_table(page):
    names = re.search(r"download-weights\.sh ([a-z0-9 -]+) --to", PAGES[page])[1].split()
    assert set(names) <= yaml.safe_load((ROOT / "scripts/weights.yaml").read_text()).keys()


@pytest.mark.parametrize("page", [page for page, text in PAGES.items() if "| U-Net, forward |" in text])
def test_the_calls_on_a_page_are_those_of_its_preset(page):
    config = config_of(page)
    steps, iterations = chain_of(config.sampling, diffusion_of(config))[1], config.attack.attack_iterations
    calls = dict(re.findall(r"^\| (U-Net, .+?|classifier, .+?) \| (\d+) \|", PAGES[page], re.MULTILINE))
    assert list(map(int, calls.values())) == [
        iterations * steps + steps, iterations * steps, iterations * (steps - 1), iterations,
    ]  # fmt: skip
