"""The networks that an evaluation asks, each declared once: its flags, how it is opened, how it is shown pictures."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms.functional import resize

from ace_counterfactuals.core.base.settings import FlagError, blaming, flag, flags_of, hyphenated
from ace_counterfactuals.core.data.datasets import spec_of
from ace_counterfactuals.core.data.pictures import picture_size, to_tensor
from ace_counterfactuals.core.evaluation.session import Judge, Network, Session, Subject, Unavailable
from ace_counterfactuals.models import classifiers
from ace_counterfactuals.models.config import ClassifierConfig
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
from ace_counterfactuals.models.loading import cached, is_url
from ace_counterfactuals.models.specs import Spec, runs_code, said_of

HUB = "hub"


def of_one_file(name: str, help: str, load: Callable, published: Callable | None = None, **more) -> Judge:
    """A judge that depends on the file of the flag ``name`` alone.  published: finds the file that 'hub' stands for."""

    def open_it(session: Session, _: Subject) -> dict[str, Network]:
        path = getattr(session.config.networks, name)
        if not path:
            return {}
        with blaming(name):
            path = str(published()) if published and path == HUB else path
        return {"": Network(lambda: load(path), {"sha256": session.named(name, path)}, path)}

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

    return {"": Network(load, {"sha256": session.named("oracle_path", path), "dataset": dataset}, path)}


OF_CLASSIFIER = flags_of(ClassifierConfig)


def explained(session: Session, subject: Subject) -> Network:
    """The classifier that the experiment explains, of which config.yaml holds path and digest."""
    flags, stored, spec = session.config.classifier, subject.stored.flags, spec_of(subject.dataset)
    given, path = flags.classifier_path, flags.classifier_path or stored.get("classifier_path", "")
    typed = bool(given or flags.classifier)
    name = flags.classifier if typed else stored.get("classifier", "")
    if not typed and runs_code(name, path):
        reason = f"the run's is code ({name or path}), which is run only for who types it; give --classifier"
        raise Unavailable("classifier", reason)
    if spec.arch == "resnet50" and not path and (published := cached(classifiers.RESNET50_URL)).is_file():
        path = str(published)
    if not typed and name and not path:
        reason = f"the weights of the run's {name} are fetched only for who types it; give --classifier"
        raise Unavailable("classifier", reason)
    if not typed:
        refuse_recorded(subject, path, "classifier_path", "classifier_path")
    if not subject.dataset:
        raise Unavailable("dataset", "the data set is not known; give --dataset")
    with blaming("classifier_path"):
        digest, wanted = session.digest(path) if path else "", subject.digest_of("classifier_path")
    if wanted and digest != wanted:
        if given:
            reason = f"is not the file that {subject.stored.name} explains (its SHA-256 was {wanted[:12]}...)"
            raise FlagError("classifier_path", f"{path}: {reason}")
        reason = f"{path} is not the file any more that the run explained; give --classifier-path"
        raise Unavailable("classifier_path", reason)
    if path:
        session.named("classifier_path", path)
    query = subject.query
    own = {field: getattr(flags, field) or stored.get(field, getattr(flags, field)) for field in OF_CLASSIFIER}
    about = said_of(ClassifierConfig(**own | {"classifier": name, "classifier_path": path}), side_of(subject))
    asked = {"query": query if spec.binary else None, **spec.classifier(about)}
    what = {"sha256": digest, "dataset": subject.dataset, "query": query, "arch": str(about)}
    return Network(lambda: classifiers.load_classifier(path, **asked).to(session.device), what, path, "classifier_path")


def side_of(subject: Subject) -> int:
    """Rows of the experiment's pictures; of an experiment without any what ``Spec`` takes."""
    pairs = subject.stored.pairs
    return picture_size(pairs[0].original)[1] if pairs else Spec().image_size


