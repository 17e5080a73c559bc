"""Load many mutated weight files, and watch: run by test_fuzz.py in a process of its own, so that it can be killed.

python fuzz_worker.py FOLDER RUNS SEED     prints one JSON object
"""

import encodings.cp437
import encodings.raw_unicode_escape  # noqa: F401 (text codecs that reading a zip or a pickle may want, loaded now)
import io
import json
import pickle
import random
import resource
import struct
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import safetensors.torch
import torch

from ace_counterfactuals.models.architectures import build_classifier
from ace_counterfactuals.models.classifiers import load_classifier, save_classifier
from ace_counterfactuals.models.loading import WeightsError, load_weights, state_dict
from tests.support import weight_files as files

CANARY = "ace-fuzz-canary"
FORBIDDEN = ("os.", "subprocess.", "socket.", "shutil.", "ctypes.", "pickle.find_class", "exec", "compile", "import")
HARMLESS = ("os.stat", "os.listdir", "os.scandir")
ESCAPED: list[str] = []
WATCHING = False


def watch(event: str, args) -> None:
    """What the interpreter reports while a file is being read: no process, no import, no open for writing."""
    if not WATCHING:
        return
    writes = event == "open" and isinstance(args[1], str) and set(args[1]) & set("wax+")
    if writes or (event.startswith(FORBIDDEN) and event not in HARMLESS):
        ESCAPED.append(f"{event} {args!r:.100}")


HOSTILE = [
    b"cos\nsystem\n(S'touch %s'\ntR" % CANARY.encode(),
    b"cposix\nsystem\nX\x15\0\0\0touch ace-fuzz-canary\x85R",
    b'cbuiltins\neval\n(S\'open("%s", "w")\'\ntR' % CANARY.encode(),
    b"(S'touch %s'\nios\nsystem\n" % CANARY.encode(),
    b"\x8c\x02os\x8c\x06system\x93\x8c\x15touch ace-fuzz-canary\x85R",
    b"c__builtin__\nbytearray\nJ\xff\xff\xff\x7f\x85R",
    b"cnumpy\nzeros\n(I99999999999\ntR",
    b"ctorch\nzeros\n(I99999999999\ntR",
    b"cnumpy\nndarray\n(I99999999999\ntR",
    b"ctorch._utils\n_rebuild_meta_tensor_no_storage\n",
    b"cmodels.loading\nsave_weights\n",
    b"ccollections\nOrderedDict\n)R",
    b"ctorch\nSize\n(I99999999999\ntR",
    b"r\xff\xff\xff\xff",
    b"B\xff\xff\xff\xff",
    b"\x8e\xff\xff\xff\xff\xff\xff\xff\x0f",
    b"\x8b\xff\xff\xff\x7f",
    b"(" * 3000,
    b"]" * 3000,
    b"\x85" * 3000,
    b"b",
    b"R",
    b"\x81",
    b"Q",
    b"2" * 500,
    b"e",
    b"u",
    b"0",
]
EXTREMES = [0, 1, -1, 2**7, 2**15, 2**31 - 1, -(2**31), 2**32 - 1, 2**62, -(2**63)]


def flip(rng, data: bytearray) -> bytearray:
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        data[rng.randrange(len(data))] = rng.randrange(256)
    return data


def cut(rng, data: bytearray) -> bytearray:
    return data[: rng.randrange(len(data))]


def drop(rng, data: bytearray) -> bytearray:
    start = rng.randrange(len(data))
    del data[start : start + rng.choice((1, 4, 64))]
    return data


def repeat(rng, data: bytearray) -> bytearray:
    start, to = rng.randrange(len(data)), rng.randrange(len(data))
    data[to:to] = data[start : start + rng.choice((1, 8, 512))]
    return data


def exaggerate(rng, data: bytearray) -> bytearray:
    """Some number in the file becomes an extreme one."""
    code = rng.choice(("<i", "<q", ">i", "<h"))
    value = rng.choice(EXTREMES) & (2 ** (8 * struct.calcsize(code)) - 1)
    start = rng.randrange(len(data))
    data[start : start + struct.calcsize(code)] = struct.pack(code.upper(), value)
    return data


