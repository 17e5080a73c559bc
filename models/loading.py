"""The only door through which weights come in: files become trees of tensors and plain values, never code."""

import contextlib
import hashlib
import io
import json
import os
import re
import warnings
from collections.abc import Iterator, Set
from pathlib import Path
from typing import BinaryIO

import safetensors.torch
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ace_counterfactuals.core.base import atomic
from ace_counterfactuals.core.base.reading import open_regular, read_json
from ace_counterfactuals.models.archives import PLAIN_VALUES, read_tree
from ace_counterfactuals.models.fetching import fetch
from ace_counterfactuals.models.unpickle import Malformed, Refused

NESTED = ("state_dict", "model_state_dict")
WRAPPING = re.compile(r"^(?:(?:model_)?state_dict\.|module\.)+")
MAX_STEPS, MAX_DOTS = 200_000, 40


class WeightsError(ValueError):
    """One line: the file, what was wanted, what was found, what to do."""

    def __init__(self, message: str):
        """What a message quotes from a file may be long, or hold line breaks and terminal codes."""
        line = " ".join(message.split())[:1000]
        super().__init__("".join(c if c.isprintable() else "?" for c in line))


def read_object(file: Path) -> dict:
    """A JSON file beside weights, which says what they are of.  Raises WeightsError."""
    try:
        found = read_json(file)
    except (OSError, ValueError) as error:
        raise WeightsError(f"{file}: cannot be read as JSON ({str(error).removeprefix(f'{file}: ')})") from None
    if not isinstance(found, dict):
        raise WeightsError(f"{file}: holds a {type(found).__name__}, wanted an object")
    return found


def is_url(path) -> bool:
    """Whether it is an address instead of a file's path."""
    return "://" in str(path)


def load_weights(path) -> dict:
    """Tree of dicts, tensors (on the CPU, as stored) and plain values of a weight file, whatever its format.

    path: a local file, or an address: https://, or what blobfile opens (gs://, az://).
    Raises WeightsError, "path: reason", for a file that is not there, holds no weights, or asks for more than data.
    """
    name = str(path)
    with _open(path) as stream, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecations inside the readers of old formats
        try:
            tree = read_tree(stream)
        except Refused as refused:
            advice = "save a plain state dict instead: torch.save(model.state_dict(), FILE)"
            raise WeightsError(f"{name}: asks for {refused}, which is more than data; {advice}") from None
        except Malformed as error:
            raise WeightsError(f"{name}: {_one_line(error)}") from None
        except Exception as error:  # whatever a reader says of hostile bytes, it means this
            raise WeightsError(f"{name}: damaged or cut short ({_one_line(error)}); fetch it again") from None
    if not isinstance(tree, dict):
        raise WeightsError(f"{name}: holds a {type(tree).__name__}, not a dict of weights")
    return tree


def _one_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


@contextlib.contextmanager
def _open(path) -> Iterator[BinaryIO]:
    name = str(path)
    if not name:
        raise WeightsError("no file given")
    try:
        if not is_url(path) and os.path.isdir(path):
            raise WeightsError(f"{name}: is a directory; give the weight file inside")
        stream = fetch(name) if is_url(path) else open_regular(path)
    except FileNotFoundError:
        raise WeightsError(f"{name}: no such file") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or _one_line(error).removeprefix(f"{name}: ")
        raise WeightsError(f"{name}: cannot be opened: {reason}") from None
    with stream:
        yield stream


def cached(url: str) -> Path:
    """Where torch.hub keeps the file of an address, whether it is there or not."""
    return Path(torch.hub.get_dir()) / "checkpoints" / url.rsplit("/", 1)[1]


def fetched(url: str) -> Path:
    """The file of an address in torch.hub's cache, fetched if it is not there; its name ends in its digest's head."""
    target = cached(url)
    try:
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            prefix = target.stem.rsplit("-", 1)[1]
            torch.hub.download_url_to_file(url, str(target), hash_prefix=prefix, progress=False)
    except (OSError, RuntimeError) as error:  # no network; another file than expected
        reason = getattr(error, "reason", None) or error
        raise WeightsError(f"not given, and {url} cannot be fetched ({reason}); give its file") from None
    return target


def state_dict(tree: dict, *, name: str = "weights") -> dict[str, Tensor]:
    """Flat name -> tensor of a checkpoint: unwrapped, dotted, without ``module.``, half precision as float32.

    A checkpoint of several dicts ({feat_extract: {...}, classifier: {...}}) becomes one with dotted names, which
    is also what such a file is when saved as safetensors.
    """
    for _ in range(3):
        tree = next((tree[key] for key in NESTED if isinstance(tree.get(key), dict)), tree)
    flat = _flatten(tree, name)
    nested = {key: value for key, value in flat.items() if key.startswith(tuple(f"{n}." for n in NESTED))}
    state = {WRAPPING.sub("", key): _full(value) for key, value in (nested or flat).items()}
    if not state:
        raise WeightsError(f"{name}: holds no tensors")
    if len(state) < len(nested or flat):
        raise WeightsError(f"{name}: holds a tensor twice, with and without the prefix module.")
    return state


def load_state(path) -> dict[str, Tensor]:
    """The state dict in a file, as ``load_weights`` and ``state_dict`` read it."""
    return state_dict(load_weights(path), name=str(path))


