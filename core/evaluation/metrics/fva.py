"""The share of faces that VGGFace2's network takes for the same person, cosine above 0.5: face verification accuracy
(Cao et al. 2018; Rodriguez et al. 2021). The mean cosine is the face similarity, FS.

    python compute_FVA.py --output-path OUT --exp-name exp/explanation --weights-path resnet50_ft_weight.pkl

FVA is between 0 and 1, FS (`mean dist`) between -1 and 1; higher is better. FVA saturates near 1, where FS still tells
methods apart. Neither says anything of pictures other than faces.
"""

import numpy as np

from ace_counterfactuals.core.evaluation.judges import VGGFACE2
from ace_counterfactuals.core.evaluation.metric import COSINE, HIGHER, SHARE, Metric, Quantity, register
from ace_counterfactuals.core.evaluation.model import FLIPPED

THRESHOLD = 0.5


def cosines(features: np.ndarray, others: np.ndarray) -> np.ndarray:
    """(N, D) twice -> (N,) float64 in [-1, 1]: the cosine of row i and row i; 0 where a row is all zero."""
    a, b = features.astype(np.float64), others.astype(np.float64)
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return np.divide((a * b).sum(1), lengths, out=np.zeros(len(a)), where=lengths > 0)


def measure(originals: np.ndarray, counterfactuals: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(N,) bool, whether a face counts as the same: a cosine above 0.5, strictly; and the cosines."""
    similarity = cosines(originals, counterfactuals)
    return similarity > THRESHOLD, similarity


FVA = Quantity("fva", "FVA", HIGHER, SHARE, "Share of faces that VGGFace2 takes for the same person.", share=True)
MEANING = "Mean cosine of VGGFace2's features before and after; 1 is the same face."
FS = Quantity("fs", "FS", HIGHER, COSINE, MEANING)
register(Metric("fva", 20, (FVA, FS), __doc__, FLIPPED, VGGFACE2, measure=measure))
