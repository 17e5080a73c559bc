"""Explain a classifier: what would have to change in a picture for it to decide otherwise?"""

from ace_counterfactuals.core.cli.parsing import run_script

if __name__ == "__main__":
    run_script("explain")
