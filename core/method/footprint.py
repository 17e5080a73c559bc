"""Bytes that a computation takes, worked out on tensors without content, or counted where it runs."""

import logging
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


@contextmanager
def without_content(weights: Iterable[Tensor] = ()) -> Iterator[list[Tensor]]:
    """Within, tensors have shape, type and device alone, and nothing is computed.  Gives such ones of the ``weights``.

    What a network caches within cannot be used afterwards.
    """
    from torch._subclasses import fake_tensor  # takes seconds, with what it needs

    log = logging.getLogger(fake_tensor.__name__)
    before, log.disabled = log.disabled, True  # it tells what is raised as well
    try:
        with fake_tensor.FakeTensorMode(allow_non_fake_inputs=True) as mode:
            yield [mode.from_tensor(weight) for weight in weights]
    finally:
        log.disabled = before


def kept_bytes(run: Callable[[], Any], weights: Iterable[Tensor] = ()) -> int:
    """What ``run`` keeps for a backward pass, the ``weights`` apart; a storage that several layers keep counts once."""
    known = {weight.untyped_storage()._cdata for weight in weights}
    kept: dict[int, Any] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage._cdata] = storage  # alive, so that no other one takes its number
        return tensor

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        run()
    return sum(storage.nbytes() for number, storage in kept.items() if number not in known)


def peak_bytes(run: Callable[[], Any]) -> int:
    """The most bytes that tensors made by ``run`` take at once; what kernels take for themselves is not known."""
    with Live() as live:
        run()
    return live.most


class Live(TorchDispatchMode):
    """Counts the bytes of the storages made within: those alive now, and the most at once."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.most = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        values = found if len(func._schema.returns) > 1 else (found,)
        for value, returned in zip(values, func._schema.returns, strict=False):
            if returned.alias_info is None:  # neither a view nor written in place
                for tensor in tree_leaves(value):
                    if isinstance(tensor, Tensor):
                        self.see(tensor.untyped_storage())
        return found

    def see(self, storage: torch.UntypedStorage) -> None:
        size = storage.nbytes()
        self.now += size
        self.most = max(self.most, self.now)
        weakref.finalize(storage, self.forget, size).atexit = False

    def forget(self, size: int) -> None:
        self.now -= size
