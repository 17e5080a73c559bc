import pytest
import torch
from torch import nn

from ace_counterfactuals.core.base.settings import FlagError
from ace_counterfactuals.guided_diffusion.checkpoint import TOLD, build_unet, read_flags
from ace_counterfactuals.guided_diffusion.config import DEFAULT_CHANNEL_MULT, UNetConfig, format_mult
from tests.support.unet_cases import FLAGS, GOLDEN, SHAPES, TOY, meta_unet, toy_unet

STATE = toy_unet().state_dict()


def golden_state(file):
    """Shapes are all that is read of it."""
    return {name: torch.empty(shape, device="meta") for name, shape in SHAPES[file].items()}


def refusal(flags, state, path="w.pt"):
    with pytest.raises(ValueError) as caught:
        build_unet(flags, state, path)
    message = str(caught.value)
    assert "\n" not in message
    return message


def check_recovered(flags, found):
    mult = flags["channel_mult"] or format_mult(DEFAULT_CHANNEL_MULT[flags["image_size"]])
    assert {name: found[name] for name in found if name not in TOLD} == {
        **{name: flags[name] for name in found if name not in TOLD},
        "channel_mult": mult,
    }
    assert found["in_channels"] == 3
    assert found.get("num_classes") == (flags["num_classes"] if flags["class_cond"] else None)


@pytest.mark.parametrize("file", GOLDEN)
def test_the_flags_of_a_golden_checkpoint_are_read_from_its_shapes(file):
    # At 256 pixels, 16 and 8 are factors below BDD's four levels: it has attention in its middle block alone.
    attention = "" if file == "unet_bdd.pt" else GOLDEN[file]["attention_resolutions"]
    flags = {**GOLDEN[file], "attention_resolutions": attention}
    check_recovered(flags, read_flags(golden_state(file), flags["image_size"]))


@pytest.mark.parametrize("file", GOLDEN)
def test_a_golden_checkpoint_fits_its_flags_and_loads_value_by_value(file):
    state = {name: torch.full(shape, 0.5) for name, shape in SHAPES[file].items()}
    loaded = build_unet(GOLDEN[file], state, file).state_dict()
    assert list(loaded) == list(state)
    assert all(torch.equal(loaded[name], state[name]) for name in state)


@pytest.mark.parametrize(
    "change",
    [
        {"num_channels": 64, "num_res_blocks": 3},
        {"image_size": 512, "num_channels": 64},
        {"num_channels": 64, "channel_mult": "1,1.5,1", "attention_resolutions": "64,16"},
        {"attention_resolutions": ""},
        {"learn_sigma": False},
        {"class_cond": True, "num_classes": 40},
        {"use_scale_shift_norm": False},
        {"resblock_updown": False},
        {"resblock_updown": False, "use_scale_shift_norm": False, "attention_resolutions": "64,32,16,8"},
        {"image_size": 28, "attention_resolutions": "14"},
    ],
    ids=str,
)
def test_flags_are_read_from_the_shapes_of_any_variant(change):
    flags = {**FLAGS, **change}
    check_recovered(flags, read_flags(meta_unet(**flags).state_dict(), flags["image_size"]))


def test_attention_deeper_than_a_picture_has_pixels_has_no_resolution():
    assert read_flags(golden_state("unet_celeba.pt"), image_size=4)["attention_resolutions"] == "2,1"


def test_a_network_of_one_level_does_not_tell_how_it_resamples():
    state = meta_unet(**{**TOY, "channel_mult": "2"}).state_dict()
    found = read_flags(state, 8)
    assert found["channel_mult"] == "2"
    assert "resblock_updown" not in found
    build_unet({**TOY, "channel_mult": "2", "resblock_updown": False}, state)


def test_a_loaded_network_is_frozen_and_in_eval_mode():
    model = build_unet(TOY, STATE)
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_a_network_without_a_state_can_be_trained():
    model = build_unet(TOY)
    assert model.training
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_half_precision_weights_are_loaded_as_float32():
    loaded = build_unet(TOY, {name: value.half() for name, value in STATE.items()}).state_dict()
    assert {value.dtype for value in loaded.values()} == {torch.float32}
    assert all(torch.equal(loaded[name], STATE[name].half().float()) for name in STATE)


