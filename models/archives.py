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
from torch import Tensor

from ace_counterfactuals.models.unpickle import NAMES, Malformed, Opaque, Stream, Unpickler, plain

MAGIC = 0x1950A86A20F9469CFC6C  # first pickle of torch files before 1.6
PLAIN_VALUES = "ace"  # safetensors metadata key for the values that are not tensors, as JSON


class Storages(dict[str | int, int]):
    """Key -> bytes of the storages that a torch pickle declares."""

    def declare(self, identifier) -> None:
        """A persistent id of torch 0.2 and later: ('storage', type, key, location, numel[, view])."""
        kind, dtype, key, location, numel, *view = identifier
        sound = kind == "storage" and isinstance(dtype, torch.dtype) and isinstance(location, str) and not any(view)
        if not sound or not isinstance(key, str | int) or type(numel) is not int or numel < 0:
            raise Malformed("holds a persistent object that is no storage")
        if self.setdefault(key, numel * dtype.itemsize) != numel * dtype.itemsize:
            raise Malformed(f"its storage {str(key)[:20]!r} is declared twice, differently")


def _torch_load(stream: BinaryIO):
    """torch's own reader, after the check; NumPy's names are lent to it as our functions."""
    names: list[Callable | tuple[Callable, str]] = [(type(None), "numpy.ndarray")]
    for name, make in NAMES.items():
        if name.startswith("numpy.") and make is not None:
            names += [(make, name), (make, name.replace("numpy.core", "numpy._core"))]
    stream.seek(0)
    with torch.serialization.safe_globals(names):
        try:
            return plain(torch.load(stream, weights_only=True, map_location="cpu"))
        except pickle.UnpicklingError as error:  # torch knows fewer operations, those of protocol 2
            reason = re.search(r"WeightsUnpickler error:\s*(.+)", str(error))
            said = reason[1] if reason else "it does not say why"
            raise Malformed(f"is refused by torch ({said}); save it again with torch.save's own protocol") from None


def torch_zip(stream: BinaryIO):
    """torch.save since 1.6: data.pkl and a raw file a storage, uncompressed."""
    with zipfile.ZipFile(stream) as archive:
        members = {info.filename: info for info in archive.infolist()}
        size = stream.seek(0, io.SEEK_END)
        root = _check_members(archive.infolist(), size)
        stream.seek(size - 22)
        if stream.read(4) != b"PK\x05\x06" or min(info.header_offset for info in members.values()):
            raise Malformed("does not begin or end as torch.save writes it")  # so torch reads what is checked here
        storages = Storages()
        Unpickler(Stream(archive.read(f"{root}data.pkl")), storages.declare).load()
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


def torch_legacy(stream: BinaryIO):
    """torch.save before 1.6: three pickles of preamble, the tree, the storages' keys, the storages."""
    storages, read = Storages(), Stream(stream.read())
    for _ in range(3):
        Unpickler(read).load()
    Unpickler(read, storages.declare).load()
    keys = Unpickler(read).load()
    sound = isinstance(keys, list) and all(isinstance(key, str | int) for key in keys)
    if not sound or len(keys) != len(storages) or set(keys) != set(storages):
        raise Malformed("its list of storages does not fit its tensors")
    if read.tell() + sum(storages.values()) > len(read.getbuffer()):
        raise Malformed("its storages are shorter than it says; is the download complete?")
    return _torch_load(stream)


def torch_tar(stream: BinaryIO):
    """torch.save of 0.1: a tar of storages, tensors and a pickle that refers to them. Built here: torch refuses."""
    members = _tar_members(stream.read())
    if not {"storages", "tensors", "pickle"} <= set(members):
        raise Malformed(f"is a tar archive of {', '.join(list(members)[:3])}, not weights; give a file inside it")
    storages: dict[int, Tensor] = {}
    read = Stream(members["storages"])
    for _ in range(Unpickler(read).load()):
        key, _location, dtype = Unpickler(read).load()
        (numel,) = struct.unpack("<q", read.read(8))
        data = bytearray(read.read(max(0, numel) * dtype.itemsize))
        storages[int(key)] = torch.frombuffer(data, dtype=dtype) if data else torch.empty(0, dtype=dtype)
        if len(storages[int(key)]) != numel:
            raise Malformed("its storages are shorter than it says; is the download complete?")
    for key, whole, offset, numel in Unpickler(read).load():
        storages[int(key)] = storages[int(whole)].narrow(0, offset, numel)
    tensors: dict[int, Opaque] = {}
    read = Stream(members["tensors"])
    for _ in range(Unpickler(read).load()):
        key, storage, _type = Unpickler(read).load()
        dimensions, _padding = struct.unpack("<ii", read.read(8))
        *numbers, offset = struct.unpack(f"<{2 * dimensions + 1}q", read.read(8 * (2 * dimensions + 1)))
        size, stride, within = numbers[:dimensions], numbers[dimensions:], storages[int(storage)]
        tensors[int(key)] = Opaque(within.as_strided(size, stride, within.storage_offset() + offset))
    return plain(Unpickler(Stream(members["pickle"]), lambda key: tensors[int(key)]).load())


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


def safetensors_file(stream: BinaryIO):
    """safetensors, with the plain values of a tree as JSON in its metadata."""
    data = stream.read()
    tensors = safetensors.torch.load(data)  # which checks the header
    header = json.loads(data[8 : 8 + struct.unpack("<Q", data[:8])[0]])
    return {**json.loads(header.get("__metadata__", {}).get(PLAIN_VALUES, "{}")), **tensors}


def numpy_pickle(stream: BinaryIO):
    """A pickled dict of NumPy arrays, Python 2's included (VGGFace2)."""
    return plain(Unpickler(Stream(stream.read())).load())


OTHERS = {
    r"\Z": "is empty (0 bytes); fetch it again",
    r"\s*<(!doctype|html|\?xml|head)": "is a web page, not weights; save the file that it links to",
    r"version https://git-lfs": "is a git-lfs pointer, not the weights; run: git lfs pull",
    r"\x1f\x8b|BZh|\xfd7zXZ|7z\xbc\xaf": "is a compressed archive; unpack it and give the file inside",
}
"""Beginning of a file -> what it is instead of weights."""


def read_tree(stream: BinaryIO):
    """The tree in a file of any kind.  Raises Malformed, Refused, and what the libraries raise of hostile bytes."""
    head = stream.read(512)
    stream.seek(0)
    if head.startswith(b"PK\x03\x04"):
        return torch_zip(stream)
    if head[257:262] == b"ustar":
        return torch_tar(stream)
    if head[6:9] == b"\0\0{":  # after the length of the header
        return safetensors_file(stream)
    if head[:1] == b"\x80" and MAGIC.to_bytes(10, "little") in head[:16]:
        return torch_legacy(stream)
    if head[:1] in (b"\x80", b"(", b"]", b"}", b"c"):
        return numpy_pickle(stream)
    known = (said for start, said in OTHERS.items() if re.match(start, head.decode("latin-1"), re.IGNORECASE))
    unknown = f"is in no known format (begins with {head[:12]!r}); wanted torch.save, safetensors or a pickle of arrays"
    raise Malformed(next(known, unknown))
