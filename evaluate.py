"""Every figure that the given weights allow, of one experiment or of several beside each other, and a page to look at.

Without any weights: flip rate, distances, mask area, and COUT with the run's own classifier.
"""

from ace_counterfactuals.core.cli.parsing import program, run_script
from ace_counterfactuals.core.evaluation import tables
from ace_counterfactuals.core.evaluation.config import EvaluateConfig
from ace_counterfactuals.core.evaluation.run import evaluate
from ace_counterfactuals.core.report import write_report


@program(EvaluateConfig, __doc__, hyphens=True)
def main(config: EvaluateConfig) -> int:
    evaluation, place = evaluate(config)
    page = write_report(evaluation, place)
    print(tables.text(evaluation))
    print(f"\nwritten to {place}: metrics.json, metrics.csv, table.md, table.tex")
    print(f"open this: {page}")
    return 0


if __name__ == "__main__":
    run_script(main)
