"""README.md and docs/ say what the code does, and lead where they say."""

import re
import shlex
from unittest.mock import patch

import pytest

from ace_counterfactuals.core.cli.parsing import parse
from ace_counterfactuals.core.method.attacks import ATTACKS
from scripts.update_docs import PROGRAMS, pages
from tests.support.paths import ROOT

PAGES = {str(path.relative_to(ROOT)): path for top in ("", "d*/**/", "examples/*/") for path in ROOT.glob(f"{top}*.md")}
each_page = pytest.mark.parametrize("page", sorted(PAGES))
FENCED = re.compile(r"^```.*?^```$", re.DOTALL | re.MULTILINE)


COMMAND = re.compile(r"^ *python (\w+\.py) ((?:.*\\\n)*.*)$", re.MULTILINE)


def anchors(text: str) -> set[str]:
    """What # may name in a page: its headings as GitHub spells them."""
    headings = re.findall(r"^#+ (.+)$", FENCED.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_generated_pages_are_up_to_date():
    stale = [page.name for page, text in pages().items() if page.read_text() != text]
    assert stale == [], "run python scripts/update_docs.py"


def test_ci_calls_the_test_command_of_the_readme():
    command = "bash scripts/test.sh"
    assert command in PAGES["README.md"].read_text()
    assert command in (ROOT / ".ci/run").read_text()


@each_page
def test_every_relative_link_leads_to_a_file_and_a_heading(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", PAGES[page].read_text()):
        path, _, heading = target.partition("#")
        if "://" not in target:
            linked = PAGES[page].parent / path if path else PAGES[page]
            assert linked.exists(), target
            assert not heading or heading in anchors(linked.read_text()), target


def test_every_file_on_the_map_of_contributing_is_there():
    named = re.findall(r"`([a-z_]+/[\w./]*)`", PAGES["CONTRIBUTING.md"].read_text())
    assert [path for path in named if not (ROOT / path).exists()] == []


@each_page
def test_every_command_has_flags_that_its_program_knows(page):
    for program, typed in COMMAND.findall(PAGES[page].read_text()):
        if program in PROGRAMS and "..." not in typed and "FLAGS" not in typed:
            parse(PROGRAMS[program], "", shlex.split(typed.replace("\\\n", ""), comments=True))


@pytest.mark.parametrize("name", ["faithfulness.md", "shortcut.md"])
def test_the_tables_of_the_benchmarks_are_those_of_the_committed_results(name):
    table = (ROOT / "benchmarks/results" / name).read_text().split("\n\n")[0]
    assert table.startswith("| ") and table in PAGES["docs/benchmarks.md"].read_text()


def test_the_shares_in_the_readme_are_those_of_the_committed_results():
    lines = (ROOT / "benchmarks/results/faithfulness.md").read_text().splitlines()
    rows = {cells[1]: cells for cells in ([cell.strip() for cell in line.split("|")] for line in lines if "|" in line)}
    for method in ("plain PGD", "plain PGD, refined", "ACE, counterfactual"):
        _, _, _, flips, _, _, _, transfer, *_ = rows[method]
        assert f"| {flips} | {transfer} |" in PAGES["README.md"].read_text()


def test_the_examples_of_the_python_page_run(monkeypatch, tmp_path):
    (tmp_path / "demo").symlink_to(ROOT / "demo")
    monkeypatch.chdir(tmp_path)
    examples = re.findall(r"^```python\n(.*?)^```$", PAGES["docs/python.md"].read_text(), re.DOTALL | re.MULTILINE)
    names: dict = {}
    with patch.dict(ATTACKS):
        for example in examples:
            exec(example, names)
    assert names["found"].counterfactual.shape == names["stricter"].counterfactual.shape == (2, 1, 32, 32)
    assert (tmp_path / "results/python/Results/sneaker/sheet.png").exists()
