"""FID's, sFID's and FID∞'s arithmetic in what another classifier sees before its last linear layer: for pictures that
Inception was not made for, such as small or grey ones. It is named after the network and its file, and is not FID.

    python evaluate.py --output_path OUT --exp_name exp --features other.pt

Lower is better. Compare only within one network. In the features of the attacked classifier itself it means little:
these are what the attack moves.
"""

from ace_counterfactuals.core.evaluation.frechet import DISTANCE, LIMIT, SPLIT, of_sets
from ace_counterfactuals.core.evaluation.judges import FEATURES
from ace_counterfactuals.core.evaluation.metric import LENGTH, LOWER, Metric, Quantity, register
from ace_counterfactuals.core.evaluation.pictures import FLIPPED

QUANTITIES = (
    Quantity("frechet", "Frechet distance ({})", LOWER, LENGTH, "FID's arithmetic in these features; not FID."),
    Quantity("split_frechet", "split Frechet distance ({})", LOWER, LENGTH, "sFID's arithmetic in these features."),
    Quantity("frechet_infinity", "Frechet distance∞ ({})", LOWER, LENGTH, "What it tends to with ever more pictures."),
)
METRIC = register(Metric("frechet", 13, QUANTITIES, __doc__, FLIPPED, FEATURES, **of_sets(DISTANCE, SPLIT, LIMIT)))
