"""Correlation difference (CD): attributes that change with the explained one, against those that occur with it."""

from dataclasses import dataclass

from ace_counterfactuals.core.base.settings import UserError, blaming, flag, group
from ace_counterfactuals.core.cli.parsing import program, run_script
from ace_counterfactuals.core.data.datasets import celeba_attributes, spec_of
from ace_counterfactuals.core.evaluation.metrics import cd, mnac
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
class CDConfig(OracleConfig):
    celeba_path: str = flag("", "folder of CelebA, or of CelebA-HQ: its annotations for training", path=True)
    query_label: int = flag(-1, "attribute that was explained, such as 31 (smile) or 39 (age)", low=-1)


@dataclass(frozen=True, kw_only=True)
class Config:
    results: ResultsConfig = group(ResultsConfig, "results")
    oracle: CDConfig = group(CDConfig, "oracle")
    compute: ComputeConfig = group(ComputeConfig, "where")


@program(Config, __doc__, hyphens=True)
def main(config: Config) -> int:
    flags = config.oracle
    reader, pairs = make_reader(config.compute), open_pairs(config.results, FLIPPED)
    with blaming("celeba_path"):
        annotated = celeba_attributes(flags.celeba_path, flags.dataset)
    attributes = annotated.shape[1]
    if not 0 <= flags.query_label < attributes:
        raise UserError(f"--query-label {flags.query_label}: wanted the explained attribute, 0 to {attributes - 1}")
    with blaming("oracle_path"):
        oracle = load_oracle(flags.oracle_path, of=spec_of(flags.dataset).oracle).to(reader.device)
    value = None
    if pairs:
        decisions = [mnac.decisions(p) for p in pair_features(oracle, reader.pairs(pairs))]
        if decisions[0].shape[1] != attributes:
            raise UserError(
                f"--oracle-path {flags.oracle_path}: knows {decisions[0].shape[1]} attributes, "
                f"but --celeba-path {flags.celeba_path} annotates {attributes}"
            )
        training = cd.correlations(annotated, flags.query_label)
        value = cd.correlation_difference(*decisions, training, flags.query_label)
    print(f"Lenght: {len(pairs)}")  # so spelled by the original
    print(f"CD Result: {shown(value)}")
    write_figures(
        config.compute.json,
        {"cd": value},
        results=config.results,
        population=FLIPPED.name,
        n=len(pairs),
        weights={"oracle_path": flags.oracle_path},
        query_label=flags.query_label,
    )
    return 0


if __name__ == "__main__":
    run_script(main)
