"""What trainings leave, to be compared."""

from torch import Tensor

from ace_counterfactuals.models.loading import load_weights
from tests.support.toys import tree


def compared(folder):
    """What the files hold, without where the folder itself lies; pickles of equal values may differ."""
    files = tree(folder, without=("config.yaml", "training.html"))
    return {name: plain(load_weights(folder / name)) if name.endswith(".pt") else files[name] for name in files}


def plain(value):
    if isinstance(value, dict):
        return {key: plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):  # torch turns one into the other where it takes an optimiser's state
        return [plain(inner) for inner in value]
    return value.numpy().tobytes() if isinstance(value, Tensor) else value
