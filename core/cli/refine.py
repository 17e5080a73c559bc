"""Refine stored pre-explanations again: other masks, other steps of the diffusion, another seed or diffusion model."""

from pathlib import Path
from typing import Any

from ace_counterfactuals.core.cli.launchers import AUTO, place, run_part
from ace_counterfactuals.core.cli.parsing import program
from ace_counterfactuals.core.postprocessing.config import PostConfig
from ace_counterfactuals.core.runs.layout import REFINED, ResultFolder
from ace_counterfactuals.core.runs.status import status


@program(PostConfig, __doc__)
def main(typed: Any) -> int:
    if typed.run.status:
        print(status_of_all(ResultFolder(Path(typed.output.output_path), typed.output.exp_name)))
        return 0
    return refine(place(typed), automatic=typed.run.chunk == AUTO)


def status_of_all(results: ResultFolder) -> str:
    """Of every setting in the experiment's folder."""
    names = sorted(path.name for path in results.root.glob(f"{REFINED}*"))
    if not names:
        raise ValueError(f"{results.root}: nothing was refined there")
    return "\n".join(status(ResultFolder(results.output, f"{results.exp_name}/{name}")) for name in names)


def refine(config: Any, *, automatic: bool) -> int:
    from ace_counterfactuals.core.postprocessing.postprocess import postprocess
    from ace_counterfactuals.core.postprocessing.sweep import read_sweep, sweep_table

    if sweep := run_part(postprocess, config, automatic=automatic):
        print(sweep_table(read_sweep(sweep.parent)))
        print(f"look at {sweep}")
    return 0
