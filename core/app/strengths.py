"""How hard an attack tries, in three words, and the settings behind them, which a page may set."""

from typing import Any

from ace_counterfactuals.core.method.config import AttackConfig

TUNABLE = (
    "seed",
    "attack_iterations",
    "attack_stop_confidence",
    "attack_step",
    "attack_epsilon",
    "dist_l1",
    "dist_l2",
    "sampling_time_fraction",
    "sampling_inpaint",
    "sampling_dilation",
    "refine_time_fraction",
)
"""Settings of main.py"""

ENOUGH = {"careful": 0.8, "usual": 0.95, "strong": 1.0}
"""How sure the classifier has to be of the filtered picture for an attack to end before its last iteration"""
DISTANCE = {"careful": 2.0, "usual": 1.0, "strong": 0.5}
"""How much a change counts against it, relative to the settings that the app was started with"""


def strengths(attack: AttackConfig) -> dict[str, dict[str, Any]]:
    """Word -> settings.  attack: those that the app was started with."""
    own = attack.attack_stop_confidence
    return {
        word: {
            "attack_stop_confidence": own if own < 1 and word == "usual" else enough,
            "dist_l1": attack.dist_l1 * DISTANCE[word],
            "dist_l2": attack.dist_l2 * DISTANCE[word],
        }
        for word, enough in ENOUGH.items()
    }
