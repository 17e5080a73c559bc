import pytest
import torch
import torch.nn.functional as F

from ace_counterfactuals.core.method.footprint import kept_bytes
from ace_counterfactuals.guided_diffusion.lean import Conv2d, Pointwise2d, group_norm
from tests.support.unet_cases import toy_unet

GROUPS, EPS = 4, 1e-5
LAYOUTS = [torch.contiguous_format, torch.channels_last]


def draw(*shape, dtype=torch.float64, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype).requires_grad_()


def norm_inputs(dtype=torch.float64):
    """x, weight, bias, scale, shift."""
    x = draw(2, 8, 3, 5, dtype=dtype).detach() * 2 + 3
    return [x.requires_grad_(), *(draw(*shape, dtype=dtype) for shape in [(8,), (8,), (2, 8), (2, 8)])]


def plain(x, weight, bias, scale, shift):
    h = F.group_norm(x, GROUPS, weight, bias, EPS)
    return F.silu(h * (1 + scale[:, :, None, None]) + shift[:, :, None, None])


def lean(x, weight, bias, scale, shift):
    return group_norm(x, weight * (1 + scale), bias * (1 + scale) + shift, GROUPS, silu=True)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_lean_norm_has_the_values_of_torchs_layers_in_the_order_of_its_input(layout):
    x, *others = norm_inputs()
    found = lean(x.to(memory_format=layout), *others)
    torch.testing.assert_close(found, plain(x, *others))
    assert found.is_contiguous(memory_format=layout)


def test_the_lean_norm_without_silu_is_torchs():
    for layout in LAYOUTS:
        x, weight, bias, *_ = norm_inputs()
        found = group_norm(x.to(memory_format=layout), *(v.expand(2, -1) for v in (weight, bias)), GROUPS, silu=False)
        torch.testing.assert_close(found, F.group_norm(x, GROUPS, weight, bias, EPS))
        cotangent = draw(*x.shape, seed=1)
        ours, theirs = (
            torch.autograd.grad((y * cotangent).sum(), [x, weight, bias])
            for y in (found, F.group_norm(x, GROUPS, weight, bias, EPS))
        )
        torch.testing.assert_close(ours, theirs)


def every_other_row(x):
    return torch.cat([x, x], dim=3).view(*x.shape[:2], -1, x.shape[3])[:, :, ::2]


@pytest.mark.parametrize(
    "layout", [torch.contiguous_format, torch.channels_last, every_other_row], ids=["contiguous", "last", "strided"]
)
def test_the_lean_norm_has_the_gradients_of_torchs_layers_at_each_of_its_inputs(layout):
    def gradients(function):
        inputs = norm_inputs()
        x = layout(inputs[0]) if layout is every_other_row else inputs[0].to(memory_format=layout)
        output = function(x, *inputs[1:])
        return torch.autograd.grad((output * draw(*output.shape, seed=1)).sum(), inputs)

    for ours, theirs in zip(gradients(lean), gradients(plain), strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_lean_norms_gradient_of_one_picture_does_not_depend_on_the_order_in_memory_of_what_comes_back(layout):
    x, *others = (value[:1] if value.ndim > 1 else value for value in norm_inputs())
    output = lean(x.to(memory_format=layout), *others)
    cotangent = draw(*output.shape, seed=1)
    found, expected = (
        torch.autograd.grad(y, x, cotangent.to(memory_format=order))[0]
        for y, order in ((output, LAYOUTS[1 - LAYOUTS.index(layout)]), (plain(x, *others), torch.contiguous_format))
    )
    torch.testing.assert_close(found, expected)


def test_the_lean_norm_of_half_precision_is_taken_in_float32():
    x, *others = norm_inputs(torch.float32)
    exact, rounding = plain(x.bfloat16().float(), *others), 2**-8  # of a result in bfloat16, and of nothing before it
    torch.testing.assert_close(lean(x.bfloat16(), *others).float(), exact, rtol=1.01 * rounding, atol=1e-5)
    assert not torch.allclose(
        plain(x.bfloat16(), *(o.bfloat16() for o in others)).float(), exact, 1.01 * rounding, 1e-5
    )


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_lean_norm_keeps_little_but_its_input(layout):
    x, *others = (tensor.requires_grad_(i == 0) for i, tensor in enumerate(norm_inputs()))
    of_channels = 4 * others[2].nbytes  # gain, offset, and at most mean and rstd of each channel's group
    kept = kept_bytes(lambda: lean(x.detach().to(memory_format=layout).requires_grad_(), *others))
    assert x.nbytes < kept <= x.nbytes + of_channels


@pytest.mark.parametrize(
    "layer", [Conv2d(4, 6, 3, padding=1), Conv2d(4, 6, 3, stride=2, padding=1), Pointwise2d(4, 6, 1)]
)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_frozen_convolution_has_the_gradient_of_torchs_and_keeps_nothing(layer, layout):
    x, layer = draw(2, 4, 5, 5).detach().to(memory_format=layout).requires_grad_(), layer.double().requires_grad_(False)
    output = layer(x)
    expected = F.conv2d(x, layer.weight, layer.bias, layer.stride, layer.padding)
    cotangent = draw(*output.shape, seed=1)
    torch.testing.assert_close(output, expected)
    ours, theirs = (torch.autograd.grad((y * cotangent).sum(), x)[0] for y in (output, expected))
    torch.testing.assert_close(ours, theirs)
    assert kept_bytes(lambda: layer(x), layer.parameters()) == 0


def test_a_convolution_that_is_trained_has_the_gradients_of_torchs():
    x, layer = draw(2, 4, 5, 5), Conv2d(4, 6, 3, padding=1).double()
    inputs = [x, layer.weight, layer.bias]
    ours = torch.autograd.grad(layer(x).square().sum(), inputs)
    theirs = torch.autograd.grad(F.conv2d(*inputs, padding=1).square().sum(), inputs)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other)


def test_a_lean_call_of_a_network_of_64_channels_keeps_at_most_42_mib():
    unet = toy_unet(image_size=64, num_channels=64, channel_mult="1,2,3,4", attention_resolutions="32,16,8")
    x, t = draw(1, 3, 64, 64, dtype=torch.float32), torch.tensor([3])
    unet = unet.requires_grad_(False).to(memory_format=torch.channels_last)
    assert kept_bytes(lambda: unet(x, t), unet.parameters()) <= 42 * 2**20