def test_float32_weights_are_not_copied():
    loaded = build_unet(TOY, STATE).state_dict()
    assert all(loaded[name].data_ptr() == STATE[name].data_ptr() for name in STATE)


def test_no_time_is_spent_on_numbers_that_a_state_replaces(monkeypatch):
    def refuse(tensor, *args, **kwargs):
        assert tensor.is_meta

    monkeypatch.setattr(nn.init, "kaiming_uniform_", refuse)
    build_unet(TOY, STATE)


def test_flags_of_other_parts_of_the_program_are_ignored():
    build_unet({**TOY, "gpu": 0, "attack_step": 1.0}, STATE)


@pytest.mark.parametrize(
    ("flag", "value", "right"),
    [
        ("num_channels", 64, "32"),
        ("num_res_blocks", 2, "1"),
        ("channel_mult", "1,2,4", "1,2,3,4"),
        ("attention_resolutions", "32,16", "32,16,8"),
        ("attention_resolutions", "", "32,16,8"),
        ("learn_sigma", False, "True"),
        ("class_cond", True, "False"),
        ("use_scale_shift_norm", False, "True"),
        ("resblock_updown", False, "True"),
    ],
)
def test_a_wrong_flag_is_named_with_what_the_file_has(flag, value, right):
    message = refusal({**FLAGS, flag: value}, golden_state("unet_celeba.pt"))
    assert message == f"{flag} {value if value != '' else repr('')}, but w.pt has {right}; give {flag} {right}"


def test_all_wrong_flags_are_named_at_once():
    message = refusal({**FLAGS, "num_channels": 64, "learn_sigma": False}, golden_state("unet_celeba.pt"))
    assert message == (
        "num_channels 64, but w.pt has 32; learn_sigma False, but w.pt has True; give num_channels 32, learn_sigma True"
    )


@pytest.mark.parametrize("size", [32, 128, 256])
def test_an_image_size_that_explains_width_and_attention_is_named_instead_of_them(size):
    message = refusal({**FLAGS, "image_size": size}, golden_state("unet_celeba.pt"))
    assert message == f"image_size {size}, but w.pt has 64; give image_size 64"


def test_another_size_of_the_same_widths_is_told_by_its_attention():
    state = meta_unet(**{**FLAGS, "image_size": 128}).state_dict()
    message = refusal({**FLAGS, "image_size": 224}, state)
    assert message == "image_size 224, but w.pt has 128; give image_size 128"


def test_a_missing_channel_mult_is_answered_with_the_files():
    message = refusal({**TOY, "channel_mult": ""}, STATE)
    assert message == "channel_mult '', but w.pt has 1,2; give channel_mult 1,2"


def conditional_state(classes):
    return meta_unet(**{**TOY, "class_cond": True, "num_classes": classes}).state_dict()


def test_class_cond_is_asked_for_where_the_file_has_classes():
    assert refusal(TOY, conditional_state(5)) == "class_cond False, but w.pt has True; give class_cond True"


def test_the_number_of_classes_is_the_files_where_none_is_given():
    assert build_unet({**TOY, "class_cond": True}, conditional_state(7)).config.num_classes == 7


def test_another_number_of_classes_than_the_data_set_has_is_refused():
    message = refusal({**TOY, "class_cond": True, "num_classes": 1000}, conditional_state(7))
    assert message.startswith("class_cond True: this data set has 1000 classes, but w.pt has 7")


def test_heads_cannot_be_told_and_are_taken_from_the_flags():
    assert build_unet({**TOY, "num_heads": 2}, STATE).middle_block[1].num_heads == 2


@pytest.mark.parametrize("state", [{"conv1.weight": torch.zeros(1)}, {}], ids=["classifier", "empty"])
def test_a_file_that_is_no_unet_is_refused_with_what_it_lacks(state):
    assert refusal(TOY, state).startswith("w.pt is no diffusion U-Net") and "time_embed.0.weight" in refusal(TOY, state)


