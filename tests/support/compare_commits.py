"""Do two commits write the same bytes?   python tests/support/compare_commits.py OLD NEW [--folder FOLDER]

Both are checked out in turn at the same path, and the same command lines are run with each: the demo, the golden cases,
a chunked and merged run, a sweep of postprocessing.py, evaluations, training. Every file that they write and what they
print is compared, logs aside; exits with 1 if any differ. Bytes differ from one processor to the next, so that both are
made here. What a run takes as given (weights, recorded pictures) is this checkout's.
"""

import argparse
import difflib
import functools
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "tests/golden"
SHARED = ROOT.parent / "shared/golden"  # the ImageNet head is too large for this repository
NETWORKS = ["unet_celeba.pt", "unet_celebahq.pt", "unet_imagenet.pt", "dive.pth", "steex_hq.tar", "oracle_celeba.pth"]
NETWORKS += ["resnet50_ft_weight.pkl", "simsiam.pth.tar"]
TIMES = re.compile(r"\b\d+(\.\d+)?(?= ?(s|seconds|minutes|pictures/s|MiB|GiB)\b)")
"""Durations and memory in what is printed."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("old", help="a commit")
    parser.add_argument("new", help="another")
    parser.add_argument("--folder", type=Path, help="where to work; trees that are there already are not made again")
    parser.add_argument("--only", default="", help="run the chains whose name begins so (all)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="programs at once, of one thread each")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = (given.folder or Path(temporary)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        write_inputs(folder / "inputs")
        trees = [make_tree(commit, folder, given.only, given.jobs) for commit in (given.old, given.new)]
        return compare(*trees)


def write_inputs(folder: Path) -> None:
    """The recorded pictures and weights, where the recorded command lines look for them."""
    weights = folder / "weights"
    weights.mkdir(parents=True, exist_ok=True)
    shutil.copytree(GOLDEN / "data", folder / "data", dirs_exist_ok=True)
    maker = [sys.executable, GOLDEN / "make_weights.py", weights]
    wanted = [name for name in NETWORKS if not (weights / name).exists()]
    if wanted:
        subprocess.run([*maker, *wanted], check=True, stdout=subprocess.DEVNULL)
    if (SHARED / "weights-resnet50.npz").exists() and not (weights / "resnet50.pth").exists():
        command = [sys.executable, SHARED / "make_weights.py", weights, "resnet50.pth"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def make_tree(commit: str, folder: Path, only: str, jobs: int) -> Path:
    """What ``commit`` writes, in a folder by its name."""
    git = ["git", "-C", ROOT]
    commit = subprocess.check_output([*git, "rev-parse", "--verify", f"{commit}^{{commit}}"], text=True).strip()
    tree = folder / f"tree-{commit}-{only}"
    if tree.exists():
        return tree
    clone, output = folder / "clone", folder / "inputs/out"
    shutil.rmtree(output, ignore_errors=True)
    subprocess.run([*git, "worktree", "add", "--quiet", "--force", "--detach", clone, commit], check=True)
    try:
        with ThreadPoolExecutor(jobs) as pool:
            run = functools.partial(run_chain, clone=clone, inputs=folder / "inputs")
            wanted = [chain for name, chain in chains(clone, folder / "inputs") if name.startswith(only)]
            list(pool.map(run, wanted))
    finally:
        subprocess.run([*git, "worktree", "remove", "--force", clone], check=True)
    output.rename(tree)
    return tree


def run_chain(chain: list[tuple[str, list]], clone: Path, inputs: Path) -> None:
    """Run (name, program and arguments), one after the other; what each prints becomes a file of the tree."""
    printed = inputs / "out/printed"
    printed.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "PYTHONPATH": str(clone), "PYTHON": sys.executable, "PYTHONDONTWRITEBYTECODE": "1"}
    environment |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    for name, (program, *arguments) in chain:
        words = ["bash" if program.endswith(".sh") else sys.executable, clone / program, *map(str, arguments)]
        done = subprocess.run(words, cwd=inputs, env=environment, capture_output=True, text=True)
        text = done.stdout if done.returncode == 0 else f"{done.stdout}\n{done.stderr}\nexit {done.returncode}\n"
        (printed / f"{name}.txt").write_text(TIMES.sub("#", text))
        if done.returncode:
            print(f"{name} exits with {done.returncode}: {done.stderr.strip().splitlines()[-1:]}", flush=True)


def chains(clone: Path, inputs: Path) -> Iterator[tuple[str, list[tuple[str, list]]]]:
    """(name, steps) of what is independent of each other."""
    yield "demo", demo(clone)
    yield "parts", parts()
    for case, words in json.loads((GOLDEN / "cases.json").read_text()).items():
        steps = golden(case, words, inputs)
        if steps:
            yield f"golden_{case}", steps
    yield "faces", faces(inputs / "out")
    yield "training", training(clone)


def flags(**values) -> list:
    return [part for name, value in values.items() for part in (f"--{name}", value)]


def explain(pair: str, output: str, exp_name: str, **changes) -> list:
    query, target = pair.rsplit("-", 1)
    typed = {"label_query": query, "label_target": target, "output_path": output, "exp_name": exp_name}
    typed |= {"num_samples": 2, "attack_iterations": 3, "device": "cpu", **changes}
    return ["main.py", "--preset", "fashion", *flags(**typed)]


def demo(clone: Path) -> list[tuple[str, list]]:
    pairs = ["ankle_boot-sneaker", "pullover-coat", "t-shirt-dress"]
    runs = [(f"demo_{pair}", explain(pair, "out/demo", pair)) for pair in pairs]
    judges = [clone / f"demo/{name}.pt" for name in ("unseen_a", "unseen_b")]
    words = ["evaluate.py", "--output_path", "out/demo", "--device", "cpu", "--exp_name", *pairs]
    transfer = ["compute_transfer.py", "--output-path", "out/demo", "--exp-name", pairs[0], "--device", "cpu"]
    return [
        *runs,
        ("demo_evaluate", [*words, "--unseen", *judges, "--features", clone / "demo/tuning.pt"]),
        ("demo_transfer", [*transfer, "--classifier", *judges]),
        ("demo_verify", ["scripts/verify-results.py", "out/demo", pairs[0]]),
    ]


def parts() -> list[tuple[str, list]]:
    """Chunks of one pair, merged; a sweep over the merged run, with floats kept; other attacks; regions."""
    pair, output = "ankle_boot-sneaker", "out/parts"
    chunk = functools.partial(explain, pair, output, "chunked", num_samples=5, chunks=2, save_float=True, seed=1)
    place = flags(output_path=output, exp_name="chunked", device="cpu")
    sweep = ["--sampling_inpaint", 0.1, 0.4, "--sampling_dilation", 3, 5, "--seed", 1, 2]
    other = functools.partial(explain, pair, output)
    return [
        ("parts_chunk_1", chunk(chunk=1)),
        ("parts_chunk_0", chunk(chunk=0, batch_size=2)),
        ("parts_merged", chunk(merge_chunks=True)),
        ("parts_status", chunk(status=True)),
        ("parts_sweep", ["postprocessing.py", *place, *sweep]),
        ("parts_sweep_status", ["postprocessing.py", *place, "--status", "True"]),
        ("parts_evaluate", ["evaluate.py", *place]),
        ("parts_pe_evaluate", ["evaluate.py", *place[:2], *flags(exp_name="chunked/pre-explanation", device="cpu")]),
        ("parts_verify", ["scripts/verify-results.py", output, "chunked"]),
        ("parts_region", other("region", region="4,4,28,20", dist_l2=0.1, dist_schedule="linear", batch_size=1)),
        ("parts_inverted", other("inverted", region="4,4,28,20", region_invert=True, attack_joint_shortcut=True)),
        ("parts_cw", other("cw", attack_method="C&W", attack_step=100, sampling_stochastic=False)),
        ("parts_gd", other("gd", attack_method="GD", attack_step=60, use_fp16=True, cudnn_deterministic=True)),
        ("parts_again", other("gd", attack_method="GD", attack_step=60, use_fp16=True, cudnn_deterministic=True)),
        ("parts_untargeted", other("untargeted", label_query=-1, label_target=-1, save_images=False)),
        ("parts_refused", other("refused", attack_iterations=0)),
    ]


def golden(case: str, words: list[str], inputs: Path) -> list[tuple[str, list]]:
    """A recorded case, of two pictures; ImageNet's, of 256 pixels, of one and after one iteration."""
    more = flags(device="cpu", num_samples=2, output_path="out/golden", exp_name=case)
    if case.startswith("imagenet"):
        if not (inputs / "weights/resnet50.pth").exists():
            print(f"left out: {case}, whose classifier is not here")
            return []
        more += flags(classifier_path="weights/resnet50.pth", num_samples=1, attack_iterations=1)
    more[more.index("out/golden")] = f"out/golden_{case}"  # a folder of results is of one data set
    return [(f"golden_{case}", ["main.py", *words, *more])]


