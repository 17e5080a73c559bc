"""Experiments as evaluation takes them: whole, or, if that is asked for, what is there of them."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ace_counterfactuals.core.base.settings import FlagError
from ace_counterfactuals.core.data.pictures import UnreadableImage, picture_size
from ace_counterfactuals.core.evaluation.model import Population
from ace_counterfactuals.core.runs.experiment import (
    Pair,
    StoredExperiment,
    find_experiment,
    open_experiment,
    pictures_in,
    read_pairs,
    read_settings,
)
from ace_counterfactuals.core.runs.layout import FOLDERS, REFINED, ResultFolder

LISTED = 5
MEND = "scripts/verify-results.py and then the run's command mend it"


def open_whole(output: Path, exp_name: str, *, allow_partial: bool) -> StoredExperiment:
    """Without the pairs that cannot be compared, which are among its problems.

    Raises FlagError with a list where the experiment is not whole, unless ``allow_partial``.
    """
    experiment = open_experiment(output, exp_name)
    odd = odd_sizes(experiment.pairs)
    problems = (*experiment.problems, *odd.values())
    if problems and not allow_partial:
        what = f"{experiment.name} is not whole: {shortened(problems)}"
        raise FlagError("exp_name", f"{what}; {MEND}; or evaluate what is there with allow_partial True")
    whole = tuple(pair for pair in experiment.pairs if pair.name not in odd)
    return replace(experiment, pairs=whole, problems=problems)


def open_plain(output: Path, exp_name: str, population: Population, *, settings: bool) -> StoredExperiment:
    """The pairs of a population alone: what the original's scripts read of a folder.

    settings: with config.yaml, if there is one.  Raises ValueError for pictures of different sizes.
    """
    root = find_experiment(output, exp_name)
    name = root.relative_to(output / "Results").as_posix()
    pairs = tuple(read_pairs(output, name, population.folders))
    for problem in odd_sizes(pairs).values():
        raise ValueError(problem)
    known = read_settings(root) if settings else {}
    return StoredExperiment(ResultFolder(output, name), root, name, root.name, pairs, settings=known)


def shortened(problems: Sequence[str]) -> str:
    more = f"; and {len(problems) - LISTED} more" if len(problems) > LISTED else ""
    return "; ".join(problems[:LISTED]) + more


def odd_sizes(pairs: Sequence[Pair]) -> dict[str, str]:
    """Name -> what is wrong, for pairs that are not of the first's size, or are no pictures."""
    odd, wanted = {}, None
    for pair in pairs:
        try:
            sizes = [picture_size(path) for path in (pair.original, pair.counterfactual)]
        except UnreadableImage as error:
            odd[pair.name] = str(error)
            continue
        wanted = wanted or sizes[0]
        for path, size in zip((pair.original, pair.counterfactual), sizes, strict=True):
            if size != wanted:
                other = f"{wanted[0]} x {wanted[1]}"
                odd[pair.name] = f"{path} is {size[0]} x {size[1]}, others are {other}: not comparable"
    return odd


def companions(experiment: StoredExperiment) -> tuple[dict[str, Path], dict[str, Path]]:
    """File name -> pre-explanation, and -> mask, of the pictures that have one."""
    root = experiment.root
    before = files_of(root.parent / "pre-explanation", "CF") if root.name != "pre-explanation" else {}
    kept = root.name.startswith(REFINED)  # there, masks are white where nothing changes
    return before, {} if kept else files_of(root, "SM")


def files_of(root: Path, content: str) -> dict[str, Path]:
    return {name: path for folder in FOLDERS for name, path in pictures_in(root / folder / content).items()}