def test_weights_that_are_no_floats_are_refused():
    assert "out.2.bias of torch.int8" in refusal(TOY, {**STATE, "out.2.bias": torch.zeros(6, dtype=torch.int8)})


def test_a_file_that_lacks_a_block_is_called_incomplete():
    state = {name: value for name, value in STATE.items() if not name.startswith("input_blocks.3.")}
    assert "incomplete one: no usable input_blocks.3.0.in_layers.2.weight" in refusal(TOY, state)


def test_a_file_that_lacks_an_output_block_is_called_incomplete():
    state = {name: value for name, value in STATE.items() if not name.startswith("output_blocks.3.")}
    assert "incomplete diffusion U-Net: 3 output blocks do not make 2 levels" in refusal(TOY, state)


def test_missing_unknown_and_misshapen_entries_are_listed():
    state = {name: value for name, value in STATE.items() if name != "out.0.bias"}
    state |= {"surprise": torch.zeros(1), "out.2.bias": torch.zeros(5)}
    message = refusal(TOY, state)
    assert 'Missing key(s) in state_dict: "out.0.bias"' in message
    assert 'Unexpected key(s) in state_dict: "surprise"' in message
    assert "size mismatch for out.2.bias" in message and "torch.Size([5])" in message and "torch.Size([6])" in message


@pytest.mark.parametrize(
    ("name", "shape"), [("out.2.weight", (2, 32, 3, 3)), ("input_blocks.0.0.weight", (32, 6, 3, 3))]
)
def test_a_unet_of_other_channels_such_as_an_upsampler_is_refused(name, shape):
    assert "wanted a U-Net that maps 3 to 3, or to 6" in refusal(TOY, {**STATE, name: torch.zeros(shape)})


@pytest.mark.parametrize("size", DEFAULT_CHANNEL_MULT)
def test_an_empty_channel_mult_is_that_of_the_image_size(size):
    assert UNetConfig(**{**FLAGS, "image_size": size, "num_channels": 64}).mult == DEFAULT_CHANNEL_MULT[size]


def test_attention_stands_at_the_image_size_over_each_resolution():
    assert UNetConfig(**{**FLAGS, "image_size": 256}).attention == (8, 16, 32)


@pytest.mark.parametrize(
    ("field", "said", "change"),
    [
        ("channel_mult", "no default for image_size 100", {"image_size": 100}),
        ("image_size", "choose a multiple of 8", {"image_size": 100, "channel_mult": "1,1,1,1"}),
        ("channel_mult", "'1,x'", {"channel_mult": "1,x"}),
        ("channel_mult", "'1,0'", {"channel_mult": "1,0"}),
        ("channel_mult", "'1,nan'", {"channel_mult": "1,nan"}),
        ("channel_mult", "'1,inf'", {"channel_mult": "1,inf"}),
        ("num_channels", "a width of 48", {"num_channels": 48}),
        ("num_channels", "a width of 16", {"channel_mult": "1,0.5"}),
        ("num_res_blocks", "at least 1", {"num_res_blocks": 0}),
        ("attention_resolutions", "'32,big'", {"attention_resolutions": "32,big"}),
        ("attention_resolutions", "'0'", {"attention_resolutions": "0"}),
        ("num_heads", "divisor of 64, 96, 128", {"num_heads": 3}),
        ("num_heads", "0 does not divide", {"num_heads": 0}),
        ("num_heads_upsample", "5 does not divide", {"num_heads_upsample": 5}),
        ("num_head_channels", "width 96", {"num_head_channels": 64}),
        ("class_cond", "number of classes", {"class_cond": True}),
    ],
)
def test_flags_that_make_no_network_are_refused_by_name(field, said, change):
    with pytest.raises(FlagError) as refused:
        UNetConfig(**{**FLAGS, **change})
    assert refused.value.field == field and said in refused.value.reason


def test_num_heads_does_not_matter_where_num_head_channels_is_set():
    UNetConfig(**{**FLAGS, "num_heads": 7, "num_head_channels": 32})
