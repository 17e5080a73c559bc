"""Split FID: FID between the originals of one half of the names and the counterfactuals of the other half, in both
directions, averaged over ten seeded splits (Jeanneret et al. 2023). A counterfactual cannot score by resembling its own
original.

    bash compute_sFID.sh OUT exp/explanation

Lower is better, and it cannot reach 0. It shares FID's bias for few pictures. The second line that the command prints
is the deviation of the 20 values, not an error of their mean. Guided-diffusion's spatial FID is another metric.
"""

from ace_counterfactuals.core.evaluation.frechet import SPLIT, of_sets
from ace_counterfactuals.core.evaluation.judges import INCEPTION
from ace_counterfactuals.core.evaluation.metric import LENGTH, LOWER, Metric, Quantity, register
from ace_counterfactuals.core.evaluation.pictures import FLIPPED

SFID = Quantity("sfid", "sFID", LOWER, LENGTH, "FID between originals of one half and counterfactuals of the other.")
METRIC = register(Metric("sfid", 11, (SFID,), __doc__, FLIPPED, INCEPTION, **of_sets(SPLIT)))
