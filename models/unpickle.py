"""One unpickler that can make data and nothing else, for NumPy's pickles and to look into torch's before torch does.

``torch.load(weights_only=True)`` runs no code, but it bounds neither memory nor time: it would make a bytearray of any
size, copy one text as often as it is told, hash tuples of tuples until the stack is full, and read past a storage that
is shorter than it says. A pickle goes through here first, where only functions of ours are called.
"""

import io
import pickle
import re
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
import torch

MAX_READS = 1_000_000  # up to three an operation: a second; a checkpoint with its optimiser takes some 40,000
MAX_DEPTH = 64


class Malformed(ValueError):
    """The bytes are not such a file."""


class Refused(ValueError):
    """The pickle asks for more than data; the message is the name of it."""


class Stream(io.BytesIO):
    """Bytes to unpickle, one pickle or several, which can be read from only so often."""

    reads = 0

    def read(self, size=-1) -> bytes:
        self.reads += 1
        if self.reads > MAX_READS:
            raise Malformed("takes more steps to read than weights do")
        return super().read(size)


class Unpickler(pickle._Unpickler):  # the one in Python: C's reserves memory for any number that a file counts to
    """names: what a pickle may ask for, by 'module.name'; persistent: makes what it refers to outside of itself.

    ``load`` raises Refused, Malformed, or what Python raises where an operation meets values that it cannot take.
    """

    dispatch: ClassVar[dict[int, Callable[..., Any]]] = dict(pickle._Unpickler.dispatch)

    def __init__(self, stream: Stream, names: dict, persistent: Callable | None = None):
        super().__init__(stream, encoding="latin1")  # Python 2 wrote bytes as text
        self.names, self.persistent = names, persistent
        self.budget = 4 * stream.getbuffer().nbytes + 2**20

    def find_class(self, module: str, name: str):
        known = f"{module}.{name}".replace("numpy._core.", "numpy.core.")
        if known not in self.names:
            raise Refused(f"{module}.{name}")
        return self.names[known]

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
        self.spend(self.stack[-1])
        super().load_reduce()

    def load_build(self):
        """Arrays and dtypes take their state; a dict's attributes (a state dict's versions) are not needed."""
        state = self.stack.pop()
        if isinstance(self.stack[-1], Array | DType):
            self.spend(state)
            self.stack[-1].__setstate__(state)
        elif not isinstance(self.stack[-1], dict):
            raise Malformed(f"sets the state of a {type(self.stack[-1]).__name__}")

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


def _check_keys(keys) -> None:
    """Nothing whose hash recurses (nested tuples) or can be made to collide (huge integers)."""
    for key in keys:
        if not (key is None or isinstance(key, str | bytes) or (isinstance(key, int) and abs(key) < 2**60)):
            raise Malformed(f"holds a {type(key).__name__} as a key of a dict")


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


class Array:
    """numpy.ndarray as pickled: made empty, then given its state.  ``tensor``: what it holds."""

    def __init__(self, *_):
        self.tensor = None

    def __setstate__(self, state):
        _, shape, dtype, fortran, raw = state
        self.fill(raw, dtype, shape, "F" if fortran else "C")

    def fill(self, raw, dtype, shape, order):
        raw = raw.encode("latin-1") if isinstance(raw, str) else raw
        if not isinstance(raw, bytes):  # NumPy would take a number for a size
            raise Malformed("holds an array without its bytes")
        if len(shape) > 32:
            raise Malformed("holds an array of more than 32 dimensions")
        flat = np.frombuffer(raw, dtype.dtype).astype(dtype.dtype.newbyteorder("="))
        self.tensor = torch.from_numpy(np.ascontiguousarray(flat.reshape(shape, order=order)).reshape(shape))
        return self


def _scalar(dtype, raw):
    return Array().fill(raw, dtype, (1,), "C").tensor.item()


def _encode(text, encoding="latin1") -> bytes:
    """_codecs.encode as protocol 2 uses it for bytes; other codecs could inflate what they are given."""
    if encoding not in ("latin1", "latin-1"):
        raise Refused("a codec other than latin1")
    return text.encode("latin-1")


def _ordered(items=()) -> dict:
    items = [(key, value) for key, value in items]
    _check_keys(key for key, _ in items)
    return dict(items)


def _set(items=()) -> set:
    _check_keys(items)
    return set(items)


NUMPY = {
    "numpy.ndarray": None,
    "numpy.dtype": DType,
    "numpy.core.multiarray._reconstruct": Array,
    "numpy.core.multiarray.scalar": _scalar,
    "numpy.core.numeric._frombuffer": lambda raw, dtype, shape, order: Array().fill(raw, dtype, shape, order),
    "_codecs.encode": _encode,
    "collections.OrderedDict": _ordered,
    "collections.Counter": lambda counts=(): dict(counts) if isinstance(counts, dict) else {},
    "builtins.set": _set,
    "__builtin__.set": _set,
}
"""What pickles of arrays and of plain containers ask for, made by functions of ours."""


def plain(tree, depth: int = 0, seen: dict | None = None):
    """The tree in dicts, lists and tuples, with arrays as tensors; parts that are shared stay shared."""
    seen = {} if seen is None else seen
    if depth > MAX_DEPTH:
        raise Malformed(f"is nested deeper than {MAX_DEPTH}")
    if id(tree) in seen:
        return seen[id(tree)][1]
    made = tree
    if isinstance(tree, Array):
        made = tree.tensor
    elif callable(tree):
        raise Refused(getattr(tree, "__name__", "a function"))
    elif isinstance(tree, DType):
        made = str(tree.dtype)
    elif isinstance(tree, torch.Tensor):
        made = tree.detach()
    elif isinstance(tree, dict):
        made = {key: plain(value, depth + 1, seen) for key, value in tree.items()}
    elif isinstance(tree, list | tuple):
        made = (list if isinstance(tree, list) else tuple)(plain(value, depth + 1, seen) for value in tree)
    seen[id(tree)] = tree, made
    return made
