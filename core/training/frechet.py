"""The Fréchet distance of samples to the pictures, while a model is trained on them: fid.csv, a line a checkpoint."""

from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ace_counterfactuals.core.base import atomic
from ace_counterfactuals.core.base.reading import read_text
from ace_counterfactuals.core.base.settings import FlagError, blaming
from ace_counterfactuals.core.data.imageset import ImageSet, Sample, prefetch
from ace_counterfactuals.core.evaluation.gaussians import distance
from ace_counterfactuals.core.training import parallel
from ace_counterfactuals.core.training.config import TrainDiffusionConfig
from ace_counterfactuals.core.training.sampling import sampled, short_chain
from ace_counterfactuals.models.classifiers import is_ours
from ace_counterfactuals.models.denoisers import DiffusionModel
from ace_counterfactuals.models.judges import load_features, load_inception
from ace_counterfactuals.models.loading import load_weights

FID = "fid.csv"
AT_ONCE = 32  # pictures


class Frechet:
    """Of ``fid_samples`` samples to as many pictures, by the features of ``fid_network``.

    condition: by ``PictureFile.index``, of a conditional model, whose samples are of the pictures' conditions.
    Raises FlagError for a file that is no such network.
    """

    def __init__(self, config: TrainDiffusionConfig, images: ImageSet, condition: Tensor | None, device: torch.device):
        self.config, self.images, self.condition = config, images, condition
        path, count = config.training.fid_network, config.training.fid_samples
        if count > len(images):
            raise FlagError("fid_samples", f"{count}: there are {len(images)} pictures; give at most so many")
        with blaming("fid_network"):
            judge = load_features(path) if is_ours(load_weights(path)) else load_inception(path)
        self.judge, self.device = judge.to(device), device
        self.chosen = np.random.default_rng([config.device.seed, 3]).permutation(len(images))[:count].tolist()

    @cached_property
    def known(self) -> tuple[np.ndarray, list[int]]:
        """Features of the pictures that can be read, (n, D), and their indices."""
        found = [
            one for one in prefetch(self.images, self.chosen, self.config.device.num_workers) if isinstance(one, Sample)
        ]
        if len(found) < 2:
            raise FlagError("fid_network", "wants two pictures or more that can be read")
        parts = (found[i : i + AT_ONCE] for i in range(0, len(found), AT_ONCE))
        features = [self.features(torch.stack([one.image for one in part])) for part in parts]
        return np.concatenate(features), [one.index for one in found]

    @torch.no_grad()
    def features(self, pictures: Tensor) -> np.ndarray:
        """(N, D) float64 of pictures (N, C, H, W) in [0, 1]."""
        return self.judge(pictures.to(self.device).expand(-1, 3, -1, -1)).double().cpu().numpy()

    def of(self, network: nn.Module) -> float:
        """Of samples of this denoiser."""
        features, indices = self.known
        config = self.config
        model = DiffusionModel(network, short_chain(config.diffusion), channels=self.images.channels)
        drawn = []
        for begin in range(0, len(indices), AT_ONCE):
            numbers = list(range(begin, min(begin + AT_ONCE, len(indices))))
            y = None if self.condition is None else self.condition[[indices[i] for i in numbers]].to(self.device)
            drawn.append(self.features(sampled(model, numbers, config, y)))
        return distance(features, np.concatenate(drawn))


def write_distance(path: Path, step: int, value: float) -> None:
    """A line of fid.csv, in place of those of this step and later ones.  The first process writes it."""
    if parallel.rank():
        return
    lines = read_text(path).splitlines()[1:] if path.exists() else []
    kept = [line for line in lines if line.partition(",")[0].isdecimal() and int(line.partition(",")[0]) < step]
    atomic.write_text(path, "\n".join(["step,fid", *kept, f"{step},{value:.4f}"]) + "\n")