def refuse_recorded(subject: Subject, path: str, name: str, field: str) -> None:
    """Raises Unavailable for weights that config.yaml names, unless they are a local file of which it has the digest.

    An address is fetched only where the user typed it.  path: of the flag ``name``; field: the flag that would help.
    """
    what = "classifier" if name == "classifier_path" else "diffusion model"
    if not path:
        reason = f"the {what} is not known"
    elif is_url(path):
        reason = f"the run's {what} {path} is an address, and none is fetched that stands in config.yaml alone"
    elif Path(path).is_dir():
        reason = f"the run's {what} {path} is a folder, and none is opened that stands in config.yaml alone"
    elif not Path(path).is_file():
        reason = f"the run's {what} {path} is not there"
    elif path == subject.stored.flags.get(name) and not subject.digest_of(name):
        reason = f"config.yaml has no digest of the run's {what} {path}"
    else:
        return
    raise Unavailable(field, f"{reason}; give --{hyphenated(name)}" if field == name else reason)


def open_unseen(session: Session, subject: Subject) -> dict[str, Network]:
    """By file; logits (N, K) in the numbers of the attacked classifier's classes, further classes after them."""
    given, stored = session.config.networks, subject.stored
    classes = stored.settings.get("classes")
    query = subject.query if spec_of(subject.dataset).binary else None
    side = side_of(subject)
    what = {"dataset": subject.dataset, "query": query, "classes": classes, "arch": given.unseen_arch}
    seen = {subject.digest_of("classifier_path"): "the classifier that was attacked; transfer is asked of others"}
    found = {}
    for file in given.unseen:
        if not subject.dataset:
            raise FlagError("dataset", f"'': no config.yaml tells the data set of {stored.name}, which unseen needs")
        own = ClassifierConfig(classifier=file)
        if not own.classifier_arch:
            own = replace(own, classifier_arch=given.unseen_arch)
        path = own.classifier_path
        sha256 = session.named("unseen", path, f"unseen {Path(path).name}") if path else file
        if sha256 in seen:
            raise FlagError("unseen", f"{file}: is {seen[sha256]}")
        seen[sha256] = f"the same classifier as {file}"

        def load(file: str = file, own: ClassifierConfig = own) -> Callable[[Tensor], Tensor]:
            classifier = unseen_classifier(own, subject.dataset, side, query)
            return aligned(classifier.to(session.device), classes and tuple(classes), file)

        found[file] = Network(load, {"sha256": sha256, **what}, file)
    return found


def unseen_classifier(own: ClassifierConfig, dataset: str, side: int, query: int | None) -> classifiers.Classifier:
    """A classifier that is not the one that was explained.  side: of the pictures; query: of a binary data set."""
    wanted = spec_of(dataset).classifier(said_of(own, side))
    return classifiers.load_classifier(own.classifier_path, query=query, **wanted)


def aligned(
    classifier: classifiers.Classifier, classes: tuple[str, ...] | None, file: str
) -> Callable[[Tensor], Tensor]:
    """The classifier as (N, 3, H, W) -> (N, K), its outputs in the order of ``classes`` if both are named.

    Raises ValueError about the ``file`` that it came from.
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
        output = classifier(image)
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
        found[name] = Network(lambda file=file: load_features(file, **wanted), known, file)
    return found


FID_HELP = "FID, sFID: pytorch-fid's weights, or 'hub': its file in torch.hub's cache or from the web"
LPIPS_HELP = "LPIPS diversity of several experiments: weights of VGG-16, or 'hub': torchvision's"
ORACLE_FLAGS = {
    "oracle_path": flag("", "MNAC, CD: weights of the attribute oracle", path=True),
    "celeba_path": flag("", "CD: folder of CelebA or CelebA-HQ, whose annotations it compares with", path=True),
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
UNSEEN = Judge("unseen", open_unseen, UNSEEN_FLAGS)
FEATURES = Judge("features", open_features, FEATURES_FLAGS)
LPIPS = of_one_file("lpips_backbone", LPIPS_HELP, load_lpips, published_vgg16, dtype="<f8")
