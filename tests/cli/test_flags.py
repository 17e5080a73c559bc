"""Flags: what is typed, what is declared, and that the set of them does not change unnoticed."""

from dataclasses import dataclass, field, fields
from pathlib import Path

import pytest
import yaml

from ace_counterfactuals.core.base.presets import PRESETS, read_preset
from ace_counterfactuals.core.base.settings import convert, flag, flag_items, from_dict, group, to_dict
from ace_counterfactuals.core.cli.parsing import flags_table, make_parser, parse, program
from ace_counterfactuals.core.evaluation.config import ComputeConfig
from ace_counterfactuals.core.postprocessing.config import PostConfig
from ace_counterfactuals.core.runs.config import MainConfig
from ace_counterfactuals.core.training.config import (
    ClassifierTrainingConfig,
    TrainClassifierConfig,
    TrainDiffusionConfig,
)
from tests.support.toys import exit_code

ORIGINAL = {
    "batch_size": 16,
    "gpu": 0,
    "save_images": True,
    "num_samples": 500000000000,
    "cudnn_deterministic": False,
    "compile": False,
    "clip_denoised": True,
    "model_path": "",
    "classifier_path": "",
    "output_path": "results",
    "exp_name": "exp",
    "seed": 4,
    "attack_method": "PGD",
    "attack_iterations": 50,
    "attack_epsilon": 255,
    "attack_stop_confidence": 1.0,
    "attack_stop_patience": 1,
    "image_channels": "auto",
    "classifier": "",
    "classifier_args": "",
    "classifier_mean": "",
    "classifier_std": "",
    "classifier_size": 0,
    "classifier_channels": 0,
    "attack_step": 1.0,
    "attack_joint": True,
    "attack_filter": "chain",
    "attack_student": "",
    "attack_student_every": 4,
    "attack_deep_every": 1,
    "attack_joint_checkpoint": False,
    "attack_checkpoint_backward_steps": 1,
    "attack_joint_shortcut": False,
    "dist_l1": 0.0,
    "dist_l2": 0.0,
    "dist_schedule": "none",
    "sampling_time_fraction": 0.1,
    "sampling_stochastic": True,
    "sampling_inpaint": 0.15,
    "sampling_dilation": 15,
    "label_query": -1,
    "label_target": -1,
    "image_size": 256,
    "data_dir": "",
    "dataset": "ImageNet",
    "chunks": 1,
    "chunk": 0,
    "merge_chunks": False,
    "num_channels": 128,
    "num_res_blocks": 2,
    "num_heads": 4,
    "num_heads_upsample": -1,
    "num_head_channels": -1,
    "attention_resolutions": "16,8",
    "channel_mult": "",
    "dropout": 0.0,
    "class_cond": False,
    "use_checkpoint": False,
    "use_scale_shift_norm": True,
    "resblock_updown": False,
    "use_fp16": False,
    "use_new_attention_order": False,
    "learn_sigma": False,
    "diffusion_steps": 1000,
    "noise_schedule": "linear",
    "timestep_respacing": "",
    "use_kl": False,
    "predict_xstart": False,
    "predict": "noise",
    "rescale_timesteps": False,
    "rescale_learned_sigmas": False,
}
"""Every flag of the original's main.py with its default."""

OURS = {
    "device": "auto",
    "num_workers": 2,
    "classifier_arch": "",
    "check": False,
    "overwrite": False,
    "status": False,
    "save_float": False,
    "region": "",
    "region_invert": False,
    "refine_timestep_respacing": "same",
    "refine_time_fraction": -1.0,
    "image": (),
    "background": "white",
    "image_range": "",
    "csv_file": "labels.csv",
    "csv_image": "file",
    "csv_label": "label",
    "csv_split": "",
}

CONFIGS = [MainConfig, TrainDiffusionConfig, TrainClassifierConfig]


def parsed(*argv):
    return to_dict(parse(MainConfig, "", list(argv)))


