"""What a check has to say, the time that it has for it, and figures for people."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass
class Section:
    """lines: what was found.  problems: what of it is wrong or looks wrong."""

    lines: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


class Budget:
    """Seconds that may still be spent."""

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic):
        self.clock = clock
        self.end = clock() + seconds

    @property
    def left(self) -> float:
        return max(0.0, self.end - self.clock())

    def share(self, part: float) -> "Budget":
        """A part, in [0, 1], of what is left."""
        return Budget(part * self.left, self.clock)


def in_time(seconds: float) -> str:
    """'12 ms', '3.2 s', '10 min', '10 h' or '12 days'."""
    if seconds < 1:
        return f"{1000 * seconds:.0f} ms"
    if seconds < 120:
        return f"{seconds:.1f} s"
    if seconds < 2 * 3600:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.0f} h" if seconds < 72 * 3600 else f"{seconds / 86400:.0f} days"


def in_bytes(count: float) -> str:
    """'12 B', '2.0 KiB', and so on to TiB."""
    unit = 0
    while count >= 1024 and unit < 4:
        count, unit = count / 1024, unit + 1
    return f"{count:.{1 if unit and count < 10 else 0}f} {('B', 'KiB', 'MiB', 'GiB', 'TiB')[unit]}"
