"""The networks that an evaluation asks, each declared once: its flags, its loader, what its answers depend on."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms.functional import resize

from ace_counterfactuals.core.base.settings import FlagError, blaming, flag
from ace_counterfactuals.core.data.datasets import spec_of
from ace_counterfactuals.core.data.pictures import to_tensor
from ace_counterfactuals.core.evaluation.cache import Store
from ace_counterfactuals.core.evaluation.passes import Task
from ace_counterfactuals.core.evaluation.subject import Subject
from ace_counterfactuals.models import classifiers
from ace_counterfactuals.models.judges import (
    features_name,
    load_features,
    load_inception,
    load_lpips,
    load_oracle,
    load_simsiam,
    load_vggface2,
    published_inception,
    published_vgg16,
)
from ace_counterfactuals.models.loading import digest, is_url

HUB = "hub"


class Unavailable(ValueError):
    """Why a figure cannot be computed of an experiment: no reason to stop, unless it alone was asked for.

    field: the flag that would help.
    """

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(reason)
        self.field = field


@dataclass(frozen=True)
class Network:
    """load: called when its first answer is missing; blamed: the flag that its errors are about.

    what: all that its answers depend on, as JSON has it, among it the digest of its file.
    """

    load: Callable
    what: dict[str, Any] = field(default_factory=dict)
    blamed: str = ""


@dataclass(frozen=True)
class Session:
    """What the experiments of an evaluation share: flags, cache, and each task, so that its answers are shared, too.

    files: what of the weights -> {file, sha256}, for the record.
    """

    config: Any
    cache: Path
    device: torch.device
    tasks: dict[str, Task] = field(default_factory=dict)
    files: dict[str, dict[str, str]] = field(default_factory=dict)
    digests: dict[str, str] = field(default_factory=dict)

    def task(self, role: str, network: Network, ask: Callable, dtype: str = "<f4", **more) -> Task:
        """role: the name of the cache file; more: ``view`` and ``numbered`` of ``Task``."""
        key = json.dumps([role, network.what])
        if key not in self.tasks:

            def load():
                with blaming(network.blamed):
                    loaded = network.load()
                return loaded.to(self.device) if isinstance(loaded, nn.Module) else loaded

            self.tasks[key] = Task(Store(self.cache, role, network.what, dtype), load, ask, self.device, **more)
        return self.tasks[key]

    def digest(self, path: str) -> str:
        if path not in self.digests:
            self.digests[path] = digest(path)
        return self.digests[path]

    def named(self, flag: str, path: str | Path, name: str = "") -> str:
        """The digest of a flag's file, which is kept for the record under ``name``, else under the flag's."""
        with blaming(flag):
            sha256 = self.digest(str(path))
        self.files[name or flag] = {"file": str(path), "sha256": sha256}
        return sha256


@dataclass(frozen=True, eq=False)
class Judge:
    """A network that is asked about pictures, or several of a kind.

    open: (session, subject) -> by name, '' where there is but one; {} where its flag is not given.  Raises
    ``Unavailable`` where the experiment does not tell whom to ask.
    flags: name -> ``flag(...)``, of evaluate.py.  view: how a decoded picture is handed over, (3, H, W).
    """

    name: str
    open: Callable[[Session, Subject], dict[str, Network]]
    flags: dict[str, Any] = field(default_factory=dict)
    view: Callable[[Image.Image], Tensor] = to_tensor


def of_one_file(name: str, help: str, load: Callable, published: Callable | None = None, **more) -> Judge:
    """A judge that depends on the file of the flag ``name`` alone.  published: finds the file that 'hub' stands for."""

    def open_it(session: Session, _: Subject) -> dict[str, Network]:
        path = getattr(session.config.networks, name)
        if not path:
            return {}
        with blaming(name):
            path = str(published()) if published and path == HUB else path
        return {"": Network(lambda: load(path), {"sha256": session.named(name, path)}, name)}

    return Judge(name.split("_")[0], open_it, {name: flag("", help, path=True)}, **more)


def files_flag(help: str) -> Any:
    return flag((), help, kind=str, many=True, path=True)


def face(image: Image.Image) -> Tensor:
    """The shorter side to 224, as VGGFace2's networks are shown faces."""
    return to_tensor(resize(image, 224))


