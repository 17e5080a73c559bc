"""Check every record, picture and table of an experiment; move aside what is damaged, so that the next run redoes it.

Exits with 1 if anything was found.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from ace_counterfactuals.core.cli.parsing import Parser, run_script
from ace_counterfactuals.core.runs.layout import ResultFolder
from ace_counterfactuals.core.runs.verify import verify


def main(argv=None) -> int:
    parser = Parser(description=__doc__, allow_abbrev=False)
    parser.add_argument("output", help="the run's --output_path")
    parser.add_argument("exp_name", help="the run's --exp_name")
    given = parser.parse_args(argv)
    results = ResultFolder(Path(given.output), given.exp_name)
    findings = verify(results)
    for finding in findings:
        print(finding.reason)
    if findings:
        print(f"{len(findings)} found; what was damaged lies in {results.log / 'damaged'}, and the next run redoes it")
        return 1
    print(f"{results.root}: all is as its records say")
    return 0


if __name__ == "__main__":
    run_script(main)
