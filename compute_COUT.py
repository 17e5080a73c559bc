"""Counterfactual transition (COUT): how few changed pixels carry the decision over."""

from dataclasses import dataclass

import torch

from ace_counterfactuals.core.base.settings import UserError, blaming, flag, group
from ace_counterfactuals.core.cli.parsing import program, run_script
from ace_counterfactuals.core.data.datasets import DATASETS, spec_of
from ace_counterfactuals.core.evaluation.metrics import cout
from ace_counterfactuals.core.evaluation.metrics.command import (
    ComputeConfig,
    ResultsConfig,
    make_reader,
    open_pairs,
    shown,
    write_figures,
)
from ace_counterfactuals.core.evaluation.pictures import CORRECT
from ace_counterfactuals.models import classifiers


@dataclass(frozen=True, kw_only=True)
class ClassifierConfig:
    weights_path: str = flag("", "weights of the classifier that was explained", path=True)
    dataset: str = flag("CelebA", "data set of the classifier", choices=DATASETS)
    query_label: int = flag(-1, "attribute (binary sets: any prediction is left) or class to leave", low=-1)
    target_label: int = flag(-1, "class to reach; of no effect on binary sets", low=-1)
    classifier_arch: str = flag("", "torchvision's name of the classifier, where its file does not tell")


@dataclass(frozen=True, kw_only=True)
class COUTComputeConfig(ComputeConfig):
    batch_size: int = flag(10, "pictures at once; the figure does not depend on it", low=1)


@dataclass(frozen=True, kw_only=True)
class Config:
    results: ResultsConfig = group(ResultsConfig, "results")
    classifier: ClassifierConfig = group(ClassifierConfig, "classifier")
    compute: COUTComputeConfig = group(COUTComputeConfig, "where")


def load_classifier(flags: ClassifierConfig) -> classifiers.Classifier:
    with blaming("weights_path"):
        query = flags.query_label if spec_of(flags.dataset).binary else None
        wanted = spec_of(flags.dataset).classifier(flags.classifier_arch)
        classifier = classifiers.load_classifier(flags.weights_path, query=query, **wanted)
    for name in () if classifier.binary else ("query_label", "target_label"):
        value = getattr(flags, name)
        if not 0 <= value < classifier.num_outputs:
            said = f"--{name.replace('_', '-')} {value}"
            raise UserError(f"{said}: wanted a class of the classifier, 0 to {classifier.num_outputs - 1}")
    return classifier


@program(Config, __doc__, hyphens=True)
def main(config: Config) -> int:
    flags = config.classifier
    reader, pairs = make_reader(config.compute), open_pairs(config.results, CORRECT)
    classifier = load_classifier(flags).to(reader.device)
    figures = dict.fromkeys(("cout", "cout_normalised"))
    if pairs:
        found = []
        for image, counterfactual in reader.pairs(pairs):
            found.append(cout.pair_areas(classifier, image, counterfactual, flags.query_label, flags.target_label))
            width = cout.total_width(image[0, 0].numel())
        value = torch.cat(found).mean().item()
        figures = {"cout": value, "cout_normalised": value / width}
    print(f"EVAL [COUT: {shown(figures['cout'], '.6f')}]")
    print(f"EVAL [COUT normalised: {shown(figures['cout_normalised'], '.6f')}]")
    write_figures(
        config.compute.json,
        figures,
        results=config.results,
        population=CORRECT.name,
        n=len(pairs),
        weights={"weights_path": flags.weights_path} if flags.weights_path else {},
        query_label=flags.query_label,
        target_label=None if classifier.binary else flags.target_label,
    )
    return 0


if __name__ == "__main__":
    run_script(main)
