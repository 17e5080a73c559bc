"""A device that tells when the host waits for it: torch's meta device, which computes nothing, made readable."""

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

ATEN = torch.ops.aten
READS = (ATEN._local_scalar_dense.default, ATEN.nonzero.default, ATEN.masked_select.default, ATEN.equal.default)
COPIES = (ATEN._to_copy.default, ATEN.copy_.default)
PLACES = (ATEN.index.Tensor, ATEN.index_put.default, ATEN.index_put_.default, ATEN._index_put_impl_.default)


class Waits(TorchDispatchMode):
    """``seen``: what the host did that waits for tensors on ``meta``.  Each number that is read of it is 1.

    Reading numbers, places or copies waits, and so does an upload that is not ``non_blocking``; that
    of a Python list is not seen.
    """

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        devices = {leaf.device.type for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)}
        if func is ATEN._to_copy.default and "device" in kwargs:
            devices.add(torch.device(kwargs["device"]).type)
        if "meta" not in devices:
            return func(*args, **kwargs)
        downloads = func in COPIES and (kwargs.get("device") or args[0].device).type != "meta"
        uploads = func in COPIES and "cpu" in devices and not (kwargs.get("non_blocking") or True in args[2:])
        places = [place for place in args[1] if place is not None] if func in PLACES else []
        asked = any(place.dtype == torch.bool or not place.is_meta for place in places)
        if func in READS or downloads or uploads or asked:
            self.seen.append(str(func))
        if func is ATEN._local_scalar_dense.default:
            return torch.ones((), dtype=args[0].dtype).item()
        if func is ATEN._to_copy.default and downloads:
            return torch.ones(args[0].shape, dtype=kwargs.get("dtype") or args[0].dtype)
        return func(*args, **kwargs)
