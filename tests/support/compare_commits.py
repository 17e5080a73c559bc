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
import multiprocessing
import os
import re
import runpy
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "tests/golden"
SHARED = ROOT.parent / "shared/golden"  # the ImageNet head is too large for this repository
NETWORKS = ["unet_celeba.pt", "unet_celebahq.pt", "unet_imagenet.pt", "dive.pth", "steex_hq.tar", "oracle_celeba.pth"]
NETWORKS += ["resnet50_ft_weight.pkl", "simsiam.pth.tar"]
PAIRS = ["ankle_boot-sneaker", "pullover-coat", "t-shirt-dress"]
Chain = list[tuple[str, str, list]]
"""Name, program and arguments, each of which may read what the one before it wrote."""
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["torch", "torchvision", "matplotlib.pyplot", "scipy.linalg", "safetensors.torch", "yaml"])
TIMES = re.compile(r"\b\d+(\.\d+)?(?= ?(s|seconds|minutes|pictures/s|MiB|GiB)\b)")
"""Durations and memory in what is printed."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("old", help="a commit")
    parser.add_argument("new", help="another")
    parser.add_argument("--folder", type=Path, help="where to work; trees that are there already are not made again")
    parser.add_argument("--only", default="", help="run the chain whose first name begins so (all)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="programs at once, of one thread each")
    given = parser.parse_args()
    os.environ |= {"OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}  # of the programs
    sys.dont_write_bytecode = True
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
    clone, inputs = folder / "clone", folder / "inputs"
    for rest in (clone, inputs / "out"):  # of a comparison that was stopped
        shutil.rmtree(rest, ignore_errors=True)
    subprocess.run([*git, "worktree", "add", "--quiet", "--force", "--detach", clone, commit], check=True)
    try:
        with ThreadPoolExecutor(jobs) as pool:
            wanted = [chain for chain in chains(clone, inputs) if chain[0][0].startswith(only)]
            list(pool.map(functools.partial(run_chain, clone=clone, inputs=inputs), wanted))
    finally:
        subprocess.run([*git, "worktree", "remove", "--force", clone], check=True)
    (inputs / "out").rename(tree)
    return tree


def run_chain(chain: Chain, clone: Path, inputs: Path) -> None:
    """Run the programs one after the other; what each prints becomes a file of the tree."""
    printed = inputs / "out/printed"
    printed.mkdir(parents=True, exist_ok=True)
    for name, program, arguments in chain:
        began = time.monotonic()
        files = [printed / f"{name}.{kind}.txt" for kind in ("out", "log")]
        words = [str(word) for word in arguments]
        process = FORKS.Process(target=run_program, args=(clone, program, words, inputs, *files))
        process.start()
        process.join()
        said = [file.read_text() for file in files]
        files[0].write_text(TIMES.sub("#", said[0]))
        if process.exitcode:
            files[0].write_text(f"{said[0]}\n{said[1]}\nexit {process.exitcode}\n")
            print(f"{name} exits with {process.exitcode}: {said[1].strip().splitlines()[-1:]}", flush=True)
        files[1].unlink()
        print(f"{time.monotonic() - began:6.1f} s {name}", flush=True)


def run_program(clone: Path, program: str, words: list[str], folder: Path, *printed: Path) -> None:
    """As ``python clone/program words`` in ``folder`` would, with standard output and error in two files."""
    for descriptor, file in enumerate(printed, 1):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), descriptor)
    os.chdir(folder)
    sys.path.insert(0, str(clone))
    sys.argv = [str(clone / program), *words]
    runpy.run_path(sys.argv[0], run_name="__main__")


def chains(clone: Path, inputs: Path) -> list[Chain]:
    """What is independent of each other."""
    cases = json.loads((GOLDEN / "cases.json").read_text())
    recorded = [step for case, words in cases.items() for step in golden(case, words, inputs)]
    return [demo(clone), parts(), faces(inputs / "out"), training(clone), recorded[::2], recorded[1::2]]


def flags(**values) -> list:
    return [part for name, value in values.items() for part in (f"--{name}", value)]


def explain(name: str, output: str, exp_name: str, **changes) -> tuple[str, str, list]:
    """main.py on the demo's pair; ``changes`` are flags."""
    query, target = changes.pop("pair", PAIRS[0]).rsplit("-", 1)
    typed = {"label_query": query, "label_target": target, "output_path": output, "exp_name": exp_name}
    typed |= {"num_samples": 2, "attack_iterations": 3, "batch_size": 2, "device": "cpu", **changes}
    return name, "main.py", ["--preset", "fashion", *flags(**typed)]


