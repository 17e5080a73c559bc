"""Face Verification Accuracy (Cao et al. 2018; Rodriguez et al. 2021): does the face stay the same person?

Population: CC+IC, CCF.  Features: VGGFace2's ResNet-50 (N, 2048) of the faces, the shorter side resized to 224.
"""

import numpy as np
from PIL import Image
from torch import Tensor
from torchvision.transforms.functional import resize

THRESHOLD = 0.5


def prepare(image: Image.Image) -> Image.Image:
    """The shorter side to 224."""
    return resize(image, 224)


def cosines(features: Tensor, others: Tensor) -> np.ndarray:
    """(N, D) twice -> (N,) float64 in [-1, 1]: the cosine of row i and row i; 0 where a row is all zero.

    Its mean over faces is Face Similarity (FS), higher is closer.
    """
    a, b = features.double().numpy(), others.double().numpy()
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return np.divide((a * b).sum(1), lengths, out=np.zeros(len(a)), where=lengths > 0)


def verified(similarity: np.ndarray) -> np.ndarray:
    """(N,) cosines -> (N,) bool, whether a face counts as the same: above 0.5, strictly.

    The mean is FVA, in [0, 1], higher is better.
    """
    return similarity > THRESHOLD
