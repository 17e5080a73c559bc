"""Spoil a small result folder in many seeded ways, give it to the programs, and watch: run by test_fuzz_results.py.

python fuzz_results.py FOLDER RUNS SEED [whole]     prints one JSON object

Each run is a process of its own: a fork that calls a program's ``main``, or, ``whole``, the program itself. It runs as
an ordinary user, with everything outside its own output folder as a canary.
"""

import contextlib
import importlib
import json
import os
import random
import shutil
import signal
import sys
import time
from collections import Counter
from pathlib import Path

from ace_counterfactuals.core.cli import compute, evaluate, explain, refine, verify
from ace_counterfactuals.core.cli.parsing import run_script
from ace_counterfactuals.core.runs import locks
from tests.support import spoiling
from tests.support.paths import ROOT
from tests.support.toys import Workshop

SECONDS, MEMORY = 20, 2**30
NOBODY = 65534
FORBIDDEN = ("socket.connect", "socket.getaddrinfo", "socket.sendto", "subprocess.Popen", "os.system", "os.exec")
REFINED = "exp/all_filtered_r-10_i-0.15_d-1_f-0.2"


class Scene:
    """inputs: pictures and weights; whole: the sound result folder; output: the spoilt one; canary: beside it."""

    def __init__(self, folder: Path):
        self.folder, names = folder, ("inputs", "canary", "whole", "out", "desk", "cache", "said")
        self.inputs, self.canary, self.whole, self.output, self.desk, self.cache, self.said = map(
            folder.joinpath, names
        )
        for path in (self.inputs, self.canary / "Results/exp/report/data", self.desk, self.cache):
            path.mkdir(parents=True)
        for name in ("table.md", "Results/exp/results.csv", "Results/exp/report/data/measurements.csv"):
            (self.canary / name).write_text("the user's own\n")
        self.workshop = Workshop(self.inputs)
        for picture in sorted(self.workshop.data.rglob("*.png"))[3:]:
            picture.unlink()
        self.workshop.output = self.output

    def commands(self) -> dict[str, tuple]:
        """Name -> program, its file, its arguments."""
        shop = self.workshop
        run = shop.arguments(batch_size=1, attack_iterations=1, save_float=True)
        out, device = str(self.output), ["--device", "cpu"]
        refined = ["--output_path", out, "--sampling_dilation", "1", "--num_workers", "0", "--batch_size", "1", *device]
        plain = ["--output-path", out, "--exp-name", "exp/explanation", *device]
        figures = ["--cache-path", str(self.cache), "--num-workers", "0", *device]
        cout = [*plain, "--weights-path", str(shop.classifier), "--dataset", "Folder", "--query-label", "0"]
        cout += ["--target-label", "1"]
        return {
            "main": (explain.main, "main.py", run),
            "status": (explain.main, "main.py", ["--output_path", out, "--status", "True"]),
            "refine": (refine.main, "postprocessing.py", refined),
            "refine status": (refine.main, "postprocessing.py", ["--output_path", out, "--status", "True"]),
            "evaluate": (evaluate.main, "evaluate.py", ["--output-path", out, "--allow-partial", "True", *figures]),
            "evaluate refined": (evaluate.main, "evaluate.py", ["--output-path", out, "--exp-name", REFINED, *figures]),
            "compute": (lambda argv: compute.run("COUT", argv), "compute_COUT.py", cout),
            "verify": (verify.main, "scripts/verify-results.py", [out, "exp"]),
            "verify refined": (verify.main, "scripts/verify-results.py", [out, REFINED]),
        }

    def beside(self) -> dict[str, tuple]:
        """All that no run may change."""
        found = {}
        for top in (self.inputs, self.canary, self.whole, self.desk):
            for path in sorted((top, *top.rglob("*"))):
                there = path.lstat()
                found[str(path)] = (there.st_mode, there.st_size, there.st_mtime_ns if path.is_file() else 0)
        return found

    def reset(self) -> None:
        make_writable(self.output)
        shutil.rmtree(self.output, ignore_errors=True)
        if self.output.is_symlink() or self.output.exists():
            self.output.unlink()


def make_writable(folder: Path) -> None:
    for path, _, _ in os.walk(folder):
        os.chmod(path, 0o755)


def watch(event: str, args) -> None:
    if event.startswith(FORBIDDEN):
        os.write(2, f"FORBIDDEN {event} {args!r:.200}\n".encode())


def child(work, said: Path, user: int | None) -> None:
    """In a fork: do the work with what it prints in a file, and end."""
    code = 70
    try:
        descriptor = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        sys.stdout = sys.__stdout__ = os.fdopen(1, "w", closefd=False)
        sys.stderr = sys.__stderr__ = os.fdopen(2, "w", closefd=False)
        if user is not None:
            os.setgroups([])
            os.setgid(user)
            os.setuid(user)
        try:
            work()
            code = 0
        except SystemExit as ended:
            code = ended.code if isinstance(ended.code, int) else 0 if ended.code is None else 1
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def forked(work, said: Path, user: int | None = None) -> tuple[int | None, int]:
    """Exit code, None where it hung, and the largest memory in bytes."""
    pid = os.fork()
    if not pid:
        child(work, said, user)
    return ended(pid)


