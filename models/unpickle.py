"""One unpickler that can make data and nothing else, for NumPy's pickles and to look into torch's before torch does.

``torch.load(weights_only=True)`` runs no code, but it bounds neither memory nor time: it would make a bytearray of any
size, copy one text as often as it is told, hash tuples of tuples until the stack is full, and read past a storage that
is shorter than it says. A pickle goes through here first, where only functions of ours are called.
"""

import io
import pickle
import re
from collections.abc import Callable, Iterable
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

MAX_READS = 1_000_000  # up to three an operation: a second; a checkpoint with its optimiser takes some 40,000
MAX_DEPTH = 64


class Malformed(ValueError):
    """The bytes are not such a file."""


class Refused(ValueError):
    """The pickle asks for more than data; the message is the name of it."""


class Stream(io.BytesIO):
    """Bytes to unpickle, one pickle or several, which can be read from only so often."""

    reads = 0

    def read(self, size: int | None = -1) -> bytes:
        self.reads += 1
        if self.reads > MAX_READS:
            raise Malformed("takes more steps to read than weights do")
        return super().read(size)


class Unpickler(pickle._Unpickler):  # the one in Python: C's reserves memory for any number that a file counts to
    """Makes what ``NAMES`` says of a pickle.  persistent: makes what it refers to outside of itself.

    ``load`` raises Refused, Malformed, or what Python raises where an operation meets values that it cannot take.
    """

    dispatch: ClassVar[dict[int, Callable[..., Any]]] = dict(pickle._Unpickler.dispatch)
    stack: list[Any]
    append: Callable[[Any], None]
    read: Callable[[int], bytes]

    def __init__(self, stream: Stream, persistent: Callable[[Any], Any] | None = None):
        super().__init__(stream, encoding="latin1")  # Python 2 wrote bytes as text
        self.persistent = persistent
        self.budget = 4 * stream.getbuffer().nbytes + 2**20

    def find_class(self, module: str, name: str):
        known = f"{module}.{name}".replace("numpy._core.", "numpy.core.")
        if known not in NAMES:
            raise Refused(f"{module}.{name}")
        return NAMES[known]

    def persistent_load(self, pid):
        if self.persistent is None:
            raise Refused("a persistent object")
        self.spend((pid,))
        return self.persistent(pid)

    def spend(self, values) -> None:
        """A short pickle can hand one long text to a function that copies it, again and again."""
        self.budget -= sum(len(value) for value in values if hasattr(value, "__len__"))
        if self.budget < 0:
            raise Malformed("makes many times more than it holds")

    def load_reduce(self):
        values = self.stack.pop()
        self.spend(values)
        self.stack[-1] = self.stack[-1](*values)

    def load_build(self):
        """Arrays and dtypes take their state; a dict's attributes (a state dict's versions) are not needed."""
        state, made = self.stack.pop(), self.stack[-1]
        if isinstance(made, Array | DType):
            self.spend(state)
            made.__setstate__(state)
        elif not isinstance(made, dict):
            raise Malformed(f"sets the state of a {type(made).__name__}")

    def load_frame(self):
        self.read(8)  # its length; what is in it is read like all else

    def load_bytearray8(self):
        self.append(self.read(int.from_bytes(self.read(8), "little")))

    def load_object(self):
        raise Refused("an object of a class")

    dispatch |= {pickle.REDUCE[0]: load_reduce, pickle.BUILD[0]: load_build, pickle.FRAME[0]: load_frame}
    dispatch[pickle.BYTEARRAY8[0]] = load_bytearray8
    dispatch |= dict.fromkeys(b"".join((pickle.INST, pickle.OBJ, pickle.NEWOBJ, pickle.NEWOBJ_EX)), load_object)
    dispatch |= dict.fromkeys(b"".join((pickle.EXT1, pickle.EXT2, pickle.EXT4)), load_object)


def _with_keys(load: Callable, keys: slice) -> Callable:
    def checked(self):
        _check_keys(self.stack[keys])
        load(self)

    return checked


for _operation, _keys in {
    pickle.SETITEM: slice(-2, -1),
    pickle.SETITEMS: slice(0, None, 2),
    pickle.DICT: slice(0, None, 2),
    pickle.ADDITEMS: slice(0, None),
    pickle.FROZENSET: slice(0, None),
}.items():
    Unpickler.dispatch[_operation[0]] = _with_keys(Unpickler.dispatch[_operation[0]], _keys)


def _check_keys(keys: Iterable) -> None:
    """Nothing whose hash recurses (nested tuples) or can be made to collide (huge integers)."""
    for key in keys:
        if not (key is None or isinstance(key, str | bytes) or (isinstance(key, int) and abs(key) < 2**60)):
            raise Malformed(f"holds a {type(key).__name__} as a key of a dict")


class Opaque:
    """A tensor that a pickle can hand on but not look into: what iterates it or sets its items would fail."""

    def __init__(self, tensor: Tensor):
        self.tensor = tensor


