"""Networks whose calls are compiled (``--compile True``), where there is a compiler that can."""

import os
from typing import Any

import platformdirs
import torch
from torch import nn

from ace_counterfactuals.core.base.notices import notice


def compile_calls(network: nn.Module, name: str) -> None:
    """Have each call of the network compiled when it first sees pictures of a shape, which takes up to minutes.

    name: what it is called in a notice, which says so where that fails; the network goes on as it was.
    """
    cache = platformdirs.user_cache_path("ace-counterfactuals", appauthor=False) / "compiled"
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(cache))
    from torch._dynamo.exc import TorchDynamoException  # takes seconds

    plain = network.forward

    def go_on(error: Exception) -> None:
        reason = " ".join(str(error).split())[:200]
        notice(f"compile True: {name} cannot be compiled here, and is computed without ({reason})")
        network.forward = plain  # type: ignore[method-assign]

    def forward(*inputs: Any, **named: Any) -> Any:
        try:
            return fast(*inputs, **named)
        except TorchDynamoException as error:
            go_on(error)
            return plain(*inputs, **named)

    try:
        fast = torch.compile(plain)
        network.forward = forward  # type: ignore[method-assign]
        notice(f"compile True: {name} is compiled when it first sees pictures, which may take minutes")
    except RuntimeError as error:  # on this system, or by this Python
        go_on(error)
