"""How unlike real pictures the counterfactuals are, as a set: the Frechet distance between Inception's features of them
and of all originals (Heusel et al. 2017), by pytorch-fid's arithmetic and weights.

    bash compute_FID.sh OUT exp/explanation

At least 0; lower is better. A copy of the originals scores best: FID does not show whether anything was changed. It is
biased upwards for few pictures: under about 2,048 compare only sets of equal size. `evaluate.py` takes the originals of
the experiment's own pictures, `compute_FID.sh` all of `OUT/Original`, as the original program does.
"""

from ace_counterfactuals.core.evaluation.frechet import DISTANCE, of_sets
from ace_counterfactuals.core.evaluation.judges import INCEPTION
from ace_counterfactuals.core.evaluation.metric import LENGTH, LOWER, Metric, Quantity, register
from ace_counterfactuals.core.evaluation.pictures import FLIPPED

FID = Quantity("fid", "FID", LOWER, LENGTH, "How unlike real pictures the counterfactuals are, as a set, to Inception.")
METRIC = register(Metric("fid", 10, (FID,), __doc__, FLIPPED, INCEPTION, **of_sets(DISTANCE)))
