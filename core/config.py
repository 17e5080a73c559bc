"""Every flag of main.py and the training scripts, declared once.  Imports no torch, which takes seconds."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, make_dataclass
from typing import Any

from core.flags import flag, label, names_a_file, part

DATASETS = ("CelebA", "CelebAMV", "CelebAHQ", "BDD100k", "BDDOIA", "ImageNet", "Folder", "CSV")
ATTACKS = ("PGD", "GD", "C&W", "None")
SCHEDULES = ("none", "step", "linear")
SAME = "same"


def group(config: type, title: str):
    """A field holding one dataclass of flags."""
    return field(default_factory=config, metadata={"title": title})


@dataclass(frozen=True, kw_only=True)
class PicturesConfig:
    dataset: str = flag("ImageNet", "data set", choices=DATASETS)
    data_dir: str = flag("", "folder of the data set", path=True, result=False)
    image_size: int = flag(256, "side of the pictures in pixels; BDD pictures are twice as wide", low=8)


@dataclass(frozen=True, kw_only=True)
class DataConfig(PicturesConfig):
    label_query: int | str = flag(
        -1, "attribute that the classifier decides (binary sets), or class to start from", kind=label
    )
    label_target: int | str = flag(
        -1,
        "label to reach; only pictures of the other label, or of class label_query, are explained. "
        "-1 flips the prediction (binary) or leaves it to any other class",
        kind=label,
    )
    num_samples: int = flag(
        500000000000, "pictures to explain at most, after the selection by label", low=1, result=False
    )


@dataclass(frozen=True, kw_only=True)
class WeightsConfig:
    model_path: str = flag(
        "", "weights of the diffusion model: a path, gs://, az:// or https://", path=True, result=False
    )
    classifier_path: str = flag(
        "", "weights of the classifier: a path, gs://, az:// or https://", path=True, result=False
    )
    classifier_arch: str = flag("", "torchvision's name of the classifier, where its file does not tell")


@dataclass(frozen=True, kw_only=True)
class ExperimentConfig:
    output_path: str = flag("results", "folder for all experiments on a data set", path=True, result=False)
    exp_name: str = flag("exp", "name of this experiment, a folder in OUTPUT_PATH/Results", result=False)
    save_images: bool = flag(True, "write the pictures, beside the tables", result=False)


@dataclass(frozen=True, kw_only=True)
class OutputConfig(ExperimentConfig):
    save_float: bool = flag(
        False, "keep pre-explanations as float16 .npy too, for postprocessing.py; needs save_images", result=False
    )


@dataclass(frozen=True, kw_only=True)
class DeviceConfig:
    device: str = flag(
        "auto",
        "where to compute; auto takes cuda, then mps, then cpu",
        choices=("auto", "cpu", "cuda", "mps"),
        result=False,
    )
    gpu: int = flag(
        0, "which of the visible CUDA devices; a process with a local rank takes that one instead", low=0, result=False
    )
    num_workers: int = flag(2, "threads that read pictures ahead; 0 reads between the batches", low=0, result=False)


@dataclass(frozen=True, kw_only=True)
class SeededConfig(DeviceConfig):
    seed: int = flag(4, "seed of all noise", low=0)


@dataclass(frozen=True, kw_only=True)
class RunConfig(SeededConfig):
    batch_size: int = flag(16, "pictures attacked at once; results do not depend on it", low=1, result=False)
    cudnn_deterministic: bool = flag(
        False, "the same bytes at any split of the work: deterministic kernels, full batches", result=False
    )
    chunks: int = flag(1, "parts that the pictures are split into", low=1, result=False)
    chunk: int | str = flag(
        0,
        "the part to run: pictures with index % chunks == chunk; auto goes by the SLURM array task and the rank",
        low=0,
        kind=part,
        result=False,
    )
    merge_chunks: bool = flag(
        False, "explain nothing; gather the finished chunks into one summary and table", result=False
    )
    overwrite: bool = flag(
        False, "start anew: forget what is finished; with several chunks, what is of this one", result=False
    )
    status: bool = flag(False, "explain and write nothing; tell what is done, missing and running", result=False)
    check: bool = flag(
        False, "explain and write nothing; report on pictures, networks, time, memory and disk", result=False
    )


@dataclass(frozen=True, kw_only=True)
class AttackConfig:
    attack_method: str = flag("PGD", "attack", choices=ATTACKS, aliases={"CW": "C&W"})
    attack_iterations: int = flag(50, "steps of the attack", low=1)
    attack_epsilon: float = flag(
        255.0, "radius of the L-inf ball around the picture, in 1/255 of the range; not for C&W", low=0, high=255
    )
    attack_step: float = flag(1.0, "step size, in 1/255 of the range", low=0)
    attack_joint: bool = flag(True, "attack through the diffusion model; False attacks the classifier alone")
    attack_joint_checkpoint: bool = flag(
        False, "recompute instead of keeping the graph of all denoising steps: less memory", result=False
    )
    attack_checkpoint_backward_steps: int = flag(1, "denoising steps between two stored states", low=1, result=False)
    attack_joint_shortcut: bool = flag(
        False, "DiME's gradient: the one at the filtered picture, over sqrt(alphas_cumprod)"
    )
    dist_l1: float = flag(0.0, "weight of the sum of absolute changes", low=0)
    dist_l2: float = flag(0.0, "weight of the Euclidean length of the change", low=0)
    dist_schedule: str = flag(
        "none", "weight of the distances over the iterations: 1; 0 then 1; rising to 1", choices=SCHEDULES
    )


@dataclass(frozen=True, kw_only=True)
class RegionConfig:
    region: str = flag(
        "",
        "x0,y0,x1,y1 in pixels, a picture that is white where it may change, or a folder of such by file name; "
        "'' is everywhere",
        path=names_a_file,
    )
    region_invert: bool = flag(False, "what is outside the region may change, instead of what is inside")


@dataclass(frozen=True, kw_only=True)
class SamplingConfig:
    sampling_time_fraction: float = flag(
        0.1, "share of the respaced steps that the filter noises and denoises", low=0, high=1
    )
    sampling_stochastic: bool = flag(True, "draw noise; False noises by scaling alone and adds none when denoising")
    sampling_inpaint: float = flag(
        0.15,
        "pixels whose dilated change is below this share of the largest stay original; 0 keeps none",
        low=0,
        high=1,
    )
    sampling_dilation: int = flag(15, "side of the square that the mask is dilated by, odd", low=1)
    timestep_respacing: str = flag("", "steps of the respaced chain: '' (all), 25, 10,10,5 or ddim25")
    clip_denoised: bool = flag(True, "clip the predicted x_0 to [-1, 1]")
    refine_timestep_respacing: str = flag(
        SAME, f"steps of the chain that the refinement takes; '{SAME}' are those of timestep_respacing"
    )
    refine_time_fraction: float = flag(
        -1.0,
        "share of these that the refinement noises and denoises; below 0 it is sampling_time_fraction",
        low=-1,
        high=1,
    )

    @property
    def of_refinement(self) -> "SamplingConfig":
        """What the refinement takes, said by the flags that the attack's filter has."""
        return SamplingConfig(**by_itself(vars(self)))


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    num_channels: int = flag(128, "channels of the first level", low=1)
    num_res_blocks: int = flag(2, "residual blocks a level", low=1)
    channel_mult: str = flag("", "width of each level in units of num_channels, e.g. 1,2,3,4; '' goes by image_size")
    num_heads: int = flag(4, "attention heads", low=1)
    num_head_channels: int = flag(-1, "channels a head; -1 goes by num_heads", low=-1)
    num_heads_upsample: int = flag(-1, "attention heads on the way up; -1 is num_heads", low=-1)
    attention_resolutions: str = flag("16,8", "resolutions with attention, as image_size // resolution")
    dropout: float = flag(0.0, "dropout in training", low=0, high=1, result=False)
    class_cond: bool = flag(False, "class-conditional model: denoises towards the target")
    use_checkpoint: bool = flag(False, "recompute each block in the backward pass: less memory", result=False)
    use_scale_shift_norm: bool = flag(True, "time embedding scales and shifts the normalised features")
    resblock_updown: bool = flag(False, "residual blocks resample, instead of convolutions")
    use_new_attention_order: bool = flag(False, "qkv channels ordered q, k, v first instead of heads first")
    use_fp16: bool = flag(
        False, "half precision in the U-Net's torso: float16 on CUDA, else bfloat16 where that is fast"
    )


