"""When the attack of a picture is done before its last iteration."""

from dataclasses import replace

from torch import Tensor

from ace_counterfactuals.core.method.config import AttackConfig
from ace_counterfactuals.core.method.objectives import confidence
from ace_counterfactuals.core.method.progress import Progress
from ace_counterfactuals.core.method.task import Batch

MEMORY = 0.7
"""The weight, in the moving average of a picture's confidence, of what it was before."""


class Stopping:
    """Which pictures of a batch are done, by ``attack_stop_confidence`` and ``attack_stop_patience``.

    ``Progress`` has what is remembered of each: the average, and for how many iterations it is above the confidence.
    """

    def __init__(self, config: AttackConfig):
        self.config = config
        self.logits: Tensor | None = None

    @property
    def on(self) -> bool:
        return self.config.attack_stop_confidence < 1

    def see(self, logits: Tensor) -> None:
        """The classifier's, on the pictures that the attack's gradient was taken at."""
        self.logits = logits.detach() if self.on else None

    def count(self, at: Progress, batch: Batch) -> Progress:
        """With what was seen of ``batch``, the pictures that are attacked.  Waits for the device if stopping is on."""
        if self.logits is None:
            return at
        now = confidence(self.logits, batch.prediction, batch.target).cpu().double()
        average, above = at.average.clone(), at.above.clone()
        average[at.rows] = MEMORY * average[at.rows] + (1 - MEMORY) * now
        passed = average[at.rows] > self.config.attack_stop_confidence
        above[at.rows] = (above[at.rows] + 1).where(passed, 0)
        return replace(at, average=average, above=above)

    def left(self, at: Progress) -> list[int]:
        """Places, among the pictures that are attacked, of those that are not done."""
        above = at.above[at.rows].tolist()
        return [place for place, times in enumerate(above) if times < self.config.attack_stop_patience]
