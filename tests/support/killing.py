"""Runs of main.py in forked children, which get a signal, SIGKILL if not another, at a chosen instant.

Between any two system calls of whoever writes lies a fault point, and one lies before each pass through the diffusion
model. What the product does is not changed: its functions are wrapped in the child alone.
"""

import builtins
import io
import mmap
import os
import signal
import struct
import sys
import threading
import time
import warnings
from dataclasses import dataclass
from pathlib import Path

from ace_counterfactuals.core.base.signals import CODES
from ace_counterfactuals.core.cli.explain import main
from ace_counterfactuals.core.method import attacking as attacking_module
from ace_counterfactuals.core.method import explain as explain_module
from ace_counterfactuals.core.runs import run as run_module
from ace_counterfactuals.core.runs.layout import ResultFolder
from ace_counterfactuals.guided_diffusion.gaussian_diffusion import GaussianDiffusion
from tests.support.toys import exit_code

# What is before the first picture, between two and after the tables counts as loading.
PHASES = ("loading", "attack", "refinement", "writing", "summary")
CALLS = [(os, name) for name in ("open", "replace", "link", "fsync", "unlink", "mkdir", "pwrite")]
CALLS += [(io, "open"), (builtins, "open"), (GaussianDiffusion, "p_mean_variance")]


@dataclass(frozen=True)
class End:
    """How a child ended, in which phase, how many fault points it passed, and which iterations it began."""

    killed: bool
    phase: str
    points: int
    begun: tuple[str, ...]


class Faults:
    """Counts fault points in memory that the parent sees, and dies at the chosen one."""

    def __init__(self, shared: mmap.mmap, at: int | None, within: str | None, begun: int):
        self.shared, self.at, self.within, self.points, self.begun = shared, at, within, 0, begun
        self.now = ["loading", ""]  # of the main thread, and of the one that writes beside it

    def point(self) -> None:
        if self.within not in (None, (aside() and self.now[True]) or self.now[False]):
            return
        self.points += 1
        self.shared[1:5] = struct.pack("I", self.points)
        if self.points == self.at:
            os.kill(os.getpid(), signal.SIGKILL)

    def told(self, make):
        """``make_grad_fn``: each gradient is an iteration that begins, of the pictures of a batch."""

        def making(batch, *inputs):
            grad_fn = make(batch, *inputs)

            def telling(adversary, iterations):
                of = dict(zip(batch.indices, iterations, strict=True))
                os.write(self.begun, f"{sorted(of.items())}\n".encode())
                return grad_fn(adversary, iterations)

            return telling

        return making

    def before_and_after(self, call):
        def wrapped(*inputs, **options):
            self.point()
            try:
                return call(*inputs, **options)
            finally:
                self.point()

        return wrapped

    def phase(self, name: str, call):
        def wrapped(*inputs, **options):
            before = self.enter(name)
            found = call(*inputs, **options)
            self.enter(before)  # not where a signal ends it
            return found

        return wrapped

    def enter(self, name: str) -> str:
        """Returns what this thread was at before."""
        before, self.now[aside()] = self.now[aside()], name
        self.shared[0] = PHASES.index(self.now[True] or self.now[False])
        return before

    def phase_of_each(self, name: str, generate):
        """``phase``, of each time that a generator is asked."""

        def wrapped(*inputs, **options):
            found = generate(*inputs, **options)
            yield from iter(self.phase(name, lambda: next(found, None)), None)

        return wrapped

    def install(self) -> None:
        for owner, name in CALLS:
            setattr(owner, name, self.before_and_after(getattr(owner, name)))
        attacking_module.make_grad_fn = self.told(attacking_module.make_grad_fn)
        run_module.attacked = self.phase_of_each("attack", run_module.attacked)
        explain_module.inpaint = self.phase("refinement", explain_module.inpaint)
        ResultFolder.write = self.phase("writing", ResultFolder.write)
        run_module.write_tables = self.phase("summary", run_module.write_tables)


def aside() -> bool:
    return threading.current_thread() is not threading.main_thread()


def run_child(
    arguments: list[str],
    log: Path,
    *,
    at: int | None = None,
    within: str | None = None,
    after: float | None = None,
    number: int = signal.SIGKILL,
) -> End:
    """Run main.py; it is killed at its ``at``-th fault point, or ``after`` some seconds, unless it ends before.

    within: count the fault points of this phase alone, and the seconds from its beginning.  log: what the child prints.
    number: the signal that it gets ``after`` some seconds.  An exit code other than 0, and than that of the signal, is
    an AssertionError that shows it.
    """
    shared, begun = mmap.mmap(-1, 5), os.open(log.with_suffix(".begun"), os.O_RDWR | os.O_CREAT | os.O_TRUNC)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of a fork beside threads; a child has its own
        pid = os.fork()
    if pid == 0:
        try:
            with open(log, "w") as printed:
                sys.stdout = sys.stderr = printed
                Faults(shared, at, within, begun).install()
                code = exit_code(lambda: main(arguments))
        finally:
            os._exit(code if "code" in locals() else 1)
    ended, status = 0, 0
    while within and after is not None and not ended and PHASES[shared[0]] != within:
        ended, status = os.waitpid(pid, os.WNOHANG)
        time.sleep(0.001)
    if after is not None and not ended:
        time.sleep(after)
        os.kill(pid, number)
    if not ended:
        _, status = os.waitpid(pid, 0)
    killed = os.WIFSIGNALED(status) or (number in CODES and os.WEXITSTATUS(status) == CODES[number])
    assert killed or os.WEXITSTATUS(status) == 0, log.read_text()
    os.close(begun)
    lines = log.with_suffix(".begun").read_text().splitlines()
    return End(killed, PHASES[shared[0]], struct.unpack("I", shared[1:5])[0], tuple(lines))
