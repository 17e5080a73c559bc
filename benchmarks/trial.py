"""What the benchmarks share: photographs and what each is to become, an attack seen at several strengths, verdicts."""

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from ace_counterfactuals.core.base import atomic
from ace_counterfactuals.core.base.presets import read_preset
from ace_counterfactuals.core.base.settings import from_dict
from ace_counterfactuals.core.data.imageset import ImageSet, with_channels
from ace_counterfactuals.core.evaluation.gaussians import Gaussian, fit, frechet_distance
from ace_counterfactuals.core.evaluation.intervals import wilson
from ace_counterfactuals.core.evaluation.metrics.distances import distances
from ace_counterfactuals.core.evaluation.metrics.transfer import judge as verdict
from ace_counterfactuals.core.evaluation.metrics.transfer import transfer
from ace_counterfactuals.core.method.attacking import attack
from ace_counterfactuals.core.method.explain import refine
from ace_counterfactuals.core.method.filtering import change_mask, kept_pixels
from ace_counterfactuals.core.method.objectives import predict
from ace_counterfactuals.core.method.task import Batch, Task, judge
from ace_counterfactuals.core.runs.config import MainConfig
from ace_counterfactuals.core.runs.plan import calls_of
from ace_counterfactuals.core.runs.setup import load_networks, open_images, prepare_device, task_of
from ace_counterfactuals.core.runs.tables import read_table
from ace_counterfactuals.models.classifiers import Classifier, load_classifier
from benchmarks.verdicts import letters

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
Row = dict[str, str]
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


def open_task(config: MainConfig) -> Task:
    """The networks and settings of the flags."""
    return task_of(config, *load_networks(config, -1, prepare_device(config)))


@torch.no_grad()
def photographs(
    images: ImageSet, query: str, classifiers: Sequence[Classifier], change: Callable[[Tensor], Tensor] | None = None
) -> tuple[Tensor, list[int]]:
    """Those of a class that all classifiers get right, (N, C, H, W), and their indices.  change: to be made before."""
    samples = [images[i] for i, entry in enumerate(images.records) if images.class_names[entry.label] == query]
    image = torch.stack([sample.image for sample in samples])
    image = change(image) if change else image
    right = torch.stack([predict(network(image)) == network.class_names.index(query) for network in classifiers]).all(0)
    return image[right], [sample.index for sample, sees in zip(samples, right.tolist(), strict=True) if sees]


def ask(images: ImageSet, task: Task, pairs: Sequence[tuple[str, str]], *, count: int, first: int = 0) -> Batch:
    """For each pair (query, target), ``count`` photographs of the query that the classifier gets right, leaving out
    the ``first`` of these.  Raises ValueError where there are too few."""
    chosen, indices, targets = [], [], []
    for query, target in pairs:
        image, numbers = photographs(images, query, [task.classifier])
        if len(image) < first + count:
            raise ValueError(f"{query}: {len(image)} photographs are classified right, wanted {first + count}")
        chosen.append(image[first : first + count])
        indices += numbers[first : first + count]
        targets += [images.class_names.index(target)] * count
    return judge(torch.cat(chosen), task, indices).aimed_at(torch.tensor(targets))


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
    attack(with_settings(batch, attack=longest), lambda state: found.update({state.iteration: state.found}))
    return {iterations: found[iterations] for iterations in strengths}


