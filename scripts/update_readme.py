"""Write the flags of main.py, postprocessing.py and evaluate.py into the pages that list them, as declared."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from ace_counterfactuals.core.cli.parsing import flags_table
from ace_counterfactuals.core.evaluation.config import EvaluateConfig
from ace_counterfactuals.core.postprocessing.config import PostConfig
from ace_counterfactuals.core.runs.config import MainConfig

ROOT = Path(__file__).resolve().parent.parent
PAGES = {"README.md": MainConfig, "docs/postprocessing.md": PostConfig, "docs/metrics.md": EvaluateConfig}
START, END = "<!-- flags: written by scripts/update_readme.py -->\n", "<!-- end of flags -->"


def updated(page: str, config: type) -> str:
    """The text with a fresh table between the two marks."""
    before, rest = page.split(START)
    return before + START + "\n" + flags_table(config) + END + rest.split(END, 1)[1]


if __name__ == "__main__":
    for name, config in PAGES.items():
        (ROOT / name).write_text(updated((ROOT / name).read_text(), config))
