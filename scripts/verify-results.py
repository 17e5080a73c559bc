"""Check every record, picture and table of an experiment."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from ace_counterfactuals.core.cli.parsing import run_script

if __name__ == "__main__":
    run_script("verify")
