"""The original's commands of one figure each: their flags, and what they print.

python -m ace_counterfactuals.core.cli.compute FVA --output-path OUT ...; compute_FVA.py and the others call it, too. A
folder is read in place, without config.yaml and records, as the original reads it; nothing is written but ``--json``.
"""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, make_dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ace_counterfactuals.core.base import atomic
from ace_counterfactuals.core.base.config import DeviceConfig
from ace_counterfactuals.core.base.notices import notice
from ace_counterfactuals.core.base.runtime import choose_device
from ace_counterfactuals.core.base.settings import FlagError, flag, from_dict, group, to_dict
from ace_counterfactuals.core.cli.parsing import choose, program, run_script
from ace_counterfactuals.core.data.datasets import DATASETS, spec_of
from ace_counterfactuals.core.evaluation.config import EvaluateConfig
from ace_counterfactuals.core.evaluation.gaussians import fid, split_distances
from ace_counterfactuals.core.evaluation.judges import HUB
from ace_counterfactuals.core.evaluation.metric import METRICS, Metric
from ace_counterfactuals.core.evaluation.metrics.frechet import sides_of
from ace_counterfactuals.core.evaluation.metrics.transfer import Transfer, transfer, verdicts
from ace_counterfactuals.core.evaluation.read import open_plain
from ace_counterfactuals.core.evaluation.run import ask
from ace_counterfactuals.core.evaluation.session import Session, Subject
from ace_counterfactuals.core.runs.experiment import StoredExperiment, stored_originals
from ace_counterfactuals.models.classifiers import load_classifier

FETCHED = ("inception_weights", "lpips_backbone")  # from the web where no file is given
WEIGHTS = (*FETCHED, "weights_path", "oracle_path", "classifier")  # whose digests --json tells

