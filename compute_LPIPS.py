"""Diversity (sigma_L): the mean LPIPS between the counterfactuals that several runs give for one picture."""

from ace_counterfactuals.core.cli.parsing import run_script

if __name__ == "__main__":
    run_script("compute", "LPIPS")