def ended(pid: int) -> tuple[int | None, int]:
    deadline = time.monotonic() + SECONDS * (3 if os.getloadavg()[0] > os.cpu_count() else 1)
    while time.monotonic() < deadline:
        done, status, used = os.wait4(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status), used.ru_maxrss * 1024
        time.sleep(0.005)
    os.kill(pid, signal.SIGKILL)
    return None, os.wait4(pid, 0)[2].ru_maxrss * 1024


def called(main, arguments):
    """The program in this process, as its file calls it."""

    def work() -> None:
        os.environ["XDG_CACHE_HOME"] = os.environ["HOME"] = os.getcwd()
        sys.addaudithook(watch)
        sys.argv = ["program", *arguments]
        run_script(lambda: main(arguments))

    return work


def started(file: str, arguments):
    """The program itself."""

    def work() -> None:
        environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
        os.execve(sys.executable, [sys.executable, str(ROOT / file), *arguments], environment)

    return work


def make_whole(scene: Scene) -> set[str]:
    """The sound folder, by the programs themselves in a fork, which autograd needs; the modules that they loaded."""

    def work() -> None:
        for name in ("main", "refine", "evaluate", "compute", "status", "refine status", "verify", "evaluate refined"):
            main, _, arguments = scene.commands()[name]
            assert main(arguments) == 0, name
        (scene.folder / "modules").write_text("\n".join(sorted(sys.modules)))

    code, _ = forked(work, scene.said)
    assert code == 0, scene.said.read_text()
    scene.output.rename(scene.whole)
    return set((scene.folder / "modules").read_text().split())


def judged(scene: Scene, code: int | None, memory: int, ordinary: int) -> list[str]:
    """What was wrong with a run."""
    text, found = scene.said.read_text(errors="replace"), []
    errors = [line for line in text.splitlines() if line.startswith("error: ")]
    if code is None:
        found.append(f"ran longer than {SECONDS} s")
    elif code not in (0, 1, 2) or "Traceback" in text:
        found.append(f"ended with {code}: {text[-1500:]}")
    elif code == 2 and len(errors) != 1:
        found.append(f"{len(errors)} errors: {text[-800:]}")
    elif code == 2 and str(scene.folder) not in errors[0] and not errors[0].startswith("error: --exp"):
        found.append(f"names no file: {errors[0]}")
    if "FORBIDDEN" in text:
        found.append(text[-500:])
    if memory > ordinary + MEMORY:
        found.append(f"took {memory >> 20} MiB, ordinary are {ordinary >> 20}")
    return found


def main(folder: Path, runs: int, seed: int, whole: bool) -> None:
    locks.PATIENCE, locks.BEAT = 0.2, 0.1
    scene = Scene(folder)
    for name in make_whole(scene):
        with contextlib.suppress(Exception):
            importlib.import_module(name)
    user = NOBODY if os.getuid() == 0 and not whole else None
    if user:
        for path in (scene.desk, scene.cache, *scene.cache.iterdir()):
            os.chown(path, user, user)
    os.chdir(scene.desk)
    beside, commands = scene.beside(), scene.commands()
    ordinary, report = {}, {"runs": 0, "codes": Counter(), "findings": [], "slowest": 0.0, "most_mib": 0}

    def run(name: str, spoil) -> tuple:
        program, file, arguments = commands[name]
        scene.reset()
        shutil.copytree(scene.whole, scene.output)
        said = spoil()
        for path in (scene.output, *scene.output.rglob("*")) if user else ():
            os.chown(path, user, user, follow_symlinks=False)
        began = time.monotonic()
        code, memory = forked((started(file, arguments) if whole else called(program, arguments)), scene.said, user)
        return said, code, memory, time.monotonic() - began

    for name in commands:
        _, code, ordinary[name], _ = run(name, lambda: "nothing")
        assert code == 0, (name, scene.said.read_text())
    for number in range(runs):
        rng = random.Random(f"{seed}/{number}")
        name = rng.choice(list(commands))
        said, code, memory, took = run(name, lambda rng=rng: spoiling.spoil(rng, scene.output, scene.canary))
        found = judged(scene, code, memory, ordinary[name])
        if (now := scene.beside()) != beside:
            found.append(f"changed beside it: {sorted({*now.items()} ^ {*beside.items()})[:4]}")
            beside = now
        report["findings"] += [f"run {number}, {name}, {said}: {what}" for what in found]
        report["runs"] += 1
        report["codes"][str(code)] += 1
        report["slowest"] = max(report["slowest"], took)
        report["most_mib"] = max(report["most_mib"], memory - ordinary[name] >> 20)
        if found and "--show" in sys.argv:
            print(report["findings"][-1], file=sys.stderr, flush=True)
    scene.reset()
    print(json.dumps(report))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), "whole" in sys.argv)
