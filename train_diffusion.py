"""Train a diffusion model on a data set, or continue: checkpoints load into main.py with the same flags."""

from ace_counterfactuals.core.cli.parsing import run_script

if __name__ == "__main__":
    run_script("train_diffusion")
