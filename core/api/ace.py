"""What a program calls: explanations of pictures by networks that it holds, and the evaluation of saved ones."""

from collections.abc import Sequence
from dataclasses import asdict, fields, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ace_counterfactuals.core.api.explanation import Explanation, Origin
from ace_counterfactuals.core.base.presets import read_settings
from ace_counterfactuals.core.base.settings import from_dict
from ace_counterfactuals.core.data.config import RegionConfig
from ace_counterfactuals.core.data.labels import resolve_name
from ace_counterfactuals.core.data.regions import open_region
from ace_counterfactuals.core.method import explain as method
from ace_counterfactuals.core.method.config import AttackConfig, SamplingConfig
from ace_counterfactuals.core.method.task import Classifier
from ace_counterfactuals.core.runs.begin import describe, weight_digests
from ace_counterfactuals.core.runs.config import MainConfig
from ace_counterfactuals.core.runs.setup import check, task_of
from ace_counterfactuals.models.denoisers import DiffusionModel

if TYPE_CHECKING:
    from ace_counterfactuals.core.evaluation.model import Evaluation

SETTINGS = {item.name for group in (AttackConfig, SamplingConfig, RegionConfig) for item in fields(group)}
SETTINGS |= {"seed", "batch_size", "dataset", "label_query"}


class ACE:
    """Adversarial counterfactual explanations of one classifier, with one diffusion model.

    classifier: any callable from pictures (N, C, H, W) in [0, 1] to logits, (N,) if binary and (N, K) for K classes,
    on the denoiser's device and differentiable.  denoiser: of ``load_denoiser``.
    preset: a name or a YAML file, of which the settings below are taken.
    class_names: of the classifier's outputs; if not given, ``classifier.class_names``, if it has them.
    settings: fields of ``AttackConfig`` and ``SamplingConfig``, and batch_size, seed, region, region_invert, dataset
    ('Folder' if not given) and label_query, as main.py's flags of these names; they go before the preset.
    Raises FlagError for a setting that is none or cannot be used.
    """

    def __init__(
        self,
        classifier: Classifier,
        denoiser: DiffusionModel,
        preset: str | None = None,
        *,
        class_names: Sequence[str] | None = None,
        **settings,
    ):
        names = class_names or getattr(classifier, "class_names", None)
        self.classifier, self.denoiser = classifier, denoiser
        self.class_names: tuple[str, ...] | None = tuple(names) if names else None
        process = asdict(denoiser.process.config)
        known = {**getattr(classifier, "made_of", {}), **denoiser.made_of, **process, "dataset": "Folder"}
        self.config = from_dict(MainConfig, known | read_settings(MainConfig, settings, preset, names=SETTINGS))
        self.digests = weight_digests(self.config)

    def explain(
        self,
        images: Tensor,
        target: int | str | None = None,
        *,
        labels: Sequence[int] | None = None,
        indices: Sequence[int] | None = None,
        files: Sequence[str] | None = None,
    ) -> Explanation:
        """What would have to change in each picture for the classifier to decide ``target``.

        images: (N, 3, H, W), or grey ones (N, 1, H, W), in [0, 1].  target: a class by number or name; None is the
        other answer of a binary classifier, and any other class of several.  labels: the true classes, -1 where
        unknown, which is the default.
        indices: numbers of the pictures, which their noise depends on and their files are named by; default 0 to N - 1.
        files: the pictures' names, by which a folder of regions has theirs.
        Raises ValueError for pictures, a target or a region that cannot be, NonFiniteError if a network returns NaN.
        """
        number = -1 if target is None else resolve_name(self.class_names, target, "target", "the classifier")
        indices = range(len(images)) if indices is None else indices
        files = [f"{index:07d}.png" for index in indices] if files is None else files
        labels = [-1] * len(images) if labels is None else labels
        if not 0 < len(images) == len(indices) == len(files) == len(labels):
            raise ValueError(
                f"{len(images)} pictures, {len(indices)} indices, {len(files)} files, {len(labels)} labels"
            )
        channels, size = images.shape[-3:-1]
        data = replace(self.config.data, label_target=number, image_size=size, image_channels=channels)
        origin = self._origin(replace(self.config, data=data), indices, files, labels)
        return self._found(images, origin)

    def refine(self, found: Explanation) -> Explanation:
        """The same pre-explanations with this object's steps, mask, seed and diffusion model, its attack aside."""
        before = found.origin
        config = replace(self.config, data=before.config.data, attack=before.config.attack)
        return self._found(found.image, self._origin(config, before.indices, before.files, before.labels), found)

    def _origin(self, config: MainConfig, *pictures: Sequence) -> Origin:
        check(config)
        return Origin(config, describe(config, self.class_names, self.digests), *map(tuple, pictures))

    def _found(self, images: Tensor, origin: Origin, before: Explanation | None = None) -> Explanation:
        """In batches: on the results their size has no influence."""
        config, parameter = origin.config, next(self.denoiser.network.parameters(), images)
        task = task_of(config, self.classifier, self.denoiser)
        region = open_region(config.region.region, invert=config.region.region_invert)
        if region:
            region.check(origin.files, *images.shape[2:])
        parts, size = [], config.run.batch_size
        for batch in (slice(start, start + size) for start in range(0, len(images), size)):
            image, indices = images[batch].to(parameter.device, parameter.dtype), list(origin.indices[batch])
            mask = region.masks(origin.files[batch], image) if region else None
            if before is None:
                label = torch.tensor(origin.labels[batch], device=image.device)
                found = method.explain(image, task, label=label, indices=indices, region=mask)
            else:
                target = None if before.target is None else before.target[batch].to(image.device)
                pre_explanation = before.pre_explanation[batch].to(image)
                found = method.refine(image, pre_explanation, task, target=target, indices=indices, region=mask)
            parts.append(found)
        return Explanation.of(parts, origin)


def explain(
    images: Tensor, classifier: Classifier, denoiser: DiffusionModel, target: int | str | None = None, **settings
) -> Explanation:
    """``ACE(classifier, denoiser, **settings).explain(images, target)``; ``preset`` is one of the settings."""
    return ACE(classifier, denoiser, **settings).explain(images, target)


def refine(found: Explanation, classifier: Classifier, denoiser: DiffusionModel, **settings) -> Explanation:
    """``ACE(classifier, denoiser, **settings).refine(found)``; ``preset`` is one of the settings."""
    return ACE(classifier, denoiser, **settings).refine(found)


def evaluate(
    output_path: str, exp_name: str | Sequence[str] = "exp", *, only: Sequence[str] = (), **flags
) -> "Evaluation":
    """Every figure that the given weights allow, of one experiment or of several; evaluate.py's tables are written.

    output_path: folder that holds Original and Results.  only: names of metrics, each of which must be possible; all
    that are possible if not given.  flags: those of evaluate.py, with underscores.
    Raises ValueError for an incomplete experiment, weights that do not fit, and a picture that cannot be read.
    """
    from ace_counterfactuals.core.evaluation import run  # the metrics take as long to import as torch
    from ace_counterfactuals.core.evaluation.config import evaluate_config
    from ace_counterfactuals.core.evaluation.places import open_cache

    config, given = evaluate_config(), {"output_path": output_path, "exp_name": exp_name, **flags}
    settings = from_dict(config, read_settings(config, given))
    with open_cache(settings) as cache:
        return run.evaluate(settings, cache, only)[0]
