"""Training a classifier: of classes, of one attribute, or of all attributes at once."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from ace_counterfactuals.core.base import guard
from ace_counterfactuals.core.base.runtime import choose_device, half_precision, notice
from ace_counterfactuals.core.base.settings import FlagError, blaming
from ace_counterfactuals.core.base.signals import asked, patient, stop_if_asked
from ace_counterfactuals.core.data.datasets import spec_of
from ace_counterfactuals.core.data.imageset import with_channels
from ace_counterfactuals.core.training.checkpoints import alone, settings_of
from ace_counterfactuals.core.training.config import TrainClassifierConfig
from ace_counterfactuals.core.training.feeding import Feed, augmentation, feed, to_input
from ace_counterfactuals.core.training.judged import Measured, measured
from ace_counterfactuals.core.training.questions import DENSENET, DIVE, Labelled, open_labelled
from ace_counterfactuals.core.training.record import History, Record, Told
from ace_counterfactuals.core.training.trainer import mirroring, shuffled
from ace_counterfactuals.models.architectures import build_classifier, plain_name
from ace_counterfactuals.models.classifiers import save_classifier
from ace_counterfactuals.models.loading import load_weights, save_weights

HALF = (0.5,)
TRAINED = "wanted what can be trained: small-, plain-, mixer- or dense-WIDTH, torchvision:NAME, timm:NAME or dive"


def train(config: TrainClassifierConfig, told: Told = lambda _: None) -> tuple[tuple[str, ...], float | None]:
    """Train and write the classifier to ``output_path``; returns the names of its outputs, and its accuracy on
    ``val_dir``, if given.

    told: is called with the folder of the record whenever there is something new in it.
    Raises FlagError, and FloatingPointError where the loss is no number.
    """
    training, device = config.training, choose_device(config.device.device, config.device.gpu)
    if training.keep == "best" and not training.val_dir:
        raise FlagError("keep", "best: goes by the accuracy on val_dir, which is not given")
    labelled = open_labelled(config, config.pictures.data_dir, "data_dir")
    labelled = replace(labelled, images=with_channels(labelled.images, config.pictures.image_channels))
    held_out = open_labelled(config, training.val_dir, "val_dir") if training.val_dir else None
    if held_out and held_out.names != labelled.names:
        raise FlagError("val_dir", f"{training.val_dir}: has other classes than data_dir {config.pictures.data_dir}")
    record, history = Record(config, told), History()
    with alone(record.path):
        network = new_network(config, labelled).to(device)
        judge = on_pictures(config, held_out, labelled.images.channels, network, device)
        record.begin()
        for _ in fit(network, fed(config, labelled), config, history, judge):
            record.write(history)
        if training.keep == "best":
            network.load_state_dict(history.best)
        save(config, network.eval(), labelled)
        guard.remove([unfinished_path(config)])
        found = judge()
        record.finish(history, found)
    return labelled.names, found.accuracy if found else None


def fed(config: TrainClassifierConfig, labelled: Labelled) -> Feed:
    return feed(labelled, config.device.num_workers, config.pictures.shape, config.training.batch_size)


def on_pictures(
    config: TrainClassifierConfig, held_out: Labelled | None, channels: int, network: nn.Module, device: torch.device
) -> Callable[[], Measured | None]:
    """Measures the network on the pictures that are held out, if there are any."""
    if held_out is None:
        return lambda: None
    pictures = fed(config, replace(held_out, images=replace(held_out.images, channels=channels)))
    return partial(measured, network, pictures, held_out.names, device, config.training.batch_size)


def new_network(config: TrainClassifierConfig, labelled: Labelled) -> nn.Module:
    """To be trained.  Raises FlagError for one that there is not, or that does not take pictures of this size."""
    arch, channels = config.training.arch, labelled.images.channels
    if ":" in arch and not arch.startswith(("timm:", "torchvision:")):
        raise FlagError("arch", f"{arch}: {TRAINED}")
    torch.manual_seed(config.device.seed)
    with blaming("arch"):
        network = build_classifier(DENSENET if arch == DIVE else arch, len(labelled.names), channels)
    try:
        with torch.no_grad():
            network.eval()(torch.zeros(2, channels, *config.pictures.shape))
    except (RuntimeError, AssertionError, ValueError) as error:
        size, said = config.pictures.image_size, " ".join(str(error).split())[:150]
        raise FlagError("image_size", f"{size}: {arch} does not take such pictures ({said}); choose another") from None
    return network


def save(config: TrainClassifierConfig, network: nn.Module, labelled: Labelled) -> None:
    """A file of ours, or one of DiVE's and STEEX's kind."""
    path, arch, channels = Path(config.training.output_path), config.training.arch, labelled.images.channels
    if arch != DIVE:
        save_classifier(
            path,
            network,
            arch=plain_name(arch),
            class_names=labelled.names,
            mean=HALF * channels,
            std=HALF * channels,
            image_size=config.pictures.image_size,
            attributes=labelled.attributes,
        )
        return
    state = {name: value.detach().cpu() for name, value in network.state_dict().items()}
    head = {name: state.pop(f"classifier.{name}") for name in ("weight", "bias")}
    trunk = {f"feat_extract.{name}": value for name, value in state.items()}
    save_weights(path, {"feat_extract": trunk, "classifier": head})


def fit(
    network: nn.Module,
    pictures: Feed,
    config: TrainClassifierConfig,
    history: History,
    judge: Callable[[], Measured | None],
) -> Iterator[int]:
    """Minimise the cross-entropy, yielding the number of each epoch that is over.

    It goes on from where the same command was stopped.  Raises FloatingPointError where the loss is no number.
    """
    training, device = config.training, next(network.parameters()).device
    each = -(-len(pictures) // training.batch_size)
    steps = training.epochs * each
    optimizer = torch.optim.AdamW(network.parameters(), lr=training.lr, weight_decay=training.weight_decay)
    schedule = scheduled(config, optimizer, steps)
    positions = shuffled(len(pictures), training.batch_size, config.device.seed)
    parts = {"network": network, "optimizer": optimizer, "schedule": schedule, "history": history}
    unfinished, loss_of = Unfinished(config, len(pictures), parts), objective(config, pictures.labels, device)
    first = unfinished.restored()
    batches = inputs(config, pictures.batches(map(positions, range(first, steps))), first, device)
    kept, begun = monotonic(), monotonic()
    network.train()
    with patient("this step, from which the same command continues", soon=False):
        for step in (progress := tqdm(range(first, steps), "training", steps, initial=first, disable=None)):
            batch, labels = next(batches)
            loss = loss_of(network, batch, labels)
            if not (value := loss.item()) < float("inf"):
                raise FloatingPointError(f"the loss is {value} at step {step}; try a smaller lr")
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
            history.add(value, len(batch))
            progress.set_postfix(loss=f"{value:.4f}", refresh=False)
            if (step + 1) % each == 0:
                found, epoch = judge(), (step + 1) // each
                line = {"epoch": epoch, "step": step + 1, "lr": schedule.get_last_lr()[0]}
                accuracy = found.accuracy if found else None
                history.close(network, accuracy, **line, seconds=round(monotonic() - begun, 1))
                begun = monotonic()
                yield epoch
            if asked() or monotonic() - kept > training.save_seconds:
                unfinished.keep(step + 1)
                kept = monotonic()
            if asked():
                break
    stop_if_asked()


def scheduled(config: TrainClassifierConfig, optimizer: torch.optim.Optimizer, steps: int) -> Any:
    """Of the learning rate."""
    if config.training.schedule == "cosine":
        return torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    return torch.optim.lr_scheduler.OneCycleLR(optimizer, config.training.lr, total_steps=max(steps, 2))


def inputs(
    config: TrainClassifierConfig, batches: Iterator[tuple[Tensor, Tensor]], first: int, device: torch.device
) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches from the step ``first`` on as the network takes them, changed and mirrored."""
    training, seed = config.training, config.device.seed
    changed = augmentation(training.augment, *config.pictures.shape)
    flip = training.random_flip and spec_of(config.pictures.dataset).mirrored
    for step, (pictures, labels) in enumerate(batches, first):
        batch = to_input(changed(pictures, seed, step) if changed else pictures, device)
        if flip:
            mirrored = torch.from_numpy(mirroring(seed, step, len(batch))).to(device)
            batch = torch.where(mirrored[:, None, None, None], batch.flip(-1), batch)
        yield batch, labels.to(device)


