"""The flags of evaluate.py."""

from dataclasses import dataclass

from ace_counterfactuals.core.base.config import DeviceConfig
from ace_counterfactuals.core.base.settings import flag, group
from ace_counterfactuals.core.data.datasets import DATASETS


@dataclass(frozen=True, kw_only=True)
class ResultsConfig:
    output_path: str = flag("results", "folder that holds Original and Results", path=True)
    exp_name: tuple = flag(
        ("exp",), "experiments, such as exp, exp/pre-explanation; several are compared", kind=str, many=True
    )
    allow_partial: bool = flag(False, "evaluate what is there of an incomplete experiment, and mark every figure")
    evaluation_path: str = flag("", "folder to write to; if not given, OUTPUT_PATH/Results/EXP/evaluation", path=True)
    cache_path: str = flag("", "folder of the cached features; if not given, OUTPUT_PATH/.cache", path=True)


@dataclass(frozen=True, kw_only=True)
class NetworksConfig:
    inception_weights: str = flag(
        "", "FID, sFID: pytorch-fid's weights, or 'hub': its file in torch.hub's cache or from the web", path=True
    )
    vggface2_weights: str = flag("", "FVA, FS: weights of VGGFace2's ResNet-50", path=True)
    simsiam_weights: str = flag("", "S3: weights of SimSiam", path=True)
    oracle_path: str = flag("", "MNAC, CD: weights of the attribute oracle", path=True)
    celeba_path: str = flag("", "CD: folder of CelebA or CelebA-HQ; if not given, the run's --data_dir", path=True)
    lpips_backbone: str = flag(
        "", "LPIPS diversity of several experiments: weights of VGG-16, or 'hub': torchvision's", path=True
    )
    features: tuple = flag(
        (), "Frechet distance in the features of these classifiers, FILE ...", kind=str, many=True, path=True
    )
    features_arch: str = flag("", "torchvision's name of the networks of --features, where their files do not tell")
    unseen: tuple = flag((), "transfer: classifiers that were never attacked, FILE ...", kind=str, many=True, path=True)
    unseen_arch: str = flag("", "torchvision's name of the networks of --unseen, where their files do not tell")


@dataclass(frozen=True, kw_only=True)
class ClassifierConfig:
    classifier_path: str = flag("", "COUT: the explained classifier; if not given, from config.yaml", path=True)
    classifier_arch: str = flag("", "torchvision's name of it, where neither its file nor config.yaml tells")
    dataset: str = flag("", "data set, where no config.yaml tells", choices=DATASETS)
    query_label: int = flag(-1, "attribute or class that was left, where no config.yaml tells", low=-1)
    target_label: int = flag(-1, "class that was to be reached, where no config.yaml tells", low=-1)


@dataclass(frozen=True, kw_only=True)
class ComputeConfig(DeviceConfig):
    batch_size: int = flag(32, "pictures at once; no figure depends on it", low=1)
    seed: int = flag(4, "seed of splits and resamples", low=0)


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """All flags of evaluate.py."""

    results: ResultsConfig = group(ResultsConfig, "results")
    networks: NetworksConfig = group(NetworksConfig, "networks: each gives its figures; none is needed")
    classifier: ClassifierConfig = group(ClassifierConfig, "the classifier that was explained")
    compute: ComputeConfig = group(ComputeConfig, "where")
