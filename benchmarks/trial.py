"""What the benchmarks share: photographs and what each is to become, an attack seen at several strengths, verdicts."""

import csv
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ace_counterfactuals.core.base import atomic
from ace_counterfactuals.core.base.presets import read_preset
from ace_counterfactuals.core.base.settings import from_dict
from ace_counterfactuals.core.data.imageset import ImageSet
from ace_counterfactuals.core.evaluation.metrics import distances
from ace_counterfactuals.core.evaluation.metrics.fid import Gaussian, fit, frechet_distance
from ace_counterfactuals.core.evaluation.metrics.intervals import wilson
from ace_counterfactuals.core.evaluation.metrics.transfer import judge, transfer
from ace_counterfactuals.core.method.attacks import make_attack
from ace_counterfactuals.core.method.config import AttackConfig, SamplingConfig
from ace_counterfactuals.core.method.explain import (
    filter_steps,
    make_grad_fn,
    make_objective,
    noise_source,
    refining_filter,
)
from ace_counterfactuals.core.method.filtering import Filter, refine
from ace_counterfactuals.core.method.noise import REFINEMENT
from ace_counterfactuals.core.method.objectives import predict
from ace_counterfactuals.core.runs.config import MainConfig
from ace_counterfactuals.core.runs.setup import Networks
from ace_counterfactuals.models.classifiers import Classifier, load_classifier

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "results/benchmarks"  # what is committed lies in benchmarks/results
BATCH = 32
PAIRS = (
    ("ankle_boot", "sneaker"),
    ("pullover", "coat"),
    ("t-shirt", "dress"),
    ("sandal", "sneaker"),
    ("shirt", "t-shirt"),
    ("trouser", "dress"),
    ("coat", "pullover"),
)
FOR_RESULTS, FOR_TUNING = 16, 5  # photographs of each pair; those that settings are tuned on come after the others


@dataclass(frozen=True)
class Questions:
    """N photographs and what each is to become.

    image: (N, 3, H, W) in [0, 1].  indices: (N), which their noise depends on.  prediction, target: (N,) int64.
    """

    image: Tensor
    indices: list[int]
    prediction: Tensor
    target: Tensor

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, part: slice) -> "Questions":
        return Questions(self.image[part], self.indices[part], self.prediction[part], self.target[part])

    def split(self, size: int) -> Iterator["Questions"]:
        for i in range(0, len(self), size):
            yield self[i : i + size]


def demo_config(preset: str = "fashion", **changes) -> MainConfig:
    """A preset of the demo with some flags changed."""
    return from_dict(MainConfig, {**read_preset(MainConfig, preset), "device": "cpu", **changes})


@torch.no_grad()
def ask(
    images: ImageSet, classifier: Classifier, pairs: Sequence[tuple[str, str]], *, count: int, first: int = 0
) -> Questions:
    """For each pair (query, target): ``count`` photographs of the query that the classifier gets right, from the
    ``first`` such on.  Raises ValueError where there are too few."""
    names, chosen = images.class_names, []
    for query, target in pairs:
        own = [i for i, entry in enumerate(images.records) if entry.label == names.index(query)]
        samples = [images[i] for i in own]
        seen = predict(classifier(torch.stack([sample.image for sample in samples])))
        right = [s for s, label in zip(samples, seen.tolist(), strict=True) if label == s.label]
        if len(right) < first + count:
            raise ValueError(f"{query}: {len(right)} photographs are classified right, wanted {first + count}")
        chosen += [(sample, names.index(target)) for sample in right[first : first + count]]
    return Questions(
        image=torch.stack([sample.image for sample, _ in chosen]),
        indices=[sample.index for sample, _ in chosen],
        prediction=torch.tensor([sample.label for sample, _ in chosen]),
        target=torch.tensor([target for _, target in chosen]),
    )


def make_filter(networks: Networks, sampling: SamplingConfig) -> Filter:
    return Filter(networks.diffusion, networks.denoiser, filter_steps(sampling, networks.diffusion))


def make_refiner(networks: Networks, sampling: SamplingConfig) -> Filter:
    return refining_filter(make_filter(networks, sampling), sampling)


