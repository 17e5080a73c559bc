"""Ask about a picture in the browser: drop it in, pick a class, paint where it may change, and watch.

Without settings it has the demo's networks and pictures. It answers at this machine's own address alone, unless --host
names another one, and a password is set.
"""

import sys
import threading
import webbrowser
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from ace_counterfactuals.core.app.config import AppConfig
from ace_counterfactuals.core.base.presets import PRESETS
from ace_counterfactuals.core.base.settings import flag_items
from ace_counterfactuals.core.cli.parsing import program
from ace_counterfactuals.core.runs.config import MainConfig
from ace_counterfactuals.core.runs.described import WEIGHTS

NAMED = ("preset", "model_path", "classifier", "classifier_path")
DEMO = PRESETS.parent / "demo"


def settle(config: AppConfig, typed: Mapping[str, Any], others: Mapping[str, Any]) -> AppConfig:
    """With what the diffusion model's own files say of it, and whole paths, which a saved result names."""
    from ace_counterfactuals.core.runs.setup import settle_model

    known = flag_items(MainConfig)
    of_main = [{name: one[name] for name in one if name in known} for one in (typed, others)]
    settled = settle_model(config.main, *of_main)
    files = {name: path for name in WEIGHTS if (path := getattr(settled.weights, name)) and Path(path).exists()}
    whole = {name: str(Path(path).absolute()) for name, path in files.items()}
    return config.settled(replace(settled, weights=replace(settled.weights, **whole)))


@program(AppConfig, __doc__.splitlines()[0], settle=settle)
def serve(config: AppConfig) -> int:
    try:
        from ace_counterfactuals.core.app import serving
    except ModuleNotFoundError as error:
        raise ValueError(f"{error.name} is not installed: pip install 'ace-counterfactuals[app]'") from None

    def ready(address: str) -> None:
        print(f"open {address}    (Ctrl-C ends it)", flush=True)
        if config.serving.open_browser:
            with suppress(webbrowser.Error):
                threading.Thread(target=webbrowser.open, args=(address,), daemon=True).start()

    return serving.serve(config, ready)


def main(argv: Sequence[str] | None = None, *, dataset: str = "") -> int:
    """With the demo's networks, where none are named.  Raises ValueError where these are not there."""
    words = list(sys.argv[1:] if argv is None else argv)
    asks_help = {"-h", "--help"} & {*words}
    if not asks_help and not any(word.partition("=")[0].removeprefix("--") in NAMED for word in words):
        if not (DEMO / "ddpm.pt").exists():
            lie = "no networks: the demo's lie in a clone of the repository"
            raise ValueError(f"{lie}; give --model_path and --classifier, or a --preset")
        unseen = [] if "--unseen" in words else ["--unseen", *map(str, sorted(DEMO.glob("unseen_*.pt")))]
        words = ["--preset", "fashion", *unseen, *words]
    return serve(words, dataset=dataset)
