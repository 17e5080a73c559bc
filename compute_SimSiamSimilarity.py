"""SimSiam similarity (S3): the mean cosine of SimSiam's outputs on originals and counterfactuals."""

from ace_counterfactuals.core.base.settings import blaming
from ace_counterfactuals.core.cli.parsing import program, run_script
from ace_counterfactuals.core.evaluation.metrics import simsiam
from ace_counterfactuals.core.evaluation.metrics.command import (
    NetworkMetricConfig,
    make_reader,
    open_pairs,
    shown,
    write_figures,
)
from ace_counterfactuals.core.evaluation.pictures import CORRECT, pair_features
from ace_counterfactuals.models.simsiam import load_simsiam


@program(NetworkMetricConfig, __doc__, hyphens=True)
def main(config: NetworkMetricConfig) -> int:
    reader, pairs = make_reader(config.compute), open_pairs(config.results, CORRECT)
    with blaming("weights_path"):
        network = load_simsiam(config.weights.weights_path).to(reader.device)
    value = simsiam.similarity(*pair_features(network, reader.pairs(pairs))) if pairs else None
    print(f"SimSiam Similarity: {shown(value, '.6f')}")
    figures, weights = {"simsiam_similarity": value}, {"weights_path": config.weights.weights_path}
    write_figures(
        config.compute.json, figures, results=config.results, population=CORRECT.name, n=len(pairs), weights=weights
    )
    return 0


if __name__ == "__main__":
    run_script(main)
