"""All settings of train_diffusion.py and train_classifier.py."""

from dataclasses import dataclass

from ace_counterfactuals.core.base.config import SeededConfig
from ace_counterfactuals.core.base.settings import flag, group, is_path, label
from ace_counterfactuals.core.data.config import PicturesConfig
from ace_counterfactuals.guided_diffusion.config import DiffusionConfig, ModelConfig


def rates(text: str) -> float | str:
    """A number, or numbers with commas between them.  Raises ValueError."""
    values = list(dict.fromkeys(float(part) for part in text.split(",")))
    if not all(0 <= value <= 1 for value in values):
        raise ValueError(text)
    return values[0] if len(values) == 1 else ",".join(map(str, values))


rates.__name__ = "numbers from 0 to 1, with commas between them"


def ema_rates(ema_rate: float | str) -> list[float]:
    """Of the flag."""
    return [float(part) for part in str(ema_rate).split(",")]


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """How a diffusion model is trained."""

    output_path: str = flag("training", "folder for checkpoints, samples and the log", path=True, result=False)
    batch_size: int = flag(1, "pictures a step", low=1)
    microbatch: int = flag(-1, "pictures a forward pass; -1 takes the whole batch", low=-1)
    lr: float = flag(1e-4, "learning rate of AdamW", low=0)
    weight_decay: float = flag(0.0, "weight decay of AdamW", low=0)
    lr_anneal_steps: int = flag(
        0, "steps to train, the learning rate falling linearly to 0; 0 trains until it is stopped", low=0
    )
    lr_warmup_steps: int = flag(0, "steps over which the learning rate rises linearly from 0", low=0)
    grad_clip: float = flag(0.0, "largest norm of a step's gradient, shortened to it; 0 is without limit", low=0)
    schedule_sampler: str = flag(
        "uniform",
        "how the steps of the chain are drawn: evenly, or by the root mean square of their last ten losses, whose "
        "weights make up for it",
        choices=("uniform", "loss-second-moment"),
    )
    min_snr_gamma: float = flag(
        0.0,
        "errors count as those of x_0 by the ratio of signal to noise, at most this, such as 5; 0: all alike",
        low=0,
    )
    max_minutes: float = flag(
        0.0,
        "minutes to train at most, and where lr_anneal_steps is 0, in how many to anneal: as many steps as a timed one "
        "fits in; the same command goes on where the time was over before; 0 is without limit",
        low=0,
        result=False,
    )
    choose: bool = flag(
        False,
        "choose image_size, num_channels, channel_mult, attention_resolutions and save_interval for the pictures and "
        "max_minutes, those that are not given",
        result=False,
    )
    ema_rate: float | str = flag(
        0.9999, "rate of the moving average of the weights; several with commas between them", kind=rates
    )
    ema_warmup: bool = flag(
        False, "the rate of the moving average begins at 0.1 and rises, at step k at most (1+k)/(10+k)"
    )
    ema_fp16: bool = flag(False, "store the moving average in half precision: half the size")
    random_flip: bool = flag(True, "mirror every other picture, drawn anew each time; never done for BDD's scenes")
    init_step: int = flag(-1, "steps of the chain from this one on are never drawn; -1 draws all", low=-1)
    log_interval: int = flag(10, "steps between two lines of log.csv", low=1, result=False)
    save_interval: int = flag(10000, "steps between two checkpoints, each with a grid of samples", low=1, result=False)
    save_seconds: float = flag(
        300.0,
        "seconds after which there is a checkpoint in between, without samples, which the next one takes the place of; "
        "0 is none",
        low=0,
        result=False,
    )
    keep_checkpoints: int = flag(
        0, "so many of the last checkpoints are kept, but all grids of samples; 0 keeps all", low=0, result=False
    )
    dist: str = flag(
        "ddp",
        "with several processes of torchrun, srun or mpiexec, which share the pictures of a step: ddp, each has all of "
        "the network; fsdp, each has a part of all weights",
        choices=("ddp", "fsdp"),
        result=False,
    )
    compile: bool = flag(
        False,
        "compile the network, which takes up to minutes before the first step; results differ by rounding",
        result=False,
    )
    fid_network: str = flag(
        "",
        "pytorch-fid's Inception, or a file of train_classifier.py, by whose features fid.csv tells at each checkpoint "
        "with samples how far those are from the pictures",
        path=True,
        result=False,
    )
    fid_samples: int = flag(256, "samples and pictures for that", low=2, result=False)
    check: bool = flag(False, "train nothing: say the parameters, the time of a step, and the steps", result=False)
    init_weights: str = flag("", "weights to begin with, to fit a trained model to other pictures", path=True)
    resume_checkpoint: str = flag("", "modelNNNNNN.pt to continue from; its ema and opt files lie beside it", path=True)


