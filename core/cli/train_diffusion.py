"""Train a diffusion model on a data set, or continue: --model_path of main.py takes the folder that it writes.

With --sample, pictures are drawn from a model instead; with --distill True, a student of a model is trained.
"""

import os
from collections.abc import Mapping, Sequence

from ace_counterfactuals.core.base.notices import ranks
from ace_counterfactuals.core.base.settings import FlagError, flags_of
from ace_counterfactuals.core.cli.parsing import program
from ace_counterfactuals.core.training.config import DistillingConfig, DrawingConfig, TrainDiffusionConfig


def settle(config: TrainDiffusionConfig, typed: Mapping, others: Mapping) -> TrainDiffusionConfig:
    """With what is to be chosen, or what the model says that is drawn from."""
    if config.distilling.distill:
        from ace_counterfactuals.core.training import distilling

        return distilling.settled(config, typed, others)
    if config.drawing.sample:
        from ace_counterfactuals.core.training import sampling

        return sampling.settled(config, typed, others)
    if own := [name for name in flags_of(DistillingConfig) if name in typed and name != "distill"]:
        raise FlagError(own[0], "is a flag of a student: give distill True, too")
    if drawing := [name for name in flags_of(DrawingConfig) if name in typed and name != "sample"]:
        raise FlagError(drawing[0], "is a flag of drawing: give sample, the number of pictures, too")
    from ace_counterfactuals.core.training.sizing import settled

    return settled(config, {*typed, *others} - {"lr_anneal_steps"})


@program(TrainDiffusionConfig, __doc__.splitlines()[0], settle=settle)
def alone(config: TrainDiffusionConfig) -> int:
    from ace_counterfactuals.core.report.training import PAGE, write_training_page
    from ace_counterfactuals.core.training import parallel
    from ace_counterfactuals.core.training.diffusion import train
    from ace_counterfactuals.core.training.sampling import draw

    if count := config.drawing.sample:
        folder = draw(config)
        said = f"{count} pictures are in {folder}; look at {folder / 'grid.png'}"
    elif config.training.check:
        said = forecast(config)
    else:
        folder = train(config, write_training_page)
        flag = "whose ema file --attack_student" if config.distilling.distill else "which --model_path"
        said = f"checkpoints, samples and log.csv are in {folder}, {flag} takes; look at {folder / PAGE}"
    if parallel.rank() == 0:
        print(said)
    return 0


def main(argv: Sequence[str] | None = None, **settings: str) -> int:
    """The program, joined with those that a launcher started beside it."""
    found = ranks(os.environ)
    if found is None or found[1] == 1:
        return alone(argv, **settings)
    from ace_counterfactuals.core.training.parallel import joined

    with joined(*found[:2], os.environ):
        return alone(argv, **settings)


def forecast(config: TrainDiffusionConfig) -> str:
    """What the training will take."""
    from ace_counterfactuals.core.base.notices import in_time
    from ace_counterfactuals.core.training.diffusion import training_images
    from ace_counterfactuals.core.training.sizing import cost_of

    parameters, seconds = cost_of(config, training_images(config))
    training, size = config.training, config.pictures.image_size
    steps = training.lr_anneal_steps
    whole = f"{steps} steps in {in_time(steps * seconds)}" if steps else "without end, since lr_anneal_steps is 0"
    each = f"{in_time(seconds)} a step of {training.batch_size} pictures of {size} x {size} here"
    return f"{parameters / 1e6:.1f} million parameters; {each}; {whole}"