def strengths_of(iterations: int) -> list[int]:
    """At which an attack is seen: a sixth, a third, two thirds and all of its iterations."""
    return sorted({max(1, iterations * sixths // 6) for sixths in (1, 2, 4, 6)})


def unet_calls(batch: Batch, iterations: int) -> int:
    """Forward passes of the U-Net that an attack takes for a photograph."""
    return calls_of(batch.task.attack, batch.filter.steps, iterations)[0]


def refined(batch: Batch, found: Tensor) -> Tensor:
    """The counterfactuals of pre-explanations, (N, C, H, W)."""
    return refine(batch.image, found, batch.task, target=batch.target, indices=batch.indices).counterfactual


@dataclass(frozen=True)
class Bench:
    """Who judges: the classifiers by name that were not attacked.

    reference: the Gaussian of real pictures of the targets, in the features of the last of these classifiers.
    pools: name -> those whose verdicts are counted together, too.
    """

    unseen: dict[str, Classifier]
    reference: Gaussian
    pools: dict[str, list[str]]

    @torch.no_grad()
    def measure(self, batch: Batch, changed: Tensor) -> dict:
        """The figures of N changed pictures: shares with the ends of their 95 % intervals, means, a distance."""
        now, n = predict(batch.task.classifier(changed)), len(batch.indices)
        row, judged = {"n": n, **share("flip", int((now == batch.target).sum()), n)}, {}
        for name, network in self.unseen.items():
            before = network(batch.image)
            judged[name] = [verdict(batch.prediction, now, batch.target, before, network(changed))]
            row[f"said {name}"] = letters(predict(before) == batch.prediction, *judged[name])
        pooled = {pool: [judged[name][0] for name in names] for pool, names in self.pools.items()}
        for name, said in {**judged, **pooled}.items():
            found = transfer(said)
            row |= {f"n {name}": found.n, **interval(f"transfer {name}", found.share, found.low, found.high)}
        sampling = batch.task.sampling
        sizes = {"inpaint": sampling.sampling_inpaint, "dilation": sampling.sampling_dilation}
        row["l1"] = distances(batch.image, changed)[:, 0].mean().item()
        row["mask area"] = (~kept_pixels(change_mask(batch.image, changed), **sizes)).double().mean().item()
        seen = features(list(self.unseen.values())[-1], changed)
        row["frechet"] = frechet_distance(self.reference, fit(seen)) if n > 1 else None
        return row


def open_bench(files: Mapping[str, Path], images: ImageSet, batch: Batch) -> Bench:
    """files: name -> weights of an unseen classifier of ``models.small``, with the attacked one's classes.

    Verdicts are pooled over those of a kind, which the first word of ``KIND NAME`` tells: earlier ones, and the others.
    """
    unseen, pools = {name: load_classifier(path) for name, path in files.items()}, {}
    for name in unseen:
        pools.setdefault(name.rpartition(" ")[0] or "pooled", []).append(name)
    pools = {kind: names for kind, names in pools.items() if len(names) > 1}
    targets = batch.target.unique().tolist()
    real = [images[i].image for label in targets for i, entry in enumerate(images.records) if entry.label == label]
    return Bench(unseen, fit(features(list(unseen.values())[-1], torch.stack(real))), pools)


def set_up(config: MainConfig, files: Mapping[str, Path], *, count: int, first: int = 0) -> tuple[Batch, Bench]:
    """The photographs of all PAIRS, and who judges what becomes of them."""
    images = with_channels(open_images(config, quiet=True), config.data.image_channels)
    batch = ask(images, open_task(config), PAIRS, count=count, first=first)
    return batch, open_bench(files, images, batch)


@torch.no_grad()
def features(classifier: Classifier, image: Tensor):
    """(N, C, H, W) in [0, 1] -> (N, D) array, what the head of a network of ``models.small`` reads."""
    return classifier.network[:-1]((image - classifier.mean) / classifier.std).numpy()


def share(name: str, count: int, n: int) -> dict:
    """The columns of a share: ``count`` of n, and the ends of its 95 % interval."""
    return interval(name, count / n, *wilson(count, n))


def interval(name: str, value: float | None, low: float | None, high: float | None) -> dict:
    return {name: value, f"{name} low": low, f"{name} high": high}


def spent(*words: str | Path, quiet: bool = False) -> tuple[float, float, float]:
    """What a Python program takes: seconds by the clock and of the processor, and its peak of memory in MiB."""
    started, hidden = time.perf_counter(), subprocess.DEVNULL
    command = [sys.executable, *map(str, words)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=hidden, stderr=hidden if quiet else None)
    _, status, used = os.wait4(process.pid, 0)
    if status:
        raise subprocess.CalledProcessError(os.waitstatus_to_exitcode(status), command)
    return time.perf_counter() - started, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024


def resumed(path: Path, columns: Sequence[str], jobs: Mapping[tuple, Callable[[], list[dict]]]) -> list[dict[str, str]]:
    """The rows of a CSV, completed.

    jobs: values of ``columns`` -> what computes the rows that have these.  Those that the file has no row of are done,
    and written at once.
    """
    rows = read_rows(path)
    done = {tuple(row[name] for name in columns) for row in rows}
    for values, compute in jobs.items():
        if tuple(map(text, values)) not in done:
            started = time.perf_counter()
            rows += compute()
            write_rows(path, rows)
            job = ", ".join(f"{name} {value}" for name, value in zip(columns, values, strict=True))
            print(f"{job}: {time.perf_counter() - started:.0f} s", flush=True)
    return read_rows(path)


def read_rows(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV; none if there is no file."""
    return list(read_table(path)) if path.exists() else []


def write_rows(path: Path, rows: Iterable[dict]) -> None:
    """A CSV; None is an empty field."""
    rows = [{name: text(value) for name, value in row.items()} for row in rows]
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic.write_csv(path, rows, list(rows[0]))


def text(value) -> str:
    """A field of a CSV: five digits of a float."""
    return "" if value is None else f"{value:.5g}" if isinstance(value, float) else str(value)


def curve(panel, rows: Sequence[Row], along: str, name: str, **style) -> None:
    """Draw a share against another column, with 95 % intervals."""
    x, y, low, high = ([float(row[key]) for row in rows] for key in (along, name, f"{name} low", f"{name} high"))
    bars = [[a - b for a, b in zip(y, low, strict=True)], [b - a for a, b in zip(y, high, strict=True)]]
    panel.errorbar(x, y, yerr=bars, marker="o", markersize=4, capsize=2, linewidth=1.3, elinewidth=0.6, **style)


def shown(row: Mapping, name: str, digits: int = 2) -> str:
    """A figure of a row, with the ends of its interval if it has one."""
    if row[name] in ("", None):
        return "n/a (0 images)"
    value, *ends = (float(row[key]) for key in (name, f"{name} low", f"{name} high") if key in row)
    return f"{value:.{digits}f}" + (f" ({ends[0]:.2f} to {ends[1]:.2f})" if ends else "")