@dataclass(frozen=True, kw_only=True)
class DrawingConfig:
    """What is drawn from a model, in place of a training."""

    sample: int = flag(
        0,
        "train nothing: draw so many pictures from model_path into output_path, a PNG each, by its number and seed "
        "alone, and grid.png; the same command goes on, and draws more of them where it asks for more",
        low=0,
        result=False,
    )
    model_path: str = flag(
        "",
        "with sample: what to draw from; with distill: what to learn from; all that model_path of main.py takes",
        path=is_path,
    )
    timestep_respacing: str = flag(
        "", "with sample or distill: steps of the chain: '' all, '50' evenly spaced, 'ddim50' as DDIM spaces them"
    )
    use_ddim: bool = flag(False, "with sample: DDIM without noise, instead of ancestral sampling", result=False)
    sample_classes: str = flag(
        "",
        "with sample, of a conditional model: numbers of classes, taken in turn, such as 0,3; with + between them "
        "attributes that a picture has, such as 20+31; '' takes all in turn",
        result=False,
    )


@dataclass(frozen=True, kw_only=True)
class DistillingConfig:
    """A student that is trained in the place of a diffusion model."""

    distill: bool = flag(
        False,
        "train a student of model_path for attack_student of main.py: a small network that predicts in one call what "
        "the model predicts at the filter's first step",
    )
    sampling_time_fraction: float = flag(
        0.1, "with distill: as in the attack that it is for, like timestep_respacing", low=0, high=1
    )
    student_width: int = flag(32, "with distill: channels at half of the resolution, a multiple of 8", low=8)


@dataclass(frozen=True, kw_only=True)
class TrainDiffusionConfig:
    """All flags of train_diffusion.py."""

    pictures: PicturesConfig = group(PicturesConfig, "data: the training partition is used")
    training: TrainingConfig = group(TrainingConfig, "training")
    drawing: DrawingConfig = group(DrawingConfig, "drawing from a model, without a training")
    distilling: DistillingConfig = group(DistillingConfig, "distilling a model into a student")
    device: SeededConfig = group(SeededConfig, "where")
    model: ModelConfig = group(ModelConfig, "U-Net")
    diffusion: DiffusionConfig = group(DiffusionConfig, "diffusion process")


SCHEDULES, KEPT = ("one-cycle", "cosine"), ("last", "best")
AUGMENTATIONS = ("crop", "colour", "rand")


def augmentations(text: str) -> str:
    """Names of AUGMENTATIONS with commas between them, or ''.  Raises ValueError."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not set(names) <= set(AUGMENTATIONS):
        raise ValueError(text)
    return ",".join(names)


augmentations.__name__ = f"some of {', '.join(AUGMENTATIONS)}"


@dataclass(frozen=True, kw_only=True)
class LabelledConfig(PicturesConfig):
    """Pictures, and what of them is to be told."""

    label_query: int | str = flag(
        -1,
        "the one attribute to decide (CelebA, CelebA-HQ, BDDOIA, attributes of a CSV); -1 is all of them at once, each "
        "yes or no: such a file is an oracle for MNAC and CD, too",
        kind=label,
    )


@dataclass(frozen=True, kw_only=True)
class ClassifierTrainingConfig:
    """How a classifier is trained."""

    output_path: str = flag(
        "classifier.pt",
        "file to write: architecture, class names, normalisation and weights. Beside it, in a folder of its name "
        "without the ending, training.html, log.csv and, with val_dir, confusion.png and calibration.png",
        path=True,
        result=False,
    )
    arch: str = flag(
        "small-32",
        "small-, plain-, mixer- or dense-WIDTH, for pictures of 28 to 64 pixels, or torchvision:NAME or timm:NAME, "
        "or dive: the DenseNet-121 of DiVE and STEEX, of the attributes that theirs tells of the data set, in their "
        "format of files",
    )
    val_dir: str = flag(
        "",
        "pictures to measure on after each epoch, with the classes of data_dir; of the paper's data sets, whose folder "
        "it may be again, the partition that is explained",
        path=True,
        result=False,
    )
    keep: str = flag(
        "last", "weights to write: of the last epoch, or of that with the best accuracy on val_dir", choices=KEPT
    )
    epochs: int = flag(10, "passes over the pictures", low=1)
    batch_size: int = flag(128, "pictures a step", low=1)
    lr: float = flag(1e-3, "largest learning rate of AdamW", low=0)
    schedule: str = flag(
        "one-cycle",
        "how the learning rate goes: warmed up and annealed, or along a cosine from lr to 0",
        choices=SCHEDULES,
    )
    weight_decay: float = flag(0.01, "weight decay of AdamW", low=0)
    class_weights: bool = flag(False, "classes that are rare, and answers of an attribute, count as much as the others")
    random_flip: bool = flag(True, "mirror every other picture, drawn anew each time; never done for BDD's scenes")
    augment: str = flag(
        "",
        "changes of the pictures, drawn anew each time, with commas between them: crop (70 to 100 % of the area), "
        "colour (brightness, contrast, saturation, hue), rand (RandAugment)",
        kind=augmentations,
    )
    use_fp16: bool = flag(False, "forward pass in half precision: bfloat16, where that is fast")
    save_seconds: float = flag(
        300.0,
        "seconds between two states from which the same command goes on, in OUTPUT_PATH.unfinished; a signal leaves "
        "one, too",
        low=0,
        result=False,
    )


@dataclass(frozen=True, kw_only=True)
class TrainClassifierConfig:
    """All flags of train_classifier.py."""

    pictures: LabelledConfig = group(LabelledConfig, "data: a set with classes or attributes")
    training: ClassifierTrainingConfig = group(ClassifierTrainingConfig, "training")
    device: SeededConfig = group(SeededConfig, "where")