@torch.no_grad()
def pre_explanations(
    questions: Questions,
    networks: Networks,
    attack: AttackConfig,
    sampling: SamplingConfig,
    *,
    seed: int,
    strengths: Sequence[int],
) -> dict[int, Tensor]:
    """Iterations -> what ``explain`` with so many finds, all from one attack.

    An attack whose distances have no schedule passes on its way through the results of all shorter ones.
    """
    objective = make_objective(networks.classifier, attack.attack_method, questions.prediction, questions.target)
    noise_of = noise_source(seed, questions.indices, sampling)
    filter_ = make_filter(networks, sampling)
    grad_fn = make_grad_fn(objective, filter_, questions.image, noise_of, attack, questions.indices)
    passed: dict[int, Tensor] = {}

    def watched(adversary: Tensor, iteration: int) -> Tensor:
        if iteration in strengths:
            passed[iteration] = adversary
        return grad_fn(adversary, iteration)

    perturb = make_attack(attack.attack_method, step=attack.attack_step / 255, epsilon=attack.attack_epsilon / 255)
    passed[max(strengths)] = perturb(watched, questions.image, max(strengths))
    return passed


def refined(questions: Questions, found: Tensor, networks: Networks, sampling: SamplingConfig, *, seed: int) -> Tensor:
    """The counterfactuals of pre-explanations."""
    noise = noise_source(seed, questions.indices, sampling)(REFINEMENT)
    sizes = {"inpaint": sampling.sampling_inpaint, "dilation": sampling.sampling_dilation}
    return refine(make_refiner(networks, sampling), questions.image, found, noise, **sizes).counterfactual


@dataclass(frozen=True)
class Bench:
    """Who judges: the attacked classifier and the unseen ones by name.

    reference: the Gaussian of real pictures of the targets, in the features of the last of the unseen ones.
    """

    attacked: Classifier
    unseen: dict[str, Classifier]
    reference: Gaussian

    @torch.no_grad()
    def measure(self, questions: Questions, changed: Tensor, sampling: SamplingConfig) -> dict:
        """The figures of N changed pictures: shares with the ends of their 95 % intervals, means, a distance."""
        now, n = predict(self.attacked(changed)), len(questions)
        flips = int((now == questions.target).sum())
        judged = {
            name: [judge(questions.prediction, now, questions.target, network(questions.image), network(changed))]
            for name, network in self.unseen.items()
        }
        row = {"n": n, **interval("flip", flips / n, *wilson(flips, n))}
        pooled = {"pooled": sum(judged.values(), [])} if len(judged) > 1 else {}
        for name, verdicts in {**judged, **pooled}.items():
            found = transfer(verdicts)
            row |= {f"n {name}": found.n, **interval(f"transfer {name}", found.share, found.low, found.high)}
        sizes = {"inpaint": sampling.sampling_inpaint, "dilation": sampling.sampling_dilation}
        row["l1"] = distances.l1(questions.image, changed).mean().item()
        row["mask area"] = distances.mask_area(questions.image, changed, **sizes).mean().item()
        space = list(self.unseen.values())[-1]
        seen = features(space, changed).numpy()
        row["frechet"] = frechet_distance(self.reference, fit(seen)) if n > 1 else None
        return row


def open_bench(attacked: Classifier, files: dict[str, Path], images: ImageSet, questions: Questions) -> Bench:
    """files: name -> weights of an unseen classifier of ``models.small``."""
    unseen = {name: load_classifier(path) for name, path in files.items()}
    for name, network in unseen.items():
        if network.class_names != attacked.class_names:
            raise ValueError(f"{files[name]}: has other classes than the classifier that is attacked")
    wanted = [image for target in questions.target.unique().tolist() for image in pictures_of(images, target)]
    return Bench(attacked, unseen, fit(features(list(unseen.values())[-1], torch.stack(wanted)).numpy()))


def pictures_of(images: ImageSet, label: int) -> list[Tensor]:
    return [images[i].image for i, entry in enumerate(images.records) if entry.label == label]


@torch.no_grad()
def features(classifier: Classifier, image: Tensor) -> Tensor:
    """(N, 3, H, W) in [0, 1] -> (N, D), what the head of a network of ``models.small`` reads."""
    return classifier.network.features((image - classifier.mean) / classifier.std)


def interval(name: str, share: float | None, low: float | None, high: float | None) -> dict:
    return {name: share, f"{name} low": low, f"{name} high": high}


def write_rows(path: Path, rows: Iterable[dict]) -> None:
    """A CSV; None is an empty field."""
    rows = [{name: text(value) for name, value in row.items()} for row in rows]
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic.write_csv(path, rows, list(rows[0]))


def text(value) -> str:
    """A field of a CSV: five digits of a float."""
    return "" if value is None else f"{value:.5g}" if isinstance(value, float) else str(value)


def read_rows(path: Path) -> list[dict[str, str]]:
    if not path.exists():
        return []
    with open(path, newline="") as file:
        return list(csv.DictReader(file))