def refusal(*argv):
    """The error, which says what it is about as a setting's name, or in its one line."""
    with pytest.raises(ValueError) as caught:
        parse(MainConfig, "", list(argv))
    assert "\n" not in str(caught.value)
    return caught.value


def test_the_flags_and_their_defaults_are_the_originals_and_a_few_more():
    assert parsed() == {**ORIGINAL, **OURS}


def test_every_flag_takes_its_own_default_as_it_would_be_typed():
    typed = [part for name, default in ORIGINAL.items() for part in (f"--{name}", str(default))]
    assert parsed(*typed) == parsed()


@pytest.mark.parametrize(
    "spellings", [("yes", "no"), ("true", "false"), ("t", "f"), ("y", "n"), ("1", "0"), ("True", "False")]
)
def test_a_boolean_takes_every_spelling_of_the_original(spellings):
    names = [name for name, default in ORIGINAL.items() if isinstance(default, bool)]
    for text, value in zip(spellings, (True, False), strict=True):
        found = parsed(*[part for name in names for part in (f"--{name}", text)])
        assert all(found[name] is value for name in names)


def test_a_flag_may_be_joined_to_its_value():
    assert parsed("--batch_size=3")["batch_size"] == 3


def test_a_later_flag_overrides_an_earlier_one():
    assert parsed("--seed", "1", "--seed", "2")["seed"] == 2


def test_a_negative_number_is_a_value():
    assert parsed("--label_query", "-1", "--num_head_channels", "-1")["label_query"] == -1


@pytest.mark.parametrize(("text", "value"), [("31", 31), ("Smiling", "Smiling"), ("-1", -1)])
def test_a_label_is_an_index_or_a_name(text, value):
    assert parsed("--label_query", text)["label_query"] == value


def test_the_originals_name_of_carlini_wagner_is_accepted():
    assert parsed("--attack_method", "CW")["attack_method"] == "C&W"
    assert parsed("--attack_method", "C&W")["attack_method"] == "C&W"


FLOATS = [name for name, default in ORIGINAL.items() if isinstance(default, float)]
UNUSABLE = [
    ("batch_size", "0", ">= 1"),
    ("attack_epsilon", "256", "[0, 255]"),
    ("sampling_time_fraction", "1.5", "[0, 1]"),
    ("sampling_inpaint", "-0.1", "[0, 1]"),
    ("seed", "-1", ">= 0"),
    ("batch_size", "two", "number or auto"),
    ("batch_size", "1.5", "number or auto"),
    ("attack_step", "x", "float"),
    ("learn_sigma", "maybe", "True or False"),
    ("dist_schedule", "zzz", "none, step, linear"),
    ("attack_method", "PDG", "did you mean PGD?"),
    ("attack_method", "pgd", "did you mean PGD?"),
    *((name, text, "") for name in FLOATS for text in ("nan", "inf")),
]


@pytest.mark.parametrize(("name", "text", "wanted"), UNUSABLE)
def test_an_unusable_value_is_refused_with_what_is_wanted(name, text, wanted):
    error = refusal(f"--{name}", text)
    assert error.field == name and error.reason.startswith(text) and error.reason.endswith(wanted)


@pytest.mark.parametrize(("low", "high"), [(0, 1), (None, 5)])
def test_bounds_are_inclusive(low, high):
    metadata = flag(0.5, "", low=low, high=high).metadata["flag"]
    for value in filter(lambda bound: bound is not None, (low, high)):
        assert convert("x", metadata, str(value)) == value


MISSPELT = {
    "--attack_iteration=5": "did you mean --attack_iterations?",
    "--attack_meth=GD": "did you mean --attack_method?",
    "--batch-size=5": "did you mean --batch_size?",
    "--xyzzy": "see --help",
    "pictures": "see --help",
    "--batch_size": "expected one argument",
}


