"""FID or split FID of an experiment's counterfactuals against all originals; compute_FID.sh and compute_sFID.sh."""

from dataclasses import dataclass
from pathlib import Path

from ace_counterfactuals.core.base.settings import UserError, blaming, flag, group
from ace_counterfactuals.core.cli.parsing import program, run_script
from ace_counterfactuals.core.evaluation.metrics import fid, sfid
from ace_counterfactuals.core.evaluation.metrics.command import (
    ComputeConfig,
    ResultsConfig,
    make_reader,
    open_pairs,
    shown,
    write_figures,
)
from ace_counterfactuals.core.evaluation.pictures import FLIPPED, features
from ace_counterfactuals.core.runs.experiment import stored_originals
from ace_counterfactuals.models.inception import load_inception


@dataclass(frozen=True, kw_only=True)
class InceptionConfig:
    inception_weights: str = flag(
        "", "pytorch-fid's weights; if not given, from torch.hub's cache or the web", path=True
    )
    splits: int = flag(0, "0 for FID, else the number of splits of sFID", low=0)


@dataclass(frozen=True, kw_only=True)
class FIDComputeConfig(ComputeConfig):
    batch_size: int = flag(50, "pictures at once", low=1)
    seed: int = flag(4, "seed of the splits", low=0)


@dataclass(frozen=True, kw_only=True)
class Config:
    results: ResultsConfig = group(ResultsConfig, "results")
    network: InceptionConfig = group(InceptionConfig, "network")
    compute: FIDComputeConfig = group(FIDComputeConfig, "where")


@program(Config, __doc__, hyphens=True)
def main(config: Config) -> int:
    splits = config.network.splits
    reader, pairs = make_reader(config.compute), open_pairs(config.results, FLIPPED)
    stored = stored_originals(Path(config.results.output_path))
    originals = [path for _, path in sorted({**stored["Incorrect"], **stored["Correct"]}.items())]
    figures = dict.fromkeys(("sfid", "sfid_std") if splits else ("fid",))
    if pairs:
        if min(len(pairs), len(originals)) < 2:
            raise UserError(f"--exp-name {config.results.exp_name}: FID needs two pictures, there is 1")
        with blaming("inception_weights"):
            network = load_inception(config.network.inception_weights).to(reader.device)
        paths = [pair.counterfactual for pair in pairs]
        sides = [features(network, reader.pictures(side)).numpy() for side in (originals, paths)]
        if splits:
            names = [path.name for path in originals], [pair.name for pair in pairs]
            values = sfid.split_distances(sides[0], names[0], sides[1], names[1], config.compute.seed, splits)
            figures = {"sfid": float(values.mean()), "sfid_std": float(values.std())}
        else:
            figures = {"fid": fid.fid(*sides)}
    for name, value in zip(("sFID: ", "sFID (STD): ") if splits else ("FID: ",), figures.values(), strict=True):
        print(name, shown(value))
    write_figures(
        config.compute.json,
        figures,
        results=config.results,
        population=f"{FLIPPED.name} against {len(originals)} originals",
        n=len(pairs),
        weights={"inception_weights": config.network.inception_weights} if config.network.inception_weights else {},
        **({"splits": splits, "seed": config.compute.seed} if splits else {}),
    )
    return 0


if __name__ == "__main__":
    run_script(main)
