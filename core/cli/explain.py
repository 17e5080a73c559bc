"""Explain a classifier: what would have to change in a picture for it to decide otherwise?

What imports torch is imported when it is needed: --status answers without it, and signals are answered before it.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ace_counterfactuals.core.cli.launchers import AUTO, place, run_part
from ace_counterfactuals.core.cli.parsing import program
from ace_counterfactuals.core.runs.config import MainConfig
from ace_counterfactuals.core.runs.layout import ResultFolder
from ace_counterfactuals.core.runs.status import status


def settle(config: MainConfig, typed: Mapping[str, Any], others: Mapping[str, Any]) -> MainConfig:
    """With what the diffusion model's own files say of it."""
    if config.run.status:
        return config
    from ace_counterfactuals.core.runs.setup import settle_model

    return settle_model(config, typed, others)


@program(MainConfig, __doc__.splitlines()[0], settle=settle)
def main(typed: MainConfig) -> int:
    if typed.run.status:
        print(status(ResultFolder(Path(typed.output.output_path), typed.output.exp_name)))
        return 0
    config = place(typed)
    return check(config) if config.run.check else explain(config, automatic=typed.run.chunk == AUTO)


def check(config: MainConfig) -> int:
    from ace_counterfactuals.core.preflight import preflight

    report = preflight(config)
    print(report.render())
    return 1 if report.problems else 0


def explain(config: MainConfig, *, automatic: bool) -> int:
    from ace_counterfactuals.core.runs.run import run
    from ace_counterfactuals.core.runs.tables import chunk_name, read_summary, summary_table

    results = run_part(run, config, automatic=automatic)
    if results is None:
        return 0
    summary = results.root / chunk_name(config, "summary.yaml")
    if not summary.exists():
        raise ValueError(f"no picture could be explained; see the notes above and {results.records_folder}")
    print(summary_table(read_summary(summary)))
    sheet = results.root / chunk_name(config, "sheet.png")
    if sheet.exists():
        print(f"look at {sheet}")
    print(f"tables, pictures and config.yaml are in {results.root}")
    if config.run.chunks > 1 and not config.run.merge_chunks:
        print(f"when all {config.run.chunks} chunks are done, --merge_chunks True gathers them into one summary")
    return 0
