"""The networks that an evaluation asks: from flags to tasks, which load a network when its first answer is missing."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from ace_counterfactuals.core.base.settings import UserError, blaming
from ace_counterfactuals.core.data.datasets import spec_of
from ace_counterfactuals.core.evaluation.cache import Store
from ace_counterfactuals.core.evaluation.config import EvaluateConfig
from ace_counterfactuals.core.evaluation.metrics import cout, distances
from ace_counterfactuals.core.evaluation.metrics.unseen import Attacked, aligned, load
from ace_counterfactuals.core.evaluation.passes import Task
from ace_counterfactuals.models import classifiers, inception, oracles, perceptual, simsiam, vggface2
from ace_counterfactuals.models.features import architecture, load_features
from ace_counterfactuals.models.loading import digest

HUB = "hub"


@dataclass(frozen=True)
class Networks:
    """Makes each task once, so that experiments share its answers.  files: flag -> what it names, with its digest."""

    config: EvaluateConfig
    cache: Path
    device: torch.device
    tasks: dict[tuple, Task] = field(default_factory=dict)
    files: dict[str, dict[str, str]] = field(default_factory=dict)
    digests: dict[str, str] = field(default_factory=dict)

    def task(
        self, role: str, load: Callable, ask: Callable | None = None, *, dtype="<f4", view="whole", **what
    ) -> Task:
        """what: all that the answers depend on."""
        key = (role, *sorted(what.items()))
        if key not in self.tasks:
            store = Store(self.cache, role, what, dtype)
            self.tasks[key] = Task(store, load, ask or (lambda network, *sides: network(*sides)), self.device, view)
        return self.tasks[key]

    def digest(self, path: str) -> str:
        if path not in self.digests:
            self.digests[path] = digest(path)
        return self.digests[path]

    def named(self, flag: str, path: str | Path) -> str:
        """The digest of a flag's file, which is kept for the details."""
        sha256 = self.digest(str(path))
        self.files[flag] = {"file": str(path), "sha256": sha256}
        return sha256

    def on_device(self, load: Callable[[], nn.Module]) -> Callable[[], nn.Module]:
        return lambda: load().to(self.device)

    def distances(self) -> Task:
        """l1, l2 and l_inf of a pair."""

        def ask(_, image: Tensor, counterfactual: Tensor) -> Tensor:
            measured = (distances.l1, distances.l2, distances.l_inf)
            return torch.stack([measure(image.cpu(), counterfactual.cpu()) for measure in measured], 1)

        return self.task("distances", lambda: None, ask, dtype="<f8")

    def inception(self) -> Task | None:
        path = self.config.networks.inception_weights
        if not path:
            return None
        inception.pytorch_fid_inception()
        path = inception.published_inception() if path == HUB else path
        sha256 = self.named("inception_weights", path)
        return self.task(
            "inception",
            self.on_device(blamed("inception_weights", lambda: inception.load_inception(path))),
            sha256=sha256,
        )

    def simsiam(self) -> Task | None:
        return self.plain("simsiam_weights", simsiam)

    def vggface2(self) -> Task | None:
        return self.plain("vggface2_weights", vggface2, view="face")

    def plain(self, flag: str, module, view: str = "whole") -> Task | None:
        """A network that takes nothing but its file."""
        path = getattr(self.config.networks, flag)
        if not path:
            return None
        role = flag.removesuffix("_weights")
        loader = blamed(flag, getattr(module, f"load_{role}"))
        return self.task(role, self.on_device(lambda: loader(path)), view=view, sha256=self.named(flag, path))

    def oracle(self, dataset: str) -> Task | None:
        path = self.config.networks.oracle_path
        if not path:
            return None
        sha256 = self.named("oracle_path", path)
        return self.task("oracle", self.on_device(lambda: load_oracle(path, dataset)), sha256=sha256, dataset=dataset)

    def features(self, dataset: str) -> dict[str, Task]:
        """By what to call them: small-32 features of classifier.pt."""
        what, found = {"dataset": dataset, "arch": self.config.networks.features_arch}, {}
        wanted = {"heads": spec_of(dataset).heads, "arch": what["arch"]}
        for file in self.config.networks.features:
            loader = blamed("features", partial(load_features, file, **wanted))
            name = f"{blamed('features', architecture)(file, **wanted)} features of {Path(file).name}"
            task = self.task("features", self.on_device(loader), sha256=self.named(name, file), **what)
            if name in found or task in found.values():
                raise UserError(f"--features {file}: is the same network as another of them, or has its name")
            found[name] = task
        return found

    def unseen(self, attacked: Attacked) -> dict[str, Task]:
        """By file name; the answers are in the attacked classifier's numbers of classes."""
        arch, classes, found = self.config.networks.unseen_arch, attacked.classes, {}
        query = attacked.query if spec_of(attacked.dataset).binary else None
        for file in self.config.networks.unseen:
            sha256 = self.named(f"unseen {Path(file).name}", file)
            if sha256 == attacked.sha256:
                raise UserError(f"--unseen {file}: is the classifier that was attacked; transfer is asked of others")

            def loader(file: str = file) -> Callable:
                return aligned(load(file, attacked, arch, "--unseen").to(self.device), classes, f"--unseen {file}")

            what = {"dataset": attacked.dataset, "query": query, "classes": classes, "arch": arch}
            task = self.task("unseen", loader, sha256=sha256, **what)
            if task in found.values():
                raise UserError(f"--unseen {file}: is the same classifier as another of them")
            found[Path(file).name] = task
        return found

    def lpips(self) -> Task | None:
        path = self.config.networks.lpips_backbone
        if not path:
            return None
        path = perceptual.published_vgg16() if path == HUB else path
        sha256 = self.named("lpips_backbone", path)

        def ask(network, a: Tensor, b: Tensor) -> Tensor:
            return network(a, b).cpu().double()[:, None]  # in this order: MPS has no float64

        return self.task(
            "lpips",
            self.on_device(blamed("lpips_backbone", lambda: perceptual.load_lpips(path))),
            ask,
            dtype="<f8",
            sha256=sha256,
        )

    def cout(self, explained: "Explained | None") -> Task | None:
        """Area and total width of a pair."""
        if explained is None:
            return None
        query, target = explained.query, explained.target
        what = {"dataset": explained.dataset, "query": query, "arch": explained.arch or ""}
        what |= {} if spec_of(explained.dataset).binary else {"target": target}

        def ask(network, image: Tensor, counterfactual: Tensor) -> Tensor:
            areas = cout.pair_areas(network, image, counterfactual, query, target)
            return torch.stack([areas, torch.full_like(areas, cout.total_width(image[0, 0].numel()))], 1)

        load_it = self.on_device(lambda: load_explained(explained))
        sha256 = self.named("classifier_path", explained.path)
        return self.task("cout", load_it, ask, dtype="<f8", sha256=sha256, **what)


