"""Mean number of attributes changed (MNAC), and its standard deviation over the pictures."""

from ace_counterfactuals.core.cli.parsing import run_script

if __name__ == "__main__":
    run_script("compute", "MNAC")
