"""The mean cosine of SimSiam's outputs on originals and counterfactuals (Jeanneret et al. 2023): is the picture still
alike, to a network trained without labels? It is FS for any kind of picture, and nothing is resized.

    python compute_SimSiamSimilarity.py --output-path OUT --exp-name exp/explanation --weights-path simsiam.pth.tar

Between -1 and 1; higher is closer. An unchanged picture scores 1, so read it beside the flip rate.
"""

from ace_counterfactuals.core.evaluation.judges import SIMSIAM
from ace_counterfactuals.core.evaluation.metric import COSINE, HIGHER, Metric, Quantity, register
from ace_counterfactuals.core.evaluation.metrics.fva import cosines
from ace_counterfactuals.core.evaluation.model import CORRECT

MEANING = "Mean cosine of SimSiam's outputs before and after; 1 is the same picture."
S3 = Quantity("s3", "S3", HIGHER, COSINE, MEANING)
register(Metric("simsiam", 40, (S3,), __doc__, CORRECT, SIMSIAM, measure=lambda *sides: (cosines(*sides),)))
