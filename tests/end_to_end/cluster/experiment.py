"""An experiment that is long enough to be interrupted, and what it leaves when it is not."""

import re
from pathlib import Path

from ace_counterfactuals.core.cli.explain import main
from tests.support.toys import Workshop, tree, write_pictures


class Experiment(Workshop):
    """Pictures one at a time, so that every way of splitting them gives the same bytes; a third of a second each.

    Each run of it has an output folder of its own.
    """

    def __init__(self, folder: Path):
        super().__init__(folder)
        write_pictures(self.data, count=40)
        self.known: dict[int, dict[str, bytes]] = {}

    def flags_of(self, run: str, num_samples: int, **changes) -> list[str]:
        settings = {"batch_size": 1, "attack_iterations": 40, "output_path": self.folder / run}
        return self.arguments(**settings, num_samples=num_samples, **changes)

    def root(self, run: str) -> Path:
        return self.folder / run / "Results" / "exp"

    def finished(self, run: str) -> int:
        """Pictures that have a record."""
        return len(list((self.root(run) / "records").glob("*.json")))

    def undisturbed(self, num_samples: int) -> dict[str, bytes]:
        """The tree that one process writes at one go."""
        if num_samples not in self.known:
            run = f"undisturbed-{num_samples}"
            assert main(self.flags_of(run, num_samples)) == 0
            self.known[num_samples] = self.tree(run)
        return self.known[num_samples]

    def tree(self, run: str) -> dict[str, bytes]:
        """Every file but those of a process or a chunk alone, and of the evaluation."""
        own = re.compile(r"c-\d+_\d+-|evaluation/")
        return {name: data for name, data in tree(self.root(run)).items() if not own.match(name)}