def splice(rng, data: bytearray) -> bytearray:
    start = rng.randrange(len(data))
    data[start:start] = rng.choice(HOSTILE)
    return data


MUTATIONS = (flip, cut, drop, repeat, exaggerate, splice)


def mutate(rng, data: bytes) -> bytes:
    mutated = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        if mutated:
            mutated = rng.choice(MUTATIONS)(rng, mutated)
    return bytes(mutated)


def repacked(rng, archive: bytes) -> bytes:
    """Within the container, whose checksums would otherwise catch it: the pickle mutated, or a trap beside it."""
    trap = rng.randrange(6)
    if trap == 0:
        name = rng.choice(("/tmp/x", "../x", "a/../../x"))
        return files.with_pickle(archive, files.the_pickle(archive), **{name: b"x"})
    if trap == 1:
        stream = io.BytesIO(archive)
        with zipfile.ZipFile(stream, "a", zipfile.ZIP_DEFLATED) as bomb:
            bomb.writestr("archive/data/99", bytes(2**20))
        return stream.getvalue()
    return files.with_pickle(archive, mutate(rng, files.the_pickle(archive)))


def seeds(folder: Path) -> dict[str, bytes]:
    """One small file of each format."""
    tree = files.small_tree()
    arrays = {"w": np.ones((3, 2), "f4"), "n": np.arange(4)}
    header = {"class_names": ["a", "b"], "mean": [0.5] * 3, "std": [0.5] * 3, "image_size": 28}
    for name in ("ours.pt", "ours.safetensors"):
        save_classifier(folder / name, build_classifier("small-4", 2), arch="small-4", **header)
    return {
        "zip": files.as_zip(tree),
        "legacy": files.as_legacy(tree),
        "tar": files.as_tar({"a": torch.ones(2, 3), "b": torch.ones(4)}),
        "safetensors": safetensors.torch.save({"a": torch.ones(2, 3), "b": torch.ones(4).half()}),
        "pickle": pickle.dumps(arrays, 4),
        "old pickle": pickle.dumps(arrays, 2),
        "python 2": files.as_python2_pickle(arrays),
        "python 2, protocol 0": files.as_python2_pickle(arrays, 0),
        "ours": (folder / "ours.pt").read_bytes(),
        "ours, safetensors": (folder / "ours.safetensors").read_bytes(),
    }


def load(path: Path) -> bool:
    """Whether it came in as a tree of weights (which may then be no classifier); raises what is a finding."""
    global WATCHING
    WATCHING, came_in = True, False
    try:
        tree = load_weights(path)
        came_in = True
        state_dict(tree)
        load_classifier(path)
    except WeightsError as error:
        if "\n" in str(error):
            ESCAPED.append(f"an error of several lines: {error}")
    finally:
        WATCHING = False
    return came_in


def main(folder: Path, runs: int, seed: int) -> None:
    originals = seeds(folder)
    path = folder / "mutated"
    for data in originals.values():  # what is imported or compiled at first use, is now
        path.write_bytes(data)
        load(path)
    ESCAPED.clear()
    sys.addaudithook(watch)
    report = {"loaded": 0, "refused": 0, "slowest": 0.0, "findings": []}
    for run in range(runs):
        rng = random.Random(f"{seed}/{run}")
        name = rng.choice(list(originals))
        inside = name in ("zip", "ours") and rng.random() < 0.5
        path.write_bytes((repacked if inside else mutate)(rng, originals[name]))
        start = time.process_time()
        try:
            report["loaded" if load(path) else "refused"] += 1
        except Exception as error:  # the finding that this program looks for
            report["findings"].append(f"run {run}, {name}: {type(error).__name__}: {error}")
        report["slowest"] = max(report["slowest"], time.process_time() - start)
        report["findings"] += [f"run {run}, {name}: {event}" for event in ESCAPED]
        ESCAPED.clear()
    report["canary"] = Path(CANARY).exists() or (folder / CANARY).exists()
    report["peak_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps(report))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
