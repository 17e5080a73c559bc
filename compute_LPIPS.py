"""Diversity (sigma_L): the mean LPIPS between the counterfactuals that several runs give for one picture."""

from dataclasses import dataclass
from pathlib import Path

import torch

from ace_counterfactuals.core.base.runtime import notice
from ace_counterfactuals.core.base.settings import UserError, blaming, flag, group
from ace_counterfactuals.core.cli.parsing import program, run_script
from ace_counterfactuals.core.evaluation.metrics import lpips
from ace_counterfactuals.core.evaluation.metrics.command import (
    ComputeConfig,
    ResultsConfig,
    make_reader,
    shown,
    write_figures,
)
from ace_counterfactuals.core.evaluation.pictures import EVERY
from ace_counterfactuals.core.runs.experiment import read_pairs
from ace_counterfactuals.models.perceptual import load_lpips


@dataclass(frozen=True, kw_only=True)
class RunsConfig:
    output_path: str = flag("results", "folder that holds Original and Results", path=True)
    exp_pattern: str = flag("exp*", "experiments of the runs: a name with a * for each of exp-values")
    exp_values: tuple = flag((), "what stands for the * in the name of each run", kind=str, many=True)
    lpips_backbone: str = flag("", "weights of VGG-16, if not torchvision's from its cache or the web", path=True)


@dataclass(frozen=True, kw_only=True)
class Config:
    runs: RunsConfig = group(RunsConfig, "runs")
    compute: ComputeConfig = group(ComputeConfig, "where")


def experiments(flags: RunsConfig) -> list[str]:
    if "*" not in flags.exp_pattern:
        raise UserError(f"--exp-pattern {flags.exp_pattern}: wanted a name with a * in it")
    if len(set(flags.exp_values)) < max(2, len(flags.exp_values)):
        raise UserError(f"--exp-values {' '.join(flags.exp_values)}: wanted two or more, all different")
    return [flags.exp_pattern.replace("*", value) for value in flags.exp_values]


def common_pictures(flags: RunsConfig, names: list[str]) -> list[list[Path]]:
    """For every picture that all runs have in the same folder, its counterfactual in each run."""
    runs = [{(p.folder, p.name): p.counterfactual for p in read_pairs(Path(flags.output_path), name)} for name in names]
    return [[run[key] for run in runs] for key in sorted(runs[0]) if all(key in run for run in runs)]


@program(Config, __doc__, hyphens=True)
def main(config: Config) -> int:
    flags, names = config.runs, experiments(config.runs)
    reader, pictures = make_reader(config.compute), common_pictures(flags, names)
    notice(f"{len(pictures)} pictures are in the same folder in all of {', '.join(names)}")
    value = None
    if pictures:
        with blaming("lpips_backbone"):
            distance = load_lpips(flags.lpips_backbone).to(reader.device)
        runs = [reader.pictures(paths) for paths in zip(*pictures, strict=True)]
        value = torch.cat([lpips.diversities(distance, batch) for batch in zip(*runs, strict=True)]).mean().item()
    print(f"LPIPS: {shown(value)}")
    write_figures(
        config.compute.json,
        {"lpips": value},
        results=ResultsConfig(output_path=flags.output_path, exp_name=flags.exp_pattern),
        population=f"{EVERY.name}, in the same folder in all runs",
        n=len(pictures),
        weights={"lpips_backbone": flags.lpips_backbone} if flags.lpips_backbone else {},
        exp_values=list(flags.exp_values),
    )
    return 0


if __name__ == "__main__":
    run_script(main)