def objective(
    config: TrainClassifierConfig, labels: Tensor, device: torch.device
) -> Callable[[nn.Module, Tensor, Tensor], Tensor]:
    """(network, pictures, labels) -> mean cross-entropy.  labels: of all pictures, by which ``class_weights`` go."""
    training, attributes = config.training, labels.ndim == 2
    weight = balance(labels).to(device) if training.class_weights else None
    half = half_precision(device, on_cuda=torch.bfloat16) if training.use_fp16 else torch.float32

    def loss_of(network: nn.Module, pictures: Tensor, labels: Tensor) -> Tensor:
        with torch.autocast(device.type, half, enabled=half != torch.float32):
            logits = network(pictures)
        if attributes:
            return F.binary_cross_entropy_with_logits(logits.float(), labels, pos_weight=weight)
        return F.cross_entropy(logits.float(), labels, weight=weight)

    return loss_of


def balance(labels: Tensor) -> Tensor:
    """Weights by which all classes count the same, or of each attribute yes as much as no; of what is in none, 1."""
    if labels.ndim == 2:
        has = labels.sum(0)
        return torch.where(has > 0, (len(labels) - has) / has.clamp(min=1), 1.0)
    counts = labels.bincount()
    return torch.where(counts > 0, len(labels) / (counts > 0).sum() / counts.clamp(min=1), 1.0)