@dataclass(frozen=True, kw_only=True)
class DiffusionConfig:
    learn_sigma: bool = flag(False, "the network predicts the variance too")
    diffusion_steps: int = flag(1000, "steps of the chain that the model was trained on", low=1)
    noise_schedule: str = flag("linear", "betas over the steps", choices=("linear", "cosine"))
    use_kl: bool = flag(False, "train on the variational bound alone", result=False)
    predict_xstart: bool = flag(False, "the network predicts x_0 instead of the noise")
    rescale_timesteps: bool = flag(False, "the network gets its steps times 1000/diffusion_steps")
    rescale_learned_sigmas: bool = flag(False, "train the variance with a weight of steps/1000", result=False)


@dataclass(frozen=True, kw_only=True)
class MainConfig:
    """All flags of main.py."""

    data: DataConfig = group(DataConfig, "data: what is explained")
    weights: WeightsConfig = group(WeightsConfig, "weights")
    output: OutputConfig = group(OutputConfig, "output")
    run: RunConfig = group(RunConfig, "run: where, how much at once, which part")
    attack: AttackConfig = group(AttackConfig, "attack: the pre-explanation")
    region: RegionConfig = group(RegionConfig, "region: where a picture may change")
    sampling: SamplingConfig = group(SamplingConfig, "sampling: the filter and the refinement")
    model: ModelConfig = group(ModelConfig, "U-Net: as it was trained")
    diffusion: DiffusionConfig = group(DiffusionConfig, "diffusion process: as it was trained")


