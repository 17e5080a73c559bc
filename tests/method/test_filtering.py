"""The filter and the refinement, on denoisers whose answer is known."""

import pytest
import torch

from ace_counterfactuals.core.method.config import SamplingConfig
from ace_counterfactuals.core.method.filtering import (
    Filter,
    change_mask,
    inpaint,
    kept_pixels,
    step_tensor,
    to_diffusion,
    to_image,
)
from ace_counterfactuals.core.method.noise import REFINEMENT, Draw, image_noise, no_noise
from tests.support.toys import make_diffusion, pictures, toy_diffusion, toy_unet

ROUNDED = torch.finfo(torch.float32).eps
"""To [-1, 1] and back are two roundings of numbers below 2, half an eps each at most."""


def predicts(value):
    """A denoiser whose x_0 is a constant in [-1, 1]; remembers its calls."""

    def model(x, timesteps, classes=None):
        model.calls.append((x, timesteps.tolist(), classes))
        return torch.full_like(x, value)

    model.calls = []
    return model


def painting(inpaint, dilation):
    return SamplingConfig(sampling_inpaint=inpaint, sampling_dilation=dilation)


def constant_filter(value=0.25, steps=3, respacing="10", **changes):
    diffusion = make_diffusion(diffusion_steps=100, timestep_respacing=respacing, predict_xstart=True)
    return Filter(diffusion, predicts(value), steps, **changes)


def changed_in_a_corner(image, amount=0.5):
    """The picture, lighter or darker in the four pixels of a corner."""
    corner = image[:, :, :2, :2]
    changed = image.clone()
    changed[:, :, :2, :2] = torch.where(corner < 0.5, corner + amount, corner - amount)
    return changed


NOISE = image_noise(4, [0, 1], REFINEMENT)


def test_the_two_ranges_are_converted_exactly_back_and_forth():
    image = torch.arange(256).float().div(255).view(1, 1, 16, 16)
    assert to_diffusion(image).min() == -1 and to_diffusion(image).max() == 1
    torch.testing.assert_close(to_image(to_diffusion(image)), image, atol=ROUNDED, rtol=0)


@pytest.mark.parametrize("noise", [NOISE, no_noise])
def test_a_filter_of_no_steps_changes_nothing(noise):
    image = pictures(2)
    torch.testing.assert_close(constant_filter(steps=0)(image, noise), image, atol=ROUNDED, rtol=0)


@pytest.mark.parametrize("noise", [NOISE, no_noise])
def test_what_a_denoiser_is_sure_of_comes_out(noise):
    """The mean of the last step is x_0 itself, whatever the noise was."""
    found = constant_filter(0.25)(pictures(2), noise)
    torch.testing.assert_close(found, torch.full_like(found, 0.625))


def test_the_filter_does_not_clamp_what_leaves_the_range():
    diffusion = make_diffusion(diffusion_steps=100, predict_xstart=True, clip_denoised=False)
    assert Filter(diffusion, predicts(1.5), 3)(pictures(1), no_noise).min() > 1.2


def test_the_filter_takes_every_step_once_from_the_last_down():
    filter_ = constant_filter(steps=4)
    filter_(pictures(2), NOISE)
    kept = filter_.diffusion.timestep_map.values.tolist()
    assert [steps for _, steps, _ in filter_.model.calls] == [[kept[t]] * 2 for t in (3, 2, 1, 0)]


def test_the_filter_starts_with_q_sample_at_its_last_step():
    filter_, image = constant_filter(steps=4), pictures(2)
    filter_(image, NOISE)
    eps = NOISE(Draw.START, 3, image)
    expected = filter_.diffusion.q_sample(2 * image - 1, torch.tensor([3, 3]), eps)
    assert torch.equal(filter_.model.calls[0][0], expected)


def test_without_noise_the_start_is_the_scaled_picture():
    filter_, image = constant_filter(steps=4), pictures(2)
    scale = filter_.diffusion.sqrt_alphas_cumprod.values[3].float()
    torch.testing.assert_close(filter_.start(image, no_noise), scale * (2 * image - 1))


