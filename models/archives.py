"""The containers that weights come in: torch's zip, its two older formats, safetensors, pickled NumPy arrays.

Each reader takes a seekable binary stream and returns a tree of dicts, tensors and plain values. Nothing that
a file *declares* is believed before it is compared with the bytes that are there, so no small file takes much
memory.
"""

import io
import json
import math
import pickle
import re
import struct
import zipfile
from typing import NamedTuple

import safetensors.torch
import torch

from ace_counterfactuals.models.unpickle import NUMPY, Malformed, Refused, plain, unpickle

MAGIC = 0x1950A86A20F9469CFC6C  # first pickle of torch files before 1.6
PROTOCOL = 1001
MAX_HEADER = 2**25
PLAIN_VALUES = "ace"  # safetensors metadata key for the values that are not tensors, as JSON

STORAGES = {
    f"{module}.{kind}Storage": dtype
    for module in ("torch", "torch.cuda")
    for kind, dtype in {
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
    }.items()
}


class Storage(NamedTuple):
    key: object
    dtype: torch.dtype
    numel: int


class View(NamedTuple):
    """A tensor that a file declares, checked against its storage."""

    storage: Storage
    offset: int
    size: tuple
    stride: tuple


def _natural(*values) -> bool:
    return all(type(v) is int and 0 <= v < 2**60 for v in values)


class Declared:
    """What a torch pickle declares: storages by key, and tensors that must lie within them."""

    def __init__(self):
        self.storages: dict[object, Storage] = {}
        self.held = self.declared = 0  # numbers in storages, numbers in tensors

    def table(self) -> dict:
        dtypes = {f"torch.{d}".replace("torch.torch.", "torch."): d for d in set(STORAGES.values())}
        rebuild = {f"torch._utils._rebuild_{name}": self.view for name in ("tensor", "tensor_v2")}
        others = {"torch._utils._rebuild_parameter": self.parameter, "torch.Size": tuple}
        return {**NUMPY, **STORAGES, **dtypes, **rebuild, **others}

    def parameter(self, view, requires_grad=True, hooks=None) -> View:
        if not isinstance(view, View) or not isinstance(hooks, dict | None):
            raise Malformed("holds a parameter with properties that weights do not have")
        return view

    def view(self, storage, offset, size, stride, requires_grad=False, hooks=None, metadata=None) -> View:
        size, stride = tuple(size), tuple(stride)
        if not isinstance(storage, Storage) or not _natural(offset, *size, *stride) or len(size) != len(stride):
            raise Malformed("holds a tensor of no sensible shape")
        if len(size) > 32 or metadata or not isinstance(hooks, dict | None):
            raise Malformed("holds a tensor with properties that weights do not have")
        count = math.prod(size)
        last = offset + sum((n - 1) * s for n, s in zip(size, stride, strict=True)) if count else 0
        if count and last >= storage.numel:
            raise Malformed(f"holds a tensor of shape {size} in a storage of {storage.numel} numbers")
        self.declared += count
        return View(storage, offset, size, stride)

    def storage(self, identifier) -> Storage:
        """Persistent id of torch 0.2 and later: ('storage', type, key, location, numel[, view])."""
        kind, storage_type, key, location, numel, *view = identifier
        dtype = getattr(storage_type, "make", None)
        if kind not in ("storage", b"storage") or not isinstance(dtype, torch.dtype) or any(view):
            raise Malformed("holds a persistent object that is no storage")
        if not _natural(numel) or not isinstance(key, str | int) or not isinstance(location, str):
            raise Malformed("holds a storage of no sensible size")
        return self.add(key, dtype, numel)

    def add(self, key, dtype: torch.dtype, numel: int) -> Storage:
        storage = Storage(key, dtype, numel)
        if key not in self.storages:
            self.storages[key] = storage
            self.held += numel
        if storage != self.storages[key]:
            raise Malformed(f"its storage {str(key)[:20]!r} is declared twice, differently")
        return storage

    def check_sharing(self) -> None:
        """Views may share a storage (tied weights), but converting them must not multiply a small file."""
        if self.declared > 2 * self.held + 2**20:
            raise Malformed("its tensors overlap so much that they are many times larger than the file")


