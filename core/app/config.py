"""All settings of app.py: main.py's of networks, attack and refinement, and where and to whom it answers."""

from dataclasses import dataclass, fields, replace

from ace_counterfactuals.core.base.settings import flag, flags_of, from_dict, group, to_dict
from ace_counterfactuals.core.data.config import DataConfig
from ace_counterfactuals.core.evaluation.judges import UNSEEN_FLAGS
from ace_counterfactuals.core.method.config import AttackConfig, SamplingConfig
from ace_counterfactuals.core.runs.config import MainConfig, RunConfig, WhereConfig
from ace_counterfactuals.guided_diffusion.config import DiffusionConfig, ModelConfig
from ace_counterfactuals.models.config import WeightsConfig

LOOPBACK = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True, kw_only=True)
class ServingConfig:
    host: str = flag("127.0.0.1", "address to answer at; any but this machine's own asks for a password", result=False)
    port: int = flag(7861, "0 is any that is free", low=0, high=65535, result=False)
    auth_file: str = flag(
        "", "file with USER:PASSWORD; without it the environment's ACE_APP_AUTH is taken", path=True, result=False
    )
    open_browser: bool = flag(True, "open the page in this machine's browser", result=False)
    output_path: str = flag("results", "folder that results are saved to, each as a folder", path=True, result=False)
    browse: tuple = flag(
        (), "folders whose report.html can be opened; OUTPUT_PATH too", kind=str, path=True, many=True, result=False
    )
    unseen: tuple = UNSEEN_FLAGS["unseen"]
    unseen_arch: str = UNSEEN_FLAGS["unseen_arch"]


@dataclass(frozen=True, kw_only=True)
class ComputingConfig(WhereConfig):
    compile: bool = flags_of(RunConfig)["compile"].field()


@dataclass(frozen=True, kw_only=True)
class AppConfig:
    """All flags of app.py."""

    serving: ServingConfig = group(ServingConfig, "serving")
    data: DataConfig = group(DataConfig, "data: how pictures are read; those of DATA_DIR are shown as examples")
    weights: WeightsConfig = group(WeightsConfig, "weights")
    run: ComputingConfig = group(ComputingConfig, "where")
    attack: AttackConfig = group(AttackConfig, "attack: the usual strength")
    sampling: SamplingConfig = group(SamplingConfig, "sampling: the filter and the refinement")
    model: ModelConfig = group(ModelConfig, "U-Net: as it was trained")
    diffusion: DiffusionConfig = group(DiffusionConfig, "diffusion process: as it was trained")

    @property
    def main(self) -> MainConfig:
        """The same as settings of main.py, for one picture at a time."""
        own = {item.name for item in fields(ServingConfig)}
        values = {name: value for name, value in to_dict(self).items() if name not in own}
        values |= {"batch_size": 1, "num_workers": 0}
        of_files = from_dict(MainConfig, values | {"image": ("picture.png",)})  # which every question is about
        return from_dict(MainConfig, values | {"dataset": of_files.data.dataset})

    def settled(self, main: MainConfig) -> "AppConfig":
        """With what the diffusion model's own files say of it."""
        return replace(self, **{name: getattr(main, name) for name in ("data", "model", "diffusion", "weights")})
