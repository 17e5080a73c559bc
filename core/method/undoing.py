"""Which of a counterfactual's changes are needed: its changed regions, and pictures without one of them."""

import torch
import torch.nn.functional as F
from torch import Tensor

from ace_counterfactuals.core.method.filtering import change_mask

MOST = 6  # regions, the largest changes; the rest count as one more


def changed_regions(image: Tensor, counterfactual: Tensor, *, least: float) -> Tensor:
    """(R, 1, H, W) bool, the connected regions in which a picture changed, those that changed most first.

    image, counterfactual: (C, H, W) in [0, 1].  least: share of the largest change of a pixel from which one counts;
    regions reach one pixel further, and touch over corners.  More than MOST regions: the smaller ones together are the
    last.  Where nothing changed there is none.
    """
    change = change_mask(image[None], counterfactual[None])
    changed = F.max_pool2d((change >= max(least, 1e-6)).float(), 3, stride=1, padding=1)
    label = changed * torch.arange(1, changed.numel() + 1, device=changed.device).view_as(changed)
    while True:  # the largest number of a region spreads over it
        spread = F.max_pool2d(label, 3, stride=1, padding=1) * changed
        if torch.equal(spread, label):
            break
        label = spread
    regions = [label[0] == number for number in label.unique() if number > 0]
    regions.sort(key=lambda region: -(change[0] * region).sum().item())
    if len(regions) > MOST:
        regions = [*regions[: MOST - 1], torch.stack(regions[MOST - 1 :]).any(0)]
    return torch.stack(regions) if regions else changed.new_zeros(0, *changed.shape[1:], dtype=torch.bool)


def undone(image: Tensor, counterfactual: Tensor, regions: Tensor) -> Tensor:
    """(R, C, H, W): the counterfactual with one region after the other as in the original."""
    return torch.where(regions, image[None], counterfactual[None])
