"""The containers that weights come in: torch's zip, its two older formats, safetensors, pickled NumPy arrays.

Each reader takes a seekable binary stream and returns a tree of dicts, tensors and plain values. torch.load and
safetensors read; what they would believe of a file that *declares* more than it has is compared with its bytes first,
so that no small file takes much memory.
"""

import io
import json
import pickle
import re
import struct
import zipfile
from collections.abc import Callable
from typing import BinaryIO

import safetensors.torch
import torch

from ace_counterfactuals.models.unpickle import NUMPY, Malformed, Refused, Stream, Unpickler, plain

MAGIC = 0x1950A86A20F9469CFC6C  # first pickle of torch files before 1.6
PLAIN_VALUES = "ace"  # safetensors metadata key for the values that are not tensors, as JSON

KINDS = {
    "Double": torch.float64,
    "Float": torch.float32,
    "Half": torch.float16,
    "BFloat16": torch.bfloat16,
    "Long": torch.int64,
    "Int": torch.int32,
    "Short": torch.int16,
    "Char": torch.int8,
    "Byte": torch.uint8,
    "Bool": torch.bool,
}
TYPES = {f"torch.{part}{kind}Storage": dtype for part in ("", "cuda.") for kind, dtype in KINDS.items()}
TYPES |= {name.replace("Storage", "Tensor"): dtype for name, dtype in TYPES.items()}
TORCH = {
    **NUMPY,
    **TYPES,
    **{str(dtype): dtype for dtype in KINDS.values()},
    **dict.fromkeys(("torch._utils._rebuild_tensor", "torch._utils._rebuild_tensor_v2"), lambda *_: None),
    "torch._utils._rebuild_parameter": lambda data, *_: data,
    "torch.Size": tuple,
}
"""What a torch pickle may ask for. Tensors are left to torch, which holds each to the size of its storage."""


class Storages(dict):
    """Key -> bytes of the storages that a torch pickle declares."""

    def declare(self, identifier):
        """A persistent id of torch 0.2 and later: ('storage', type, key, location, numel[, view])."""
        kind, dtype, key, location, numel, *view = identifier
        sound = kind == "storage" and isinstance(dtype, torch.dtype) and isinstance(location, str) and not any(view)
        if not sound or not isinstance(key, str | int) or type(numel) is not int or numel < 0:
            raise Malformed("holds a persistent object that is no storage")
        if self.setdefault(key, numel * dtype.itemsize) != numel * dtype.itemsize:
            raise Malformed(f"its storage {str(key)[:20]!r} is declared twice, differently")


def _finished(tree):
    """The tree of plain values and tensors.

    These may share a storage (tied weights), but those of a small file must not be many times as large.
    """
    seen: dict = {}
    made = plain(tree, seen=seen)
    tensors = [value for _, value in seen.values() if isinstance(value, torch.Tensor)]
    storages = {storage.data_ptr(): storage.nbytes() for storage in (tensor.untyped_storage() for tensor in tensors)}
    if sum(tensor.numel() * tensor.element_size() for tensor in tensors) > 2 * sum(storages.values()) + 2**20:
        raise Malformed("its tensors overlap so much that they are many times larger than the file")
    return made


def _torch_load(stream: BinaryIO):
    """torch's own reader, after the check; NumPy's names are lent to it as our functions."""
    names: list[Callable | tuple[Callable, str]] = [(type(None), "numpy.ndarray")]
    for name, make in NUMPY.items():
        if name.startswith("numpy.") and make is not None:
            names += [(make, name), (make, name.replace("numpy.core", "numpy._core"))]
    stream.seek(0)
    with torch.serialization.safe_globals(names):
        try:
            return _finished(torch.load(stream, weights_only=True, map_location="cpu"))
        except pickle.UnpicklingError as error:  # torch knows fewer operations, those of protocol 2
            reason = re.search(r"WeightsUnpickler error:\s*(.+)", str(error))
            said = reason[1] if reason else "it does not say why"
            raise Malformed(f"is refused by torch ({said}); save it again with torch.save's own protocol") from None


def torch_zip(stream, size: int):
    """torch.save since 1.6: data.pkl and a raw file a storage, uncompressed."""
    with zipfile.ZipFile(stream) as archive:
        members = {info.filename: info for info in archive.infolist()}
        root = _check_members(archive.infolist(), size)
        stream.seek(-22, io.SEEK_END)
        if stream.read(4) != b"PK\x05\x06" or min(info.header_offset for info in members.values()):
            raise Malformed("does not begin or end as torch.save writes it")  # so torch reads what is checked here
        storages = Storages()
        Unpickler(Stream(archive.read(f"{root}data.pkl")), TORCH, storages.declare).load()
    for key, count in storages.items():
        member = members.get(f"{root}data/{key}")
        if member is None or member.file_size < count:
            raise Malformed(f"its storage {str(key)[:20]!r} is missing or shorter than it says")
    return _torch_load(stream)