def demo(clone: Path) -> Chain:
    runs = [explain(f"demo_{pair}", "out/demo", pair, pair=pair) for pair in PAIRS]
    judges = [clone / f"demo/{name}.pt" for name in ("unseen_a", "unseen_b")]
    words = ["--output-path", "out/demo", "--device", "cpu", "--exp-name"]
    return [
        *runs,
        ("demo_evaluate", "evaluate.py", [*words, *PAIRS, "--unseen", *judges, "--features", clone / "demo/tuning.pt"]),
        ("demo_transfer", "compute_transfer.py", [*words, PAIRS[0], "--classifier", *judges]),
        ("demo_verify", "scripts/verify-results.py", ["out/demo", PAIRS[0]]),
    ]


def parts() -> Chain:
    """Chunks of one pair, merged; a sweep over the merged run, with floats kept; other attacks; regions."""
    output = "out/parts"
    split = {"num_samples": 5, "chunks": 2, "save_float": True, "seed": 1}
    place = flags(output_path=output, exp_name="chunked", device="cpu")
    sweep = ["--sampling_inpaint", 0.1, 0.4, "--sampling_dilation", 3, 5, "--seed", 1, 2]
    gd = {"attack_method": "GD", "attack_step": 60, "use_fp16": True, "cudnn_deterministic": True}
    cw = {"attack_method": "C&W", "attack_step": 100, "sampling_stochastic": False}
    region = {"region": "4,4,28,20", "batch_size": 1}
    return [
        explain("parts_chunk_1", output, "chunked", chunk=1, **split),
        explain("parts_chunk_0", output, "chunked", chunk=0, **split),
        explain("parts_merged", output, "chunked", merge_chunks=True, **split),
        explain("parts_status", output, "chunked", status=True, **split),
        ("parts_sweep", "postprocessing.py", [*place, *sweep]),
        ("parts_sweep_status", "postprocessing.py", [*place, "--status", "True"]),
        ("parts_evaluate", "evaluate.py", place),
        ("parts_evaluate_attack", "evaluate.py", flags(output_path=output, exp_name="chunked/pre-explanation")),
        ("parts_verify", "scripts/verify-results.py", [output, "chunked"]),
        explain("parts_region", output, "region", dist_l2=0.1, dist_schedule="linear", **region),
        explain("parts_inverted", output, "inverted", region_invert=True, attack_joint_shortcut=True, **region),
        explain("parts_cw", output, "cw", **cw),
        explain("parts_gd", output, "gd", **gd),
        explain("parts_gd_again", output, "gd", **gd),
        explain("parts_untargeted", output, "untargeted", label_query=-1, label_target=-1, save_images=False),
        explain("parts_refused", output, "refused", attack_iterations=0),
    ]


def golden(case: str, words: list[str], inputs: Path) -> Chain:
    """A recorded case, of its first picture; ImageNet's, of 256 pixels, after one iteration."""
    more = flags(device="cpu", num_samples=1, output_path=f"out/{case}", exp_name="exp")
    if case.startswith("imagenet"):
        if not (inputs / "weights/resnet50.pth").exists():
            print(f"left out: {case}, whose classifier is not here")
            return []
        more += flags(classifier_path="weights/resnet50.pth", attack_iterations=1)
    return [(f"golden_{case}", "main.py", [*words, *more])]


def faces(output: Path) -> Chain:
    """Figures of the recorded counterfactuals, which the original program wrote."""
    shutil.copytree(GOLDEN / "eval/celeba", output / "faces", dirs_exist_ok=True)
    words = flags(exp_name="exp/swap", output_path="out/faces", device="cpu", dataset="CelebA", query_label=31)
    words += flags(target_label=1, classifier_path="weights/dive.pth", celeba_path="data/celeba")
    words += flags(oracle_path="weights/oracle_celeba.pth", simsiam_weights="weights/simsiam.pth.tar")
    words += flags(vggface2_weights="weights/resnet50_ft_weight.pkl", features="weights/dive.pth")
    steps = [("faces_evaluate", "evaluate.py", words)]
    for recorded in json.loads((GOLDEN / "eval/expected.json").read_text()):
        program, *arguments = [word.replace("eval/celeba", "out/faces") for word in recorded["command"]]
        steps.append((f"faces_{Path(program).stem}", program, [*arguments, "--device", "cpu"]))
    return steps


def training(clone: Path) -> Chain:
    where = flags(data_dir=clone / "demo/pictures", device="cpu", batch_size=8)
    diffusion = flags(output_path="out/training/ddpm", lr_anneal_steps=3, save_interval=2, diffusion_steps=21)
    classifier = flags(output_path="out/training/classifier.pt", arch="small-4", epochs=1, batch_size=256)
    return [
        ("train_diffusion", "train_diffusion.py", ["--preset", "fashion-ddpm", *where, *diffusion]),
        ("train_classifier", "train_classifier.py", ["--preset", "fashion-classifier", *where, *classifier]),
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
