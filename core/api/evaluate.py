"""What evaluate.py computes, for a program."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ace_counterfactuals.core.base.presets import read_settings
from ace_counterfactuals.core.base.settings import from_dict

if TYPE_CHECKING:
    from ace_counterfactuals.core.evaluation.model import Evaluation


def evaluate(
    output_path: str, exp_name: str | Sequence[str] = "exp", *, only: Sequence[str] = (), **settings
) -> "Evaluation":
    """Every figure that the given weights allow, of one experiment or of several beside each other.

    output_path: folder that holds Original and Results.  only: names of metrics, each of which must be possible; all
    that are possible if not given.  settings: evaluate.py's flags, with underscores.
    The tables are written, too, to the place that evaluate.py writes them to.
    Raises ValueError for an incomplete experiment, weights that do not fit, and a picture that cannot be read.
    """
    from ace_counterfactuals.core.evaluation import run  # the metrics take as long to import as torch
    from ace_counterfactuals.core.evaluation.config import evaluate_config

    config, given = evaluate_config(), {"output_path": output_path, "exp_name": exp_name, **settings}
    return run.evaluate(from_dict(config, read_settings(config, given)), only)[0]
