"""SimSiam similarity, S3 (Jeanneret et al. 2023): is the picture still alike, to a network trained without labels?

Population: CC, CCF+ICF.  Features: outputs of SimSiam's ResNet-50 encoder (N, 2048), no resizing.
"""

from torch import Tensor

from ace_counterfactuals.core.evaluation.metrics.fva import cosines


def similarity(features: Tensor, others: Tensor) -> float:
    """(N, D) twice, N >= 1 -> mean cosine of row i and row i, in [-1, 1]; higher is closer."""
    return float(cosines(features, others).mean())
