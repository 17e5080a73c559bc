"""Train a classifier on a data set with classes; the file it writes is what --classifier_path of main.py takes."""

from ace_counterfactuals.core.cli.parsing import run_script

if __name__ == "__main__":
    run_script("train_classifier")
