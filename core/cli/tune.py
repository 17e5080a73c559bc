"""Find settings for your classifier, pictures and diffusion model: how much noise, how long and strong an attack.

From 8 to 16 pictures: first what the filter alone leaves of the predictions, then a search within --budget. Writes
tuned.yaml, a preset for the other commands, and its evidence in tuning/ beside it.
"""

import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ace_counterfactuals.core.base.settings import flag_items, flags_of, from_dict, to_dict
from ace_counterfactuals.core.cli.parsing import program
from ace_counterfactuals.core.method.config import AttackConfig, SamplingConfig
from ace_counterfactuals.core.runs.config import MainConfig
from ace_counterfactuals.core.tuning.config import SearchConfig, TuneConfig

UNTOLD = flags_of(AttackConfig).keys() | flags_of(SamplingConfig).keys() | flags_of(SearchConfig).keys()
"""The flags that the preset has, or that are of the search alone"""


def settle(config: TuneConfig, typed: Mapping[str, Any], others: Mapping[str, Any]) -> tuple[TuneConfig, dict]:
    """With what the diffusion model's own files say of it, and a preset where none is given; beside it all settings
    that were given."""
    from ace_counterfactuals.core.runs.setup import settle_model
    from ace_counterfactuals.core.tuning.ground import start_of

    known = flag_items(MainConfig)
    of_main = [{name: one[name] for name in one if name in known} for one in (typed, others)]
    settled = to_dict(settle_model(config.main, *of_main)) | vars(config.search)
    return from_dict(TuneConfig, settled | start_of(settled["image_size"], *of_main)), {**others, **typed}


@program(TuneConfig, __doc__.splitlines()[0], settle=settle)
def main(asked: tuple[TuneConfig, dict]) -> int:
    from ace_counterfactuals.core.evaluation.tables import aligned, number
    from ace_counterfactuals.core.tuning.search import tune

    config, given = asked
    found = tune(config)
    rows = [["", "flips", "l1", "validity", "transfer", "iterations"]]
    for name, row in (("start", found.start), ("tuned", found.best)):
        figures = ["" if row[key] is None else number(row[key]) for key in ("flip", "l1", "validity", "transfer")]
        rows.append([name, *figures, str(row["attack_iterations"])])
    print(aligned(rows))
    print(f"{found.trials} trials on {found.best['n']} pictures; look at {found.folder}/filter.png and trials.png")
    print(f"go on with: {following(given, found.preset)}")
    return 0


def following(given: Mapping[str, Any], preset: Path) -> str:
    """The command that explains with the preset, and with what else was given."""
    in_ace = sys.argv[0].startswith("ace ")
    words = ["ace", "explain"] if in_ace else ["python", "main.py"]
    words += ["--preset", str(preset)]
    for name, value in given.items():
        if name not in UNTOLD and name != "num_samples":
            words += [f"--{name}", *map(str, value if isinstance(value, tuple) else [value])]
    return shlex.join(words)
