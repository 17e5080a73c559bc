"""What a result folder of many finished pictures costs: going on, looking on, merging, and writing one more.

    python benchmarks/records.py --count 30000

The folder is made of one real picture of the demo, under many names. Going on is timed from the start of the command to
the start of the first picture's attack, loading of the demo's small networks included.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
import torch.nn.functional as F

from ace_counterfactuals.core.data.pictures import decode, to_tensor
from ace_counterfactuals.core.method.config import AttackConfig
from ace_counterfactuals.core.method.explain import explain
from ace_counterfactuals.core.method.task import Task
from ace_counterfactuals.core.runs.layout import ResultFolder
from ace_counterfactuals.core.runs.recording import draw_pictures, make_record
from ace_counterfactuals.guided_diffusion.config import DiffusionConfig
from ace_counterfactuals.guided_diffusion.gaussian_diffusion import GaussianDiffusion
from benchmarks.trial import ROOT, spent

UNTIL_FIRST = """
import os, sys
from ace_counterfactuals.core.cli.explain import main
from ace_counterfactuals.core.runs import run
run.explain = lambda *_, **__: os._exit(0)
main(sys.argv[1:])
"""


def run(folder: Path, *program: str, **changes) -> tuple[float, float, float]:
    """What main.py, or another ``program``, takes in the folder (see ``spent``).  changes: flags."""
    flags = {"preset": "fashion", "data_dir": folder / "data", "output_path": folder, "attack_iterations": 1}
    flags |= {"num_samples": 10**9, "device": "cpu", "batch_size": 1, **changes}
    return spent(*program or ["main.py"], *(f"--{name}={value}" for name, value in flags.items()))


def make_folder(folder: Path, count: int) -> None:
    """``count`` finished pictures, and one more that is not."""
    (folder / "data/pullover").mkdir(parents=True)
    picture = sorted((ROOT / "demo/pictures/pullover").glob("*.png"))[0].read_bytes()
    (folder / "data/pullover/0000000.png").write_bytes(picture)
    for i in range(1, count + 1):
        os.link(folder / "data/pullover/0000000.png", folder / f"data/pullover/{i:07d}.png")
    run(folder, num_samples=1)
    results = ResultFolder(folder, "exp")
    record = json.loads(results.record(0).read_text())
    files = [path for path in (*results.places(0), *folder.glob("Original/*/0000000.png")) if path.exists()]
    for i in range(1, count):
        for path in files:
            os.link(path, path.with_stem(f"{i:07d}"))
        results.record(i).write_text(
            json.dumps({**record, "index": i, "file": f"pullover/{i:07d}.png"}, indent=1) + "\n"
        )


def writing(folder: Path, size: int, count: int = 100) -> float:
    """Seconds to write a picture of this size, flushed to the disk, in a folder of many.

    It is one of the demo's, enlarged, with the grain of a photograph.
    """
    results = ResultFolder(folder, "exp")
    torch.manual_seed(0)
    small = to_tensor(decode(folder / "data/pullover/0000000.png"))[None]
    image = F.interpolate(small, size=(size, size), mode="bilinear") + 3 / 255 * torch.randn(1, 3, size, size)
    task = Task(
        classifier=torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * size * size, 3)),
        denoiser=lambda x, t, y=None: x,
        diffusion=GaussianDiffusion(DiffusionConfig(diffusion_steps=50)),
        attack=AttackConfig(attack_method="None"),
    )
    found = explain(image.clamp(0, 1).mul(255).round().div(255), task)
    started = time.perf_counter()
    for i in range(size * 10**6, size * 10**6 + count):
        results.write(make_record(found, 0, index=i, file="a.png", label=0), draw_pictures(found, 0))
    return (time.perf_counter() - started) / count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=30000, help="finished pictures")
    parser.add_argument("--folder", default=None, help="where to work; the file system is what is measured")
    parser.add_argument(
        "--sizes", type=int, nargs="+", default=[128, 256], help="sides of the pictures that are written"
    )
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.folder) as place:
        folder = Path(place)
        make_folder(folder, given.count)
        print(f"{given.count} finished pictures")
        taken = {
            "--status True:": run(folder, status=True),
            "first new picture after": run(folder, "-c", UNTIL_FIRST),
            "--merge_chunks True:": run(folder, num_samples=given.count, merge_chunks=True),
        }
        for what, (seconds, processor, _) in taken.items():
            print(f"{what} {seconds:.1f} s, {processor:.1f} s of the processor")
        print(f"largest process: {max(memory for _, _, memory in taken.values()):.0f} MiB")
        for size in given.sizes:
            print(f"writing a picture of {size} x {size}: {1000 * writing(folder, size):.1f} ms")


if __name__ == "__main__":
    main()