SWEPT = (
    "model_path",
    "timestep_respacing",
    "sampling_time_fraction",
    "sampling_dilation",
    "sampling_inpaint",
    "seed",
)
"""The flags of postprocessing.py that take several values; the last varies fastest."""

OF_REFINEMENT = {
    "refine_timestep_respacing": "timestep_respacing",
    "refine_time_fraction": "sampling_time_fraction",
}
"""Flags of a refinement that follows an attack, and those that say the same of one by itself."""


def by_itself(flags: Mapping[str, Any]) -> dict[str, Any]:
    """The flags of a refinement alone, which says its steps by the flags that main.py has for the attack's filter."""
    own = {name: flags[name] for name in OF_REFINEMENT if is_own(flags.get(name))}
    left = {name: value for name, value in flags.items() if name not in OF_REFINEMENT}
    return {**left, **{OF_REFINEMENT[name]: value for name, value in own.items()}}


def is_own(value: Any) -> bool:
    """Whether a refinement's value, or the first of several, is not said to be the attack's."""
    first = value[0] if isinstance(value, tuple) else value
    return first not in (None, SAME) and not (isinstance(first, float) and first < 0)


def of_the_run(config: type, *, without: tuple[str, ...] = ()) -> type:
    """The flags of ``config`` as postprocessing.py takes them: None is the run's own, the SWEPT take several values.

    Only what results depend on, and paths, are the run's; the others keep their defaults.
    """
    items = []
    for item in fields(config):
        default = None if item.metadata["result"] or item.metadata["path"] else item.default
        metadata = {**item.metadata, "many": item.name in SWEPT or item.name in OF_REFINEMENT}
        items.append((item.name, item.type, field(default=default, metadata=metadata)))
    return make_dataclass(config.__name__, [item for item in items if item[0] not in without], frozen=True)


PostSampling, PostWeights, PostData = (of_the_run(config) for config in (SamplingConfig, WeightsConfig, DataConfig))
PostModel, PostDiffusion, PostAttack = (of_the_run(config) for config in (ModelConfig, DiffusionConfig, AttackConfig))
PostRegion = of_the_run(RegionConfig)
PostRun = of_the_run(RunConfig, without=("check",))


