"""Unseen classifiers: those that were never attacked, asked in the attacked one's numbers of classes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ace_counterfactuals.core.base.settings import UserError, blaming
from ace_counterfactuals.core.data.datasets import spec_of
from ace_counterfactuals.core.evaluation.metrics.transfer import NO_VERDICTS, Verdicts, judge
from ace_counterfactuals.core.evaluation.pictures import Reader
from ace_counterfactuals.core.runs.experiment import Pair
from ace_counterfactuals.core.runs.files import CONFIG, read_config
from ace_counterfactuals.models import classifiers
from ace_counterfactuals.models.loading import digest

FLAG = "--classifier"
Network = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Attacked:
    """The classifier that an experiment explains.

    query: the attribute on a binary set.  classes: names of its outputs, if known; sha256: of its file, '' if unknown.
    """

    dataset: str
    query: int = -1
    classes: tuple[str, ...] | None = None
    sha256: str = ""


def attacked_classifier(root: Path) -> Attacked | None:
    """As config.yaml beside or above ``root``, the folder that holds CC and IC, tells; None without such a file."""
    for folder in (root, root.parent):
        if (folder / CONFIG).exists():
            stored = read_config(folder)
            return attacked_as_stored(stored, stored["flags"]["dataset"], stored["flags"]["label_query"])
    return None


def attacked_as_stored(stored: dict, dataset: str, query: int) -> Attacked:
    """With the classes and the digest that config.yaml holds; ``stored`` is {} where there is none."""
    classes, weights = stored.get("classes"), stored.get("weights", {})
    sha256 = weights.get("classifier_path", "").removeprefix("sha256:")
    return Attacked(dataset, query, tuple(classes) if classes else None, sha256)


def load_unseen(
    files: Sequence[str], attacked: Attacked, device: torch.device, *, arch: str = "", flag: str = FLAG
) -> dict[str, Network]:
    """File -> pictures to logits (N, K), classes numbered as the attacked classifier's; further classes come after.

    Raises ValueError for the attacked classifier itself, a file given twice, and classes that a file does not know.
    """
    if not files:
        raise UserError(f"{flag}: give the file of one unseen classifier or more")
    seen = {attacked.sha256: "the classifier that was attacked; transfer is asked of others"}
    networks = {}
    for file in files:
        classifier, sha256 = load(file, attacked, arch, flag), digest(file)
        if sha256 in seen:
            raise UserError(f"{flag} {file}: is {seen[sha256]}")
        seen[sha256] = f"the same classifier as {file}"
        networks[file] = aligned(classifier.to(device), attacked.classes, f"{flag} {file}")
    return networks


def load(file: str, attacked: Attacked, arch: str, flag: str) -> classifiers.Classifier:
    with blaming(flag.lstrip("-").replace("-", "_")):
        query = attacked.query if spec_of(attacked.dataset).binary else None
        wanted = spec_of(attacked.dataset).classifier(arch)
        return classifiers.load_classifier(file, query=query, **wanted)


def aligned(classifier: classifiers.Classifier, classes: tuple[str, ...] | None, name: str) -> Network:
    """The classifier with its outputs in the order of ``classes``, if both are named; otherwise as they are."""
    own = classifier.class_names
    order = list(range(2 if classifier.binary else classifier.num_outputs))
    if own and classes and own != classes:  # names may repeat: two of ImageNet's do
        missing = sorted(set(classes) - set(own))
        if missing:
            raise UserError(
                f"{name}: does not know {', '.join(missing[:5])} of the experiment's classes; it knows "
                f"{', '.join(own[:20])}"
            )
        order = [own.index(wanted) for wanted in classes]
        order += [i for i, known in enumerate(own) if known not in classes]
    elif classes and len(order) != len(classes):
        raise UserError(f"{name}: has {len(order)} classes without names, but the experiment has {len(classes)}")

    def logits(image: Tensor) -> Tensor:
        try:
            output = classifier(image)
        except RuntimeError as error:
            reason = str(error).partition("\n")[0]
            raise ValueError(f"{name}: cannot take pictures of {image.shape[3]} x {image.shape[2]}: {reason}") from None
        if not output.isfinite().all():
            raise ValueError(f"{name}: its output is NaN or infinity")
        both = torch.stack([torch.zeros_like(output), output], 1) if output.ndim == 1 else output
        return both[:, order]

    return logits


@torch.no_grad()
def ask_unseen(networks: dict[str, Network], pairs: Sequence[Pair], reader: Reader) -> dict[str, Verdicts]:
    """The verdict of each network on each pair, whose Info file says what the attacked classifier saw."""
    if not pairs:
        return dict.fromkeys(networks, NO_VERDICTS)
    info = [pair.read_info() for pair in pairs]
    seen = torch.tensor([[int(values[name]) for values in info] for name in ("pred", "cf pred", "target")])
    found = {file: [] for file in networks}
    for original, changed in reader.pairs(pairs):
        for file, network in networks.items():
            found[file].append((network(original).cpu(), network(changed).cpu()))
    return {
        file: judge_known(file, seen, *(torch.cat(side) for side in zip(*outputs, strict=True)))
        for file, outputs in found.items()
    }


def judge_known(name: str, seen: Tensor, logits: Tensor, cf_logits: Tensor) -> Verdicts:
    """``judge`` of N pictures or none, refusing a classifier that does not have all of the experiment's classes.

    seen: (3, N) int64, the attacked classifier's predictions on originals and counterfactuals, and the targets.
    """
    if not seen.numel():
        return NO_VERDICTS
    largest = int(seen.max())
    if largest >= logits.shape[1]:
        raise UserError(f"{name}: has {logits.shape[1]} classes, but the experiment knows a class {largest}")
    return judge(*seen, logits, cf_logits)
