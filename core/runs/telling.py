"""What a run tells while it goes on: a bar in a terminal, a line now and then elsewhere, and a sheet that grows."""

import sys
import time
from collections.abc import Sequence

from tqdm import tqdm

from ace_counterfactuals.core.base.notices import notice
from ace_counterfactuals.core.method.progress import Progress
from ace_counterfactuals.core.runs.records import Record

QUIET = 300.0  # seconds between two lines of progress where there is no terminal
BAR = "{n_fmt}/{total_fmt} images |{bar}| {remaining} left{postfix}"


class Telling:
    """Of ``total`` pictures that are to be explained."""

    def __init__(self, total: int):
        self.total, self.done, self.flips = total, 0, 0
        self.began = self.told = time.monotonic()
        self.bar = tqdm(total=total, bar_format=BAR, disable=None, file=sys.stderr, miniters=0)

    def see(self, at: Progress) -> None:
        """After an iteration of an attack."""
        self._show(f"in hand: {len(at)} after {at.told} iterations")

    def add(self, records: Sequence[Record]) -> None:
        """Pictures that are written."""
        self.done += len(records)
        self.flips += sum(record.outcomes["explanation"].success for record in records)
        self._show(written=len(records))
        if self.bar.disable and time.monotonic() - self.told >= QUIET:
            self.told = time.monotonic()
            notice(f"{self.done} of {self.total} pictures done, {self.flips} flipped")

    def _show(self, hand: str = "", written: int = 0) -> None:
        rate = 60 * self.done / (time.monotonic() - self.began)
        so_far = f"{rate:.1f} images/min, {self.flips} of {self.done} flipped" if self.done else ""
        with self.bar.get_lock():  # who writes pictures is another thread than who attacks them
            self.bar.set_postfix_str(", ".join(filter(None, (so_far, hand))), refresh=False)
            self.bar.update(written)
