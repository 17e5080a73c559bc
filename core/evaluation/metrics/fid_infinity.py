"""What FID tends to with ever more pictures (Chong and Forsyth 2020): FID of seeded subsets of 15 sizes, a quarter of
the pictures to all, is read off at 1/N = 0. An original is drawn with its counterfactual.

Lower is better. It is free of the bias for few pictures, not of their noise: see its interval. Below 32 flipped
pictures there is none, and far below as many pictures as features (2,048) the line is not straight, and the limit still
too high.
"""

from ace_counterfactuals.core.evaluation.frechet import LIMIT, of_sets
from ace_counterfactuals.core.evaluation.judges import INCEPTION
from ace_counterfactuals.core.evaluation.metric import LENGTH, LOWER, Metric, Quantity, register
from ace_counterfactuals.core.evaluation.pictures import FLIPPED

MEANING = "What FID tends to with ever more pictures: without its bias."
FID_INFINITY = Quantity("fid_infinity", "FID∞", LOWER, LENGTH, MEANING)
METRIC = register(Metric("fid_infinity", 12, (FID_INFINITY,), __doc__, FLIPPED, INCEPTION, **of_sets(LIMIT)))