path, label = partial(flag, "", path=True), partial(flag, -1, low=-1)
OUTPUT = {"output_path": flag("results", "folder that holds Original and Results", path=True)}
RESULTS = OUTPUT | {"exp_name": flag("exp", "experiment, such as exp/explanation or exp/pre-explanation")}
ORACLE = {
    "oracle_path": path("weights of the attribute oracle"),
    "dataset": flag("CelebA", "data set of the oracle", choices=("CelebA", "CelebAMV", "CelebAHQ")),
}
ANNOTATED = ORACLE | {
    "celeba_path": path("folder of CelebA, or of CelebA-HQ: its annotations for training"),
    "query_label": label("attribute that was explained, such as 31 (smile) or 39 (age)"),
}
INCEPTION = {
    "inception_weights": path("pytorch-fid's weights; if not given, from torch.hub's cache or the web"),
    "splits": flag(0, "0 for FID, else the number of splits of sFID", low=0),
    "seed": flag(4, "seed of the splits", low=0),
}
CLASSIFIER = {
    "weights_path": path("weights of the classifier that was explained"),
    "dataset": flag("CelebA", "data set of the classifier", choices=DATASETS),
    "query_label": label("attribute (binary sets: any prediction is left) or class to leave"),
    "target_label": label("class to reach; of no effect on binary sets"),
    "classifier_arch": flag("", "torchvision's name of the classifier, where its file does not tell"),
}
RUNS = {
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
    """figures: None for what was to be computed on no picture; n: pictures; population: '' for the metric's.

    more: further entries of --json.  lines: printed in place of the command's.
    """

    figures: dict[str, Any]
    n: int
    population: str = ""
    more: dict[str, Any] = field(default_factory=dict)
    lines: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Command:
    """text: of --help.  flags: beside those of every command.  names: its flag -> evaluate.py's, where they differ.

    lines: printed, with the figures by name, each as ``form`` says.  batch: the default of --batch-size.
    """

    text: str
    metric: str
    flags: dict[str, Any]
    find: Callable[[Metric, Sequence[Subject], dict[str, Any]], Found]
    lines: tuple[str, ...] = ()
    form: str = ""
    names: dict[str, str] = field(default_factory=dict)
    batch: int = 15


def find_means(
    metric: Metric, subjects: Sequence[Subject], flags: dict[str, Any], *, keys: Sequence[tuple[str, ...]]
) -> Found:
    """keys: for each quantity what its mean, and its standard deviation, are called."""
    pairs, figures = subjects[0].stored.pairs, dict.fromkeys(sum(keys, ()))
    if pairs:
        for names, values in zip(keys, metric.measure(*metric.features(subjects[0], pairs)), strict=True):
            figures |= dict(zip(names, (float(np.mean(values)), float(np.std(values))), strict=False))
    return Found(figures, len(pairs))


def find_cout(metric: Metric, subjects: Sequence[Subject], flags: dict[str, Any]) -> Found:
    found = find_means(metric, subjects, flags, keys=(("cout",), ("cout_normalised",)))
    if found.n:
        (rows,) = metric.features(subjects[0], subjects[0].stored.pairs)
        found.figures["cout_normalised"] = found.figures["cout"] / float(rows[0, 1])  # as its digits were published
    target = None if spec_of(flags["dataset"]).binary else flags["target_label"]
    return Found(found.figures, found.n, more={"query_label": flags["query_label"], "target_label": target})


def find_figure(
    metric: Metric, subjects: Sequence[Subject], flags: dict[str, Any], *, told: str, where: str = ""
) -> Found:
    """The metric's own figure.  told: a flag that --json tells, too; where: of the pictures, beside the population."""
    figure = next(iter(metric.figures(metric, subjects[0])), None) if metric.possible(*subjects) else None
    value, n = (figure.value, figure.n) if figure else (None, 0)
    return Found({metric.name: value}, n, metric.population.name + where, {told: flags[told]})


def find_fid(metric: Metric, subjects: Sequence[Subject], flags: dict[str, Any]) -> Found:
    """FID, or with --splits sFID, against all stored originals."""
    (subject,), splits = subjects, flags["splits"]
    pairs, originals = subject.stored.pairs, subject.originals
    lines = ("sFID:  {sfid}", "sFID (STD):  {sfid_std}") if splits else ("FID:  {fid}",)
    figures = dict.fromkeys(("sfid", "sfid_std") if splits else ("fid",))
    if pairs:
        if min(len(pairs), len(originals)) < 2:
            raise FlagError("exp_name", f"{flags['exp_name']}: FID needs two pictures, there is 1")
        sides = sides_of(subject.tasks[metric.judge][""], pairs, list(originals.values()))
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
        flags=RESULTS | INCEPTION,
        find=find_fid,
        batch=50,
    ),
    "FVA": Command(
        text="Face verification accuracy (FVA), and face similarity: the mean cosine of VGGFace2's features (FS).",
        metric="fva",
        flags=RESULTS | {"weights_path": path("weights of VGGFace2's ResNet-50")},
        find=partial(find_means, keys=(("fva", "fva_std"), ("fs", "fs_std"))),
        lines=("FVA {fva}", "FVA (STD) {fva_std}", "mean dist {fs}", "std dist {fs_std}"),
        names={"weights_path": "vggface2_weights"},
    ),
    "SimSiamSimilarity": Command(
        text="SimSiam similarity (S3): the mean cosine of SimSiam's outputs on originals and counterfactuals.",
        metric="simsiam",
        flags=RESULTS | {"weights_path": path("weights of SimSiam")},
        find=partial(find_means, keys=(("simsiam_similarity",),)),
        lines=("SimSiam Similarity: {simsiam_similarity}",),
        form=".6f",
        names={"weights_path": "simsiam_weights"},
    ),
    "MNAC": Command(
        text="Mean number of attributes changed (MNAC), and its standard deviation over the pictures.",
        metric="mnac",
        flags=RESULTS | ORACLE,
        find=partial(find_means, keys=(("mnac", "mnac_std"),)),
        lines=("MNAC: {mnac}", "MNAC: {mnac_std}"),  # the deviation, under the name that the original prints
    ),
    "CD": Command(
        text="Correlation difference (CD): attributes that change with the explained one, "
        "against those that occur with it.",
        metric="cd",
        flags=RESULTS | ANNOTATED,
        find=partial(find_figure, told="query_label"),
        lines=("Lenght: {n}", "CD Result: {cd}"),  # so spelled by the original
    ),
    "COUT": Command(
        text="Counterfactual transition (COUT): how few changed pixels carry the decision over.",
        metric="cout",
        flags=RESULTS | CLASSIFIER,
        find=find_cout,
        lines=("EVAL [COUT: {cout}]", "EVAL [COUT normalised: {cout_normalised}]"),
        form=".6f",
        names={"weights_path": "classifier_path"},
        batch=10,
    ),
    "LPIPS": Command(
        text="Diversity (sigma_L): the mean LPIPS between the counterfactuals that several runs give for one picture.",
        metric="lpips",
        flags=OUTPUT | RUNS,
        find=partial(find_figure, told="exp_values", where=", in the same folder in all runs"),
        lines=("LPIPS: {lpips}",),
    ),
    "transfer": Command(
        text="Transfer: how often a counterfactual that convinces the attacked classifier convinces unseen ones, too.",
        metric="transfer",
        flags=RESULTS | UNSEEN,
        find=find_transfer,
        names={"classifier": "unseen", "classifier_arch": "unseen_arch"},
    ),
}


