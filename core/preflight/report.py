"""What a check has to say, and figures for people."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch

TITLES = ("pictures", "classifier", "filter", "cost", "disk")


@dataclass
class Report:
    """sections: lines by title, none of what could not be measured.  problems: what is wrong or looks wrong."""

    sections: dict[str, list[str]] = field(default_factory=lambda: {title: [] for title in TITLES})
    problems: list[str] = field(default_factory=list)

    @contextmanager
    def going_on(self) -> Iterator[None]:
        """Within, a mistake of the user's is a problem, and no end of the check."""
        try:
            yield
        except (ValueError, OSError, torch.OutOfMemoryError) as error:
            self.problems.append(" ".join(str(error).split()))

    def render(self) -> str:
        """The report for a terminal, problems last."""
        lines = []
        for title, found in self.sections.items():
            first, *others = found or ["not measured, see the problems"]
            lines += [f"{title:<12}{first}", *(f"{'':<12}{line}" for line in others)]
        problems = [f"problem     {line}" for line in dict.fromkeys(self.problems)]
        return "\n".join([*lines, *(problems or ["no problems"])])


def part_of(end: float, share: float) -> float:
    """When a share, in [0, 1], of the time that is left until ``end`` will be over (``time.monotonic``)."""
    now = time.monotonic()
    return now + share * (end - now)
