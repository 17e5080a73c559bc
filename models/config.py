"""Settings of the networks: files of weights, and what a U-Net and its process were trained with."""

from dataclasses import dataclass

from ace_counterfactuals.core.base.settings import flag


@dataclass(frozen=True, kw_only=True)
class WeightsConfig:
    """Files of the networks of a run."""

    model_path: str = flag(
        "", "weights of the diffusion model: a path, gs://, az:// or https://", path=True, result=False
    )
    classifier_path: str = flag(
        "", "weights of the classifier: a path, gs://, az:// or https://", path=True, result=False
    )
    classifier_arch: str = flag("", "torchvision's name of the classifier, where its file does not tell")


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """A U-Net, as it was trained."""

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
    """The diffusion process that a U-Net was trained on."""

    learn_sigma: bool = flag(False, "the network predicts the variance too")
    diffusion_steps: int = flag(1000, "steps of the chain that the model was trained on", low=1)
    noise_schedule: str = flag("linear", "betas over the steps", choices=("linear", "cosine"))
    use_kl: bool = flag(False, "train on the variational bound alone", result=False)
    predict_xstart: bool = flag(False, "the network predicts x_0 instead of the noise")
    rescale_timesteps: bool = flag(False, "the network gets its steps times 1000/diffusion_steps")
    rescale_learned_sigmas: bool = flag(False, "train the variance with a weight of steps/1000", result=False)
