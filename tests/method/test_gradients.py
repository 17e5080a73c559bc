"""Every way through the diffusion model gives the same gradient, and costs what it promises."""

from functools import cache, partial

import pytest
import torch

from ace_counterfactuals.core.method.filtering import Filter, to_image
from ace_counterfactuals.core.method.gradients import (
    chain_gradient,
    checkpointed_gradient,
    leaf,
    one_step_gradient,
    plain_gradient,
    pull_back,
    shortcut_gradient,
)
from ace_counterfactuals.core.method.noise import image_noise, no_noise
from tests.support.toys import ToyClassifier, pictures, relative_distance, toy_diffusion, toy_unet

T = 6
STOCHASTIC = image_noise(4, [0, 1], 0)
NOISES = pytest.mark.parametrize("noise", [STOCHASTIC, no_noise], ids=["stochastic", "deterministic"])


double_unet = cache(partial(toy_unet, torch.float64))


def make_filter(steps=T, dtype=torch.float64, **changes):
    """One in double precision shares its network, which nobody changes."""
    make = double_unet if dtype == torch.float64 else toy_unet
    return Filter(toy_diffusion("20"), make(**changes), steps)


def make_objective(dtype=torch.float64):
    classifier = ToyClassifier(dtype=dtype)
    return lambda image: torch.nn.functional.cross_entropy(
        classifier(image), torch.ones(len(image), dtype=torch.int64), reduction="sum"
    )


SAME = 1e-12
"""Of float64: eps, 2e-16, of each of some thousand sums that other orders round otherwise."""


def interior(count=2, dtype=torch.float64):
    """Pictures away from black and white."""
    return 0.2 + 0.6 * pictures(count, dtype)


@pytest.fixture(scope="module")
def whole():
    """noise -> the whole chain's gradient in float64."""
    return {
        noise: chain_gradient(make_objective(), make_filter(), interior(), noise) for noise in (STOCHASTIC, no_noise)
    }


@NOISES
@pytest.mark.parametrize("segment", [1, 2, 4, 5, T, 100])
def test_the_checkpointed_gradient_is_the_whole_chains(whole, noise, segment):
    found = checkpointed_gradient(make_objective(), make_filter(), interior(), noise, segment=segment)
    assert relative_distance(found, whole[noise]) < SAME


@NOISES
def test_the_whole_chains_gradient_is_the_numerical_directional_derivative(whole, noise):
    objective, filter_, image = make_objective(), make_filter(), interior()
    for seed in range(3):
        direction = torch.randn(image.shape, generator=torch.Generator().manual_seed(seed)).double()
        step = 1e-6
        with torch.no_grad():
            ahead, behind = (objective(filter_(image + h * direction, noise)) for h in (step, -step))
        derivative = (ahead - behind) / (2 * step)
        # A difference of two values of about 1, each off by eps, over the step: 2e-16 / 1e-6, for slopes from 1e-4 on.
        assert (whole[noise] * direction).sum() == pytest.approx(derivative.item(), rel=1e-5)


def wrong_checkpointed_gradient(objective, filter_, image, noise, *, segment):
    """As ``checkpointed_gradient``, but every segment starts from the first state: it is not reset in between."""
    bounds = [*range(filter_.steps, 0, -segment), 0]
    segments = list(zip(bounds, bounds[1:], strict=False))
    start = filter_.start(image, noise).detach()
    cotangent = None
    for first, last in reversed(segments):
        state = leaf(start)
        output = filter_.denoise(state, noise, first=first, last=last)
        if cotangent is None:
            output = to_image(output)
            cotangent = plain_gradient(objective, output)
        cotangent = pull_back(output, state, cotangent)
    image = leaf(image)
    return pull_back(filter_.start(image, noise), image, cotangent)


@NOISES
def test_the_comparison_catches_a_state_that_is_not_reset_between_segments(whole, noise):
    wrong = wrong_checkpointed_gradient(make_objective(), make_filter(), interior(), noise, segment=2)
    assert relative_distance(wrong, whole[noise]) > 0.1


@pytest.mark.parametrize("changes", [{"use_checkpoint": True}, {"resblock_updown": False}, {"learn_sigma": False}])
def test_checkpointing_is_right_for_other_networks_too(changes):
    filter_ = make_filter(4, **changes)
    if "learn_sigma" in changes:
        filter_ = Filter(toy_diffusion("20", learn_sigma=False), filter_.model, 4)
    found = checkpointed_gradient(make_objective(), filter_, interior(), STOCHASTIC, segment=3)
    assert relative_distance(found, chain_gradient(make_objective(), filter_, interior(), STOCHASTIC)) < SAME


class Counted:
    """A network that counts its calls with and without a graph."""

    def __init__(self, network):
        self.network, self.with_graph, self.without = network, 0, 0

    def __call__(self, *inputs):
        if torch.is_grad_enabled():
            self.with_graph += 1
        else:
            self.without += 1
        return self.network(*inputs)