class DType:
    """numpy.dtype as pickled: a code such as 'f4', then a state that holds the byte order."""

    def __init__(self, code, *_):
        code = code.decode("latin-1") if isinstance(code, bytes) else code
        if not re.fullmatch(r"[<>=|]?(b1|[iu][1248]|f[248])", code):
            raise Refused(f"the NumPy type {code[:20]!r}")
        self.dtype = np.dtype(code)

    def __setstate__(self, state):
        order = state[1].decode("latin-1") if isinstance(state[1], bytes) else state[1]
        self.dtype = self.dtype.newbyteorder(order)


class Array(Opaque):
    """numpy.ndarray as pickled: made empty, then given its state."""

    def __init__(self, *_):
        super().__init__(torch.empty(0))

    def __setstate__(self, state):
        _, shape, dtype, fortran, raw = state
        self.tensor = _tensor(raw, dtype, shape, "F" if fortran else "C")


def _tensor(raw, dtype: DType, shape: tuple[int, ...], order) -> Tensor:
    """The numbers of an array, in this machine's byte order, row by row."""
    raw = raw.encode("latin-1") if isinstance(raw, str) else raw
    if not isinstance(raw, bytes):  # NumPy would take a number for a size
        raise Malformed("holds an array without its bytes")
    if len(shape) > 32:
        raise Malformed("holds an array of more than 32 dimensions")
    array = np.frombuffer(raw, dtype.dtype).reshape(shape, order=order)
    return torch.from_numpy(array.astype(dtype.dtype.newbyteorder("="), order="C"))


def _encode(text: str, encoding: str = "latin1") -> bytes:
    """_codecs.encode as protocol 2 uses it for bytes; other codecs could inflate what they are given."""
    if encoding not in ("latin1", "latin-1"):
        raise Refused("a codec other than latin1")
    return text.encode("latin-1")


def _ordered(items: Iterable = ()) -> dict:
    items = [(key, value) for key, value in items]
    _check_keys(key for key, _ in items)
    return dict(items)


def _set(items: Iterable = ()) -> set:
    _check_keys(items)
    return set(items)


NAMES: dict[str, Any] = {
    "numpy.ndarray": None,
    "numpy.dtype": DType,
    "numpy.core.multiarray._reconstruct": Array,
    "numpy.core.multiarray.scalar": lambda dtype, raw: _tensor(raw, dtype, (), "C").item(),
    "numpy.core.numeric._frombuffer": lambda *array: Opaque(_tensor(*array)),
    "_codecs.encode": _encode,
    "collections.OrderedDict": _ordered,
    "collections.Counter": lambda counts=(): dict(counts) if isinstance(counts, dict) else {},
    "builtins.set": _set,
    "__builtin__.set": _set,
    "torch._utils._rebuild_tensor": lambda *_: None,  # left to torch, which holds it to the size of its storage
    "torch._utils._rebuild_tensor_v2": lambda *_: None,
    "torch._utils._rebuild_parameter": lambda data, *_: data,
    "torch.Size": tuple,
}
"""What a pickle may ask for, and what it gets: arrays, tensors, plain containers, and functions of ours."""
for _kind in ("Double", "Float", "Half", "BFloat16", "Long", "Int", "Short", "Char", "Byte", "Bool"):
    _dtype = getattr(torch, f"{_kind}Tensor").dtype
    NAMES[str(_dtype)] = _dtype
    for _place in ("torch", "torch.cuda"):
        NAMES |= {f"{_place}.{_kind}Storage": _dtype, f"{_place}.{_kind}Tensor": _dtype}


def plain(tree: Any) -> Any:
    """The tree that was unpickled in dicts, lists and tuples, with tensors; parts that are shared stay shared.

    Tensors may share a storage (tied weights), but those of a small file must not be many times as large.
    """
    seen: dict[int, tuple[Any, Any]] = {}
    made = _plain(tree, 0, seen)
    tensors = [value for _, value in seen.values() if isinstance(value, Tensor)]
    storages = {storage.data_ptr(): storage.nbytes() for storage in (tensor.untyped_storage() for tensor in tensors)}
    if sum(tensor.numel() * tensor.element_size() for tensor in tensors) > 2 * sum(storages.values()) + 2**20:
        raise Malformed("its tensors overlap so much that they are many times larger than the file")
    return made


def _plain(tree: Any, depth: int, seen: dict[int, tuple[Any, Any]]) -> Any:
    """seen: id of a part -> the part, which so lives on, and what was made of it."""
    if depth > MAX_DEPTH:
        raise Malformed(f"is nested deeper than {MAX_DEPTH}")
    if id(tree) in seen:
        return seen[id(tree)][1]
    made = tree
    if isinstance(tree, Opaque):
        made = tree.tensor
    elif callable(tree):
        raise Refused(getattr(tree, "__name__", "a function"))
    elif isinstance(tree, DType):
        made = str(tree.dtype)
    elif isinstance(tree, Tensor):
        made = tree.detach()
    elif isinstance(tree, dict):
        made = {key: _plain(value, depth + 1, seen) for key, value in tree.items()}
    elif isinstance(tree, list | tuple):
        made = (list if isinstance(tree, list) else tuple)(_plain(value, depth + 1, seen) for value in tree)
    seen[id(tree)] = tree, made
    return made
