"""How far the counterfactual is from the original, pixel by pixel: lower is closer.  Population: all pictures.

Pictures are (N, 3, H, W) in [0, 1]; every function gives (N,) float64, of which the mean over pictures is reported.
"""

from torch import Tensor

from ace_counterfactuals.core.method.filtering import change_mask, kept_pixels


def l1(originals: Tensor, counterfactuals: Tensor) -> Tensor:
    """Mean absolute change of a value, in [0, 1]: ``l_1`` of the Info files."""
    return _changes(originals, counterfactuals).abs().mean(1)


def l2(originals: Tensor, counterfactuals: Tensor) -> Tensor:
    """Euclidean length of the change, in [0, sqrt(3 H W)]."""
    return _changes(originals, counterfactuals).norm(dim=1)


def l_inf(originals: Tensor, counterfactuals: Tensor) -> Tensor:
    """Largest absolute change of a value, in [0, 1]."""
    return _changes(originals, counterfactuals).abs().amax(1)


def mask_area(originals: Tensor, pre_explanations: Tensor, *, inpaint: float, dilation: int) -> Tensor:
    """Share of the pixels that the refinement may change, in [0, 1]; 1 where the pre-explanation is the original.

    inpaint, dilation: --sampling_inpaint and --sampling_dilation of the run, which had no --region.
    """
    kept = kept_pixels(change_mask(originals, pre_explanations), inpaint=inpaint, dilation=dilation)
    return (~kept).flatten(1).double().mean(1)


def _changes(originals: Tensor, counterfactuals: Tensor) -> Tensor:
    return (originals.double() - counterfactuals.double()).flatten(1)