@pytest.mark.parametrize(("segment", "last"), [(1, 1), (2, 2), (4, 2), (5, 1), (T, T)])
def test_checkpointing_calls_the_network_once_more_but_in_the_last_segment(segment, last):
    counted = Counted(toy_unet())
    filter_ = Filter(toy_diffusion("20"), counted, T)
    checkpointed_gradient(make_objective(torch.float32), filter_, pictures(2), STOCHASTIC, segment=segment)
    assert (counted.without, counted.with_graph) == (T - last, T)


def test_the_whole_chain_calls_the_network_once_a_step():
    counted = Counted(toy_unet())
    chain_gradient(make_objective(torch.float32), Filter(toy_diffusion("20"), counted, T), pictures(2), STOCHASTIC)
    assert (counted.without, counted.with_graph) == (0, T)


@NOISES
def test_the_one_step_gradient_is_the_derivative_of_the_objective_at_the_predicted_picture(noise):
    objective, filter_, image = make_objective(), make_filter(), interior()
    direction, step = torch.randn(image.shape, generator=torch.Generator().manual_seed(0)).double(), 1e-6
    with torch.no_grad():
        ahead, behind = (objective(filter_.predict(image + h * direction, noise)) for h in (step, -step))
    found = one_step_gradient(objective, filter_, image, noise)
    assert (found * direction).sum() == pytest.approx((ahead - behind).item() / (2 * step), rel=1e-5)


def test_of_a_filter_of_one_step_the_one_step_gradient_is_the_chains():
    inputs = make_objective(), make_filter(1), interior(), STOCHASTIC
    assert torch.equal(one_step_gradient(*inputs), chain_gradient(*inputs))


@pytest.mark.parametrize("steps", [1, T])
def test_the_one_step_gradient_calls_the_network_once_whatever_the_steps(steps):
    counted = Counted(toy_unet())
    one_step_gradient(make_objective(torch.float32), Filter(toy_diffusion("20"), counted, steps), pictures(2), no_noise)
    assert (counted.without, counted.with_graph) == (0, 1)


def test_the_memory_of_the_one_step_gradient_does_not_grow_with_the_steps():
    assert peak_bytes(one_step_gradient, 12) == peak_bytes(one_step_gradient, 4) < peak_bytes(chain_gradient, 4) / 2


def test_a_perfect_network_predicts_the_picture_that_was_noised():
    image = interior()

    def perfect(x_t, steps, classes):
        diffusion, t, x_0 = toy_diffusion("20", learn_sigma=False), torch.full((len(x_t),), T - 1), 2 * image - 1
        signal, noise = diffusion.sqrt_alphas_cumprod, diffusion.sqrt_one_minus_alphas_cumprod
        return (x_t - signal.at(t, x_t) * x_0) / noise.at(t, x_t)

    found = Filter(toy_diffusion("20", learn_sigma=False), perfect, T).predict(image, STOCHASTIC)
    assert relative_distance(found, image) < SAME


def test_the_shortcut_calls_the_network_without_a_graph_alone():
    counted = Counted(toy_unet())
    shortcut_gradient(make_objective(torch.float32), Filter(toy_diffusion("20"), counted, T), pictures(2), STOCHASTIC)
    assert (counted.without, counted.with_graph) == (T, 0)


class Stored:
    """Bytes that autograd keeps for the backward pass: now, and at most."""

    def __init__(self):
        self.now = self.peak = 0

    class Held:
        def __init__(self, owner, tensor):
            self.owner, self.tensor, self.size = owner, tensor, tensor.numel() * tensor.element_size()
            owner.now += self.size
            owner.peak = max(owner.peak, owner.now)

        def __del__(self):
            self.owner.now -= self.size

    def watch(self):
        return torch.autograd.graph.saved_tensors_hooks(lambda t: Stored.Held(self, t), lambda held: held.tensor)


def peak_bytes(gradient, steps):
    stored = Stored()
    with stored.watch():
        gradient(make_objective(torch.float32), make_filter(steps, torch.float32), pictures(2), STOCHASTIC)
    return stored.peak


def test_the_memory_of_a_checkpointed_gradient_does_not_grow_with_the_steps():
    def gradient(*inputs):
        return checkpointed_gradient(*inputs, segment=1)

    assert peak_bytes(gradient, 12) == peak_bytes(gradient, 4)


def test_the_memory_of_the_whole_chain_does():
    assert peak_bytes(chain_gradient, 12) > 2.5 * peak_bytes(chain_gradient, 4)


def test_longer_segments_keep_more():
    peaks = [
        peak_bytes(lambda *inputs, s=segment: checkpointed_gradient(*inputs, segment=s), 6) for segment in (1, 2, 3)
    ]
    assert peaks == sorted(set(peaks))


@NOISES
def test_the_shortcut_is_the_gradient_at_the_filtered_picture_over_the_scale_of_the_start(noise):
    objective, filter_, image = make_objective(), make_filter(), interior()
    filtered = filter_(image, noise).requires_grad_()
    (expected,) = torch.autograd.grad(objective(filtered), filtered)
    expected = expected / filter_.diffusion.alphas_cumprod.values[T - 1].sqrt()
    assert relative_distance(shortcut_gradient(objective, filter_, image, noise), expected) < SAME


