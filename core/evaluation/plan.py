"""What is asked of which pictures of an experiment, from the flags and from what its run recorded."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ace_counterfactuals.core.base.runtime import notice
from ace_counterfactuals.core.base.settings import UserError, blaming
from ace_counterfactuals.core.data.datasets import celeba_attributes, spec_of
from ace_counterfactuals.core.evaluation.config import EvaluateConfig
from ace_counterfactuals.core.evaluation.metrics.unseen import attacked_as_stored
from ace_counterfactuals.core.evaluation.networks import Explained, Networks
from ace_counterfactuals.core.evaluation.passes import Job, Task
from ace_counterfactuals.core.evaluation.pictures import CORRECT, EVERY, FLIPPED
from ace_counterfactuals.core.runs.experiment import Pair, StoredExperiment
from ace_counterfactuals.models.classifiers import cached_resnet50
from ace_counterfactuals.models.loading import is_url


@dataclass(frozen=True, eq=False)
class Plan:
    """tasks: by role, of what the flags give.  features, unseen: by the name of the network's file.

    query: the attribute or class that was left, -1 if unknown.  annotated: (n, 40) attributes of CelebA's or
    CelebA-HQ's training pictures, for CD; None where they are not given.
    """

    source: StoredExperiment
    dataset: str
    query: int
    tasks: dict[str, Task]
    features: dict[str, Task]
    unseen: dict[str, Task]
    annotated: np.ndarray | None = None

    @property
    def frechet(self) -> dict[str, Task]:
        """Networks that the originals of all pictures are shown to, flipped or not."""
        own = {"inception": self.tasks["inception"]} if "inception" in self.tasks else {}
        return own | self.features

    def jobs(self, pair: Pair) -> Iterator[Job]:
        both, sides = (pair.original, pair.counterfactual), ((pair.original,), (pair.counterfactual,))
        for role, population in {"distances": EVERY, "cout": CORRECT}.items():
            if role in self.tasks and pair.folder in population.folders:
                yield self.tasks[role], both
        for role, population in {"simsiam": CORRECT, "vggface2": FLIPPED, "oracle": FLIPPED}.items():
            if role in self.tasks and pair.folder in population.folders:
                yield from ((self.tasks[role], side) for side in sides)
        if pair.folder in FLIPPED.folders:
            yield from ((task, side) for task in self.unseen.values() for side in sides)
            yield from ((task, sides[1]) for task in self.frechet.values())
        yield from ((task, sides[0]) for task in self.frechet.values())


def make_plan(source: StoredExperiment, networks: Networks) -> Plan:
    config = networks.config
    dataset, query = dataset_of(source, config), label_of(source, config, "query")
    explained = explained_classifier(source, networks, dataset)
    tasks = {
        "distances": networks.distances(),
        "inception": networks.inception(),
        "simsiam": networks.simsiam(),
        "vggface2": networks.vggface2(),
        "oracle": networks.oracle(dataset),
        "cout": networks.cout(explained),
    }
    unseen = {}
    if config.networks.unseen:
        if not dataset:
            raise UserError(f"--unseen: no config.yaml tells the data set of {source.name}; give --dataset")
        unseen = networks.unseen(attacked_as_stored(source.settings, dataset, query))
    given = {role: task for role, task in tasks.items() if task}
    annotated = annotations(source, config, dataset, query) if "oracle" in given else None
    return Plan(source, dataset, query, given, networks.features(dataset), unseen, annotated)


def annotations(source: StoredExperiment, config: EvaluateConfig, dataset: str, query: int) -> np.ndarray | None:
    """Of --celeba-path, or of the run's own data where these are there."""
    given, own = config.networks.celeba_path, source.flags.get("data_dir", "")
    if not spec_of(dataset).faces or not (given or (own and Path(own).is_dir())):
        return None
    with blaming("celeba_path"):
        annotated = celeba_attributes(given or own, dataset)
    if not 0 <= query < annotated.shape[1]:
        last = annotated.shape[1] - 1
        raise UserError(f"--query-label {query}: wanted the explained attribute, 0 to {last}, for CD")
    return annotated


def dataset_of(source: StoredExperiment, config: EvaluateConfig) -> str:
    stored, given = source.flags.get("dataset", ""), config.classifier.dataset
    if stored and given and stored != given:
        raise UserError(f"--dataset {given}: {source.name} explains pictures of {stored}")
    return stored or given


def label_of(source: StoredExperiment, config: EvaluateConfig, name: str) -> int:
    """The run's query or target, as a number of its classifier; from --query-label or --target-label without one."""
    stored, given = source.flags.get(f"label_{name}"), getattr(config.classifier, f"{name}_label")
    return stored if isinstance(stored, int) and stored >= 0 else given


def explained_classifier(source: StoredExperiment, networks: Networks, dataset: str) -> Explained | None:
    """For COUT; None, with a notice that says why, where it is not known what to ask whom."""
    config, flags, stored = networks.config, networks.config.classifier, source.flags
    path = flags.classifier_path or stored.get("classifier_path", "")
    if spec_of(dataset).arch == "resnet50" and not path and cached_resnet50().is_file():
        path = str(cached_resnet50())
    query, target = (label_of(source, config, name) for name in ("query", "target"))

    def without(reason: str) -> None:
        notice(f"{source.name}: no COUT, because {reason}")

    if not path:
        return without("the classifier is not known; give --classifier-path")
    if not flags.classifier_path and not is_url(path) and not Path(path).is_file():
        return without(f"the run's classifier {path} is not there; give --classifier-path")
    if not dataset:
        return without("the data set is not known; give --dataset")
    if not spec_of(dataset).binary and min(query, target) < 0:
        return without("it goes from one class to another, and the run had no query or no target")
    wanted = source.settings.get("weights", {}).get("classifier_path", "").removeprefix("sha256:")
    if wanted and networks.digest(path) != wanted:
        if not flags.classifier_path:
            return without(f"{path} is not the file any more that the run explained; give --classifier-path")
        raise UserError(
            f"--classifier-path {path}: is not the file that {source.name} explains (its SHA-256 was {wanted[:12]}...)"
        )
    return Explained(path, dataset, query, target, flags.classifier_arch or stored.get("classifier_arch") or None)