def config_of(command: Command) -> type:
    """The settings of a command."""
    batch = flag(command.batch, "pictures at once; the figure does not depend on it", low=1)
    own = command.flags | {"batch_size": batch, "json": flag("", "file to write the figure to, beside printing it")}
    flags = make_dataclass("Flags", [(name, Any, item) for name, item in own.items()], frozen=True)
    groups = [("flags", flags, group(flags, "figure")), ("device", DeviceConfig, group(DeviceConfig, "where"))]
    return make_dataclass("Config", groups, frozen=True)


def run(name: str, argv: Sequence[str] | None = None) -> int:
    """The command ``name`` of COMMANDS."""
    command = COMMANDS[name]
    return program(config_of(command), command.text, hyphens=True)(partial(carry_out, command))(argv)


def carry_out(command: Command, config: Any) -> int:
    flags, metric = to_dict(config), METRICS[command.metric]
    output, plain = Path(flags["output_path"]), metric.name != "transfer"
    if not Path(flags["json"]).parent.is_dir():
        raise FlagError("json", f"{flags['json']}: its folder does not exist")
    names = run_names(flags) if "exp_values" in flags else [flags["exp_name"]]
    with spelled_as(command), tempfile.TemporaryDirectory() as cache:
        experiments = [open_plain(output, exp, metric.population, settings=not plain) for exp in names]
        for stored in experiments:
            notice(f"{len(stored.pairs)} pairs ({metric.population.name}) of {stored.name}")
        settings = from_dict(EvaluateConfig, evaluation_flags(command, flags, experiments))
        session = Session(settings, Path(cache), choose_device(flags["device"], flags["gpu"]))
        originals = stored_originals(output)
        further = tuple((originals["Incorrect"] | originals["Correct"]).values()) if metric.asked == "sets" else ()
        some = any(stored.pairs for stored in experiments)
        ask(session, experiments, [metric], strict=some, further=further)
        found = command.find(metric, session.subjects, flags)
        shown = {key: "n/a (0 images)" if v is None else format(v, command.form) for key, v in found.figures.items()}
        for line in found.lines or command.lines:
            print(line.format(n=found.n, **shown))
        if flags["json"]:
            figures = {"figures": found.figures, "population": found.population or metric.population.name, "n": found.n}
            about = {"output_path": flags["output_path"], "exp_name": flags.get("exp_name") or flags["exp_pattern"]}
            weights = {"weights": digests(flags, session)}
            atomic.write_json(Path(flags["json"]), figures | about | weights | found.more)
    return 0


def evaluation_flags(
    command: Command, flags: dict[str, Any], experiments: Sequence[StoredExperiment]
) -> dict[str, Any]:
    """The command's flags as evaluate.py's."""
    values = {command.names.get(name, name): value for name, value in flags.items()}
    if any(stored.pairs for stored in experiments):
        values |= {name: flags[name] or HUB for name in FETCHED if name in flags}
    if experiments[0].settings:
        values["dataset"] = ""  # the run's own
    if command.metric == "cout" and flags["dataset"] == "ImageNet" and not flags["weights_path"]:
        load_classifier("", **spec_of("ImageNet").classifier())  # torchvision's, fetched on first use
    return values


def digests(flags: dict[str, Any], session: Session) -> dict[str, dict[str, str]]:
    """File and SHA-256 of the weights that were given."""
    files = {}
    for name in WEIGHTS:
        given = flags.get(name) or ()
        files |= {name: given} if isinstance(given, str) else {f"{name} {i}": file for i, file in enumerate(given)}
    return {name: {"file": file, "sha256": session.digest(file)} for name, file in files.items()}


@contextmanager
def spelled_as(command: Command) -> Iterator[None]:
    """Errors name this command's flags."""
    own = {theirs: flag for flag, theirs in command.names.items()}
    try:
        yield
    except FlagError as error:
        raise FlagError(own.get(error.field, error.field), error.reason) from None


def run_names(flags: dict[str, Any]) -> list[str]:
    """Of LPIPS: the pattern with each value in it."""
    pattern, values = flags["exp_pattern"], flags["exp_values"]
    if "*" not in pattern:
        raise FlagError("exp_pattern", f"{pattern}: wanted a name with a * in it")
    if len(set(values)) < max(2, len(values)):
        raise FlagError("exp_values", f"{' '.join(values)}: wanted two or more, all different")
    return [pattern.replace("*", value) for value in values]


def main(argv: Sequence[str] | None = None) -> int:
    """``argv``: the name of a command, then its flags.  Raises ValueError for a name that there is not."""
    return run(*choose(argv, {name: command.text for name, command in COMMANDS.items()}, "FIGURE"))


if __name__ == "__main__":
    run_script(main)
