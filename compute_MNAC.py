"""Mean number of attributes changed (MNAC), and its standard deviation over the pictures."""

from dataclasses import dataclass

from ace_counterfactuals.core.base.settings import blaming, group
from ace_counterfactuals.core.cli.parsing import program, run_script
from ace_counterfactuals.core.data.datasets import spec_of
from ace_counterfactuals.core.evaluation.metrics import mnac
from ace_counterfactuals.core.evaluation.metrics.command import (
    ComputeConfig,
    OracleConfig,
    ResultsConfig,
    make_reader,
    open_pairs,
    shown,
    write_figures,
)
from ace_counterfactuals.core.evaluation.pictures import FLIPPED, pair_features
from ace_counterfactuals.models.oracles import load_oracle


@dataclass(frozen=True, kw_only=True)
class Config:
    results: ResultsConfig = group(ResultsConfig, "results")
    oracle: OracleConfig = group(OracleConfig, "oracle")
    compute: ComputeConfig = group(ComputeConfig, "where")


@program(Config, __doc__, hyphens=True)
def main(config: Config) -> int:
    reader, pairs = make_reader(config.compute), open_pairs(config.results, FLIPPED)
    with blaming("oracle_path"):
        oracle = load_oracle(config.oracle.oracle_path, of=spec_of(config.oracle.dataset).oracle).to(reader.device)
    figures = dict.fromkeys(("mnac", "mnac_std"))
    if pairs:
        changes = mnac.changes(*map(mnac.decisions, pair_features(oracle, reader.pairs(pairs))))
        figures = {"mnac": float(changes.mean()), "mnac_std": float(changes.std())}
    print(f"MNAC: {shown(figures['mnac'])}")
    print(f"MNAC: {shown(figures['mnac_std'])}")  # the deviation, under the name that the original prints
    weights = {"oracle_path": config.oracle.oracle_path}
    write_figures(
        config.compute.json, figures, results=config.results, population=FLIPPED.name, n=len(pairs), weights=weights
    )
    return 0


if __name__ == "__main__":
    run_script(main)