def test_the_plain_gradient_leaves_the_diffusion_model_out():
    objective, image = make_objective(), interior().requires_grad_()
    (expected,) = torch.autograd.grad(objective(image), image)
    assert torch.equal(plain_gradient(objective, image), expected)


WAYS = {
    "plain": lambda objective, filter_, image, noise: plain_gradient(objective, image),
    "chain": chain_gradient,
    "checkpointed": lambda *inputs: checkpointed_gradient(*inputs, segment=2),
    "one-step": one_step_gradient,
    "shortcut": shortcut_gradient,
}


@pytest.mark.parametrize("way", WAYS)
def test_the_gradient_of_a_picture_does_not_depend_on_its_batch(way):
    objective, filter_, image = make_objective(), make_filter(4), interior(3)
    together = WAYS[way](objective, filter_, image, image_noise(4, [7, 8, 9], 0))
    alone = WAYS[way](objective, filter_, image[1:2], image_noise(4, [8], 0))
    assert relative_distance(together[1:2], alone) < SAME


@pytest.mark.parametrize("way", WAYS)
def test_frozen_weights_get_no_gradient_and_thawed_ones_are_not_touched(way):
    filter_ = make_filter(2, torch.float32)
    for thawed in (False, True):
        filter_.model.requires_grad_(thawed)
        WAYS[way](make_objective(torch.float32), filter_, pictures(2), STOCHASTIC)
        assert all(parameter.grad is None for parameter in filter_.model.parameters())


@pytest.mark.parametrize("way", WAYS)
def test_the_result_holds_no_graph_and_the_picture_is_left_alone(way):
    image = pictures(2)
    before = image.clone()
    found = WAYS[way](make_objective(torch.float32), make_filter(2, torch.float32), image, STOCHASTIC)
    assert not found.requires_grad
    assert torch.equal(image, before) and not image.requires_grad


def confident(scale):
    objective = make_objective(torch.float32)
    return lambda image: scale * objective(image)


TINY = 2.0**-40
"""Below the smallest number of float16; a power of two, so that nothing else is rounded."""


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("way", ["chain", "checkpointed"])
def test_a_confident_classifiers_gradient_survives_a_torso_in_half_precision(way, dtype):
    filter_ = make_filter(2, torch.float32)
    exact = WAYS[way](confident(1.0), filter_, pictures(2), STOCHASTIC)
    filter_.model.torso_to(dtype)
    plain, tiny = (WAYS[way](confident(scale), filter_, pictures(2), STOCHASTIC) for scale in (1.0, TINY))
    assert torch.equal(tiny, plain * TINY)
    assert relative_distance(plain, exact) < 0.1


def test_without_the_scale_that_gradient_would_vanish():
    """What the test above guards against."""
    filter_ = make_filter(2, torch.float32)
    filter_.model.torso_to(torch.float16)
    image = leaf(pictures(2))
    output = filter_(image, STOCHASTIC)
    cotangent = plain_gradient(confident(TINY), output)
    (found,) = torch.autograd.grad(output, image, cotangent)
    assert not torch.equal(found, pull_back(filter_(image, STOCHASTIC), image, cotangent))


@pytest.mark.parametrize("size", [1e-30, 1e-9, 1.0, 1e9])
def test_in_single_precision_the_scale_changes_no_digit(size):
    filter_ = make_filter(1, torch.float32)
    image = leaf(pictures(2))
    output = filter_.denoise(filter_.start(image, STOCHASTIC), STOCHASTIC)
    cotangent = torch.randn_like(output)
    power = 2.0 ** torch.tensor(size).log2().round()
    (expected,) = torch.autograd.grad(output, image, cotangent, retain_graph=True)
    assert torch.equal(pull_back(output, image, cotangent * power), expected * power)


def test_pictures_are_scaled_one_by_one():
    filter_ = make_filter(2, torch.float32)
    filter_.model.torso_to(torch.float16)
    image = leaf(pictures(2))
    cotangent = torch.randn_like(image)
    sizes = torch.tensor([1.0, TINY]).view(2, 1, 1, 1)
    found, plain = (pull_back(filter_(image, STOCHASTIC), image, c) for c in (cotangent * sizes, cotangent))
    assert torch.equal(found, plain * sizes)


@pytest.mark.parametrize("value", [0.0, 1e-44])
def test_a_gradient_of_nothing_stays_finite(value):
    filter_ = make_filter(1, torch.float32)
    image = leaf(pictures(2))
    assert pull_back(filter_(image, no_noise), image, torch.full_like(image, value)).isfinite().all()


def test_a_gradient_that_is_not_finite_is_not_hidden():
    filter_ = make_filter(1, torch.float32)
    image = leaf(pictures(2))
    cotangent = torch.zeros_like(image)
    cotangent[1, 0, 0, 0] = torch.nan
    found = pull_back(filter_(image, no_noise), image, cotangent)
    assert found[0].isfinite().all() and not found[1].isfinite().all()
