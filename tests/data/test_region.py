"""A region: outside it nothing changes, whatever attacks and refines; inside it the attack goes on."""

import pytest
import torch
from PIL import Image

from ace_counterfactuals.core.data.regions import open_region
from ace_counterfactuals.core.method.explain import explain, refine
from tests.support.toys import SIDE, ToyClassifier, pictures, toy_task

CLASSIFIER = ToyClassifier()
BOTTOM = torch.zeros(1, 1, SIDE, SIDE, dtype=torch.bool)
BOTTOM[..., 5:, :] = True


def run(image, region, **settings):
    return explain(image, toy_task(label_target=1, **settings), region=region)


def outside(picture, region):
    return picture[(~region).expand_as(picture)]


@pytest.mark.parametrize("inpaint", [0, 0.5])
@pytest.mark.parametrize("fraction", [0, 0.3])
@pytest.mark.parametrize("method", ["PGD", "GD", "C&W", "None"])
def test_outside_the_region_both_pictures_are_the_original_to_the_bit(method, fraction, inpaint):
    image, region = pictures(2), BOTTOM
    sampling = {"sampling_time_fraction": fraction, "sampling_inpaint": inpaint}
    found = run(image, region, attack_method=method, attack_step=60.0, **sampling)
    for picture in (found.pre_explanation, found.counterfactual):
        assert torch.equal(outside(picture, region), outside(image, region))
    assert not torch.equal(found.pre_explanation, image) or method == "None"
    assert found.keep[(~region).expand_as(found.keep)].all()


@pytest.mark.parametrize("method", ["PGD", "C&W"])
def test_the_networks_see_the_original_outside_the_region_in_every_iteration(method):
    seen = []

    def classifier(image):
        seen.append(image.detach())
        return CLASSIFIER(image)

    image = pictures(1)
    run(image, BOTTOM, classifier=classifier, attack_method=method, attack_joint=False, attack_iterations=4)
    assert len(seen) == 1 + 4 + 2
    assert all(torch.equal(outside(picture, BOTTOM), outside(image, BOTTOM)) for picture in seen)


def test_a_region_of_everything_is_no_region():
    image = pictures(2)
    everywhere = run(image, torch.ones_like(BOTTOM))
    assert torch.equal(everywhere.counterfactual, run(image, None).counterfactual)


def test_each_picture_of_a_batch_has_its_own_region():
    """In double precision a picture's result does not depend on its batch."""
    image, regions = pictures(2, torch.float64), torch.cat([BOTTOM, ~BOTTOM])
    task = toy_task(torch.float64, label_target=1)
    both = explain(image, task, region=regions)
    for i in range(2):
        alone = explain(image[i : i + 1], task, indices=[i], region=regions[i : i + 1])
        torch.testing.assert_close(both.counterfactual[i : i + 1], alone.counterfactual, rtol=0, atol=1e-9)
        assert torch.equal(outside(both.counterfactual[i], regions[i]), outside(image[i], regions[i]))


def test_a_stored_pre_explanation_is_refined_in_the_region_again():
    image = pictures(2)
    found = run(image, BOTTOM)
    again = refine(image, found.pre_explanation, toy_task(), target=found.target, region=BOTTOM)
    assert torch.equal(again.counterfactual, found.counterfactual)


@pytest.mark.parametrize("region", [BOTTOM.float(), BOTTOM[0], BOTTOM[..., 1:], BOTTOM.expand(3, -1, -1, -1)])
def test_a_region_of_another_shape_or_type_is_refused(region):
    with pytest.raises(ValueError, match=r"region: wanted bool \(2, 1, 8, 8\) or \(1, 1, 8, 8\)"):
        run(pictures(2), region)


def test_a_region_of_a_driving_scene_is_scaled_whole(tmp_path):
    """Scenes are twice as wide as high and not cropped: the left half stays the left half."""
    picture = Image.new("L", (64, 36))
    picture.paste(255, (0, 0, 32, 36))
    picture.save(tmp_path / "left.png")
    mask = open_region(str(tmp_path / "left.png"), invert=False).mask("a.jpg", 8, 16)
    assert mask.shape == (1, 8, 16) and mask[..., :8].all() and not mask[..., 8:].any()


def test_a_rectangle_may_reach_beyond_the_picture():
    mask = open_region("4,6,99,99", invert=False).mask("a.jpg", 8, 8)
    assert mask.nonzero().amin(0).tolist() == [0, 6, 4] and mask.sum() == 8