def open_oracle(session: Session, subject: Subject) -> dict[str, Network]:
    path, dataset = session.config.networks.oracle_path, subject.dataset
    if not path:
        return {}

    def load() -> nn.Module:
        oracle = load_oracle(path, of=spec_of(dataset).oracle)
        if oracle.class_names is None and not spec_of(dataset).faces:
            raise ValueError(f"{path}: knows faces, but the data set is {dataset or 'not given'}; see dataset")
        return oracle

    return {"": Network(load, {"sha256": session.named("oracle_path", path), "dataset": dataset}, "oracle_path")}


def open_explained(session: Session, subject: Subject) -> dict[str, Network]:
    """The classifier that the experiment explains, of which config.yaml holds path and digest."""
    flags, stored, spec = session.config.classifier, subject.stored.flags, spec_of(subject.dataset)
    given, path = flags.classifier_path, flags.classifier_path or stored.get("classifier_path", "")
    if spec.arch == "resnet50" and not path and classifiers.cached_resnet50().is_file():
        path = str(classifiers.cached_resnet50())
    if not given and not is_url(path) and not Path(path).is_file():
        what = f"the run's classifier {path} is not there" if path else "the classifier is not known"
        raise Unavailable("classifier_path", f"{what}; give --classifier-path")
    if not subject.dataset:
        raise Unavailable("dataset", "the data set is not known; give --dataset")
    with blaming("classifier_path"):
        digest, wanted = session.digest(path), subject.digest_of("classifier_path")
    if wanted and digest != wanted:
        if given:
            reason = f"is not the file that {subject.stored.name} explains (its SHA-256 was {wanted[:12]}...)"
            raise FlagError("classifier_path", f"{path}: {reason}")
        reason = f"{path} is not the file any more that the run explained; give --classifier-path"
        raise Unavailable("classifier_path", reason)
    session.named("classifier_path", path)
    arch, query = flags.classifier_arch or stored.get("classifier_arch") or "", subject.query
    asked = {"query": query if spec.binary else None, **spec.classifier(arch)}
    what = {"sha256": digest, "dataset": subject.dataset, "query": query, "arch": arch}
    return {"": Network(lambda: classifiers.load_classifier(path, **asked), what, "classifier_path")}


def open_unseen(session: Session, subject: Subject) -> dict[str, Network]:
    """By file; logits (N, K) in the numbers of the attacked classifier's classes, further classes after them."""
    given, stored = session.config.networks, subject.stored
    classes = stored.settings.get("classes")
    query = subject.query if spec_of(subject.dataset).binary else None
    what = {"dataset": subject.dataset, "query": query, "classes": classes, "arch": given.unseen_arch}
    seen = {subject.digest_of("classifier_path"): "the classifier that was attacked; transfer is asked of others"}
    found = {}
    for file in given.unseen:
        if not subject.dataset:
            raise FlagError("dataset", f"'': no config.yaml tells the data set of {stored.name}, which unseen needs")
        sha256 = session.named("unseen", file, f"unseen {Path(file).name}")
        if sha256 in seen:
            raise FlagError("unseen", f"{file}: is {seen[sha256]}")
        seen[sha256] = f"the same classifier as {file}"

        def load(file: str = file) -> Callable[[Tensor], Tensor]:
            wanted = spec_of(subject.dataset).classifier(given.unseen_arch)
            classifier = classifiers.load_classifier(file, query=query, **wanted)
            return aligned(classifier.to(session.device), classes and tuple(classes), file)

        found[file] = Network(load, {"sha256": sha256, **what}, "unseen")
    return found


