"""What a program calls: explanations of pictures by networks that it holds or names."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ace_counterfactuals.core.api.explanation import Explanation, Origin
from ace_counterfactuals.core.api.pictures import Given, folder_of, given_of
from ace_counterfactuals.core.base.presets import read_settings
from ace_counterfactuals.core.base.runtime import choose_device
from ace_counterfactuals.core.base.settings import flag_items, flags_of, from_dict
from ace_counterfactuals.core.data.config import PicturesConfig, RegionConfig
from ace_counterfactuals.core.data.datasets import spec_of
from ace_counterfactuals.core.data.labels import resolve_name
from ace_counterfactuals.core.data.regions import open_region
from ace_counterfactuals.core.method import explain as method
from ace_counterfactuals.core.method.checks import check_classifier, check_pictures
from ace_counterfactuals.core.method.config import AttackConfig, SamplingConfig
from ace_counterfactuals.core.method.task import Classifier
from ace_counterfactuals.core.runs.begin import describe, weight_digests
from ace_counterfactuals.core.runs.config import MainConfig
from ace_counterfactuals.core.runs.setup import check, equipped, task_of
from ace_counterfactuals.guided_diffusion.gaussian_diffusion import GaussianDiffusion
from ace_counterfactuals.models.classifiers import load_classifier
from ace_counterfactuals.models.config import ClassifierConfig
from ace_counterfactuals.models.denoisers import DenoiserConfig, DiffusionModel, load_denoiser
from ace_counterfactuals.models.specs import kind_of, logits_of, said_of

SETTINGS = {item.name for group in (AttackConfig, SamplingConfig, RegionConfig) for item in fields(group)}
SETTINGS |= {"seed", "batch_size", "label_query", "device", "gpu"}
SETTINGS |= {*flags_of(PicturesConfig)} - {"data_dir", "image_size"}
OF_SPEC, OF_SOURCE = {*flags_of(ClassifierConfig)}, {*flag_items(DenoiserConfig)}
TRIED = 2  # pictures


class ACE:
    """Adversarial counterfactual explanations of one classifier, with one diffusion model.

    classifier: any differentiable callable from pictures (N, C, H, W) in [0, 1] to logits, (N,) if binary and (N, K)
    for K classes, such as a ``torch.nn.Module`` in evaluation mode; or a SPEC, as main.py's --classifier.
    denoiser: of ``load_denoiser``, or a file or folder of it; or a network alone, (x_t, steps, classes) -> noise.
    All lie on one device; what is loaded here is put where the others are, or else on ``device``.
    preset: a name or a YAML file, of which the settings below are taken.
    class_names: of the classifier's outputs; if not given, ``classifier.class_names``, if it has them.
    settings: fields of ``AttackConfig`` and ``SamplingConfig``, and batch_size, seed, region, region_invert, device,
    gpu, image_size and, of folders, dataset ('Folder' if not given), label_query, background and so on, as main.py's
    flags of these names; they go before the preset.  With a SPEC also the flags classifier_*; with a denoiser that is
    not of ``load_denoiser`` those of the U-Net and its process.
    Raises FlagError for a setting that is none or cannot be used, ValueError for a file that holds no such network.
    """

    def __init__(
        self,
        classifier: Classifier | str | Path,
        denoiser: DiffusionModel | nn.Module | Callable[..., Tensor] | str | Path,
        preset: str | None = None,
        *,
        class_names: Sequence[str] | None = None,
        **settings,
    ):
        named = {"classifier": str(classifier)} if isinstance(classifier, str | Path) else {}
        of_model = {"image_size"} if isinstance(denoiser, DiffusionModel) else OF_SOURCE
        typed = {name: settings.pop(name) for name in of_model & settings.keys()}
        names = SETTINGS | (OF_SPEC if named else set())
        values = {"dataset": "Folder"} | read_settings(MainConfig, named | settings, preset, names=names)
        self.denoiser = _opened(denoiser, preset, typed)
        if isinstance(denoiser, str | Path):
            beside, where = _parameter(classifier), (values.get("device", "auto"), values.get("gpu", 0))
            self.denoiser = self.denoiser.to(choose_device(*where) if beside is None else beside.device)
        made = self.denoiser.made_of
        known = {**getattr(classifier, "made_of", {}), **made, **asdict(self.denoiser.process.config)}
        known |= read_settings(DenoiserConfig, typed)
        self.config = from_dict(MainConfig, known | values)
        self.denoiser = equipped(self.denoiser, self.config)
        self.classifier: Classifier = self._load() if isinstance(classifier, str | Path) else classifier
        found = class_names or getattr(self.classifier, "class_names", None)
        self.class_names: tuple[str, ...] | None = tuple(found) if found else None
        self.side: int | None = known.get("image_size")
        self.digests = weight_digests(self.config)

    def explain(
        self,
        images: Any,
        target: int | str | None = None,
        *,
        labels: Sequence[int] | None = None,
        indices: Sequence[int] | None = None,
        files: Sequence[str] | None = None,
    ) -> Explanation:
        """What would have to change in each picture for the classifier to decide ``target``.

        images: a tensor or an array (N, C, H, W) in [0, 1], or uint8, C 1 or 3, or (C, H, W); a PIL picture or the path
        of one, or a list of these, cut and resized for the denoiser; or a folder, read as main.py does: with
        ``label_query`` among the settings its pictures of that class alone.
        target: a class by number or name; None is the other answer of a binary classifier, and any other class of
        several.  labels: the true classes, -1 where unknown, which is the default but for a folder of classes.
        indices: numbers of the pictures, which their noise depends on and their files are named by; default 0 to N - 1.
        files: the pictures' names, by which a folder of regions has theirs.
        Raises ValueError for pictures, a target or a region that cannot be, and for a classifier that a trial on the
        first pictures shows to be none that can be explained; NonFiniteError if a network returns NaN.
        """
        target, config = -1 if target is None else target, self.config
        if isinstance(images, str | Path) and Path(images).expanduser().is_dir():
            data = replace(config.data, data_dir=str(images), label_target=target)
            config, given = folder_of(replace(config, data=data), self._asked, self.class_names)
        else:
            given = given_of(images, self.side, config.data)
            number = resolve_name(self.class_names, target, "target", "the classifier")
            config = replace(config, data=replace(config.data, label_target=number))
        told: dict[str, Any] = {"labels": labels, "indices": indices, "files": files}
        given = replace(given, **{name: value for name, value in told.items() if value is not None})
        n = len(given.images)
        if not 0 < n == len(given.indices) == len(given.files) == len(given.labels):
            lengths = f"{len(given.indices)} indices, {len(given.files)} files, {len(given.labels)} labels"
            raise ValueError(f"{n} pictures, {lengths}; wanted one for each picture, and a picture")
        check_pictures(given.images)
        channels, size = given.images.shape[-3:-1]
        data = replace(config.data, image_size=size, image_channels=channels)
        return self._found(given.images, self._origin(replace(config, data=data), given))

    def refine(self, found: Explanation) -> Explanation:
        """The same pre-explanations with this object's steps, mask, seed and diffusion model, its attack aside."""
        before = found.origin
        config = replace(self.config, data=before.config.data, attack=before.config.attack)
        given = Given(found.image, before.indices, before.files, before.labels)
        return self._found(found.image, self._origin(config, given), found)

    def _load(self) -> Classifier:
        """The classifier that the settings name, where the denoiser is."""
        weights, data = self.config.weights, self.config.data
        about = spec_of(data.dataset).classifier(said_of(weights, data.image_size))
        query = data.label_query if isinstance(data.label_query, int) else -1
        network = load_classifier(weights.classifier_path, query=query, **about)
        beside = _parameter(self.denoiser.network)
        return network if beside is None else network.to(beside.device)

    def _asked(self, images: Tensor) -> Tensor:
        """The classifier's answers to pictures from elsewhere."""
        return self.classifier(_beside(self.denoiser.network, images))

    def _origin(self, config: MainConfig, given: Given) -> Origin:
        check(config)
        described = describe(config, given.class_names or self.class_names, self.digests)
        return Origin(config, described, tuple(given.indices), tuple(given.files), tuple(given.labels))

    def _tried(self, images: Tensor, labels: Sequence[int]) -> Classifier:
        """The classifier as one that gives logits, after a trial.  Raises ValueError."""
        found = check_classifier(self.classifier, _beside(self.denoiser.network, images[:TRIED]))
        outputs = 2 if found.ndim == 1 else found.shape[1]
        if max(labels) >= outputs:
            raise ValueError(f"labels: {max(labels)}, but the classifier has {outputs} classes, 0 to {outputs - 1}")
        kind = kind_of(found, "the classifier")
        return self.classifier if kind == "logits" else lambda image: logits_of(self.classifier(image), kind)

    def _found(self, images: Tensor, origin: Origin, before: Explanation | None = None) -> Explanation:
        """In batches: on the results their size has no influence."""
        config = origin.config
        task = task_of(config, self._tried(images, origin.labels), self.denoiser)
        region = open_region(config.region.region, invert=config.region.region_invert)
        if region:
            region.check(origin.files, *images.shape[2:])
        parts, size = [], config.run.batch_size
        assert isinstance(size, int), "auto is refused by check"
        for batch in (slice(start, start + size) for start in range(0, len(images), size)):
            image, indices = _beside(self.denoiser.network, images[batch]), list(origin.indices[batch])
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


