"""Face verification accuracy (FVA), and face similarity: the mean cosine of VGGFace2's features (FS)."""

from ace_counterfactuals.core.base.settings import blaming
from ace_counterfactuals.core.cli.parsing import program, run_script
from ace_counterfactuals.core.evaluation.metrics import fva
from ace_counterfactuals.core.evaluation.metrics.command import (
    NetworkMetricConfig,
    make_reader,
    open_pairs,
    shown,
    write_figures,
)
from ace_counterfactuals.core.evaluation.pictures import FLIPPED, pair_features
from ace_counterfactuals.models.vggface2 import load_vggface2


@program(NetworkMetricConfig, __doc__, hyphens=True)
def main(config: NetworkMetricConfig) -> int:
    reader, pairs = make_reader(config.compute), open_pairs(config.results, FLIPPED)
    with blaming("weights_path"):
        network = load_vggface2(config.weights.weights_path).to(reader.device)
    figures = dict.fromkeys(("fva", "fva_std", "fs", "fs_std"))
    if pairs:
        similarity = fva.cosines(*pair_features(network, reader.pairs(pairs, fva.prepare)))
        verified = fva.verified(similarity)
        values = (verified.mean(), verified.std(), similarity.mean(), similarity.std())
        figures = dict(zip(figures, map(float, values), strict=True))
    for name, value in zip(("FVA", "FVA (STD)", "mean dist", "std dist"), figures.values(), strict=True):
        print(name, shown(value))
    weights = {"weights_path": config.weights.weights_path}
    write_figures(
        config.compute.json, figures, results=config.results, population=FLIPPED.name, n=len(pairs), weights=weights
    )
    return 0


if __name__ == "__main__":
    run_script(main)
