"""Every figure that the given weights allow, of one experiment or of several, and a page to look at."""

from ace_counterfactuals.core.cli.parsing import run_script

if __name__ == "__main__":
    run_script("evaluate")