def _flatten(tree: dict, name: str) -> dict[str, Tensor]:
    """Dotted name -> tensor, depth first. A tree whose parts refer to each other could be walked for ever."""
    flat: dict[str, Tensor] = {}
    waiting: list[tuple[str, dict | Tensor]] = [("", tree)]
    steps = 0
    while waiting:
        prefix, node = waiting.pop()
        steps += 1
        if isinstance(node, Tensor):
            flat[prefix[:-1]] = node
        elif isinstance(node, dict):
            steps += len(node)
            for key, value in reversed(node.items()):
                optimiser = not prefix and isinstance(value, dict) and str(key).startswith("optim")
                if isinstance(key, str) and isinstance(value, dict | Tensor) and not optimiser:
                    waiting.append((f"{prefix}{key.removeprefix('module.')}.", value))
        if steps > MAX_STEPS or prefix.count(".") > MAX_DOTS:
            raise WeightsError(f"{name}: nested deeper or larger than a network's weights are")
    return flat


def _full(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.is_floating_point() and tensor.dtype.itemsize < 4 else tensor


KINDS = {
    "time_embed.0.weight": "a diffusion U-Net",
    "feat_extract.conv1_7x7_s2.weight": "an attribute oracle",
    "encoder.conv1.weight": "a SimSiam network",
    "feat_extract.feat_extract.features.conv0.weight": "a DiVE or STEEX DenseNet classifier",
    "features.conv0.weight": "a torchvision DenseNet classifier",
    "layer1.0.conv1.weight": "a ResNet",
    "stem.0.weight": "a small classifier of ours",
    "Mixed_5b.branch1x1.conv.weight": "an Inception network",
    "lin0.model.1.weight": "the linear layers of LPIPS",
}
"""A name within a state dict -> what it gives away; the first that is there decides."""
HEADS = ("heads.head.weight", "head.weight", "fc.weight", "classifier.weight", "classifier.1.weight")


def describe(state: dict[str, Tensor]) -> str:
    """'a diffusion U-Net', 'a ResNet with 1000 outputs', ... from the names in a flat state dict."""
    head = next((state[name] for name in HEADS if name in state), None)
    outputs = "" if head is None or not head.dim() else f" with {head.shape[0]} outputs"
    kind = next((words for name, words in KINDS.items() if name in state), None)
    if kind is None and not outputs:
        return f"an unknown network ({len(state)} tensors, the first {next(iter(state), 'nothing')[:60]})"
    return f"{kind or 'an unknown network'}{outputs}"


def without_prefix(state: dict[str, Tensor], names: Set[str]) -> dict[str, Tensor]:
    """The weights without a prefix that all of ``names`` have in the file, such as Lightning's ``model.``.

    What lies beside the prefix, such as a loss's weights, is left out.  The state itself where there is no prefix.
    """
    if not names or not names.isdisjoint(state):
        return state
    one = next(iter(names))
    for prefix in (key.removesuffix(one) for key in state if key.endswith(f".{one}")):
        own = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
        if names <= own.keys():
            return own
    return state


class _NoMemory(TorchFunctionMode):
    """Parameters, which ``torch.empty`` makes, are on the meta device; RegNet computes its widths with others."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        return func(*args, **(kwargs | {"device": "meta"} if func is torch.empty else kwargs))


@contextlib.contextmanager
def unfilled() -> Iterator[None]:
    """Within, networks are made without memory for their parameters and without random numbers, for ``load_into``."""
    with torch.random.fork_rng(devices=[]), _NoMemory():
        yield


def load_into(module: nn.Module, state: dict[str, Tensor], *, path, what: str) -> None:
    """Give the module copies of the weights, names and shapes strictly; only batch counters may be absent.

    what: the module in words.  Raises WeightsError, which says what the file lacks, has too much, or has otherwise.
    """
    own = module.state_dict()
    both = [(key, value, state[key]) for key, value in own.items() if key in state]
    problems = {
        "lacks": [k for k in own if k not in state and not k.endswith("num_batches_tracked")],
        "has beyond it": [k for k in state if k not in own],
        "other shapes": [f"{k} is {tuple(f.shape)}, wanted {tuple(w.shape)}" for k, w, f in both if f.shape != w.shape],
        "other numbers": [f"{k} is {f.dtype}" for k, w, f in both if f.is_floating_point() != w.is_floating_point()],
    }
    said = [
        f"{kind} {len(keys)} ({', '.join(key[:90] for key in keys[:2])}{', ...' * (len(keys) > 2)})"
        for kind, keys in problems.items()
        if keys
    ]
    if said:
        raise WeightsError(f"{path}: not {what} but {describe(state)}: {'; '.join(said)}")
    own |= {k: f.to(w.dtype, copy=True, memory_format=torch.contiguous_format) for k, w, f in both}
    module.load_state_dict(own, assign=True)


def digest(path) -> str:
    """SHA-256 of the file, in hex; of a folder, of the names and the contents of the files in it."""
    sha = hashlib.sha256()
    if os.path.isdir(path):
        for file in sorted(file for file in Path(path).rglob("*") if file.is_file()):
            sha.update(f"{file.relative_to(path)} {digest(file)}\n".encode())
        return sha.hexdigest()
    with _open(path) as stream:
        while block := stream.read(2**20):
            sha.update(block)
    return sha.hexdigest()


def save_weights(path, tree: dict) -> None:
    """Write the tree so that the file is, at any instant, absent, the old one or the whole new one.

    ``.safetensors`` by the name's ending (nested names dotted, plain values as JSON in its metadata), else
    torch's format.
    """
    path, stream = Path(path), io.BytesIO()
    if path.suffix == ".safetensors":
        tensors = _flatten(tree, str(path))
        tensors = {key: value.detach().cpu().contiguous().clone() for key, value in tensors.items()}
        values = {key: value for key, value in tree.items() if not isinstance(value, dict | Tensor)}
        stream.write(safetensors.torch.save(tensors, metadata={PLAIN_VALUES: json.dumps(values)}))
    else:
        torch.save(tree, stream)
    atomic.write_bytes(path, stream.getvalue())
