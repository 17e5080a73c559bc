"""A pickle machine that can make data and nothing else.

A pickle is a program. This one runs it with our own hands: it knows plain containers and numbers, and a
global only if its name stands in the table that the caller gives; nothing is ever imported. The table's
values are functions of ours, so no function of the file's choosing is called either.
"""

import codecs
import io
import pickletools
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch

MAX_OPS = 500_000  # less than a second; a checkpoint with its optimiser takes some 20,000
MAX_DEPTH = 64


class Malformed(ValueError):
    """The bytes are not such a pickle."""


class Refused(ValueError):
    """The pickle asks for a global that is not in the table; the message is its name."""


class Global(NamedTuple):
    name: str
    make: Any  # a function of ours that builds the value, or None where the name is only a marker


# Opcodes whose decoded argument is the value: all numbers, strings and bytes.
PUSH_ARGUMENT = frozenset(
    op.name
    for op in pickletools.opcodes
    if op.arg
    and op.stack_after
    and op.stack_after[0].name in ("int", "bool", "int_or_bool", "float", "str", "bytes", "bytes_or_str", "bytearray")
)
PUSH_CONSTANT = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
PUSH_EMPTY = {"EMPTY_LIST": list, "EMPTY_DICT": dict, "EMPTY_SET": set}
FROM_MARK = {"LIST": list, "TUPLE": tuple, "FROZENSET": lambda items: frozenset(map(key, items))}


def key(value):
    """A dict key: nothing whose hash recurses (nested tuples) or can be made to collide (huge integers)."""
    if value is None or isinstance(value, str | bytes) or (isinstance(value, int) and abs(value) < 2**60):
        return value
    raise Malformed(f"holds a {type(value).__name__} as a key of a dict")


def pairs(items) -> dict:
    items = list(items)
    if len(items) % 2:
        raise Malformed("holds a dict with a key and no value")
    return {key(k): v for k, v in zip(items[::2], items[1::2], strict=True)}


def opcodes(stream):
    """(name, argument) up to and with STOP; unlike pickletools, STRING is read as latin1 (Python 2 wrote bytes)."""
    for _ in range(MAX_OPS):
        op = pickletools.code2op.get(stream.read(1).decode("latin-1"))
        if op is None:
            raise Malformed("ends early, or is no pickle; is the download complete?")
        if op.name == "STRING":
            quoted = re.fullmatch(rb"(['\"])(.*)\1\s*", stream.readline())
            if quoted is None:
                raise Malformed("holds a string without quotes")
            yield op.name, codecs.escape_decode(quoted[2])[0].decode("latin-1")
        else:
            yield op.name, op.arg.reader(stream) if op.arg else None
        if op.name == "STOP":
            return
    raise Malformed(f"takes more than {MAX_OPS} steps to read")


class _Machine:
    def __init__(self, table: dict[str, Any], persistent: Callable | None, budget: int):
        """budget: how many items or bytes the table's functions may be given, all calls together."""
        self.table, self.persistent, self.budget = table, persistent, budget
        self.stack, self.marks, self.memo = [], [], {}

    def spend(self, values) -> None:
        """A short pickle can hand one long string to a function that copies it, again and again."""
        self.budget -= sum(len(v) for v in values if isinstance(v, str | bytes | bytearray | list | tuple | dict | set))
        if self.budget < 0:
            raise Malformed("makes many times more than it holds")

    def since_mark(self) -> list:
        start = self.marks.pop()
        items = self.stack[start:]
        del self.stack[start:]
        return items

    def named(self, name: str) -> Global:
        known = name.replace("numpy._core.", "numpy.core.")
        if known not in self.table:
            raise Refused(name)
        return Global(name, self.table[known])

    def reduce(self):
        args, function = self.stack.pop(), self.stack.pop()
        if not isinstance(function, Global):
            raise Malformed("calls something that is not a function")
        if function.make is None or not callable(function.make):
            raise Refused(f"{function.name}()")
        self.spend(args)
        return function.make(*args)

    def persist(self, identifier):
        if self.persistent is None:
            raise Refused("a persistent object")
        self.spend((identifier,))
        return self.persistent(identifier)

    def grow(self, name: str, items: list) -> None:
        target = self.stack[-1]
        if name.startswith("SETITEM") and isinstance(target, dict):
            target.update(pairs(items))
        elif name.startswith("APPEND") and isinstance(target, list):
            target.extend(items)
        elif name == "ADDITEMS" and isinstance(target, set):
            target.update(map(key, items))
        else:
            raise Malformed(f"adds an item to a {type(target).__name__} ({name})")

    def build(self, state) -> None:
        """Arrays and dtypes take their state; a dict's attributes (a state dict's versions) are not needed."""
        target = self.stack[-1]
        if isinstance(target, Array | DType):
            self.spend(state)
            target.__setstate__(state)
        elif not isinstance(target, dict):
            raise Malformed(f"sets the state of a {type(target).__name__}")

    def step(self, name: str, arg) -> None:
        stack = self.stack
        match name:
            case _ if name in PUSH_ARGUMENT:
                stack.append(arg)
            case _ if name in PUSH_CONSTANT:
                stack.append(PUSH_CONSTANT[name])
            case _ if name in PUSH_EMPTY:
                stack.append(PUSH_EMPTY[name]())
            case _ if name in FROM_MARK:
                stack.append(FROM_MARK[name](self.since_mark()))
            case "DICT":
                stack.append(pairs(self.since_mark()))
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                count = int(name[-1])
                stack[-count:] = [tuple(stack[-count:])]
            case "MARK":
                self.marks.append(len(stack))
            case "POP" | "POP_MARK":
                stack.pop() if name == "POP" else self.since_mark()
            case "DUP":
                stack.append(stack[-1])
            case "PUT" | "BINPUT" | "LONG_BINPUT" | "MEMOIZE":
                self.memo[len(self.memo) if name == "MEMOIZE" else key(arg)] = stack[-1]
            case "GET" | "BINGET" | "LONG_BINGET":
                stack.append(self.memo[arg])
            case "APPEND":
                self.grow(name, [stack.pop()])
            case "SETITEM":
                value = stack.pop()
                self.grow(name, [stack.pop(), value])
            case "APPENDS" | "SETITEMS" | "ADDITEMS":
                self.grow(name, self.since_mark())
            case "GLOBAL":
                stack.append(self.named(arg.replace(" ", ".", 1)))
            case "STACK_GLOBAL":
                attribute, module = stack.pop(), stack.pop()
                if not isinstance(attribute, str) or not isinstance(module, str):
                    raise Malformed("holds a global whose name is no string")
                stack.append(self.named(f"{module}.{attribute}"))
            case "REDUCE":
                stack.append(self.reduce())
            case "BUILD":
                self.build(stack.pop())
            case "PERSID" | "BINPERSID":
                stack.append(self.persist(arg if name == "PERSID" else stack.pop()))
            case "PROTO" | "FRAME":
                pass
            case "INST":
                raise Refused(arg.replace(" ", ".", 1))
            case _:  # OBJ, NEWOBJ, EXT1, ...: ways to objects of classes, which data does not have
                raise Refused(f"the operation {name}")


