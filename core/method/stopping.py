"""When the attack of a picture is done: after its last iteration, or before."""

from dataclasses import replace

from torch import Tensor

from ace_counterfactuals.core.method.attacks import ATTACKS
from ace_counterfactuals.core.method.config import AttackConfig
from ace_counterfactuals.core.method.objectives import confidence
from ace_counterfactuals.core.method.progress import Progress

MEMORY = 0.7
"""The weight, in the moving average of a picture's confidence, of what it was before."""


class Stopping:
    """Which pictures are done, by the iterations, ``attack_stop_confidence`` and ``attack_stop_patience``.

    ``Progress`` has what is remembered of each: the average, and for how many iterations it is above the confidence.
    """

    def __init__(self, config: AttackConfig):
        attacks = ATTACKS[config.attack_method] is not None
        self.iterations, self.patience = config.attack_iterations if attacks else 0, config.attack_stop_patience
        self.confidence, self.early = config.attack_stop_confidence, attacks and config.attack_stop_confidence < 1
        self.logits: Tensor | None = None

    def see(self, logits: Tensor) -> None:
        """The classifier's, on the pictures that the attack's gradient was taken at."""
        self.logits = logits.detach() if self.early else None

    def count(self, at: Progress) -> Progress:
        """With what was seen of its pictures.  Waits for the device if pictures may end early."""
        if self.logits is None:
            return at
        now = confidence(self.logits, at.batch.prediction, at.batch.target).cpu().double()
        average = MEMORY * at.average + (1 - MEMORY) * now
        return replace(at, average=average, above=(at.above + 1).where(average > self.confidence, 0))

    def left(self, at: Progress) -> list[int]:
        """Places of the pictures that are not done."""
        open_ = (at.iterations < self.iterations) & (at.above < self.patience)
        return open_.nonzero()[:, 0].tolist()
