"""Seeded ways to spoil a result folder: bytes, types, links, pipes, sizes, exchanged, missing and added files."""

import json
import os
import shutil
import socket
import struct
import zlib
from pathlib import Path

import yaml

from ace_counterfactuals.core.runs.described import sealed
from ace_counterfactuals.core.runs.records import DIGEST, content_digest
from tests.support.fuzz_worker import mutate

ODD = [
    None,
    True,
    0,
    -1,
    5,
    2**40,
    10**400,
    0.5,
    1e308,
    float("inf"),
    float("nan"),
    "",
    "x",
    "x" * 5000,
    "\ud800",
    "a\x1b[31m\nb",
    "http://127.0.0.1:9/weights.pt",
    "gs://bucket/weights.pt",
    "timm:resnet18",
    "module:function",
    "/dev/zero",
    "/",
    "../../../../etc/passwd",
    [],
    {},
    [[]],
    {"a": {}},
]
BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12)
)
DEEP = ["[" * 100_000, '{"a":' * 100_000, "- " * 3000, BOMB]


def files_of(output: Path, *endings: str) -> list[Path]:
    found = sorted(path for path in output.rglob("*") if path.is_file() and not path.is_symlink())
    return [path for path in found if not endings or path.suffix in endings]


def folders_of(output: Path) -> list[Path]:
    return sorted(path for path in output.rglob("*") if path.is_dir())


def some_bytes(rng, output: Path, canary: Path) -> str:
    path = rng.choice(files_of(output))
    path.write_bytes(mutate(rng, path.read_bytes() or b"x"))
    return f"bytes of {path}"


def one_bit(rng, output: Path, canary: Path) -> str:
    path = rng.choice(files_of(output))
    data = bytearray(path.read_bytes() or b"x")
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    path.write_bytes(data)
    return f"a bit of {path}"


def places(values, way=()) -> list[tuple]:
    """Every place in a tree of dicts and lists."""
    items = values.items() if isinstance(values, dict) else enumerate(values) if isinstance(values, list) else ()
    return [place for key, value in items for place in ((*way, key), *places(value, (*way, key)))]


def a_value(rng, output: Path, canary: Path) -> str:
    """Of a JSON or YAML file, with the digests of who knows how to make them, or without."""
    path = rng.choice([path for path in files_of(output, ".json", ".yaml") if "report" not in path.parts])
    is_json = path.suffix == ".json"
    values = json.loads(path.read_text()) if is_json else yaml.safe_load(path.read_text())
    place = rng.choice(places(values))
    parent = values
    for key in place[:-1]:
        parent = parent[key]
    kind, value = rng.randrange(5), rng.choice(ODD)
    if kind == 0:
        del parent[place[-1]]
    elif kind == 1 and isinstance(parent, dict):
        parent[f"{place[-1]}x"] = parent.pop(place[-1])
    else:
        parent[place[-1]] = value
    honest = DIGEST in values and rng.random() < 0.7
    values.pop(DIGEST, None) if honest else None
    if is_json:
        path.write_text(json.dumps(values | {DIGEST: content_digest(values)} if honest else values))
    else:
        with_seal = honest and value != "\ud800"
        path.write_bytes(sealed(values) if with_seal else yaml.safe_dump(values).encode(errors="surrogatepass"))
    return f"{place} of {path} is {str(value)[:60]!r} ({kind}, {honest})"


def a_text(rng, output: Path, canary: Path) -> str:
    path = rng.choice(files_of(output, ".json", ".yaml", ".csv", ".txt"))
    path.write_text(rng.choice([*DEEP, "", "5", "[]", "{}", "null", "x: y", "\0", "a,b\n1,2,3\n", "index\n9\n"]))
    return f"text of {path}"


def a_cell(rng, output: Path, canary: Path) -> str:
    path = rng.choice(files_of(output, ".csv", ".txt"))
    lines = path.read_text().splitlines() or [""]
    line = rng.randrange(len(lines))
    between = "," if path.suffix == ".csv" else ": "
    cells = lines[line].split(between)
    cells[rng.randrange(len(cells))] = rng.choice(["", "x", "-1", "nan", "inf", "1e999", "9" * 5000, "=1+1", '"', "\r"])
    lines[line] = between.join(cells)
    path.write_text("\n".join(lines))
    return f"line {line + 1} of {path}"


def a_link(rng, output: Path, canary: Path) -> str:
    path = rng.choice([*files_of(output), *folders_of(output)])
    targets = [canary, canary / "table.md", "/dev/zero", "/dev/tty", path.name, "nowhere", "/", output]
    target = rng.choice(targets)
    remove(path)
    path.symlink_to(target)
    return f"{path} is a link to {target}"