@pytest.mark.parametrize("word", MISSPELT)
def test_a_misspelt_flag_is_answered_with_what_may_have_been_meant(word):
    message = str(refusal(word))
    assert word in message and message.endswith(MISSPELT[word])


def test_only_an_evaluation_spells_its_flags_with_hyphens(capsys):
    """Whichever way they are typed."""

    @dataclass(frozen=True)
    class Settings:
        compute: ComputeConfig = group(ComputeConfig, "")

    for hyphens, said in ((False, "--batch_size"), (True, "--batch-size")):
        main = program(Settings, "", hyphens=hyphens)(lambda config: 0)
        assert exit_code(lambda main=main: main(["--batch_size", "0"])) == 2
        assert capsys.readouterr().err.startswith(f"error: {said} 0: ")


@pytest.fixture
def preset(tmp_path):
    def write(text, name="mine.yaml"):
        path = tmp_path / name
        path.write_text(text)
        return path

    return write


def test_a_preset_overrides_the_defaults_and_is_overridden_by_what_is_typed(preset):
    path = preset("batch_size: 3\nseed: 7\nattack_joint: no\n")
    found = parsed("--seed", "8", "--preset", str(path))
    assert (found["batch_size"], found["seed"], found["attack_joint"]) == (3, 8, False)


def test_what_is_typed_wins_even_if_it_is_the_default(preset):
    assert parsed("--preset", str(preset("seed: 7")), "--seed", "4")["seed"] == 4


def test_a_relative_path_in_a_preset_is_relative_to_the_preset(preset):
    path = preset("data_dir: pictures\nmodel_path: ../m.pt\nclassifier_path: /abs/c.pt\noutput_path: ''\n")
    found = parsed("--preset", str(path))
    assert found["data_dir"] == str(path.parent / "pictures")
    assert found["model_path"] == str(path.parent.parent / "m.pt")
    assert (found["classifier_path"], found["output_path"]) == ("/abs/c.pt", "")


def test_an_address_in_a_preset_is_left_as_it_is(preset):
    assert parsed("--preset", str(preset("model_path: https://x.org/m.pt")))["model_path"] == "https://x.org/m.pt"


def test_a_typed_path_is_relative_to_the_working_directory():
    assert parsed("--data_dir", "pictures")["data_dir"] == "pictures"


FAULTY = {
    "batchsize: 3": "did you mean batch_size?",
    "batch_size: 0": ">= 1",
    "attack_method: PDG": "did you mean PGD?",
    "batch_size: [1, 2]": "one value",
    "- a\n- b": "lines of 'flag: value'",
    "": "lines of 'flag: value'",
    "a: b: c": "cannot be read",
    "\x00": "cannot be read",
    "3: 4": "3 is no flag",
}


@pytest.mark.parametrize("text", FAULTY)
def test_a_faulty_preset_is_refused_in_one_line(preset, text):
    assert FAULTY[text] in str(refusal("--preset", str(preset(text))))


def test_a_preset_that_is_not_there_is_answered_with_those_that_are():
    error = refusal("--preset", "fashon")
    assert error.field == "preset" and all(path.stem in error.reason for path in PRESETS.glob("*.yaml"))


def test_a_preset_that_is_a_folder_is_refused(tmp_path):
    (tmp_path / "x.yaml").mkdir()
    assert refusal("--preset", str(tmp_path / "x.yaml")).field == "preset"


def test_a_list_of_numbers_in_a_preset_stays_a_text(preset):
    path = preset("timestep_respacing: 25\nchannel_mult: 1,2,3\nattention_resolutions: 8\nmodel_path:\n")
    found = parsed("--preset", str(path))
    assert (found["timestep_respacing"], found["channel_mult"]) == ("25", "1,2,3")
    assert (found["attention_resolutions"], found["model_path"]) == ("8", "")


def test_a_flag_that_takes_several_values_takes_one_or_a_list_from_a_preset(preset):
    found = read_preset(PostConfig, str(preset("sampling_inpaint: [0.05, 0.15]\nseed: 7\n")))
    assert found == {"sampling_inpaint": (0.05, 0.15), "seed": (7,)}


