"""Refine stored pre-explanations again: other masks, other steps of the diffusion, another seed or diffusion model."""

import core.interrupt  # noqa: F401 - first, before torch is imported
from core.config import PostConfig
from core.datasets import EmptySelection
from core.flags import parse, run_script
from core.launchers import AUTO, place
from core.notices import notice
from core.postprocess import postprocess
from core.sweep import read_sweep, sweep_table


def main(argv=None) -> int:
    typed = parse(PostConfig, __doc__, argv)
    try:
        refined = postprocess(place(typed))
    except EmptySelection as error:
        if typed.run.chunk != AUTO or error.rule != "chunk":
            raise
        notice(f"nothing to do: {error}")
        return 0
    print(sweep_table(read_sweep(refined.folders[0].root.parent)))
    if refined.sweep:
        print(f"look at {refined.sweep}")
    return 0


if __name__ == "__main__":
    run_script(main)
