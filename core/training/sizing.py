"""A U-Net and a number of steps for which pictures and minutes suffice: chosen before a training, by timed steps."""

import time
from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from ace_counterfactuals.core.base.runtime import notice
from ace_counterfactuals.core.base.settings import FlagError, convert, flag_items, from_dict, to_dict
from ace_counterfactuals.core.data.imageset import ImageSet
from ace_counterfactuals.core.data.pictures import picture_size
from ace_counterfactuals.core.training import parallel
from ace_counterfactuals.core.training.checkpoints import TrainingFolder
from ace_counterfactuals.core.training.config import TrainDiffusionConfig
from ace_counterfactuals.core.training.diffusion import conditions, make_trainer, picture_batches, training_images
from ace_counterfactuals.guided_diffusion.config import format_mult, parse_channel_mult

UNET = ("image_size", "num_channels", "channel_mult", "attention_resolutions", "save_interval")
LARGEST, SMALLEST = 64, 7  # pixels: of the pictures, and of the last level
LOOKED = 64  # pictures whose size is looked at
WIDTHS = {32: 0, 64: 10_000, 128: 50_000}  # num_channels -> so many pictures, lest it learns them by heart
WELL, FEW = 5000, 500  # steps that a wider network must have, and under which none is known to be good
PASSES = 400  # over the pictures at most
SHARE = 0.9  # of the minutes, the rest is for samples and slower steps
TIMED = 3  # steps, after one more


class Cost(NamedTuple):
    """parameters: of the U-Net.  seconds: a step, here."""

    parameters: int
    seconds: float


def settled(config: TrainDiffusionConfig, given: Collection[str] = ()) -> TrainDiffusionConfig:
    """With what ``choose`` and ``max_minutes`` leave to be chosen: as in the training that this continues, or else by
    its pictures and a step's time.

    given: names of settings that are not to be chosen.  Raises FlagError.
    """
    training, open_ = config.training, to_choose(config) - set(given)
    if not open_:
        return config
    folder = TrainingFolder(config)
    recorded = folder.recorded()
    if any(folder.path.glob("model*.pt")) and recorded.keys() >= open_:
        known = flag_items(TrainDiffusionConfig)
        return changed(config, {name: convert(name, known[name], recorded[name]) for name in open_})
    if not training.max_minutes:
        raise FlagError("max_minutes", "0: choose True goes by the minutes that there are; give them, such as 30")
    images = training_images(config)
    if "image_size" in open_:
        config = changed(config, {"image_size": side_of(images)})
        images = training_images(config, images.channels)
    config, cost = fitting(config, images, open_)
    if "lr_anneal_steps" in open_:
        steps = affordable(config, cost)
        if training.choose:
            steps = min(steps, -(-PASSES * len(images) // training.batch_size))
        if steps < FEW:
            notice(f"only {steps} steps fit in: the model will be poor; give more minutes, or fewer pixels")
        config = changed(config, {"lr_anneal_steps": steps})
    if "save_interval" in open_:
        config = changed(config, {"save_interval": -(-config.training.lr_anneal_steps // 5)})
    values = to_dict(config)
    told = ", ".join(f"{name} {values[name]}" for name in (*UNET, "lr_anneal_steps") if name in open_)
    notice(f"chosen for {len(images)} pictures and {training.max_minutes:g} minutes: {told}")
    return config


def to_choose(config: TrainDiffusionConfig) -> set[str]:
    """The settings that are open, if they are not given."""
    training = config.training
    annealed = (training.choose or training.max_minutes) and not training.lr_anneal_steps
    return set(UNET if training.choose else ()) | set(["lr_anneal_steps"] if annealed else ())


def changed(config: TrainDiffusionConfig, values: dict[str, Any]) -> TrainDiffusionConfig:
    """With other values of some flags."""
    return from_dict(TrainDiffusionConfig, {**to_dict(config), **values})


def side_of(images: ImageSet) -> int:
    """Of pictures as large as most of these, but not larger than LARGEST, which can be halved twice or more."""
    sides = []
    for record in images.records[:: -(-len(images) // LOOKED)]:
        with suppress(ValueError):
            sides.append(min(picture_size(record.path)))
    side = int(min(median(sides or [LARGEST]), LARGEST))
    return max(side - side % (4 if side < 32 else 8), 8)


def levels_of(side: int) -> int:
    """How often a picture can be halved, and once more."""
    levels = 1
    while side % 2 == 0 and side // 2 >= SMALLEST:
        side, levels = side // 2, levels + 1
    return levels


def candidates(config: TrainDiffusionConfig, pictures: int, open_: Collection[str]) -> Iterator[TrainDiffusionConfig]:
    """From narrow to wide."""
    side = config.pictures.image_size
    mult = format_mult(range(1, 1 + levels_of(side))) if "channel_mult" in open_ else config.model.channel_mult
    last = side // 2 ** (len(parse_channel_mult(mult, side)) - 1)
    widths = [width for width, least in WIDTHS.items() if pictures >= least]
    for width in widths if "num_channels" in open_ else [config.model.num_channels]:
        chosen = {"num_channels": width, "channel_mult": mult, "attention_resolutions": str(last)}
        yield changed(config, {name: value for name, value in chosen.items() if name in open_})


def fitting(
    config: TrainDiffusionConfig, images: ImageSet, open_: Collection[str]
) -> tuple[TrainDiffusionConfig, Cost]:
    """The widest network that is trained well in the time, or else the narrowest."""
    first, *others = candidates(config, len(images), open_)
    best = first, cost_of(first, images)
    for wider in others:
        cost = cost_of(wider, images)
        if affordable(wider, cost) < WELL:
            break
        best = wider, cost
    return best


def affordable(config: TrainDiffusionConfig, cost: Cost) -> int:
    """Steps in the time."""
    return max(int(SHARE * 60 * config.training.max_minutes / cost.seconds), 1)


def cost_of(config: TrainDiffusionConfig, images: ImageSet) -> Cost:
    """By a few steps, of which nothing is kept.  Raises FlagError."""
    condition = conditions(config, images)
    trainer = make_trainer(config, condition, images, Path(config.training.resume_checkpoint))
    batch = picture_batches(config, images, condition, 0)(0)
    steps = trainer.train(lambda step: batch, trainer.step + 1 + TIMED)
    next(steps)
    begin = time.perf_counter()
    for _ in steps:
        pass
    parameters = sum(parameter.numel() for parameter in trainer.model.parameters())
    return Cost(parameters, parallel.largest((time.perf_counter() - begin) / TIMED)[0])
