"""Check every record, picture and table of an experiment; move aside what is damaged, so that the next run redoes it.

Exits with 1 if anything was found.
"""

from pathlib import Path

from ace_counterfactuals.core.cli.parsing import Parser, showing_notices
from ace_counterfactuals.core.runs.layout import ResultFolder
from ace_counterfactuals.core.runs.verify import verify


def main(argv=None) -> int:
    parser = Parser(description=__doc__, allow_abbrev=False)
    parser.add_argument("output", help="the run's --output_path")
    parser.add_argument("exp_name", help="the run's --exp_name")
    given = parser.parse_args(argv)
    results = ResultFolder(Path(given.output), given.exp_name)
    with showing_notices():
        findings = verify(results)
    for finding in findings:
        print(f"{finding.reason}; {finding.remedy}")
    if findings:
        print(f"{len(findings)} found; what was damaged lies in {results.log / 'damaged'}")
        return 1
    print(f"{results.root}: all is as its records say")
    return 0