def test_without_noise_a_reverse_step_is_the_posterior_mean():
    filter_, image = constant_filter(0.25, steps=2), pictures(1)
    filter_(image, no_noise)
    first, second = (x for x, _, _ in filter_.model.calls)
    expected, _ = filter_.diffusion.q_posterior(torch.full_like(first, 0.25), first, step_tensor(1, first))
    assert torch.equal(second, expected)


def test_with_noise_a_reverse_step_adds_the_posterior_deviation():
    filter_, image = constant_filter(0.25, steps=2), pictures(1)
    noise = image_noise(4, [0], 0)
    filter_(image, noise)
    first, second = (x for x, _, _ in filter_.model.calls)
    mean, _ = filter_.diffusion.q_posterior(torch.full_like(first, 0.25), first, step_tensor(1, first))
    deviation = (0.5 * filter_.diffusion.fixed_large_log_variance.values[1]).exp().float()
    torch.testing.assert_close(second, mean + deviation * noise(Draw.POSTERIOR, 1, first))


def test_no_noise_is_added_after_the_last_step():
    asked = []

    def noise(draw, t, x):
        asked.append((draw, t))
        return torch.zeros_like(x)

    constant_filter(steps=3)(pictures(1), noise)
    assert asked == [(Draw.START, 2), (Draw.POSTERIOR, 2), (Draw.POSTERIOR, 1)]


def test_denoising_in_two_parts_is_denoising_at_once():
    filter_ = Filter(toy_diffusion(), toy_unet(), 4)
    x_t = filter_.start(pictures(2), NOISE)
    halfway = filter_.denoise(x_t, NOISE, last=2)
    assert torch.equal(filter_.denoise(halfway, NOISE, first=2), filter_.denoise(x_t, NOISE))


def test_the_class_reaches_the_denoiser():
    filter_ = constant_filter(classes=torch.tensor([2, 0]))
    filter_(pictures(2), no_noise)
    assert [classes.tolist() for _, _, classes in filter_.model.calls] == [[2, 0]] * 3


def test_the_mask_is_the_summed_change_over_its_largest():
    image = torch.zeros(1, 3, 2, 2)
    changed = image.clone()
    changed[0, :, 0, 0] = torch.tensor([0.1, -0.2, 0.1])
    changed[0, 0, 1, 1] = 0.1
    torch.testing.assert_close(change_mask(image, changed), torch.tensor([[[[1.0, 0.0], [0.0, 0.25]]]]))


def test_the_mask_of_a_picture_depends_on_no_other_picture():
    image = pictures(2)
    changed = image + torch.tensor([0.5, 0.01]).view(2, 1, 1, 1) * torch.randn_like(image)
    assert torch.equal(change_mask(image, changed)[1:], change_mask(image[1:], changed[1:]))
    assert (change_mask(image, changed).amax((1, 2, 3)) == 1).all()


def test_an_unchanged_picture_has_an_empty_mask_and_keeps_nothing():
    mask = change_mask(pictures(2), pictures(2))
    assert not mask.any()
    assert not kept_pixels(mask, inpaint=0.15, dilation=3).any()


def test_a_mask_is_dilated_by_a_square_cut_at_the_border():
    mask = torch.zeros(1, 1, 7, 7)
    mask[0, 0, 1, 3] = 1.0
    kept = kept_pixels(mask, inpaint=0.5, dilation=5)
    expected = torch.ones(7, 7, dtype=torch.bool)
    expected[0:4, 1:6] = False
    assert torch.equal(kept[0, 0], expected)


def test_a_dilation_wider_than_the_picture_keeps_nothing():
    mask = torch.zeros(1, 1, 8, 8)
    mask[0, 0, 0, 0] = 1.0
    assert not kept_pixels(mask, inpaint=0.5, dilation=17).any()


@pytest.mark.parametrize("shape", [(5, 9), (9, 5), (1, 1)])
def test_a_dilation_larger_than_the_picture_reaches_all_of_it_and_costs_no_more(shape):
    mask = torch.zeros(1, 1, *shape)
    mask[..., 0, 0] = 1
    assert not kept_pixels(mask, inpaint=0.5, dilation=2**31 - 1).any()


