"""Transfer: how often a counterfactual that convinces the attacked classifier convinces unseen ones, too."""

from ace_counterfactuals.core.cli.parsing import run_script

if __name__ == "__main__":
    run_script("compute", "transfer")