def aligned(
    classifier: classifiers.Classifier, classes: tuple[str, ...] | None, file: str
) -> Callable[[Tensor], Tensor]:
    """The classifier as (N, 3, H, W) -> (N, K), its outputs in the order of ``classes`` if both are named.

    Raises ValueError, also when it is asked, with the ``file`` that it came from.
    """
    own = classifier.class_names
    order = list(range(2 if classifier.binary else classifier.num_outputs))
    if own and classes and own != classes:  # names may repeat: two of ImageNet's do
        if missing := sorted(set(classes) - set(own)):
            knows = f"of the experiment's classes; it knows {', '.join(own[:20])}"
            raise ValueError(f"{file}: does not know {', '.join(missing[:5])} {knows}")
        order = [own.index(wanted) for wanted in classes]
        order += [i for i, known in enumerate(own) if known not in classes]
    elif classes and len(order) != len(classes):
        raise ValueError(f"{file}: has {len(order)} classes without names, but the experiment has {len(classes)}")

    def logits(image: Tensor) -> Tensor:
        try:
            output = classifier(image)
        except RuntimeError as error:
            reason = str(error).partition("\n")[0]
            raise ValueError(f"{file}: cannot take pictures of {image.shape[3]} x {image.shape[2]}: {reason}") from None
        if not output.isfinite().all():
            raise ValueError(f"{file}: its output is NaN or infinity")
        both = torch.stack([torch.zeros_like(output), output], 1) if output.ndim == 1 else output
        return both[:, order]

    return logits


def open_features(session: Session, subject: Subject) -> dict[str, Network]:
    """By what to call them: small-32 features of classifier.pt."""
    what, found = {"dataset": subject.dataset, "arch": session.config.networks.features_arch}, {}
    wanted = {"heads": spec_of(subject.dataset).heads, "arch": what["arch"]}
    for file in session.config.networks.features:
        with blaming("features"):
            name = f"{features_name(file, **wanted)} features of {Path(file).name}"
        known = {"sha256": session.named("features", file, name), **what}
        if name in found or known in [network.what for network in found.values()]:
            raise FlagError("features", f"{file}: is the same network as another of them, or has its name")
        found[name] = Network(lambda file=file: load_features(file, **wanted), known, "features")
    return found


FID_HELP = "FID, sFID: pytorch-fid's weights, or 'hub': its file in torch.hub's cache or from the web"
LPIPS_HELP = "LPIPS diversity of several experiments: weights of VGG-16, or 'hub': torchvision's"
ORACLE_FLAGS = {
    "oracle_path": flag("", "MNAC, CD: weights of the attribute oracle", path=True),
    "celeba_path": flag("", "CD: folder of CelebA or CelebA-HQ; if not given, the run's --data_dir", path=True),
}
UNSEEN_FLAGS = {
    "unseen": files_flag("transfer: classifiers that were never attacked, FILE ..."),
    "unseen_arch": flag("", "torchvision's name of the networks of --unseen, where their files do not tell"),
}
FEATURES_FLAGS = {
    "features": files_flag("Frechet distance in the features of these classifiers, FILE ..."),
    "features_arch": flag("", "torchvision's name of the networks of --features, where their files do not tell"),
}
INCEPTION = of_one_file("inception_weights", FID_HELP, load_inception, published_inception)
SIMSIAM = of_one_file("simsiam_weights", "S3: weights of SimSiam", load_simsiam)
VGGFACE2 = of_one_file("vggface2_weights", "FVA, FS: weights of VGGFace2's ResNet-50", load_vggface2, view=face)
ORACLE = Judge("oracle", open_oracle, ORACLE_FLAGS)
EXPLAINED = Judge("explained", open_explained)
UNSEEN = Judge("unseen", open_unseen, UNSEEN_FLAGS)
FEATURES = Judge("features", open_features, FEATURES_FLAGS)
LPIPS = of_one_file("lpips_backbone", LPIPS_HELP, load_lpips, published_vgg16)
JUDGES = (INCEPTION, SIMSIAM, VGGFACE2, ORACLE, EXPLAINED, UNSEEN, FEATURES, LPIPS)
"""In the order in which they are opened; those of a user's metric come after them."""