def blamed(field: str, load: Callable) -> Callable:
    """The loader, whose errors are about this setting."""

    def loading(*values, **named):
        with blaming(field):
            return load(*values, **named)

    return loading


def load_oracle(path: str, dataset: str) -> nn.Module:
    with blaming("oracle_path"):
        oracle = oracles.load_oracle(path, of=spec_of(dataset).oracle)
    if oracle.class_names is None and not spec_of(dataset).faces:
        raise UserError(
            f"--oracle-path {path}: knows faces, but the data set is {dataset or 'not given'}; see --dataset"
        )
    return oracle


@dataclass(frozen=True)
class Explained:
    """The classifier that an experiment explains, and the question: leave ``query`` for ``target``."""

    path: str
    dataset: str
    query: int
    target: int
    arch: str | None


def load_explained(explained: Explained) -> nn.Module:
    with blaming("classifier_path"):
        query = explained.query if spec_of(explained.dataset).binary else None
        wanted = spec_of(explained.dataset).classifier(explained.arch)
        classifier = classifiers.load_classifier(explained.path, query=query, **wanted)
    for name in () if classifier.binary else ("query", "target"):
        if not 0 <= (label := getattr(explained, name)) < classifier.num_outputs:
            said = f"--{name}-label {label}: wanted a class of {explained.path}"
            raise UserError(f"{said}, 0 to {classifier.num_outputs - 1}")
    return classifier
