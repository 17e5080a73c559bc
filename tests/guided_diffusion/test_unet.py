import itertools
import math

import pytest
import torch
import torch.nn.functional as F

from ace_counterfactuals.guided_diffusion.checkpoint import build_unet
from ace_counterfactuals.guided_diffusion.config import UNetConfig
from ace_counterfactuals.guided_diffusion.lean import laid_out, tokens
from ace_counterfactuals.guided_diffusion.unet import AttentionBlock, GroupNorm32, ResBlock, timestep_embedding
from tests.support.unet_cases import FLAGS, GOLDEN, SHAPES, TOY, meta_unet, randomised, toy_unet

PAPER = {**FLAGS, "num_res_blocks": 2, "num_channels": 128, "image_size": 256}
PRESETS = {
    "CelebA": ({**PAPER, "image_size": 128, "attention_resolutions": "32,16,8"}, 105_198_598),
    "CelebA-HQ": ({**PAPER, "num_head_channels": 64}, 138_289_926),
    "BDD": (
        {**PAPER, "num_head_channels": 64, "channel_mult": "1,2,3,4", "attention_resolutions": "16,8"},
        92_130_438,
    ),
    # OpenAI's 256x256_diffusion_uncond.pt and 256x256_diffusion.pt
    "ImageNet": ({**PAPER, "num_channels": 256, "num_head_channels": 64}, 552_814_086),
    "ImageNet, conditional": (
        {**PAPER, "num_channels": 256, "num_head_channels": 64, "class_cond": True, "num_classes": 1000},
        553_838_086,
    ),
}


def noisy(n=2, size=8, dtype=torch.float32):
    return torch.randn(n, 3, size, size, generator=torch.Generator().manual_seed(1)).to(dtype)


def run(model, x=None, t=(3, 40), y=None):
    return model(noisy() if x is None else x, torch.tensor(t), y)


def input_gradient(model):
    x = noisy().requires_grad_()
    return torch.autograd.grad(run(model, x).square().sum(), x)[0]


def shapes(model):
    return {name: list(value.shape) for name, value in model.state_dict().items()}


@pytest.mark.parametrize("file", GOLDEN)
def test_names_shapes_and_order_are_those_of_the_golden_checkpoint(file):
    assert list(shapes(meta_unet(**GOLDEN[file])).items()) == list(SHAPES[file].items())


def test_resampling_convolutions_are_named_op_and_conv_as_in_openais_checkpoints():
    names = shapes(meta_unet(**{**TOY, "resblock_updown": False}))
    assert {"input_blocks.2.0.op.weight", "output_blocks.1.2.conv.weight"} <= set(names)


@pytest.mark.parametrize("preset", PRESETS)
def test_the_papers_networks_have_their_number_of_parameters(preset):
    flags, count = PRESETS[preset]
    assert sum(parameter.numel() for parameter in meta_unet(**flags).parameters()) == count


@pytest.mark.parametrize(
    "change",
    [
        {"num_channels": 64},
        {"num_res_blocks": 2},
        {"channel_mult": "1,2,2"},
        {"attention_resolutions": "4,8"},
        {"learn_sigma": False},
        {"class_cond": True, "num_classes": 5},
        {"use_scale_shift_norm": False},
        {"resblock_updown": False},
    ],
    ids=str,
)
def test_a_structural_flag_changes_names_or_shapes(change):
    assert shapes(meta_unet(**{**TOY, **change})) != shapes(meta_unet(**TOY))


@pytest.mark.parametrize(
    "change",
    [{"num_heads": 2}, {"num_head_channels": 32}, {"num_heads_upsample": 2}, {"use_new_attention_order": True}],
    ids=str,
)
def test_a_flag_of_attention_changes_the_output_of_the_same_weights(change):
    changed = toy_unet(**change)
    assert shapes(changed) == shapes(toy_unet())
    assert not torch.allclose(run(changed), run(toy_unet()), atol=1e-4)


def test_dropout_acts_in_training_alone():
    torch.testing.assert_close(run(toy_unet(dropout=0.5)), run(toy_unet()))
    assert not torch.allclose(run(toy_unet(dropout=0.5).train()), run(toy_unet()))


def test_num_heads_is_the_width_over_num_head_channels_where_that_is_set():
    heads = [m.num_heads for m in meta_unet(**{**FLAGS, "num_head_channels": 32}).modules() if hasattr(m, "num_heads")]
    assert heads == [2, 3, 4, 4, 4, 4, 3, 3, 2, 2]


def test_num_heads_upsample_is_for_the_way_up_alone():
    model = meta_unet(**{**FLAGS, "num_heads_upsample": 2})
    blocks = {n: m.num_heads for n, m in model.named_modules() if isinstance(m, AttentionBlock)}
    assert all(heads == (2 if name.startswith("output") else 4) for name, heads in blocks.items())


def test_a_new_network_returns_nothing_since_its_last_layer_is_zero():
    assert not run(build_unet(TOY)).any()


