"""What the original's commands of one figure each take, find and print: the table that ``compute`` runs."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

import numpy as np

from ace_counterfactuals.core.base.settings import FlagError, flag
from ace_counterfactuals.core.data.datasets import DATASETS, spec_of
from ace_counterfactuals.core.evaluation.frechet import sides_of
from ace_counterfactuals.core.evaluation.gaussians import fid, split_distances
from ace_counterfactuals.core.evaluation.metric import Metric
from ace_counterfactuals.core.evaluation.metrics.transfer import Transfer, transfer, verdicts
from ace_counterfactuals.core.evaluation.subject import Subject

path, label = partial(flag, "", path=True), partial(flag, -1, low=-1)


OUTPUT = flag("results", "folder that holds Original and Results", path=True)


EXPERIMENT = flag("exp", "experiment, such as exp/explanation or exp/pre-explanation")


RESULTS = {"output_path": OUTPUT, "exp_name": EXPERIMENT}


WEIGHTS = {"weights_path": path("weights of the network")}


ORACLE = {
    "oracle_path": path("weights of the attribute oracle"),
    "dataset": flag("CelebA", "data set of the oracle", choices=("CelebA", "CelebAMV", "CelebAHQ")),
}


CD = ORACLE | {
    "celeba_path": path("folder of CelebA, or of CelebA-HQ: its annotations for training"),
    "query_label": label("attribute that was explained, such as 31 (smile) or 39 (age)"),
}


INCEPTION = {
    "inception_weights": path("pytorch-fid's weights; if not given, from torch.hub's cache or the web"),
    "splits": flag(0, "0 for FID, else the number of splits of sFID", low=0),
}


CLASSIFIER = {
    "weights_path": path("weights of the classifier that was explained"),
    "dataset": flag("CelebA", "data set of the classifier", choices=DATASETS),
    "query_label": label("attribute (binary sets: any prediction is left) or class to leave"),
    "target_label": label("class to reach; of no effect on binary sets"),
    "classifier_arch": flag("", "torchvision's name of the classifier, where its file does not tell"),
}


RUNS = {
    "output_path": OUTPUT,
    "exp_pattern": flag("exp*", "experiments of the runs: a name with a * for each of exp-values"),
    "exp_values": flag((), "what stands for the * in the name of each run", kind=str, many=True),
    "lpips_backbone": path("weights of VGG-16, if not torchvision's from its cache or the web"),
}


UNSEEN = {
    "classifier": flag((), "files of classifiers that were not attacked", kind=str, many=True),
    "classifier_arch": flag("", "torchvision's name of the classifiers whose files do not tell"),
    "dataset": flag("", "data set of the attacked classifier, where no config.yaml tells", choices=DATASETS),
    "query_label": label("attribute that it decides (binary sets), where no config.yaml tells"),
}


@dataclass(frozen=True)
class Found:
    """figures: None for what was to be computed on no picture; n: pictures; more: further entries of --json."""

    figures: dict[str, Any]
    n: int
    population: str
    more: dict[str, Any] = field(default_factory=dict)
    lines: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Command:
    """text: of --help.  groups: title -> flags, beside those of where to compute.

    names: this command's flag -> evaluate.py's, where they differ.  hub: of evaluate.py, whose file is fetched if it
    is not given.  weights: flags whose files are named in --json.  lines: printed, with the figures by name, each
    as ``form`` says.
    """

    text: str
    metric: str
    groups: dict[str, dict[str, Any]]
    find: Callable[[Metric, Sequence[Subject], dict[str, Any]], Found]
    lines: tuple[str, ...] = ()
    form: str = ""
    names: dict[str, str] = field(default_factory=dict)
    hub: str = ""
    weights: tuple[str, ...] = ("weights_path",)
    batch: Any = field(default_factory=lambda: flag(15, "pictures at once; the figure does not depend on it", low=1))
    where: dict[str, Any] = field(default_factory=dict)


def find_means(
    metric: Metric, subjects: Sequence[Subject], flags: dict[str, Any], *, keys: Sequence[tuple[str, ...]]
) -> Found:
    """keys: for each quantity what its mean, and its standard deviation, are called."""
    (subject,) = subjects
    pairs, figures = list(subject.stored.pairs), dict.fromkeys(sum(keys, ()))
    if pairs:
        for names, values in zip(keys, metric.measure(*metric.features(subject, pairs)), strict=True):
            figures |= dict(zip(names, (float(np.mean(values)), float(np.std(values))), strict=False))
    return Found(figures, len(pairs), metric.population.name)


def find_cout(metric: Metric, subjects: Sequence[Subject], flags: dict[str, Any]) -> Found:
    found = find_means(metric, subjects, flags, keys=(("cout",), ("cout_normalised",)))
    if found.n:
        (rows,) = metric.features(subjects[0], subjects[0].stored.pairs)
        found.figures["cout_normalised"] = found.figures["cout"] / float(rows[0, 1])  # as its digits were published
    target = None if spec_of(flags["dataset"]).binary else flags["target_label"]
    more = {"query_label": flags["query_label"], "target_label": target}
    return Found(found.figures, found.n, found.population, more)


def find_cd(metric: Metric, subjects: Sequence[Subject], flags: dict[str, Any]) -> Found:
    (figure,) = metric.figures(metric, subjects[0])
    return Found({"cd": figure.value}, figure.n, figure.population, {"query_label": flags["query_label"]})


def find_lpips(metric: Metric, subjects: Sequence[Subject], flags: dict[str, Any]) -> Found:
    (figure,) = (
        metric.together(metric, subjects) if metric.name in subjects[0].tasks else (metric.quantities[0].none(),)
    )
    population = f"{metric.population.name}, in the same folder in all runs"
    return Found({"lpips": figure.value}, figure.n, population, {"exp_values": list(flags["exp_values"])})


def find_fid(metric: Metric, subjects: Sequence[Subject], flags: dict[str, Any]) -> Found:
    """FID, or with --splits sFID, against all stored originals."""
    (subject,) = subjects
    splits, pairs, originals = flags["splits"], subject.stored.pairs, subject.originals
    lines = ("sFID:  {sfid}", "sFID (STD):  {sfid_std}") if splits else ("FID:  {fid}",)
    figures = dict.fromkeys(("sfid", "sfid_std") if splits else ("fid",))
    if pairs:
        if min(len(pairs), len(originals)) < 2:
            raise FlagError("exp_name", f"{flags['exp_name']}: FID needs two pictures, there is 1")
        sides = sides_of(subject, subject.tasks[metric.name][""], pairs)
        if splits:
            _, values = split_distances(sides, flags["seed"], splits)
            if np.isnan(values).any():
                raise ValueError(f"sFID of {len(pairs)} counterfactuals: a half has fewer than two pictures")
            figures = {"sfid": float(values.mean()), "sfid_std": float(values.std())}
        else:
            figures = {"fid": fid(sides.originals, sides.counterfactuals)}
    population = f"{metric.population.name} against {len(originals)} originals"
    return Found(figures, len(pairs), population, {"splits": splits, "seed": flags["seed"]} if splits else {}, lines)


def find_transfer(metric: Metric, subjects: Sequence[Subject], flags: dict[str, Any]) -> Found:
    own = verdicts(metric, subjects[0])
    each, pooled = {file: transfer([v]) for file, v in own.items()}, transfer(list(own.values()))
    lines = tuple(f"{name}: {described(figure)}" for name, figure in {**each, "pooled": pooled}.items())
    classifiers = {file: asdict(figure) for file, figure in each.items()}
    more = {"exp_name": subjects[0].stored.name, "pooled": asdict(pooled), "classifiers": classifiers}
    population = f"{metric.population.name}, originals classified alike"
    return Found({"transfer": pooled.share, "movement": pooled.movement}, pooled.n, population, more, lines)


def described(figure: Transfer) -> str:
    if figure.share is None:
        return "transfer n/a (0 images)"
    interval = f"(95 %: {figure.low:.3f} to {figure.high:.3f})"
    return f"transfer {figure.share:.3f} {interval}, target probability {figure.movement:+.3f}, n = {figure.n}"


COMMANDS = {
    "FID": Command(
        text="FID or split FID of an experiment's counterfactuals against all originals.",
        metric="fid",
        groups={"results": RESULTS, "network": INCEPTION},
        find=find_fid,
        hub="inception_weights",
        weights=("inception_weights",),
        batch=flag(50, "pictures at once", low=1),
        where={"seed": flag(4, "seed of the splits", low=0)},
    ),
    "FVA": Command(
        text="Face verification accuracy (FVA), and face similarity: the mean cosine of VGGFace2's features (FS).",
        metric="fva",
        groups={"results": RESULTS, "network": WEIGHTS},
        find=partial(find_means, keys=(("fva", "fva_std"), ("fs", "fs_std"))),
        lines=("FVA {fva}", "FVA (STD) {fva_std}", "mean dist {fs}", "std dist {fs_std}"),
        names={"weights_path": "vggface2_weights"},
    ),
    "SimSiamSimilarity": Command(
        text="SimSiam similarity (S3): the mean cosine of SimSiam's outputs on originals and counterfactuals.",
        metric="simsiam",
        groups={"results": RESULTS, "network": WEIGHTS},
        find=partial(find_means, keys=(("simsiam_similarity",),)),
        lines=("SimSiam Similarity: {simsiam_similarity}",),
        form=".6f",
        names={"weights_path": "simsiam_weights"},
    ),
    "MNAC": Command(
        text="Mean number of attributes changed (MNAC), and its standard deviation over the pictures.",
        metric="mnac",
        groups={"results": RESULTS, "oracle": ORACLE},
        find=partial(find_means, keys=(("mnac", "mnac_std"),)),
        lines=("MNAC: {mnac}", "MNAC: {mnac_std}"),  # the deviation, under the name that the original prints
        weights=("oracle_path",),
    ),
    "CD": Command(
        text="Correlation difference (CD): attributes that change with the explained one, "
        "against those that occur with it.",
        metric="cd",
        groups={"results": RESULTS, "oracle": CD},
        find=find_cd,
        lines=("Lenght: {n}", "CD Result: {cd}"),  # so spelled by the original
        weights=("oracle_path",),
    ),
    "COUT": Command(
        text="Counterfactual transition (COUT): how few changed pixels carry the decision over.",
        metric="cout",
        groups={"results": RESULTS, "classifier": CLASSIFIER},
        find=find_cout,
        lines=("EVAL [COUT: {cout}]", "EVAL [COUT normalised: {cout_normalised}]"),
        form=".6f",
        names={"weights_path": "classifier_path"},
        batch=flag(10, "pictures at once; the figure does not depend on it", low=1),
    ),
    "LPIPS": Command(
        text="Diversity (sigma_L): the mean LPIPS between the counterfactuals that several runs give for one picture.",
        metric="lpips",
        groups={"runs": RUNS},
        find=find_lpips,
        lines=("LPIPS: {lpips}",),
        hub="lpips_backbone",
        weights=("lpips_backbone",),
    ),
    "transfer": Command(
        text="Transfer: how often a counterfactual that convinces the attacked classifier convinces unseen ones, too.",
        metric="transfer",
        groups={"results": RESULTS, "unseen classifiers": UNSEEN},
        find=find_transfer,
        names={"classifier": "unseen", "classifier_arch": "unseen_arch"},
        weights=("classifier",),
    ),
}