def _parameter(network: Any) -> Tensor | None:
    """One of its parameters, if it has some."""
    return next(network.parameters(), None) if isinstance(network, nn.Module) else None


def _beside(network: Any, images: Tensor) -> Tensor:
    """The pictures on the device of the network, and in its type of numbers."""
    parameter = _parameter(network)
    return images if parameter is None else images.to(parameter.device, parameter.dtype)


def _opened(denoiser: Any, preset: str | None, typed: dict[str, Any]) -> DiffusionModel:
    """The diffusion model in whatever form it is given."""
    if isinstance(denoiser, DiffusionModel):
        return denoiser
    if isinstance(denoiser, str | Path):
        return load_denoiser(str(denoiser), preset, **typed)
    own = read_settings(DenoiserConfig, typed, preset)
    config, channels = from_dict(DenoiserConfig, own), getattr(denoiser, "channels", 3)
    process = GaussianDiffusion(config.diffusion)
    return DiffusionModel(denoiser, process, config.model.class_cond, channels=channels, made_of=own)


def explain(
    images: Any,
    classifier: Classifier | str | Path,
    denoiser: DiffusionModel | nn.Module | str | Path,
    target: int | str | None = None,
    **settings,
) -> Explanation:
    """``ACE(classifier, denoiser, **settings).explain(images, target)``; ``preset`` is one of the settings."""
    return ACE(classifier, denoiser, **settings).explain(images, target)


def refine(
    found: Explanation,
    classifier: Classifier | str | Path,
    denoiser: DiffusionModel | nn.Module | str | Path,
    **settings,
) -> Explanation:
    """``ACE(classifier, denoiser, **settings).refine(found)``; ``preset`` is one of the settings."""
    return ACE(classifier, denoiser, **settings).refine(found)