class Unfinished:
    """``OUTPUT_PATH.unfinished``, what is left of a training that was stopped: all that its next step goes on from.

    pictures: how many there are.  parts: what has a ``state_dict``, by name.
    """

    def __init__(self, config: TrainClassifierConfig, pictures: int, parts: Mapping[str, Any]):
        self.path, self.parts = unfinished_path(config), parts
        self.made = {**settings_of(config), "pictures": pictures}
        if config.training.keep == "best":
            self.made["val_dir"] = config.training.val_dir

    def keep(self, step: int) -> None:
        """After so many steps."""
        drawn = {"cpu": torch.get_rng_state()}
        if torch.cuda.is_available():
            drawn["cuda"] = torch.cuda.get_rng_state()
        states = {name: part.state_dict() for name, part in self.parts.items()}
        save_weights(self.path, {"made": self.made, "step": step, "drawn": drawn, **states})

    def restored(self) -> int:
        """The steps that are done.  Raises FlagError for a file that is none of ours."""
        if not self.path.exists():
            return 0
        try:
            tree = load_weights(self.path)
            if settings_of(TrainClassifierConfig()) | tree["made"] != self.made:
                notice(f"{self.path}: is of other settings; training begins anew")
                return 0
            for name, part in self.parts.items():
                part.load_state_dict(tree[name])
            torch.set_rng_state(tree["drawn"]["cpu"])
            if "cuda" in tree["drawn"] and torch.cuda.is_available():
                torch.cuda.set_rng_state(tree["drawn"]["cuda"])
            step = int(tree["step"])
        except (ValueError, TypeError, KeyError, AttributeError, RuntimeError) as error:
            said = " ".join(str(error).split())[:200]
            raise FlagError("output_path", f"{self.path}: cannot be continued from ({said}); delete it") from None
        notice(f"continuing after step {step}")
        return step


def unfinished_path(config: TrainClassifierConfig) -> Path:
    return Path(f"{config.training.output_path}.unfinished")
