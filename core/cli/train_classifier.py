"""Train a classifier on a data set with classes; the file it writes is what --classifier_path of main.py takes."""

from ace_counterfactuals.core.cli.parsing import program
from ace_counterfactuals.core.training.config import TrainClassifierConfig


@program(TrainClassifierConfig, __doc__)
def main(config: TrainClassifierConfig) -> int:
    from ace_counterfactuals.core.report.training import PAGE, write_training_page
    from ace_counterfactuals.core.training.classifier import train

    path = config.training.output_path
    classes, accuracy = train(config, write_training_page)
    measured = "" if accuracy is None else f", accuracy on --val_dir {accuracy:.4f}"
    print(f"{path}: {config.training.arch}, {len(classes)} classes{measured}; look at {path}.training/{PAGE}")
    return 0
