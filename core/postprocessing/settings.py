"""The settings that postprocessing is asked for: every combination of the values that were given, each with a folder.

A folder is named as the original names it, ``all_filtered_r-{respacing}_i-{inpaint}_d-{dilation}_f-{fraction}``.  So
that two settings never share one, ``_s-{seed}`` follows where the seed is not the run's, and ``_m-{file}-{digest}``
where the diffusion model is not: other weights, or other flags of the U-Net, of its process or of the sampling.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from itertools import product
from pathlib import Path
from typing import Any

from ace_counterfactuals.core.base.notices import notice
from ace_counterfactuals.core.base.settings import UserError, from_dict, to_dict
from ace_counterfactuals.core.data.config import DataConfig, RegionConfig
from ace_counterfactuals.core.data.datasets import spec_of
from ace_counterfactuals.core.method.config import OF_REFINEMENT, AttackConfig, SamplingConfig, by_itself
from ace_counterfactuals.core.postprocessing.config import SWEPT, PostConfig
from ace_counterfactuals.core.postprocessing.stored import AttackedRun
from ace_counterfactuals.core.runs.begin import WEIGHTS, described_flags, weight_digests
from ace_counterfactuals.core.runs.config import MainConfig
from ace_counterfactuals.core.runs.files import CONFIG, read_config
from ace_counterfactuals.core.runs.layout import REFINED
from ace_counterfactuals.models.config import DiffusionConfig, ModelConfig, WeightsConfig


def result_flags(*configs: type) -> list[str]:
    return [item.name for config in configs for item in fields(config) if item.metadata["result"]]


# What pre-explanations depend on, and what tells one diffusion model from another.
OF_THE_RUN = result_flags(DataConfig, WeightsConfig, AttackConfig, RegionConfig)
OF_THE_MODEL = [name for name in result_flags(SamplingConfig, ModelConfig, DiffusionConfig) if name not in SWEPT]


@dataclass(frozen=True)
class Setting:
    """config: the flags of main.py that describe it, exp_name being EXP/all_filtered_...; digests: of its weights."""

    config: MainConfig
    digests: Mapping[str, str]


@dataclass(frozen=True)
class Baseline:
    """The run's own settings.  weights: flag -> digest."""

    flags: Mapping[str, Any]
    weights: Mapping[str, str]


def make_settings(post: PostConfig, source: AttackedRun) -> list[Setting]:
    """Every combination, those of one model together.

    Raises UserError for flags that contradict what the pre-explanations were made with.
    """
    given = {name: value for name, value in to_dict(post).items() if value is not None}
    typed = by_itself(given)
    tell_whose_steps(given, typed)
    fixed = {name: value for name, value in typed.items() if name not in SWEPT}
    run = Baseline(by_itself(source.settings["flags"]), source.settings["weights"]) if source.settings else None
    if run:
        refuse_other_run(source, run, fixed)
    base = {**to_dict(MainConfig()), **(described_flags(run.flags) if run else {}), **fixed}
    axes = [typed.get(name, (base[name],)) for name in SWEPT]
    configs = [from_dict(MainConfig, {**base, **dict(zip(SWEPT, values, strict=True))}) for values in product(*axes)]
    digests = {path: weight_digests(c) for path, c in {c.weights.model_path: c for c in configs}.items()}
    settings = [Setting(config, digests[config.weights.model_path]) for config in configs]
    if run:
        refuse_other_weights(source, run, settings[0], typed)
    own = run or first_setting(source) or Baseline(to_dict(configs[0]), settings[0].digests)
    named = {folder_name(setting, own): setting for setting in settings}  # a value may be given twice
    return [within(setting, name) for name, setting in named.items()]


def tell_whose_steps(given: Mapping[str, Any], taken: Mapping[str, Any]) -> None:
    """Both spellings may come, from a command line or a preset of main.py."""
    for own, name in OF_REFINEMENT.items():
        if name in given and given[name] != taken[name]:
            notice(f"--{name} is the attack's here, since --{own} is given, which is refined with")


def within(setting: Setting, name: str) -> Setting:
    output = setting.config.output
    config = replace(setting.config, output=replace(output, exp_name=f"{output.exp_name}/{name}"))
    return replace(setting, config=config)


def refuse_other_run(source: AttackedRun, run: Baseline, given: Mapping[str, Any]) -> None:
    """Flags of data, classifier and attack may be repeated but not differ."""
    number = {name: i for i, name in enumerate(source.settings.get("classes") or ())}
    stored, differences = {**to_dict(MainConfig()), **run.flags}, []
    for name in OF_THE_RUN:
        value, there = given.get(name), stored[name]
        # An attribute's name is known to its data set alone, which is not opened.
        attribute = name == "label_query" and spec_of(run.flags["dataset"]).binary and isinstance(value, str)
        if value is not None and not attribute and number.get(value, value) != there:
            differences.append(f"--{name} {value} (there: {there!r})")
    if differences:
        raise UserError(
            f"{source.results.root}: its pre-explanations were made with other settings: {'; '.join(differences)}; "
            "leave these flags out, or run main.py with them under another --exp_name"
        )


def refuse_other_weights(source: AttackedRun, run: Baseline, setting: Setting, typed: Mapping[str, Any]) -> None:
    """Another classifier or region would make another question of it; another model must be asked for."""
    flags = to_dict(setting.config)
    for name in (*WEIGHTS, "region"):
        asked = name == "model_path" and name in typed
        if not asked and setting.digests.get(name) != run.weights.get(name):
            there = f"what {source.results.root} was made with; give that one"
            raise UserError(f"--{name} {flags[name]}: is not {there}")


def first_setting(source: AttackedRun) -> Baseline | None:
    """Of a folder of the original program, whose own model is not known: the one that it was first refined with."""
    for path in sorted(source.results.root.glob(f"{REFINED}*/{CONFIG}")):
        if "_s-" not in path.parent.name and "_m-" not in path.parent.name:
            stored = read_config(path.parent)
            return Baseline(stored["flags"], stored["weights"])
    return None


def folder_name(setting: Setting, own: Baseline) -> str:
    """As the head of this file says."""
    sampling, seed = setting.config.sampling, setting.config.run.seed
    name = f"{REFINED}r-{sampling.timestep_respacing}_i-{sampling.sampling_inpaint}_d-{sampling.sampling_dilation}"
    name += f"_f-{sampling.sampling_time_fraction}"
    if seed != own.flags["seed"]:
        name += f"_s-{seed}"
    flags, default = to_dict(setting.config), to_dict(MainConfig())
    other = {name: flags[name] for name in OF_THE_MODEL if flags[name] != own.flags.get(name, default[name])}
    if setting.digests.get("model_path") != own.weights.get("model_path"):
        other["model_path"] = setting.digests.get("model_path")
    if other:
        digits = hashlib.sha256(json.dumps(other, sort_keys=True).encode()).hexdigest()[:8]
        name += f"_m-{Path(setting.config.weights.model_path).stem}-{digits}"
    return name
