"""Ask about a picture in the browser: drop it in, pick a class, paint where it may change, and watch."""

from ace_counterfactuals.core.cli.parsing import run_script

if __name__ == "__main__":
    run_script("app")