def test_a_pixel_is_kept_strictly_below_the_threshold():
    mask = torch.tensor([1.0, 0.5, 0.25]).view(1, 1, 1, 3)
    assert kept_pixels(mask, inpaint=0.5, dilation=1).flatten().tolist() == [False, False, True]


def test_a_threshold_of_zero_keeps_nothing():
    mask = torch.tensor([1.0, 0.0]).view(1, 1, 1, 2)
    assert not kept_pixels(mask, inpaint=0.0, dilation=1).any()


@pytest.mark.parametrize("noise", [NOISE, no_noise])
def test_refining_paints_what_changed_and_keeps_the_rest_to_the_bit(noise):
    """The denoiser is sure of 0.625: it stands where the change was, the original everywhere else."""
    image = pictures(2)
    found = inpaint(constant_filter(0.25), image, changed_in_a_corner(image), noise, painting(0.5, 3))
    painted = torch.zeros(8, 8, dtype=torch.bool)
    painted[:3, :3] = True
    assert torch.equal(found.keep[:, 0], (~painted).expand(2, 8, 8))
    torch.testing.assert_close(found.counterfactual[:, :, painted], torch.full((2, 3, 9), 0.625))
    assert torch.equal(found.counterfactual[:, :, ~painted], image[:, :, ~painted])


def test_before_every_step_the_kept_pixels_are_the_originals_noised_to_that_step():
    filter_, image = constant_filter(steps=3), pictures(2)
    found = inpaint(filter_, image, changed_in_a_corner(image), NOISE, painting(0.5, 3))
    keep = found.keep.expand_as(image)
    for t, (x_t, _, _) in zip((2, 1, 0), filter_.model.calls, strict=True):
        noised = filter_.diffusion.q_sample(2 * image - 1, step_tensor(t, image), NOISE(Draw.KEPT, t, image))
        assert torch.equal(x_t[keep], noised[keep])


def test_without_noise_the_kept_pixels_are_scaled():
    filter_, image = constant_filter(steps=3), pictures(2)
    found = inpaint(filter_, image, changed_in_a_corner(image), no_noise, painting(0.5, 3))
    keep = found.keep.expand_as(image)
    scale = filter_.diffusion.sqrt_alphas_cumprod.values[1].float()
    torch.testing.assert_close(filter_.model.calls[1][0][keep], (scale * (2 * image - 1))[keep])


def test_an_unchanged_picture_is_filtered_whole():
    image = pictures(2)
    found = inpaint(constant_filter(0.25), image, image, NOISE, painting(0.15, 3))
    torch.testing.assert_close(found.counterfactual, torch.full_like(image, 0.625))


def test_refining_by_no_steps_gives_the_pre_explanation_where_it_changed():
    image = pictures(2)
    changed = changed_in_a_corner(image)
    found = inpaint(constant_filter(steps=0), image, changed, NOISE, painting(0.5, 1))
    torch.testing.assert_close(found.counterfactual, changed, atol=ROUNDED, rtol=0)


def test_the_noised_picture_is_the_pre_explanation_at_the_filters_last_step():
    filter_, image = constant_filter(steps=3), pictures(2)
    changed = changed_in_a_corner(image)
    found = inpaint(filter_, image, changed, NOISE, painting(0.5, 3))
    x_t = filter_.diffusion.q_sample(2 * changed - 1, step_tensor(2, image), NOISE(Draw.START, 2, image))
    assert torch.equal(found.noised, ((x_t + 1) / 2).clamp(0, 1))


def test_a_counterfactual_is_clamped_to_the_range():
    diffusion = make_diffusion(diffusion_steps=100, predict_xstart=True, clip_denoised=False)
    image = pictures(1)
    found = inpaint(Filter(diffusion, predicts(1.5), 3), image, image, no_noise, painting(0.0, 1))
    assert torch.equal(found.counterfactual, torch.ones_like(image))
