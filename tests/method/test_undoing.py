"""Changed regions of a counterfactual, found without a library of images."""

import torch

from ace_counterfactuals.core.method.undoing import MOST, changed_regions, undone


def changed(*boxes: tuple[int, int, int, int], side: int = 32):
    """A black picture, and one that is white in the boxes (top, left, bottom, right)."""
    image = torch.zeros(3, side, side)
    other = image.clone()
    for top, left, bottom, right in boxes:
        other[:, top:bottom, left:right] = 1
    return image, other


def test_regions_apart_are_found_the_largest_first():
    image, other = changed((2, 2, 4, 4), (12, 12, 20, 20))
    large, small = changed_regions(image, other, least=0.1)
    assert large.nonzero()[:, 1:].amin(0).tolist() == [11, 11] and small.nonzero()[:, 1:].amax(0).tolist() == [4, 4]


def test_a_region_that_winds_is_one():
    image, other = changed((2, 2, 3, 28), (2, 27, 20, 28), (20, 6, 21, 28), (8, 6, 20, 7))
    assert len(changed_regions(image, other, least=0.1)) == 1


def test_changes_that_are_small_beside_the_largest_do_not_count():
    image, other = changed((2, 2, 6, 6))
    other[:, 20:24, 20:24] = 0.05
    assert len(changed_regions(image, other, least=0.1)) == 1
    assert len(changed_regions(image, other, least=0.01)) == 2


def test_many_regions_are_gathered_in_the_last():
    image, other = changed(*((4 * i, 4 * j, 4 * i + 1, 4 * j + 1) for i in range(1, 6) for j in range(1, 6)))
    regions = changed_regions(image, other, least=0.1)
    assert len(regions) == MOST and not (regions[:-1].sum(0) > 1).any()


def test_nothing_changed_is_no_region():
    image, _ = changed()
    assert changed_regions(image, image, least=0.15).shape == (0, 1, 32, 32)


def test_each_picture_is_the_counterfactual_with_one_region_as_it_was():
    image, other = changed((2, 2, 4, 4), (12, 12, 20, 20))
    regions = changed_regions(image, other, least=0.1)
    first, second = undone(image, other, regions)
    assert torch.equal(first, changed((2, 2, 4, 4))[1]) and torch.equal(second, changed((12, 12, 20, 20))[1])
