"""Explain a classifier: what would have to change in a picture for it to decide otherwise?"""

import yaml

import core.interrupt  # noqa: F401 - first, before torch is imported
from core.config import MainConfig
from core.datasets import EmptySelection
from core.experiment import chunk_name, summary_table
from core.flags import UserError, parse, run_script
from core.launchers import AUTO, place
from core.notices import notice
from core.preflight import preflight
from core.preflight.report import render
from core.runs import run


def main(argv=None) -> int:
    typed = parse(MainConfig, __doc__, argv)
    config = place(typed)
    if config.run.check:
        report = preflight(config)
        print(render(report))
        return 1 if report.problems else 0
    try:
        results = run(config)
    except EmptySelection as error:
        if typed.run.chunk != AUTO or error.rule != "chunk":
            raise
        notice(f"nothing to do: {error}")  # more tasks than pictures are no failure
        return 0
    summary = results.root / chunk_name(config, "summary.yaml")
    if not summary.exists():
        raise UserError(f"no picture could be explained; see the notes above and {results.records_folder}")
    print(summary_table(yaml.safe_load(summary.read_text())))
    sheet = results.root / chunk_name(config, "sheet.png")
    if sheet.exists():
        print(f"look at {sheet}")
    print(f"tables, pictures and config.yaml are in {results.root}")
    return 0


if __name__ == "__main__":
    run_script(main)