def faces(output: Path) -> list[tuple[str, list]]:
    """Figures of the recorded counterfactuals, which the original program wrote."""
    shutil.copytree(GOLDEN / "eval/celeba", output / "faces", dirs_exist_ok=True)
    words = ["--exp_name", "exp/swap", "--output_path", "out/faces", "--device", "cpu", "--dataset", "CelebA"]
    words += flags(query_label=31, target_label=1, classifier_path="weights/dive.pth", celeba_path="data/celeba")
    words += flags(oracle_path="weights/oracle_celeba.pth", simsiam_weights="weights/simsiam.pth.tar")
    words += flags(vggface2_weights="weights/resnet50_ft_weight.pkl", features="weights/dive.pth")
    steps = [("faces_evaluate", ["evaluate.py", *words])]
    for recorded in json.loads((GOLDEN / "eval/expected.json").read_text()):
        program, *arguments = [word.replace("eval/celeba", "out/faces") for word in recorded["command"]]
        steps.append((f"faces_{Path(program).stem}", [program, *arguments, "--device", "cpu"]))
    return steps


def training(clone: Path) -> list[tuple[str, list]]:
    where = flags(data_dir=clone / "demo/pictures", device="cpu", batch_size=8)
    diffusion = flags(output_path="out/training/ddpm", lr_anneal_steps=3, save_interval=2, num_channels=32)
    classifier = flags(output_path="out/training/classifier.pt", arch="small-4", epochs=1, batch_size=256)
    return [
        ("train_diffusion", ["train_diffusion.py", "--preset", "fashion-ddpm", *where, *diffusion]),
        ("train_classifier", ["train_classifier.py", "--preset", "fashion-classifier", *where, *classifier]),
    ]


