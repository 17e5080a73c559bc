"""The one pass over the pictures: each is read and decoded once, and every network is asked only what is not cached."""

import sys
from collections import defaultdict
from collections.abc import Sequence
from itertools import combinations, product
from pathlib import Path

from tqdm import tqdm

from ace_counterfactuals.core.data.imageset import prefetch
from ace_counterfactuals.core.data.pictures import UnreadableImage, decode
from ace_counterfactuals.core.evaluation.metric import Metric
from ace_counterfactuals.core.evaluation.session import Session, Task, in_all

Job = tuple[Task, tuple[Path, ...]]
LARGEST = 2**28  # bytes of a picture's file; more has none of as many pixels as are taken


class Groups:
    """Jobs that share pictures, as a list that reads and decodes when it is asked for an item."""

    def __init__(self, groups: Sequence[Sequence[Job]]):
        self.groups = groups

    def __getitem__(self, position: int) -> tuple[list[tuple], dict[Path, str]]:
        """What ``Task.take`` takes, its task before it, and what does not decode, with the reason."""
        asked, errors, pictures, views = [], {}, {}, {}
        for task, paths in self.groups[position]:
            errors |= {path: f"is larger than {LARGEST} bytes" for path in paths if path.stat().st_size > LARGEST}
            if errors.keys() & set(paths):
                continue
            key, view = task.key(paths), task.judge.view
            if not task.lacks(key):
                continue
            for path in paths:
                if (path, view) not in views and path not in errors:
                    try:
                        pictures[path] = pictures.get(path) or decode(path)
                        views[path, view] = view(pictures[path])
                    except UnreadableImage as error:
                        errors[path] = error.reason
            if not errors.keys() & set(paths):
                asked.append((task, key, paths, [views[path, view] for path in paths]))
        return asked, errors


def run_pass(session: Session, metrics: Sequence[Metric]) -> dict[Path, str]:
    """Answer every question of the metrics into the stores of their tasks.

    Returns the pictures that do not decode, with the reason.
    """
    groups, errors = jobs_of(session, metrics), {}
    read = prefetch(Groups(groups), range(len(groups)), session.config.compute.num_workers)
    progress = {"unit": "img", "desc": "pictures", "disable": None, "leave": False, "file": sys.stderr}
    for asked, failed in tqdm(read, total=len(groups), **progress):
        errors |= failed
        for task, key, paths, images in asked:
            if task.lacks(key):
                task.take(key, paths, images)
    for task in session.tasks.values():
        task.finish()
    return errors


def jobs_of(session: Session, metrics: Sequence[Metric]) -> list[list[Job]]:
    """Those about pictures of one name together, in the order of the names."""
    groups, subjects = defaultdict(list), session.subjects
    for subject, metric in product(subjects, metrics):
        for task in subject.tasks.get(metric.judge, {}).values():
            for pair in subject.stored.pairs:
                groups[pair.name] += [(task, paths) for paths in metric.pictures(pair)]
            if metric.asked == "sets" and subject.stored.pairs:
                for name, path in subject.originals.items():
                    groups[name].append((task, (path,)))
            if metric.asked == "runs" and subject is subjects[0]:
                for pairs in in_all(subjects):
                    several = [pair.counterfactual for pair in pairs]
                    groups[pairs[0].name] += [(task, both) for both in combinations(several, 2)]
    return [jobs for _, jobs in sorted(groups.items())]
