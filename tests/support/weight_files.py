"""Weights in every format, some written by hand because nothing writes them any more."""

import io
import pickle
import struct
import tarfile
import zipfile

import numpy as np
import torch

MAGIC = 0x1950A86A20F9469CFC6C


def small_tree() -> dict:
    """A nested checkpoint with several types, a scalar, an empty tensor and two names for one storage."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(4, 3, generator=generator)
    state = {
        "a.weight": weight,
        "a.tied": weight,
        "a.transposed": torch.randn(5, 2, generator=generator).t(),
        "b.half": torch.randn(3, generator=generator).half(),
        "b.count": torch.tensor(7),
        "b.nothing": torch.zeros(0, 3),
    }
    return {"epoch": 3, "arch": "toy", "state_dict": state}


def as_zip(tree) -> bytes:
    stream = io.BytesIO()
    torch.save(tree, stream)
    return stream.getvalue()


def as_legacy(tree) -> bytes:
    stream = io.BytesIO()
    torch.save(tree, stream, _use_new_zipfile_serialization=False)
    return stream.getvalue()


def with_pickle(archive: bytes, pickled: bytes, **extra: bytes) -> bytes:
    """A torch zip with another data.pkl, correctly packed, and extra members (name -> bytes)."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(archive)) as old, zipfile.ZipFile(out, "w") as new:
        for info in old.infolist():
            new.writestr(info.filename, pickled if info.filename.endswith("data.pkl") else old.read(info))
        for name, data in extra.items():
            new.writestr(name, data)
    return out.getvalue()


def the_pickle(archive: bytes) -> bytes:
    with zipfile.ZipFile(io.BytesIO(archive)) as old:
        return next(old.read(name) for name in old.namelist() if name.endswith("data.pkl"))


def text(string: str) -> bytes:
    """BINUNICODE."""
    raw = string.encode()
    return b"X" + struct.pack("<I", len(raw)) + raw


def as_tar(tensors: dict[str, torch.Tensor], made: bytes = b"%sQ") -> bytes:
    """torch.save of 0.1: float tensors, each with a storage of its own.  made: of a tensor's key, in the pickle."""
    integer = lambda n: b"\x80\x02J" + struct.pack("<i", n) + b"."  # noqa: E731
    storages, views, pickled = integer(len(tensors)), integer(len(tensors)), b"\x80\x02}("
    for i, (name, tensor) in enumerate(tensors.items()):
        storage, key = 100 + i, 200 + i
        row = b"\x80\x02J" + struct.pack("<i", storage) + text("cpu") + b"ctorch\nFloatStorage\n\x87."
        flat = tensor.contiguous().flatten()
        storages += row + struct.pack("<q", len(flat)) + flat.numpy().tobytes()
        views += b"\x80\x02" + b"".join(b"J" + struct.pack("<i", n) for n in (key, storage))
        views += b"ctorch\nFloatTensor\n\x87." + struct.pack("<ii", tensor.dim(), 0)
        views += struct.pack(f"<{2 * tensor.dim() + 1}q", *tensor.shape, *tensor.contiguous().stride(), 0)
        pickled += text(name) + made % text(str(key))
    members = {"sys_info": integer(0), "pickle": pickled + b"u.", "tensors": views}
    members["storages"] = storages + b"\x80\x02]."
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:", format=tarfile.PAX_FORMAT) as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size, info.mtime = len(data), 1480000000.5
            tar.addfile(info, io.BytesIO(data))
    return stream.getvalue()


def _python2_array(array: np.ndarray, protocol: int) -> bytes:
    """The opcodes that Python 2 wrote for an array: its bytes are a str."""
    raw = array.tobytes(order="F" if array.flags.fnc else "C")
    if protocol == 0:
        quoted = repr(raw)[1:].encode()  # bytes' repr escapes as Python 2's did
        string, name = (lambda s: b"S" + s + b"\n"), (lambda s: b"S'" + s + b"'\n")
        data = string(quoted)
    else:
        name = lambda s: b"U" + bytes([len(s)]) + s  # noqa: E731
        data = b"T" + struct.pack("<i", len(raw)) + raw
    shape = b"(" + b"".join(b"I%d\n" % n for n in array.shape) + b"t"
    code, order = array.dtype.str[1:].encode(), array.dtype.str[:1].encode()
    dtype = b"cnumpy\ndtype\n(" + name(code) + b"I0\nI1\ntR(I3\n" + name(order) + b"NNNI-1\nI-1\nI0\ntb"
    made = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\nt" + name(b"b") + b"tR"
    return made + b"(I1\n" + shape + dtype + (b"I01\n" if array.flags.fnc else b"I00\n") + data + b"tb"


def as_python2_pickle(arrays: dict[str, np.ndarray], protocol: int = 2) -> bytes:
    head = b"\x80\x02" if protocol == 2 else b""
    body = b"".join(b"S'" + k.encode() + b"'\n" + _python2_array(v, protocol) + b"s" for k, v in arrays.items())
    return head + b"(d" + body + b"."


def raw_tensors(path):
    """(dotted name without wrapping, tensor) of a trusted file, read by the libraries themselves."""
    if path.suffix == ".pkl":
        tree = {k: torch.from_numpy(v) for k, v in pickle.loads(path.read_bytes()).items()}
    else:
        tree = torch.load(path, weights_only=True)
    tree = tree.get("state_dict", tree.get("model_state_dict", tree))
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from ((f"{key}.{inner}", tensor) for inner, tensor in value.items())
        else:
            yield key.removeprefix("module."), value
