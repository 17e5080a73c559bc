"""Train a diffusion model on a data set, or continue: checkpoints load into main.py with the same flags."""

from ace_counterfactuals.core.cli.parsing import program
from ace_counterfactuals.core.training.config import TrainDiffusionConfig


@program(TrainDiffusionConfig, __doc__)
def main(config: TrainDiffusionConfig) -> int:
    from ace_counterfactuals.core.training.diffusion import train

    print(f"checkpoints, samples and log.csv are in {train(config)}")
    return 0
