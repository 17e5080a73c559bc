"""Transfer: how often a counterfactual that convinces the attacked classifier convinces unseen ones, too."""

from dataclasses import dataclass, replace
from pathlib import Path

from ace_counterfactuals.core.base.settings import UserError, flag, group
from ace_counterfactuals.core.cli.parsing import program, run_script
from ace_counterfactuals.core.data.datasets import DATASETS
from ace_counterfactuals.core.evaluation.metrics.command import (
    ComputeConfig,
    ResultsConfig,
    make_reader,
    open_pairs,
    shown,
    write_figures,
)
from ace_counterfactuals.core.evaluation.metrics.transfer import Transfer, transfer
from ace_counterfactuals.core.evaluation.metrics.unseen import Attacked, ask_unseen, attacked_classifier, load_unseen
from ace_counterfactuals.core.evaluation.pictures import FLIPPED
from ace_counterfactuals.core.runs.experiment import find_experiment


@dataclass(frozen=True, kw_only=True)
class UnseenConfig:
    classifier: tuple = flag((), "files of classifiers that were not attacked", kind=str, many=True)
    classifier_arch: str = flag("", "torchvision's name of the classifiers whose files do not tell")
    dataset: str = flag("", "data set of the attacked classifier, where no config.yaml tells", choices=tuple(DATASETS))
    query_label: int = flag(-1, "attribute that it decides (binary sets), where no config.yaml tells", low=-1)


@dataclass(frozen=True, kw_only=True)
class Config:
    results: ResultsConfig = group(ResultsConfig, "results")
    unseen: UnseenConfig = group(UnseenConfig, "unseen classifiers")
    compute: ComputeConfig = group(ComputeConfig, "where")


def find_attacked(root: Path, flags: UnseenConfig) -> Attacked:
    """From the experiment's config.yaml, or, for a folder of the original program, from the flags."""
    stored = attacked_classifier(root)
    if stored is None and not flags.dataset:
        raise UserError(f"{root}: no config.yaml tells the data set of the attacked classifier; give --dataset")
    return stored or Attacked(flags.dataset, flags.query_label)


def describe(figure: Transfer) -> str:
    if figure.share is None:
        return f"transfer {shown(None)}"
    return (
        f"transfer {figure.share:.3f} (95 %: {figure.low:.3f} to {figure.high:.3f}), "
        f"target probability {figure.movement:+.3f}, n = {figure.n}"
    )


@program(Config, __doc__, hyphens=True)
def main(config: Config) -> int:
    flags, output = config.unseen, Path(config.results.output_path)
    reader, root = make_reader(config.compute), find_experiment(output, config.results.exp_name)
    results = replace(config.results, exp_name=root.relative_to(output / "Results").as_posix())
    attacked, pairs = find_attacked(root, flags), open_pairs(results, FLIPPED)
    networks = load_unseen(flags.classifier, attacked, reader.device, arch=flags.classifier_arch)
    verdicts = ask_unseen(networks, pairs, reader)
    figures, pooled = {file: transfer([v]) for file, v in verdicts.items()}, transfer(list(verdicts.values()))
    for name, figure in {**figures, "pooled": pooled}.items():
        print(f"{name}: {describe(figure)}")
    write_figures(
        config.compute.json,
        {"transfer": pooled.share, "movement": pooled.movement},
        results=results,
        population=f"{FLIPPED.name}, originals classified alike",
        n=pooled.n,
        weights={f"classifier {i}": file for i, file in enumerate(flags.classifier)},
        pooled=pooled.to_dict(),
        classifiers={file: figure.to_dict() for file, figure in figures.items()},
    )
    return 0


if __name__ == "__main__":
    run_script(main)