@dataclass(frozen=True, kw_only=True)
class PostConfig:
    """All flags of postprocessing.py: those of main.py, so that the command lines of the original are understood."""

    output: ExperimentConfig = group(ExperimentConfig, "the experiment whose pre-explanations are refined")
    sampling: PostSampling = group(PostSampling, "sampling: the refinement")
    weights: PostWeights = group(PostWeights, "weights")
    run: PostRun = group(PostRun, "run: where, how much at once, which part")
    model: PostModel = group(PostModel, "U-Net: as it was trained")
    diffusion: PostDiffusion = group(PostDiffusion, "diffusion process: as it was trained")
    data: PostData = group(PostData, "data: the run's; to be given for a folder of the original program")
    region: PostRegion = group(PostRegion, "region: the run's")
    attack: PostAttack = group(PostAttack, "attack: the run's; understood, but nothing is attacked")


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    output_path: str = flag("training", "folder for checkpoints, samples and the log", path=True)
    batch_size: int = flag(1, "pictures a step", low=1)
    microbatch: int = flag(-1, "pictures a forward pass; -1 takes the whole batch", low=-1)
    lr: float = flag(1e-4, "learning rate of AdamW", low=0)
    weight_decay: float = flag(0.0, "weight decay of AdamW", low=0)
    lr_anneal_steps: int = flag(
        0, "steps to train, the learning rate falling linearly to 0; 0 trains until it is stopped", low=0
    )
    ema_rate: float = flag(0.9999, "rate of the moving average of the weights", low=0, high=1)
    ema_fp16: bool = flag(False, "store the moving average in half precision: half the size")
    random_flip: bool = flag(True, "mirror every other picture, drawn anew each time; never done for BDD100k")
    init_step: int = flag(-1, "steps of the chain from this one on are never drawn; -1 draws all", low=-1)
    log_interval: int = flag(10, "steps between two lines of log.csv", low=1)
    save_interval: int = flag(10000, "steps between two checkpoints, each with a grid of samples", low=1)
    init_weights: str = flag("", "weights to begin with, to fit a trained model to other pictures", path=True)
    resume_checkpoint: str = flag("", "modelNNNNNN.pt to continue from; its ema and opt files lie beside it", path=True)


@dataclass(frozen=True, kw_only=True)
class TrainDiffusionConfig:
    """All flags of train_diffusion.py."""

    pictures: PicturesConfig = group(PicturesConfig, "data: the training partition is used")
    training: TrainingConfig = group(TrainingConfig, "training")
    device: SeededConfig = group(SeededConfig, "where")
    model: ModelConfig = group(ModelConfig, "U-Net")
    diffusion: DiffusionConfig = group(DiffusionConfig, "diffusion process")


@dataclass(frozen=True, kw_only=True)
class ClassifierTrainingConfig:
    output_path: str = flag(
        "classifier.pt", "file to write: architecture, class names, normalisation and weights", path=True
    )
    arch: str = flag(
        "small-32",
        "small-WIDTH, plain-WIDTH or mixer-WIDTH, for pictures of 28 to 64 pixels, or a torchvision classifier",
    )
    val_dir: str = flag("", "class folders to measure the accuracy on, with the classes of data_dir", path=True)
    epochs: int = flag(10, "passes over the pictures", low=1)
    batch_size: int = flag(128, "pictures a step", low=1)
    lr: float = flag(1e-3, "largest learning rate of AdamW, warmed up and annealed (one cycle)", low=0)
    weight_decay: float = flag(0.01, "weight decay of AdamW", low=0)
    random_flip: bool = flag(True, "mirror every other picture, drawn anew each time")


@dataclass(frozen=True, kw_only=True)
class TrainClassifierConfig:
    """All flags of train_classifier.py."""

    pictures: PicturesConfig = group(PicturesConfig, "data: a set with classes")
    training: ClassifierTrainingConfig = group(ClassifierTrainingConfig, "training")
    device: SeededConfig = group(SeededConfig, "where")
