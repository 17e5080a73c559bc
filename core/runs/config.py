"""All settings of main.py."""

from dataclasses import dataclass, replace

from ace_counterfactuals.core.base.config import SeededConfig
from ace_counterfactuals.core.base.settings import flag, group, part
from ace_counterfactuals.core.data.config import DataConfig, RegionConfig
from ace_counterfactuals.core.method.config import AttackConfig, SamplingConfig
from ace_counterfactuals.guided_diffusion.config import DiffusionConfig, ModelConfig
from ace_counterfactuals.models.config import WeightsConfig


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
class WhereConfig(SeededConfig):
    batch_size: int | str = flag(
        16,
        "pictures attacked at once; results do not depend on it; auto: as many as memory allows",
        low=1,
        kind=part,
        result=False,
    )
    cudnn_deterministic: bool = flag(
        False, "the same bytes at any split of the work: deterministic kernels, full batches", result=False
    )


@dataclass(frozen=True, kw_only=True)
class RunConfig(WhereConfig):
    compile: bool = flag(
        False,
        "compile the networks, which takes up to minutes before the first pictures; results differ by rounding",
        result=False,
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

    def __post_init__(self) -> None:
        """Files of no data set, for a classifier of one's own, are those of a folder."""
        own = self.weights.classifier or self.weights.classifier_path
        if self.data.image and own and self.data.dataset == "ImageNet":
            object.__setattr__(self, "data", replace(self.data, dataset="Folder"))
