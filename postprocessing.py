"""Refine stored pre-explanations again: other masks, other steps of the diffusion, another seed or diffusion model."""

from pathlib import Path

from core.config import PostConfig
from core.flags import UserError, parse, run_script
from core.launchers import AUTO, place, run_part
from core.layout import REFINED, ResultFolder
from core.status import status


def main(argv=None) -> int:
    typed = parse(PostConfig, __doc__, argv)
    if typed.run.status:
        print(status_of_all(ResultFolder(Path(typed.output.output_path), typed.output.exp_name)))
        return 0
    return refine(place(typed), automatic=typed.run.chunk == AUTO)


def status_of_all(results: ResultFolder) -> str:
    """Of every setting in the experiment's folder."""
    names = sorted(path.name for path in results.root.glob(f"{REFINED}*"))
    if not names:
        raise UserError(f"{results.root}: nothing was refined there")
    return "\n".join(status(ResultFolder(results.output, f"{results.exp_name}/{name}")) for name in names)


def refine(config: PostConfig, *, automatic: bool) -> int:
    from core.postprocess import postprocess
    from core.sweep import read_sweep, sweep_table

    refined = run_part(postprocess, config, automatic=automatic)
    if refined and refined.sweep:
        print(sweep_table(read_sweep(refined.sweep.parent)))
        print(f"look at {refined.sweep}")
    return 0


if __name__ == "__main__":
    run_script(main)
