"""Adversarial counterfactual explanations: what would have to change in a picture for a classifier to decide otherwise?

    from ace_counterfactuals import ACE, load_classifier, load_denoiser
    ACE(load_classifier(FILE), load_denoiser(FILE, preset=NAME), preset=NAME).explain(images, target="sneaker").show()

An installed package holds ``core``, ``models`` and ``guided_diffusion``; in a clone they lie beside this folder.
"""

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ace_counterfactuals.core.api.ace import ACE, explain, refine
    from ace_counterfactuals.core.api.adaptors import Counterfactuals, quantus_explain
    from ace_counterfactuals.core.api.evaluation import evaluate
    from ace_counterfactuals.core.api.explanation import Explanation
    from ace_counterfactuals.core.method.config import AttackConfig, SamplingConfig
    from ace_counterfactuals.models.classifiers import load_classifier
    from ace_counterfactuals.models.denoisers import load_denoiser

__all__ = [
    "ACE",
    "AttackConfig",
    "Counterfactuals",
    "Explanation",
    "SamplingConfig",
    "evaluate",
    "explain",
    "load_classifier",
    "load_denoiser",
    "quantus_explain",
    "refine",
]

if not (Path(__file__).parent / "core").is_dir():
    __path__.append(str(Path(__file__).resolve().parent.parent))

_HOMES = {
    "core.api.ace": ("ACE", "explain", "refine"),
    "core.api.adaptors": ("Counterfactuals", "quantus_explain"),
    "core.api.evaluation": ("evaluate",),
    "core.api.explanation": ("Explanation",),
    "core.method.config": ("AttackConfig", "SamplingConfig"),
    "models.classifiers": ("load_classifier",),
    "models.denoisers": ("load_denoiser",),
}


def __getattr__(name: str):
    """A public name, whose module is imported now: the programs import this package without torch."""
    for module, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