def test_postprocessing_leaves_to_the_run_what_is_not_given():
    found = to_dict(parse(PostConfig, "", ["--sampling_inpaint", "0.05", "0.15", "--num_channels", "32"]))
    assert (found["sampling_inpaint"], found["num_channels"]) == ((0.05, 0.15), 32)
    assert found["sampling_dilation"] is found["model_path"] is found["attack_step"] is None
    assert (found["batch_size"], found["chunks"], found["output_path"]) == (16, 1, "results")
    missing = set(ORIGINAL) - set(found)
    assert missing == set()


def test_a_preset_gives_back_what_config_yaml_holds(preset):
    """So that a run can be repeated from its record."""
    settings = {**parsed("--label_query", "31", "--attack_method", "C&W", "--attack_joint", "False"), "dist_l1": 1e-9}
    assert parsed("--preset", str(preset(yaml.safe_dump(settings)))) == {
        **settings,
        "output_path": str(Path(preset("").parent) / "results"),
    }


@pytest.mark.parametrize("path", sorted(PRESETS.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_preset_fits_a_script(path):
    fitting = []
    for config in CONFIGS:
        try:
            fitting.append(read_preset(config, str(path)))
        except ValueError:
            continue
    assert fitting


@pytest.mark.parametrize("config", CONFIGS)
def test_a_configuration_survives_the_way_to_a_dict_and_back(config):
    settings = to_dict(config())
    assert to_dict(from_dict(config, settings)) == settings
    changed = {name: value for name, value in settings.items() if name != "seed"}
    assert to_dict(from_dict(config, {**changed, "seed": 99}))["seed"] == 99


@pytest.mark.parametrize("config", CONFIGS)
def test_no_flag_is_declared_in_two_groups(config):
    names = [item.name for group in fields(config) for item in fields(group.type)]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("config", CONFIGS)
def test_every_flag_has_a_meaning_a_default_and_a_range_in_the_help(config):
    shown = {action.dest: action.help for action in make_parser(config, "")._actions}
    for name, item in flag_items(config).items():
        assert len(item.help) > 3
        assert f"(default {item.default if item.default not in ('', ()) else chr(39) * 2}" in shown[name]
        bounds = (item.low, item.high)
        wanted = [f"{bound:g}" for bound in bounds if bound is not None] + list(item.choices or ())
        assert [part for part in wanted if part not in shown[name]] == []


@pytest.mark.parametrize("config", CONFIGS)
def test_every_default_is_within_its_own_range(config):
    for name, item in flag_items(config).items():
        assert convert(name, item, item.default if item.many else str(item.default)) == item.default


@pytest.mark.parametrize("config", CONFIGS)
def test_the_help_groups_the_flags_under_titles(config):
    text = make_parser(config, "what it does").format_help()
    assert text.count("what it does") == 1
    assert all(f"\n{item.metadata['title']}:\n" in text for item in fields(config))


def test_the_table_for_the_readme_names_every_flag_once():
    table = flags_table(MainConfig)
    assert all(table.count(f"| `--{name}` |") == 1 for name in flag_items(MainConfig))
    rows = [line for line in table.splitlines() if line.startswith("|")]
    assert {row.count("|") for row in rows} == {5}


@dataclass(frozen=True, kw_only=True)
class Percent:
    share: int = flag(50, "100 % is all")


@dataclass(frozen=True, kw_only=True)
class PercentConfig:
    percent: Percent = field(default_factory=Percent, metadata={"title": "shares"})


def test_a_percent_sign_in_a_meaning_is_printed():
    assert "100 % is all (default 50)" in make_parser(PercentConfig, "").format_help()


def test_a_configuration_cannot_be_changed_after_the_fact():
    with pytest.raises(AttributeError):
        ClassifierTrainingConfig().epochs = 3
