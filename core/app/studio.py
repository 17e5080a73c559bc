"""What the app asks of the other rooms: networks loaded once, pictures judged, and runs of main.py on one picture."""

import base64
import binascii
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from ace_counterfactuals.core.app.config import AppConfig
from ace_counterfactuals.core.app.line import Job
from ace_counterfactuals.core.app.pictures import LONGEST_SIDE, Upload
from ace_counterfactuals.core.app.results import Judge, Result
from ace_counterfactuals.core.app.strengths import TUNABLE
from ace_counterfactuals.core.base import atomic
from ace_counterfactuals.core.base.reading import read_bytes
from ace_counterfactuals.core.base.settings import FlagError, convert, flag_items, from_dict, to_dict
from ace_counterfactuals.core.data.datasets import spec_of
from ace_counterfactuals.core.data.pictures import UnreadableImage, decode, opened, to_pil
from ace_counterfactuals.core.evaluation.judges import aligned, unseen_classifier
from ace_counterfactuals.core.method.attacking import OnIteration
from ace_counterfactuals.core.method.explain import explain
from ace_counterfactuals.core.method.objectives import confidence, probabilities
from ace_counterfactuals.core.method.progress import Progress
from ace_counterfactuals.core.runs.config import MainConfig
from ace_counterfactuals.core.runs.plan import calls_of
from ace_counterfactuals.core.runs.run import run
from ace_counterfactuals.core.runs.setup import (
    check,
    compile_networks,
    load_networks,
    open_images,
    prepare_device,
    settle_channels,
    task_of,
)
from ace_counterfactuals.models.classifiers import Classifier
from ace_counterfactuals.models.config import ClassifierConfig
from ace_counterfactuals.models.denoisers import DiffusionModel

EVERY = 0.7  # seconds between two pictures of an attack in hand
EXAMPLES = 20


@dataclass(frozen=True)
class Asked:
    """A request.  region: x0,y0,x1,y1 or a PNG in base64, white where the picture may change or, with ``invert``, where
    it may not; '' is everywhere.  flags: of TUNABLE."""

    picture: str
    target: int = -1
    region: str = ""
    invert: bool = False
    flags: dict[str, bool | int | float | str] = field(default_factory=dict)


@dataclass(frozen=True)
class Order:
    """A request with its picture."""

    asked: Asked
    upload: Upload


@dataclass(frozen=True)
class Studio:
    """Networks and settings.  classes: names of the classifier's answers; examples: pictures of the data folder."""

    config: MainConfig
    networks: tuple[Classifier, DiffusionModel]
    device: torch.device
    classes: tuple[str, ...]
    unseen: Mapping[str, Judge]
    examples: tuple[Path, ...]

    def picture(self, path: Path) -> Tensor:
        """As it is explained, (C, H, W) in [0, 1].  Raises ValueError."""
        config = self.of_file(path)
        _, images = settle_channels(config, open_images(config), Path())
        return images[0].image

    def judge(self, path: Path) -> tuple[tuple[int, int], list[float]]:
        """Height and width of the picture as it is explained, and the probability of each class."""
        image = self.picture(path)
        with torch.no_grad():
            logits = self.networks[0](image[None].to(self.device))
        height, width = image.shape[1:]
        return (height, width), probabilities(logits)[0].tolist()

    def of_file(self, path: Path, **changes: Any) -> MainConfig:
        values = to_dict(self.config) | {"image": (str(path),)} | changes
        return from_dict(MainConfig, values)

    def order(self, asked: Asked, upload: Upload) -> Order:
        """A request that can be met.  Raises ValueError."""
        if not -1 <= asked.target < len(self.classes):
            raise ValueError(f"target {asked.target}: the classifier has {len(self.classes)} classes")
        corners = "," in asked.region
        if asked.region and not corners:
            painted(asked.region)
        region = asked.region if corners else ""
        check(self.of_file(upload.path, label_target=asked.target, region=region, **tuned(asked.flags)))
        return Order(asked, upload)

    def explain(self, job: Job) -> Result:
        """Run main.py's way from the picture to its result folder, in a temporary one."""
        order: Order = job.asked
        folder = TemporaryDirectory(prefix="ace-app-")
        try:
            place = Path(folder.name)
            atomic.write_bytes(place / "picture.png", read_bytes(order.upload.path))
            config = self.of_order(order, place)
            began = time.monotonic()
            results = run(config, self.networks, self.watching(job))
            job.check()
            return Result.of(folder, config, results, self.unseen, time.monotonic() - began)
        except BaseException:
            folder.cleanup()
            raise

    def of_order(self, order: Order, place: Path) -> MainConfig:
        """Settings of main.py for a request, whose files lie in ``place``."""
        region = order.asked.region
        if region and "," not in region:
            atomic.write_png(place / "region.png", painted(region))
            region = str(place / "region.png")
        changes = {
            "label_target": order.asked.target,
            "region": region,
            "region_invert": order.asked.invert and bool(region),
            "output_path": str(place),
            **tuned(order.asked.flags),
        }
        return self.of_file(place / "picture.png", **changes)

    def watching(self, job: Job) -> OnIteration:
        """Tells the job where its attack stands, now and then, and ends it when it is stopped."""
        began = time.monotonic()
        told = 0.0

        def see(at: Progress) -> None:
            nonlocal told
            job.check()
            now, batch = time.monotonic(), at.batch
            total = batch.task.attack.attack_iterations
            if at.iteration not in (1, total) and now - told < EVERY:
                return
            told = now
            shares = [self.share(at, picture) for picture in (at.found, filtered(at))]
            job.curve.append((at.iteration, *shares))
            job.picture = atomic.png(to_pil(at.found[0]))
            calls, _ = calls_of(batch.task.attack, batch.filter.steps, at.iteration)
            left = (now - began) / at.iteration * (total - at.iteration)
            job.told = {"iteration": at.iteration, "of": total, "calls": calls, "left": round(left, 1)}

        return see

    def warm_up(self) -> None:
        """The first calls of networks take longer than others."""
        height, width = self.config.data.shape
        task = task_of(self.config, *self.networks)
        image = torch.zeros(1, self.networks[1].channels, height, width, device=self.device)
        with suppress(
            ValueError, RuntimeError
        ):  # of a network that takes no such picture, which is said where one is given
            explain(image, replace(task, attack=replace(task.attack, attack_iterations=1)))

    def share(self, at: Progress, picture: Tensor) -> float:
        """The probability of the target, or of any other class than the prediction."""
        logits = self.networks[0](picture)
        return confidence(logits, at.batch.prediction, at.batch.target)[0].item()