def a_pipe(rng, output: Path, canary: Path) -> str:
    path, kind = rng.choice(files_of(output)), rng.randrange(3)
    path.unlink()
    if kind == 0:
        path.mkdir()
    elif kind == 1 and len(str(path)) < 100:
        with socket.socket(socket.AF_UNIX) as end:
            end.bind(str(path))
    else:
        os.mkfifo(path)
    return f"{path} is a {['folder', 'socket', 'pipe'][kind]}"


def a_size(rng, output: Path, canary: Path) -> str:
    path, size = rng.choice(files_of(output)), rng.choice([0, 1, 2**22, 3 * 2**30, 2**40])
    os.truncate(path, size)
    return f"{path} is of {size} bytes"


def a_picture(rng, output: Path, canary: Path) -> str:
    """A PNG whose header promises another size, with its checksum."""
    path = rng.choice(files_of(output, ".png"))
    data = bytearray(path.read_bytes())
    width, height = rng.choice([(60_000, 60_000), (9_000, 9_000), (8, 2**31 - 1), (0, 8), (16, 16), (7, 8)])
    data[16:24] = struct.pack(">II", width, height)
    if rng.random() < 0.3:
        data[24:26] = bytes(rng.randrange(17) for _ in range(2))
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    path.write_bytes(data)
    return f"{path} is {width} x {height}"


def an_array(rng, output: Path, canary: Path) -> str:
    path = rng.choice(files_of(output, ".npy"))
    shape = rng.choice(["(3, 1000000, 900000)", "(3, -8, 8)", "(3,)", "()", "(3, 16, 16)", "x", "(" * 50])
    kind = rng.choice(["'<f2'", "'|O'", "'<f8'", "[('a', '<f2')]", "'<f2'"])
    header = f"{{'descr': {kind}, 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    path.write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode() + path.read_bytes()[128:])
    return f"{path} is {kind} {shape}"


def an_exchange(rng, output: Path, canary: Path) -> str:
    one = rng.choice(files_of(output))
    other = rng.choice([path for path in files_of(output, one.suffix)])
    first, second = one.read_bytes(), other.read_bytes()
    one.write_bytes(second)
    other.write_bytes(first)
    return f"{one} and {other} exchanged"


def a_loss(rng, output: Path, canary: Path) -> str:
    path = rng.choice([*files_of(output), *folders_of(output)])
    remove(path)
    return f"{path} is gone"


def an_addition(rng, output: Path, canary: Path) -> str:
    path = rng.choice(files_of(output))
    names = [
        b"0000002",
        b"0000099",
        b"9" * 30,
        b"x",
        b"\xff\xfe",
        b".summary.yaml.vm-1.tmp",
        b"chunk-0-of-1.lock",
        b"gate",
    ]
    name = os.fsdecode(rng.choice(names) + os.fsencode(path.suffix if rng.random() < 0.7 else ""))
    target = rng.choice([path, *folders_of(output)[:1], *(f / "x" for f in folders_of(output))]).parent / name
    if not target.exists():
        shutil.copy(path, target)
    return f"{os.fsencode(target)!r} is a copy of {path}"


def a_lock(rng, output: Path, canary: Path) -> str:
    path = rng.choice(sorted(output.rglob("log"))) / "chunk-0-of-1.lock"
    values = {"host": socket.gethostname(), "pid": 1, "born": 5, "since": "now", "chunk": 0, "chunks": 1}
    values |= {"flock": rng.random() < 0.5, "beat": "0"}
    values[rng.choice(list(values))] = rng.choice(ODD)
    path.write_text(json.dumps(values))
    return f"{path} is {str(values)[:200]}"


def a_mode(rng, output: Path, canary: Path) -> str:
    path = rng.choice([*files_of(output), *folders_of(output)])
    mode = rng.choice([0o000, 0o444, 0o200])
    path.chmod(mode)
    return f"{path} has mode {mode:o}"


def remove(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


WAYS = (
    *(some_bytes, one_bit, a_value, a_value, a_value, a_text, a_cell, a_link, a_link, a_pipe, a_size),
    *(a_picture, an_array, an_exchange, a_loss, an_addition, a_lock, a_mode),
)


def spoil(rng, output: Path, canary: Path) -> str:
    """Once or twice; says how."""
    said = []
    for _ in range(rng.choice((1, 1, 1, 2))):
        try:
            said.append(rng.choice(WAYS)(rng, output, canary))
        except (OSError, IndexError, ValueError, TypeError, yaml.YAMLError) as error:
            said.append(f"not spoilt again ({type(error).__name__})")  # what the first did cannot be read here, too
    return "; ".join(said)