@pytest.mark.parametrize(("learn_sigma", "channels"), [(True, 6), (False, 3)])
def test_the_output_has_the_size_of_the_picture_square_or_not(learn_sigma, channels):
    model = toy_unet(learn_sigma=learn_sigma)
    assert run(model, torch.zeros(2, 3, 8, 16)).shape == (2, channels, 8, 16)


def test_the_way_up_gets_the_features_first_and_then_the_latest_skip():
    model, skips, seen = toy_unet(), [], []
    for block in model.input_blocks:
        block.register_forward_hook(lambda module, inputs, output: skips.append(output))
    for block in [model.middle_block, *model.output_blocks]:
        block.register_forward_hook(lambda module, inputs, output: seen.append((inputs[0], output)))
    run(model)
    for (_, below), (joined, _) in itertools.pairwise(seen):
        assert torch.equal(joined, torch.cat([below, skips.pop()], dim=1))
    assert not skips


def test_pictures_of_a_batch_do_not_see_each_other():
    model, x, t = toy_unet(dtype=torch.float64), noisy(4, dtype=torch.float64), (0, 3, 40, 999)
    alone = torch.cat([run(model, x[i : i + 1], t[i : i + 1]) for i in range(4)])
    torch.testing.assert_close(run(model, x, t), alone)


def test_the_step_changes_the_output():
    assert not torch.allclose(run(toy_unet(), t=(3, 40)), run(toy_unet(), t=(4, 41)), atol=1e-4)


def test_the_timestep_embedding_is_cosines_then_sines():
    t, dim = 7.5, 6
    angles = [t * 10000 ** (-i / 3) for i in range(3)]
    expected = [math.cos(a) for a in angles] + [math.sin(a) for a in angles]
    assert timestep_embedding(torch.tensor([t]), dim)[0].tolist() == pytest.approx(expected, abs=1e-6)


def test_group_norm_has_32_groups_and_an_eps_of_1e_5():
    x = 1e-3 * torch.randn(2, 64, 4, 4)
    groups = x.view(2, 32, -1)
    expected = (groups - groups.mean(-1, keepdim=True)) / (groups.var(-1, keepdim=True, unbiased=False) + 1e-5).sqrt()
    torch.testing.assert_close(GroupNorm32(64)(x), expected.view_as(x))


def norm_silu(norm, x, scale=0, shift=0):
    return F.silu(F.group_norm(x, 32, norm.weight, norm.bias, 1e-5) * (1 + scale) + shift)


def explicit_res_block(block, x, emb, resample):
    """ResBlock as reference prose has it, with scale and shift."""
    norm_1, _, conv_1 = block.in_layers
    norm_2, _, _, conv_2 = block.out_layers
    h = conv_1(resample(norm_silu(norm_1, x)))
    scale_shift = block.emb_layers[1](F.silu(emb))
    scale, shift = (half[:, :, None, None] for half in (scale_shift[:, :64], scale_shift[:, 64:]))
    h = conv_2(norm_silu(norm_2, h, scale, shift))
    return block.skip_connection(resample(x)) + h


@pytest.mark.parametrize(
    "resample",
    [None, lambda x: F.avg_pool2d(x, 2), lambda x: x.repeat_interleave(2, 2).repeat_interleave(2, 3)],
    ids=["same", "down", "up"],
)
def test_a_res_block_scales_and_shifts_after_its_second_norm(resample):
    block = randomised(ResBlock(32, 64, UNetConfig(**TOY), resample)).eval()
    x, emb = torch.randn(2, 32, 4, 4), torch.randn(2, 128)
    torch.testing.assert_close(block(x, emb), explicit_res_block(block, x, emb, resample or (lambda x: x)))


def test_a_res_block_without_scale_shift_adds_the_embedding_before_its_second_norm():
    block = randomised(ResBlock(32, 32, UNetConfig(**{**TOY, "use_scale_shift_norm": False}))).eval()
    x, emb = torch.randn(2, 32, 4, 4), torch.randn(2, 128)
    norm, _, _, conv = block.out_layers
    h = block.in_layers(x) + block.emb_layers(emb)[:, :, None, None]
    torch.testing.assert_close(block(x, emb), x + conv(norm_silu(norm, h)))


def attention_block(new_order):
    """Of 4 heads of width 8."""
    return AttentionBlock(32, UNetConfig(**{**TOY, "num_heads": 4, "use_new_attention_order": new_order}))


@pytest.mark.parametrize("new_order", [False, True])
def test_attention_equals_an_explicit_loop_over_pictures_heads_and_positions(new_order):
    heads, width = 4, 8
    block = randomised(attention_block(new_order)).double()
    x = torch.randn(2, heads * width, 3, 2, dtype=torch.float64)
    qkv, h = block.qkv(tokens(block.norm(x))).mT, torch.zeros(2, heads * width, 6, dtype=x.dtype)
    for n, head in itertools.product(range(2), range(heads)):
        first = [(part * heads + head) if new_order else (head * 3 + part) for part in range(3)]
        q, k, v = (qkv[n, i * width : (i + 1) * width] for i in first)
        for position in range(6):
            weight = torch.softmax(q[:, position] @ k / math.sqrt(width), dim=0)
            h[n, head * width : (head + 1) * width, position] = v @ weight
    torch.testing.assert_close(block(x), x + block.proj_out(h.mT).mT.reshape(x.shape))


