"""Train a classifier on a data set with classes; the file it writes is what --classifier_path of main.py takes."""

from ace_counterfactuals.core.cli.parsing import program
from ace_counterfactuals.core.training.config import TrainClassifierConfig


@program(TrainClassifierConfig, __doc__)
def main(config: TrainClassifierConfig) -> int:
    from ace_counterfactuals.core.training.classifier import train

    classes, accuracy = train(config)
    measured = "" if accuracy is None else f", accuracy on --val_dir {accuracy:.4f}"
    print(f"{config.training.output_path}: {config.training.arch}, {len(classes)} classes{measured}")
    return 0
