"""The evaluation of saved explanations, as evaluate.py does it."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ace_counterfactuals.core.base.presets import read_settings
from ace_counterfactuals.core.base.settings import from_dict

if TYPE_CHECKING:
    from ace_counterfactuals.core.evaluation.model import Evaluation


def evaluate(
    output_path: str | Path, exp_name: str | Sequence[str] = "exp", *, only: Sequence[str] = (), **flags
) -> "Evaluation":
    """Every figure that the given weights allow, of one experiment or of several; evaluate.py's tables are written.

    output_path: folder that holds Original and Results.  only: names of metrics, each of which must be possible; all
    that are possible if not given.  flags: those of evaluate.py, with underscores.
    Raises ValueError for an incomplete experiment, weights that do not fit, and a picture that cannot be read.
    """
    from ace_counterfactuals.core.evaluation import run  # the metrics take as long to import as torch
    from ace_counterfactuals.core.evaluation.config import evaluate_config
    from ace_counterfactuals.core.evaluation.places import open_cache

    config, given = evaluate_config(), {"output_path": str(output_path), "exp_name": exp_name, **flags}
    settings = from_dict(config, read_settings(config, given))
    with open_cache(settings) as cache:
        return run.evaluate(settings, cache, only)[0]