def _torch_load(stream):
    """torch's own reader, after the check; NumPy's names are lent to it as our functions."""
    names = [(make, name) for name, make in NUMPY.items() if name.startswith("numpy.") and make is not None]
    names += [(make, name.replace("numpy.core", "numpy._core")) for make, name in names]
    names += [(type(None), "numpy.ndarray")]
    stream.seek(0)
    with torch.serialization.safe_globals(names):
        try:
            tree = torch.load(stream, weights_only=True, map_location="cpu")
        except pickle.UnpicklingError as error:  # torch knows fewer operations, those of protocol 2
            reason = re.search(r"WeightsUnpickler error:\s*(.+)", str(error))
            said = reason[1] if reason else "it does not say why"
            raise Malformed(f"is refused by torch ({said}); save it again with torch.save's own protocol") from None
    return plain(tree, lambda value: value.detach() if isinstance(value, torch.Tensor) else value)


def torch_zip(stream, size: int):
    """torch.save since 1.6: data.pkl and a raw file a storage, uncompressed."""
    with zipfile.ZipFile(stream) as archive:
        members = {info.filename: info for info in archive.infolist()}
        _check_members(archive.infolist(), size)
        stream.seek(-22, io.SEEK_END)
        if stream.read(4) != b"PK\x05\x06" or min((i.header_offset for i in members.values()), default=0):
            raise Malformed("does not begin or end as torch.save writes it")  # so torch reads what is checked here
        roots = [name[: -len("data.pkl")] for name in members if name.endswith("data.pkl")]
        if not roots:
            shown = ", ".join(list(members)[:3])
            raise Malformed(f"is a zip archive of {shown or 'nothing'}, not weights; give a file inside it")
        if f"{roots[0]}constants.pkl" in members:
            raise Malformed("is a TorchScript program; save its state dict instead: torch.save(model.state_dict(), F)")
        if len(roots) > 1 or roots[0].count("/") != 1 or not all(n.startswith(roots[0]) for n in members):
            raise Malformed("is a zip archive with more than one root")
        declared = Declared()
        tree = unpickle(io.BytesIO(archive.read(f"{roots[0]}data.pkl")), declared.table(), declared.storage)
    for storage in declared.storages.values():
        member = members.get(f"{roots[0]}data/{storage.key}")
        if member is None or member.file_size < storage.numel * storage.dtype.itemsize:
            raise Malformed(f"its storage {str(storage.key)[:20]!r} is missing or shorter than it says")
    declared.check_sharing()
    plain(tree)
    return _torch_load(stream)


def _check_members(infos: list[zipfile.ZipInfo], size: int) -> None:
    """torch.save compresses nothing and writes no paths that lead out; a bomb or a trap does."""
    for info in infos:
        parts = info.filename.replace("\\", "/").split("/")
        if parts[0] == "" or ".." in parts or ":" in parts[0]:
            raise Malformed(f"holds the path {info.filename[:60]!r}, which leads out of the archive")
        if info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size:
            raise Malformed(f"holds the compressed part {info.filename[:60]!r}, which torch.save never writes")
    if len({info.filename for info in infos}) != len(infos):
        raise Malformed("holds two parts of one name")
    if sum(info.file_size for info in infos) > size:
        raise Malformed("declares more bytes than it has")


def torch_legacy(stream, size: int):
    """torch.save before 1.6: three pickles of preamble, the tree, the storages' keys, the storages."""
    declared, stream = Declared(), io.BytesIO(stream.read())
    if unpickle(stream, {}) != MAGIC or unpickle(stream, {}) != PROTOCOL:
        raise Malformed("its preamble is not torch's")
    unpickle(stream, {})
    tree = unpickle(stream, declared.table(), declared.storage)
    keys = unpickle(stream, {})
    sound = isinstance(keys, list) and all(isinstance(key, str | int) for key in keys)
    if not sound or len(keys) != len(declared.storages) or set(keys) != set(declared.storages):
        raise Malformed("its list of storages does not fit its tensors")
    for key in keys:
        _read_storage(stream, declared.storages[key], size)
    declared.check_sharing()
    plain(tree)
    return _torch_load(stream)