def _check_members(infos: list[zipfile.ZipInfo], size: int) -> str:
    """The folder of everything, of an archive as torch.save writes it: one folder, nothing compressed or twice."""
    names = [info.filename for info in infos]
    root = next((name.removesuffix("data.pkl") for name in names if name.endswith("data.pkl")), None)
    if root is None:
        raise Malformed(f"is a zip archive of {', '.join(names[:3]) or 'nothing'}, not weights; give a file inside it")
    if f"{root}constants.pkl" in names:
        raise Malformed("is a TorchScript program; save its state dict instead: torch.save(model.state_dict(), F)")
    stray = [name for name in names if root.count("/") != 1 or not name.startswith(root) or ".." in name]
    if stray:
        raise Malformed(f"holds the path {stray[0][:60]!r}, which is outside the folder of the weights")
    packed = [info.filename for info in infos if info.compress_type or info.file_size != info.compress_size]
    if packed:
        raise Malformed(f"holds the compressed part {packed[0][:60]!r}, which torch.save never writes")
    if len(set(names)) != len(names) or sum(info.file_size for info in infos) > size:
        raise Malformed("holds two parts of one name, or declares more bytes than it has")
    return root


def torch_legacy(stream, size: int):
    """torch.save before 1.6: three pickles of preamble, the tree, the storages' keys, the storages."""
    storages, read = Storages(), Stream(stream.read())
    for _ in range(3):
        Unpickler(read, {}).load()
    Unpickler(read, TORCH, storages.declare).load()
    keys = Unpickler(read, {}).load()
    sound = isinstance(keys, list) and all(isinstance(key, str | int) for key in keys)
    if not sound or len(keys) != len(storages) or set(keys) != set(storages):
        raise Malformed("its list of storages does not fit its tensors")
    if read.tell() + sum(storages.values()) > size:
        raise Malformed("its storages are shorter than it says; is the download complete?")
    return _torch_load(stream)


def torch_tar(stream, size: int):
    """torch.save of 0.1: a tar of storages, tensors and a pickle that refers to them. Built here: torch refuses."""
    members = _tar_members(stream.read())
    if not {"storages", "tensors", "pickle"} <= set(members):
        raise Malformed(f"is a tar archive of {', '.join(list(members)[:3])}, not weights; give a file inside it")
    read, flat, tensors = Stream(members["storages"]), {}, {}
    for _ in range(Unpickler(read, {}).load()):
        key, _location, dtype = Unpickler(read, TYPES).load()
        (numel,) = struct.unpack("<q", read.read(8))
        data = bytearray(read.read(max(0, numel) * dtype.itemsize))
        flat[int(key)] = torch.frombuffer(data, dtype=dtype, count=numel) if numel else torch.empty(0, dtype=dtype)
    for key, whole, offset, numel in Unpickler(read, {}).load():
        flat[int(key)] = flat[int(whole)].narrow(0, offset, numel)
    read = Stream(members["tensors"])
    for _ in range(Unpickler(read, {}).load()):
        key, storage, _type = Unpickler(read, TYPES).load()
        dimensions, _padding = struct.unpack("<ii", read.read(8))
        numbers = struct.unpack(f"<{2 * dimensions + 1}q", read.read(8 * (2 * dimensions + 1)))
        within = flat[int(storage)]
        size_, stride, offset = numbers[:dimensions], numbers[dimensions:-1], numbers[-1] + within.storage_offset()
        tensors[int(key)] = within.as_strided(size_, stride, offset)
    names = {name: make for name, make in TORCH.items() if not name.startswith("torch._utils._rebuild_tensor")}
    return _finished(Unpickler(Stream(members["pickle"]), names, lambda key: tensors[int(key)]).load())


def _tar_members(data: bytes) -> dict[str, bytes]:
    """Name -> bytes of the regular members. The standard library's reader can be led into endless loops."""
    members, at = {}, 0
    while at + 512 <= len(data) and data[at]:
        header = data[at : at + 512]
        size = int(header[124:136].rstrip(b"\0 ") or b"0", 8)
        if not 0 <= size <= len(data) - at - 512:
            raise Malformed("is a tar archive that ends early; is the download complete?")
        if header[156:157] in (b"0", b"\0"):
            members[header[:100].rstrip(b"\0").decode("latin-1")] = data[at + 512 : at + 512 + size]
        at += 512 + (size + 511) // 512 * 512
    return members


def safetensors_file(stream, size: int):
    """safetensors, with the plain values of a tree as JSON in its metadata."""
    data = stream.read()
    tensors = safetensors.torch.load(data)  # which checks the header
    header = json.loads(data[8 : 8 + struct.unpack("<Q", data[:8])[0]])
    return {**json.loads(header.get("__metadata__", {}).get(PLAIN_VALUES, "{}")), **tensors}


def numpy_pickle(stream, size: int):
    """A pickled dict of NumPy arrays, Python 2's included (VGGFace2)."""
    return plain(Unpickler(Stream(stream.read()), NUMPY).load())


def reader(head: bytes, size: int):
    """The function that reads a file with this beginning, or None."""
    if head.startswith(b"PK\x03\x04"):
        return torch_zip
    if head[257:262] == b"ustar":
        return torch_tar
    if len(head) > 9 and head[8:9] == b"{" and struct.unpack("<Q", head[:8])[0] <= size - 8:
        return safetensors_file
    if head[:1] == b"\x80" and MAGIC.to_bytes(10, "little") in head[:16]:
        return torch_legacy
    return numpy_pickle if head[:1] in (b"\x80", b"(", b"]", b"}", b"c") else None


__all__ = ["Malformed", "Refused", "reader"]
