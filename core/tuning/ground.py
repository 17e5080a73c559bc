"""What settings are tried on: a few pictures with their targets, the networks, and who else judges."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch

from ace_counterfactuals.core.base import atomic
from ace_counterfactuals.core.base.notices import notice
from ace_counterfactuals.core.base.presets import read_preset
from ace_counterfactuals.core.base.settings import FlagError, blaming, flags_of, from_dict, to_dict
from ace_counterfactuals.core.data.imageset import ImageSet, Sample, prefetch, select, with_channels
from ace_counterfactuals.core.data.pictures import to_pil
from ace_counterfactuals.core.evaluation.judges import aligned, unseen_classifier
from ace_counterfactuals.core.method.config import AttackConfig, SamplingConfig
from ace_counterfactuals.core.method.objectives import predict
from ace_counterfactuals.core.method.task import Batch, Classifier
from ace_counterfactuals.core.runs.begin import describe
from ace_counterfactuals.core.runs.config import MainConfig
from ace_counterfactuals.core.runs.layout import fingerprint
from ace_counterfactuals.core.runs.run import file_name, load_region
from ace_counterfactuals.core.runs.setup import (
    align_classes,
    check,
    check_labels,
    judged,
    load_networks,
    open_images,
    prepare_device,
    task_of,
    with_predictions,
)
from ace_counterfactuals.core.tuning.config import TuneConfig
from ace_counterfactuals.models.config import ClassifierConfig
from ace_counterfactuals.models.denoisers import DiffusionModel
from ace_counterfactuals.models.loading import digest

FEWEST, MOST = 8, 16  # pictures
LOOKED = 1000  # pictures without labels, of which some are selected by their prediction
SMALL = 64  # pixels, up to which pictures are what the preset small is for


@dataclass(frozen=True)
class Ground:
    """config: what the search starts from.  batch: the pictures with their targets, under these settings.

    unseen: by what was typed, networks (N, C, H, W) -> (N, K) that are not attacked.  names: of the classes.
    made_with: all that a trial depends on beside its own settings, as text.
    """

    config: MainConfig
    denoiser: DiffusionModel
    batch: Batch
    unseen: dict[str, Classifier]
    names: tuple[str, ...] | None
    made_with: str

    def under(self, flags: Mapping[str, Any]) -> Batch:
        """The pictures under other settings of attack and sampling."""
        task = task_of(with_flags(self.config, flags), self.batch.task.classifier, self.denoiser)
        return replace(self.batch, task=task)

    def parts(self, flags: Mapping[str, Any]) -> list[Batch]:
        """The same, as many at once as the settings allow."""
        batch, size = self.under(flags), self.config.run.batch_size
        places = range(len(batch.indices))
        return [batch.take(places[first : first + size]) for first in places[::size]]


def with_flags(config: MainConfig, flags: Mapping[str, Any]) -> MainConfig:
    return from_dict(MainConfig, to_dict(config) | dict(flags))


def open_ground(typed: TuneConfig) -> Ground:
    """Load what the settings name, and choose the pictures.  Raises ValueError for what the user can mend."""
    config = typed.main
    check(config)
    if config.attack.attack_method == "None":
        raise FlagError("attack_method", "None: there is nothing to tune")
    images = with_channels(open_images(config), config.data.image_channels)
    config = replace(config, data=replace(config.data, image_channels=images.channels))
    device = prepare_device(config)
    classifier, denoiser = load_networks(config, images.query, device)
    config, images = align_classes(config, images, classifier.class_names)
    check_labels(config, images, classifier.num_outputs)
    names = images.class_names or classifier.class_names
    unseen, digests = open_unseen(typed, config, images, names, device)
    images = with_predictions(config, images, classifier, LOOKED)
    selected = select(images, label_target=config.data.label_target, label_query=config.data.label_query)
    samples = choose_pictures(selected, config, classifier, device)
    region = load_region(config, replace(images, records=samples))
    batch = judged(samples, task_of(config, classifier, denoiser), device)
    if region:
        files = [file_name(config, sample.path) for sample in samples]
        batch = replace(batch, region=region.masks(files, batch.image))
    described = {name: value for name, value in describe(config, names).items() if name in ("flags", "weights")}
    pictures = {sample.index: fingerprint(to_pil(sample.image)) for sample in samples}
    made_with = atomic.to_yaml({**described, "unseen": digests, "pictures": pictures})
    return Ground(config, denoiser, batch, unseen, names, made_with)


def start_of(image_size: int, typed: Mapping[str, Any], others: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of attack and refinement to search from that were not typed: of a preset by the pictures' size,
    unless the one that was given, which ``others`` are from, has some."""
    if others.keys() & (flags_of(AttackConfig).keys() | flags_of(SamplingConfig).keys()):
        return {}
    preset = "small" if image_size <= SMALL else "photo"
    notice(f"no preset is given: the search starts from {preset}, for pictures of {image_size} pixels")
    return read_preset(MainConfig, preset, given=typed)


def open_unseen(
    typed: TuneConfig, config: MainConfig, images: ImageSet, names: tuple[str, ...] | None, device: torch.device
) -> tuple[dict[str, Classifier], dict[str, str]]:
    """The networks of ``unseen``, by what was typed, and the digests of their files.  Raises FlagError."""
    found, digests = {}, {}
    attacked = config.weights.classifier_path and digest(config.weights.classifier_path)
    for spec in typed.search.unseen:
        with blaming("unseen"):
            own = ClassifierConfig(classifier=spec)
            digests[spec] = digest(own.classifier_path) if own.classifier_path else ""
            if digests[spec] and digests[spec] == attacked:
                raise ValueError(f"{spec}: is the classifier that is attacked; transfer is asked of others")
            query = images.query if images.binary else None
            classifier = unseen_classifier(own, config.data.dataset, config.data.image_size, query)
            found[spec] = aligned(classifier.to(device), names, spec)
    return found, digests


@torch.no_grad()
def choose_pictures(images: ImageSet, config: MainConfig, classifier: Classifier, device: torch.device) -> list[Sample]:
    """The first that the classifier gets right, as far as that is known, and does not see as the target already.

    Raises FlagError where there are too few.
    """
    most, target, chosen = min(MOST, config.data.num_samples), config.data.label_target, []
    if most < FEWEST:
        raise FlagError("num_samples", f"{most}: too few to tell settings apart; wanted {FEWEST} to {MOST}")
    for sample in prefetch(images, range(len(images)), config.run.num_workers):
        if not isinstance(sample, Sample):
            notice(f"skipped: {sample}")
            continue
        seen = predict(classifier(sample.image[None].to(device))).item()
        if seen != target and sample.label in (-1, seen):
            chosen.append(sample)
        if len(chosen) == most:
            break
    if len(chosen) < FEWEST:
        what = f"only {len(chosen)} of {len(images)} pictures can be tried: the others are predicted wrong, or as the"
        reason = f"{config.data.data_dir}: {what} target already; wanted {FEWEST} to {MOST}"
        raise FlagError("data_dir", reason)
    return chosen
