"""The README says what the code does."""

import re

import pytest

from scripts.update_readme import PAGES, updated
from tests.support.paths import ROOT


@pytest.mark.parametrize("page", PAGES)
def test_the_flags_table_is_the_declarations(page):
    text = (ROOT / page).read_text()
    assert text == updated(text, PAGES[page]), "run python scripts/update_readme.py"


def test_ci_calls_the_test_command_of_the_readme():
    command = "bash scripts/test.sh"
    assert command in (ROOT / "README.md").read_text()
    assert command in (ROOT / ".ci/run").read_text()


def test_every_file_that_the_readme_links_to_is_there():
    links = re.findall(r"\]\(([^)#:]+)\)", (ROOT / "README.md").read_text())
    assert [link for link in links if not (ROOT / link).exists()] == []


@pytest.mark.parametrize("name", ["faithfulness.md", "shortcut.md"])
def test_the_tables_of_the_readme_are_those_of_the_committed_results(name):
    table = (ROOT / "benchmarks/results" / name).read_text().split("\n\n")[0]
    assert table.startswith("| ") and table in (ROOT / "README.md").read_text()