def compare(old: Path, new: Path) -> int:
    """Print what differs between two trees; 1 if anything does."""
    files = [
        {p.relative_to(tree) for p in tree.rglob("*") if p.is_file() and "log" not in p.relative_to(tree).parts}
        for tree in (old, new)
    ]
    for name, there, other in (("old", *files), ("new", *files[::-1])):
        for file in sorted(there - other):
            print(f"only {name}: {file}")
    differing = [file for file in sorted(files[0] & files[1]) if (old / file).read_bytes() != (new / file).read_bytes()]
    for file in differing:
        print(f"differs: {file}")
        for line in difference(old / file, new / file):
            print(f"    {line[:200]}")
    count = len(differing) + len(files[0] ^ files[1])
    print(f"{len(files[0] | files[1])} files, {count} of which differ")
    return 1 if count else 0


def difference(old: Path, new: Path) -> list[str]:
    """At most 20 lines about two files."""
    if old.suffix in (".png", ".npy"):
        arrays = [np.asarray(Image.open(p)) if p.suffix == ".png" else np.load(p) for p in (old, new)]
        if arrays[0].shape != arrays[1].shape:
            return [f"shapes {arrays[0].shape} and {arrays[1].shape}"]
        distance = np.abs(arrays[0].astype(float) - arrays[1].astype(float))
        return [f"{np.count_nonzero(distance)} of {distance.size} values, by at most {distance.max():g}"]
    try:
        texts = [p.read_text() for p in (old, new)]
    except UnicodeDecodeError:
        return [f"{old.stat().st_size} and {new.stat().st_size} bytes"]
    if old.suffix == ".json":
        texts = [json.dumps(json.loads(text), indent=1) for text in texts]
    lines = [text.splitlines() for text in texts]
    return list(difflib.unified_diff(*lines, "old", "new", lineterm="", n=0))[2:22]


if __name__ == "__main__":
    sys.exit(main())
