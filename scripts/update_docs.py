"""Write into the pages of docs/ what follows from the code: the tables of flags, and what each metric is."""

import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from ace_counterfactuals.core.app.config import AppConfig
from ace_counterfactuals.core.cli.parsing import flags_table
from ace_counterfactuals.core.evaluation.config import EvaluateConfig
from ace_counterfactuals.core.evaluation.metric import all_metrics, described
from ace_counterfactuals.core.postprocessing.config import PostConfig
from ace_counterfactuals.core.runs.config import MainConfig
from ace_counterfactuals.core.training.config import TrainClassifierConfig, TrainDiffusionConfig
from ace_counterfactuals.core.tuning.config import TuneConfig

DOCS = Path(__file__).resolve().parent.parent / "docs"
PROGRAMS = {
    "main.py": MainConfig,
    "postprocessing.py": PostConfig,
    "evaluate.py": EvaluateConfig,
    "train_classifier.py": TrainClassifierConfig,
    "train_diffusion.py": TrainDiffusionConfig,
    "tune.py": TuneConfig,
    "app.py": AppConfig,
}
TABLE = re.compile(r"(<!-- flags of (\S+), written by \S+ -->\n).*?(<!-- end of flags -->)", re.DOTALL)
METRICS = re.compile(r"(<!-- metrics, written by \S+ -->\n).*?(<!-- end of metrics -->)", re.DOTALL)


def with_metrics(text: str) -> str:
    """The text of a page with the metrics as they describe themselves between the marks."""
    return METRICS.sub(lambda mark: f"{mark[1]}\n{described(all_metrics())}\n\n{mark[2]}", text)


def with_flags(text: str) -> str:
    """The text of a page with a fresh table of flags between each pair of marks."""
    return TABLE.sub(lambda mark: f"{mark[1]}\n{flags_table(PROGRAMS[mark[2]])}{mark[3]}", text)


def pages() -> dict[Path, str]:
    """Each page of docs/ and the text that it should have."""
    return {page: with_metrics(with_flags(page.read_text())) for page in sorted(DOCS.glob("*.md"))}


if __name__ == "__main__":
    for page, text in pages().items():
        page.write_text(text)
