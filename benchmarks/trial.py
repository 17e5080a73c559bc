"""What the benchmarks share: photographs and what each is to become, an attack seen at several strengths, verdicts."""

import argparse
import csv
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from ace_counterfactuals.core.base import atomic
from ace_counterfactuals.core.base.presets import read_preset
from ace_counterfactuals.core.base.settings import from_dict
from ace_counterfactuals.core.data.imageset import ImageSet
from ace_counterfactuals.core.evaluation.gaussians import Gaussian, fit, frechet_distance
from ace_counterfactuals.core.evaluation.intervals import wilson
from ace_counterfactuals.core.evaluation.metrics.distances import distances
from ace_counterfactuals.core.evaluation.metrics.transfer import judge as verdict
from ace_counterfactuals.core.evaluation.metrics.transfer import transfer
from ace_counterfactuals.core.method.explain import attack, refine
from ace_counterfactuals.core.method.filtering import change_mask, kept_pixels
from ace_counterfactuals.core.method.objectives import predict
from ace_counterfactuals.core.method.task import Batch, Task, judge
from ace_counterfactuals.core.runs.config import MainConfig
from ace_counterfactuals.core.runs.setup import load_networks, open_images, prepare_device, task_of
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


def make_parser(description: str, output: Path = RESULTS, photographs: int | None = None) -> argparse.ArgumentParser:
    """What the benchmarks ask for.  photographs: the default, for those that can be run on fewer."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--output", type=Path, default=output, help=f"where to write (default {output.name})")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    if photographs:
        parser.add_argument("--photographs", type=int, default=photographs, help="of each class that is asked about")
        parser.add_argument("--iterations", type=int, help="of the attack; default: the preset's")
        parser.add_argument("--use_fp16", action="store_true", help="half precision in the U-Net's torso")
    return parser


def read_arguments(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> tuple[argparse.Namespace, dict]:
    """The arguments, and the settings of main.py among them that were given."""
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    given = {"use_fp16": getattr(args, "use_fp16", None), "attack_iterations": getattr(args, "iterations", None)}
    return args, {name: value for name, value in given.items() if value is not None}


def demo_config(preset: str = "fashion", **changes) -> MainConfig:
    """A preset of the demo with some settings changed."""
    return from_dict(MainConfig, {**read_preset(MainConfig, preset), "device": "cpu", **changes})


@torch.no_grad()
def ask(images: ImageSet, task: Task, pairs: Sequence[tuple[str, str]], *, count: int, first: int = 0) -> Batch:
    """For each pair (query, target), ``count`` photographs of the query that the classifier gets right, leaving out
    the ``first`` of these.  Raises ValueError where there are too few."""
    names, chosen, targets = images.class_names, [], []
    for query, target in pairs:
        label = names.index(query)
        samples = [images[i] for i, entry in enumerate(images.records) if entry.label == label]
        seen = predict(task.classifier(torch.stack([sample.image for sample in samples]))).tolist()
        right = [sample for sample, prediction in zip(samples, seen, strict=True) if prediction == label]
        if len(right) < first + count:
            raise ValueError(f"{query}: {len(right)} photographs are classified right, wanted {first + count}")
        chosen += right[first : first + count]
        targets += [names.index(target)] * count
    image = torch.stack([sample.image for sample in chosen])
    return judge(image, task, [sample.index for sample in chosen]).aimed_at(torch.tensor(targets))


def split(batch: Batch) -> Iterator[Batch]:
    """Parts of up to BATCH photographs."""
    for i in range(0, len(batch.indices), BATCH):
        yield batch.take(range(i, min(i + BATCH, len(batch.indices))))


def with_settings(batch: Batch, **changes) -> Batch:
    """The same photographs with other fields of their task."""
    return replace(batch, task=replace(batch.task, **changes))


def pre_explanations(batch: Batch, strengths: Sequence[int]) -> dict[int, Tensor]:
    """Iterations -> what ``explain`` with so many finds, all from one attack.

    An attack whose distances have no schedule passes on its way through the results of all shorter ones.
    """
    found: dict[int, Tensor] = {}
    longest = replace(batch.task.attack, attack_iterations=max(strengths))
    attack(with_settings(batch, attack=longest), lambda state: found.update({state.iteration: state.picture}))
    return {iterations: found[iterations] for iterations in strengths}


def refined(batch: Batch, found: Tensor) -> Tensor:
    """The counterfactuals of pre-explanations, (N, 3, H, W)."""
    return refine(batch.image, found, batch.task, target=batch.target, indices=batch.indices).counterfactual


@dataclass(frozen=True)
class Bench:
    """Who judges: the classifiers by name that were not attacked.

    reference: the Gaussian of real pictures of the targets, in the features of the last of these classifiers.
    """

    unseen: dict[str, Classifier]
    reference: Gaussian

    @torch.no_grad()
    def measure(self, batch: Batch, changed: Tensor) -> dict:
        """The figures of N changed pictures: shares with the ends of their 95 % intervals, means, a distance."""
        now, n = predict(batch.task.classifier(changed)), len(batch.indices)
        judged = {
            name: [verdict(batch.prediction, now, batch.target, network(batch.image), network(changed))]
            for name, network in self.unseen.items()
        }
        row = {"n": n, **share("flip", int((now == batch.target).sum()), n)}
        pooled = {"pooled": sum(judged.values(), [])} if len(judged) > 1 else {}
        for name, verdicts in {**judged, **pooled}.items():
            found = transfer(verdicts)
            row |= {f"n {name}": found.n, **interval(f"transfer {name}", found.share, found.low, found.high)}
        sampling = batch.task.sampling
        sizes = {"inpaint": sampling.sampling_inpaint, "dilation": sampling.sampling_dilation}
        row["l1"] = distances(batch.image, changed)[:, 0].mean().item()
        row["mask area"] = (~kept_pixels(change_mask(batch.image, changed), **sizes)).double().mean().item()
        seen = features(list(self.unseen.values())[-1], changed).numpy()
        row["frechet"] = frechet_distance(self.reference, fit(seen)) if n > 1 else None
        return row


def open_bench(files: dict[str, Path], images: ImageSet, batch: Batch) -> Bench:
    """files: name -> weights of an unseen classifier of ``models.small``."""
    unseen = {name: load_classifier(path) for name, path in files.items()}
    for name, network in unseen.items():
        if network.class_names != batch.task.classifier.class_names:
            raise ValueError(f"{files[name]}: has other classes than the classifier that is attacked")
    targets = batch.target.unique().tolist()
    real = [images[i].image for label in targets for i, entry in enumerate(images.records) if entry.label == label]
    return Bench(unseen, fit(features(list(unseen.values())[-1], torch.stack(real)).numpy()))


def set_up(config: MainConfig, files: dict[str, Path], *, count: int, first: int = 0) -> tuple[Batch, Bench]:
    """The photographs of all PAIRS, and who judges what becomes of them."""
    task = task_of(config, *load_networks(config, -1, prepare_device(config)))
    images = open_images(config, quiet=True)
    batch = ask(images, task, PAIRS, count=count, first=first)
    return batch, open_bench(files, images, batch)


@torch.no_grad()
def features(classifier: Classifier, image: Tensor) -> Tensor:
    """(N, 3, H, W) in [0, 1] -> (N, D), what the head of a network of ``models.small`` reads."""
    return classifier.network[:-1]((image - classifier.mean) / classifier.std)


def share(name: str, count: int, n: int) -> dict:
    """The columns of a share: ``count`` of n, and the ends of its 95 % interval."""
    return interval(name, count / n, *wilson(count, n))


def interval(name: str, value: float | None, low: float | None, high: float | None) -> dict:
    return {name: value, f"{name} low": low, f"{name} high": high}


def write_rows(path: Path, rows: Iterable[dict]) -> None:
    """A CSV; None is an empty field."""
    rows = [{name: text(value) for name, value in row.items()} for row in rows]
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic.write_csv(path, rows, list(rows[0]))


def text(value) -> str:
    """A field of a CSV: five digits of a float."""
    return "" if value is None else f"{value:.5g}" if isinstance(value, float) else str(value)


def read_rows(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV; none if there is no file."""
    if not path.exists():
        return []
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def markdown(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [f"| {' | '.join(cells)} |" for cells in (titles, *rows)]
    return "\n".join([lines[0], "|" + "---|" * len(titles), *lines[1:]])
