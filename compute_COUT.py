"""Counterfactual transition (COUT): how few changed pixels carry the decision over."""

from ace_counterfactuals.core.cli.parsing import run_script

if __name__ == "__main__":
    run_script("compute", "COUT")
