"""Refine stored pre-explanations again: other masks, other steps of the diffusion, another seed or diffusion model."""

from ace_counterfactuals.core.cli.parsing import run_script

if __name__ == "__main__":
    run_script("refine")