def unpickle(stream: io.BytesIO, table: dict[str, Any], persistent: Callable | None = None):
    """The value of the pickle at the stream's position, which is left behind its end.

    Raises Refused, Malformed, or what Python raises where an operation meets values it cannot take.
    """
    machine = _Machine(table, persistent, budget=4 * stream.getbuffer().nbytes + 2**20)
    for name, arg in opcodes(stream):
        if name == "STOP":
            return machine.stack.pop()
        machine.step(name, arg)


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
    """numpy.ndarray as pickled: made empty, then given its state."""

    def __init__(self, *_):
        self.tensor = None

    def __setstate__(self, state):
        _, shape, dtype, fortran, raw = state
        self.fill(raw, dtype, shape, "F" if fortran else "C")

    def fill(self, raw, dtype, shape, order):
        raw = raw.encode("latin-1") if isinstance(raw, str) else raw
        if not isinstance(raw, bytes | bytearray):  # bytes(n), of a number, would be n zeros
            raise Malformed("holds an array without its bytes")
        dtype = dtype.dtype
        flat = np.frombuffer(raw, dtype).astype(dtype.newbyteorder("="))
        if len(shape) > 32:
            raise Malformed("holds an array of more than 32 dimensions")
        self.tensor = torch.from_numpy(np.ascontiguousarray(flat.reshape(shape, order=order)).reshape(shape))
        return self


def _scalar(dtype, raw):
    return Array().fill(raw, dtype, (1,), "C").tensor.item()


def _latin1(text, encoding="latin1"):
    """_codecs.encode as protocol 2 uses it for bytes; other codecs could inflate what they are given."""
    if encoding not in ("latin1", "latin-1"):
        raise Refused(f"the codec {encoding!r:.20}" if isinstance(encoding, str) else "a codec")
    return text.encode("latin-1")


def ordered(items=()):
    return pairs(value for pair in items for value in pair) if all(len(p) == 2 for p in items) else pairs("?")


def _counter(counts=()) -> dict:
    """collections.Counter, as a scheduler's milestones are."""
    return dict(counts) if isinstance(counts, dict) else {}


CONTAINERS = {
    "collections.OrderedDict": ordered,
    "collections.Counter": _counter,
    **dict.fromkeys(("builtins.set", "__builtin__.set"), lambda items=(): set(map(key, items))),
}
NUMPY = {
    "numpy.ndarray": None,
    "numpy.dtype": DType,
    "numpy.core.multiarray._reconstruct": Array,
    "numpy.core.multiarray.scalar": _scalar,
    "numpy.core.numeric._frombuffer": lambda raw, dtype, shape, order: Array().fill(raw, dtype, shape, order),
    "_codecs.encode": _latin1,
    **CONTAINERS,
}


def plain(tree, leaf: Callable = lambda value: value, *, depth: int = 0, seen: dict | None = None):
    """The tree in dicts, lists and tuples, arrays and (by ``leaf``) views as tensors; shared parts stay shared."""
    seen = {} if seen is None else seen
    if depth > MAX_DEPTH:
        raise Malformed(f"is nested deeper than {MAX_DEPTH}")
    if id(tree) in seen:
        return seen[id(tree)][1]
    tree_out = leaf(tree)
    if tree_out is not tree:
        pass
    elif isinstance(tree, Array):
        tree_out = tree.tensor
    elif isinstance(tree, Global):
        if not isinstance(tree.make, torch.dtype):
            raise Refused(tree.name)
        tree_out = tree.make
    elif isinstance(tree, DType):
        tree_out = str(tree.dtype)
    elif isinstance(tree, dict):
        tree_out = {k: plain(v, leaf, depth=depth + 1, seen=seen) for k, v in tree.items()}
    elif isinstance(tree, list | tuple):
        kind = list if isinstance(tree, list) else tuple
        tree_out = kind(plain(v, leaf, depth=depth + 1, seen=seen) for v in tree)
    seen[id(tree)] = (tree, tree_out)
    return tree_out