def _read_storage(stream, storage: Storage, size: int) -> bytes:
    (numel,) = struct.unpack("<q", stream.read(8))
    count = storage.numel * storage.dtype.itemsize
    if numel != storage.numel or stream.tell() + count > size:
        raise Malformed(f"its storage {str(storage.key)[:20]!r} is shorter than it says; is the download complete?")
    return stream.read(count)


def torch_tar(stream, size: int):
    """torch.save of 0.1: a tar of storages, tensors and a pickle that refers to them. Built here: torch refuses."""
    members = _tar_members(stream.read())
    if not {"storages", "tensors", "pickle"} <= set(members):
        shown = ", ".join(list(members)[:3])
        raise Malformed(f"is a tar archive of {shown or 'nothing'}, not weights; give a file inside it")
    declared, raw = Declared(), {}
    storages = io.BytesIO(members["storages"])
    for _ in range(_count(storages)):
        key, _location, kind = unpickle(storages, STORAGES)
        numel = struct.unpack("<q", storages.read(8))[0]
        storages.seek(-8, io.SEEK_CUR)
        if not _natural(key, numel) or not isinstance(kind.make, torch.dtype):
            raise Malformed("holds a storage of no sensible size")
        data = _read_storage(storages, declared.add(key, kind.make, numel), len(members["storages"]))
        raw[key] = memoryview(data)
    for key, root, offset, numel in unpickle(storages, {}):
        if not _natural(key, root, offset, numel) or offset + numel > declared.storages[root].numel:
            raise Malformed("holds a view outside its storage")
        dtype = declared.storages[root].dtype
        declared.storages[key] = Storage(key, dtype, numel)
        raw[key] = raw[root][offset * dtype.itemsize :]
    tensors = _tar_tensors(io.BytesIO(members["tensors"]), declared)
    tree = unpickle(io.BytesIO(members["pickle"]), declared.table(), lambda key: tensors[int(key)])
    declared.check_sharing()

    def tensor(value):
        if not isinstance(value, View):
            return value
        if not math.prod(value.size):
            return torch.empty(value.size, dtype=value.storage.dtype)
        flat = torch.frombuffer(raw[value.storage.key], dtype=value.storage.dtype, count=value.storage.numel)
        return flat.as_strided(value.size, value.stride, value.offset).clone()

    return plain(tree, tensor)


def _count(stream) -> int:
    count = unpickle(stream, {})
    if not _natural(count) or count > 1_000_000:
        raise Malformed("declares no sensible number of tensors")
    return count


def _tar_tensors(stream, declared: Declared) -> dict[int, View]:
    names = {name.replace("Storage", "Tensor"): None for name in STORAGES}
    tensors = {}
    for _ in range(_count(stream)):
        key, storage, _type = unpickle(stream, names)
        (dimensions, _padding) = struct.unpack("<ii", stream.read(8))
        if not 0 <= dimensions <= 32 or not _natural(key, storage):
            raise Malformed("holds a tensor of no sensible shape")
        numbers = struct.unpack(f"<{2 * dimensions + 1}q", stream.read(8 * (2 * dimensions + 1)))
        size, stride = numbers[:dimensions], numbers[dimensions : 2 * dimensions]
        tensors[key] = declared.view(declared.storages[storage], numbers[-1], size, stride)
    return tensors


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
    data = stream.read()
    (length,) = struct.unpack("<Q", data[:8])
    if length > MAX_HEADER:
        raise Malformed(f"holds a safetensors header of {length} bytes")
    metadata = json.loads(data[8 : 8 + length].decode()).get("__metadata__") or {}
    values = json.loads(metadata.get(PLAIN_VALUES, "{}"))
    return {**values, **safetensors.torch.load(data)}


def numpy_pickle(stream, size: int):
    """A pickled dict of NumPy arrays, Python 2's included (VGGFace2)."""
    return plain(unpickle(io.BytesIO(stream.read()), NUMPY))


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
