"""Every figure that the given weights allow, of one experiment or of several beside each other, and a page to look at.

Without any weights: flip rate, distances, mask area, and COUT with the run's own classifier.
"""

from collections.abc import Sequence
from typing import Any

from ace_counterfactuals.core.cli.parsing import program
from ace_counterfactuals.core.evaluation import tables
from ace_counterfactuals.core.evaluation.config import evaluate_config
from ace_counterfactuals.core.evaluation.places import open_cache
from ace_counterfactuals.core.evaluation.run import evaluate
from ace_counterfactuals.core.report import write_report, written_before


def main(argv: Sequence[str] | None = None) -> int:
    """With the flags of all metrics that are registered by now."""
    return program(evaluate_config(), __doc__, hyphens=True)(report)(argv)


def report(config: Any) -> int:
    with open_cache(config) as cache:
        evaluation, place = evaluate(config, cache, look=written_before)
        page = write_report(evaluation, place, cache)
    print(tables.text(evaluation))
    print(f"\nwritten to {place}: {', '.join(tables.TABLES)}")
    print(f"open this: {page}")
    return 0
