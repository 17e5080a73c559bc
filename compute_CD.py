"""Correlation difference (CD): attributes that change with the explained one, against those that occur with it."""

from ace_counterfactuals.core.cli.parsing import run_script

if __name__ == "__main__":
    run_script("compute", "CD")
