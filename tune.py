"""Find settings for a classifier, its pictures and a diffusion model."""

from ace_counterfactuals.core.cli.parsing import run_script

if __name__ == "__main__":
    run_script("tune")