def filtered(at: Progress) -> Tensor:
    """The pictures in hand as the attack's next iteration shows them to the classifier."""
    return at.batch.attacked_through(at.found, at.batch.noise(at.iteration))


def asked_on(device: torch.device, network: Judge, images: Tensor) -> Tensor:
    """What a network on the device says of pictures that lie elsewhere."""
    return network(images.to(device))


def tuned(flags: Mapping[str, Any]) -> dict[str, Any]:
    """Flags that a page may set, checked.  Raises FlagError."""
    known = flag_items(MainConfig)
    for name in flags:
        if name not in TUNABLE:
            raise FlagError(name, "is not set here; start the app with it")
    return {name: convert(name, known[name], value) for name, value in flags.items()}


def painted(text: str) -> Image.Image:
    """A region, from base64.  Raises ValueError."""
    try:
        data = base64.b64decode(text, validate=True)
        with opened(Path("region"), lambda _: data) as image:
            if max(image.size) > LONGEST_SIDE:
                raise ValueError(f"more than {LONGEST_SIDE} pixels a side")
        return decode(Path("region"), content=lambda _: data).convert("L")
    except (binascii.Error, UnreadableImage):
        raise ValueError("region: wanted x0,y0,x1,y1 or a picture that is white where this one may change") from None


def open_studio(config: AppConfig) -> Studio:
    """Load the networks of the flags, and find examples.  Raises ValueError."""
    main = config.main
    if main.data.span:
        raise FlagError("image_range", f"{main.data.image_range}: the app takes pictures of 8 bits; use main.py")
    device, spec = prepare_device(main), spec_of(main.data.dataset)
    images = open_images(main) if main.data.data_dir or main.data.image else None
    any_channels = from_dict(MainConfig, to_dict(main) | {"image_channels": 1})  # each picture is asked for its own
    query = images.query if images is not None else main.data.label_query
    numbered = query if isinstance(query, int) and spec.binary else -1
    if spec.binary and numbered == -1:
        raise FlagError("label_query", f"{query}: the classifier decides an attribute; give its number")
    networks = load_networks(any_channels, numbered, device)
    compile_networks(main, {"the classifier": networks[0], "the diffusion model": networks[1].network})
    names = networks[0].class_names or (images.class_names if images is not None else None)
    count = 2 if networks[0].binary else networks[0].num_outputs
    classes = tuple(names[:count]) if names and not networks[0].binary else tuple(f"class {i}" for i in range(count))
    unseen = {}
    for file in config.serving.unseen:
        own, one = ClassifierConfig(classifier=file), numbered if spec.binary else None
        own = replace(own, classifier_arch=own.classifier_arch or config.serving.unseen_arch)
        classifier = unseen_classifier(own, main.data.dataset, main.data.image_size, one).to(device)
        unseen[Path(file).stem] = partial(asked_on, device, aligned(classifier, networks[0].class_names, file))
    records = images.records if images is not None and not images.content else ()
    examples = tuple(record.path for record in records[:: -(-len(records) // EXAMPLES) or 1])
    alone = {"label_query": numbered, "label_target": -1, "data_dir": "", "num_samples": 1}
    return Studio(from_dict(MainConfig, to_dict(main) | alone), networks, device, classes, unseen, examples)
