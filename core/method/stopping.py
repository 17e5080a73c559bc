"""When the attack of a picture is done before its last iteration."""

from collections.abc import Sequence

from torch import Tensor

from ace_counterfactuals.core.method.config import AttackConfig
from ace_counterfactuals.core.method.objectives import confidence
from ace_counterfactuals.core.method.task import Batch

MEMORY = 0.7
"""The weight, in the moving average of a picture's confidence, of what it was before."""


class Stopping:
    """Which pictures of a batch are done, by ``attack_stop_confidence`` and ``attack_stop_patience``."""

    def __init__(self, config: AttackConfig):
        self.config = config
        self.average: dict[int, float] = {}
        self.above: dict[int, int] = {}
        self.logits: Tensor | None = None

    @property
    def on(self) -> bool:
        return self.config.attack_stop_confidence < 1

    def see(self, logits: Tensor) -> None:
        """The classifier's, on the pictures that the attack's gradient was taken at."""
        self.logits = logits.detach() if self.on else None

    def done(self, batch: Batch, rows: Sequence[int]) -> set[int]:
        """Those of ``rows``, the pictures of ``batch``, that are done now.  Waits for the device if stopping is on."""
        if self.logits is None:
            return set()
        now = confidence(self.logits, batch.prediction, batch.target).tolist()
        for row, value in dict(zip(rows, now, strict=True)).items():
            self.average[row] = MEMORY * self.average.get(row, 0.0) + (1 - MEMORY) * value
            passed = self.average[row] > self.config.attack_stop_confidence
            self.above[row] = self.above.get(row, 0) + 1 if passed else 0
        return {row for row in rows if self.above[row] >= self.config.attack_stop_patience}