def test_the_two_orders_of_attention_are_equal_once_their_channels_are_permuted():
    heads, width = 4, 8
    legacy, new = randomised(attention_block(False)), attention_block(True)
    state = legacy.state_dict()
    for name in ("qkv.weight", "qkv.bias"):
        by_head = state[name].unflatten(0, (heads, 3, width))
        state[name] = by_head.transpose(0, 1).flatten(0, 2)
    new.load_state_dict(state)
    x = torch.randn(2, heads * width, 4, 4)
    torch.testing.assert_close(new(x), legacy(x))


def test_a_torso_in_bfloat16_returns_nearly_the_same_in_float32():
    exact, half = run(toy_unet()), run(toy_unet().torso_to(torch.bfloat16))
    assert half.dtype == torch.float32
    assert (half - exact).norm() < 0.02 * exact.norm()
    assert not torch.equal(half, exact)


def test_a_torso_in_bfloat16_is_its_convolutions_alone():
    model = toy_unet().torso_to(torch.bfloat16)
    kept = {name for name, value in model.state_dict().items() if value.dtype == torch.float32}
    assert {"time_embed.0.weight", "out.0.weight", "out.2.weight", "input_blocks.1.0.emb_layers.1.weight"} <= kept
    assert {name for name in shapes(model) if ".norm." in name or "layers.0." in name} <= kept
    assert model.input_blocks[0][0].weight.dtype == model.middle_block[1].qkv.weight.dtype == torch.bfloat16


def test_group_norm_computes_in_float32_whatever_its_input():
    norm, x = randomised(GroupNorm32(64)), (100 + torch.randn(2, 64, 4, 4)).bfloat16()
    assert torch.equal(norm(x), norm(x.float()).bfloat16())


def test_the_gradient_through_a_bfloat16_torso_is_nearly_the_same():
    exact, half = input_gradient(toy_unet()), input_gradient(toy_unet().torso_to(torch.bfloat16))
    assert half.dtype == torch.float32
    assert (half - exact).norm() < 0.05 * exact.norm()


@pytest.mark.parametrize("changes", [{}, {"resblock_updown": False, "use_new_attention_order": True}], ids=str)
def test_the_order_of_weights_in_memory_changes_no_value_and_no_gradient(changes):
    plain, last = toy_unet(torch.float64, **changes), laid_out(toy_unet(torch.float64, **changes))
    assert last.input_blocks[1][0].in_layers[2].weight.is_contiguous(memory_format=torch.channels_last)
    x = noisy(dtype=torch.float64)
    torch.testing.assert_close(run(last, x), run(plain, x))
    ours, theirs = (torch.autograd.grad(run(one, x).square().sum(), one.parameters()) for one in (last, plain))
    torch.testing.assert_close(ours, theirs)


def test_float64_runs_all_through():
    exact = run(toy_unet(dtype=torch.float64), noisy(dtype=torch.float64))
    assert exact.dtype == torch.float64
    torch.testing.assert_close(run(toy_unet()).double(), exact, atol=1e-4, rtol=1e-4)


def gradients(model):
    x = noisy().requires_grad_()
    loss = run(model, x).square().sum()
    return torch.autograd.grad(loss, [x, *model.parameters()])


def test_use_checkpoint_gives_the_same_gradients():
    for plain, checkpointed in zip(gradients(toy_unet()), gradients(toy_unet(use_checkpoint=True)), strict=True):
        assert torch.equal(plain, checkpointed)


def test_use_checkpoint_keeps_fewer_activations():
    def kept(model):
        sizes = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t: sizes.append(t.numel()) or t, lambda t: t):
            run(model, noisy().requires_grad_())
        return sum(sizes)

    assert kept(toy_unet(use_checkpoint=True)) < kept(toy_unet()) / 4


@pytest.mark.parametrize("use_checkpoint", [False, True])
def test_freezing_the_network_leaves_the_gradient_of_the_picture_as_it_is(use_checkpoint):
    free, frozen = (toy_unet(use_checkpoint=use_checkpoint, dtype=torch.float64) for _ in range(2))
    frozen.requires_grad_(False)
    torch.testing.assert_close(input_gradient(frozen), input_gradient(free))


def conditional():
    return toy_unet(class_cond=True, num_classes=5)


def test_the_class_changes_the_output():
    one, other = (run(conditional(), y=torch.tensor(y)) for y in ([0, 1], [0, 2]))
    assert torch.equal(one[0], other[0])
    assert not torch.allclose(one[1], other[1], atol=1e-4)


def test_attributes_add_the_embeddings_of_those_that_are_set():
    y = torch.tensor([3, 1])
    torch.testing.assert_close(run(conditional(), y=F.one_hot(y, 5).float()), run(conditional(), y=y))


@pytest.mark.parametrize(("model", "y"), [(conditional, None), (toy_unet, torch.tensor([0, 1]))])
def test_classes_are_given_if_and_only_if_the_network_is_conditional(model, y):
    with pytest.raises(ValueError, match="if and only if"):
        run(model(), y=y)
