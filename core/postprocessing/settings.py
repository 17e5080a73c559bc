"""The settings that postprocessing is asked for: every combination of the values that were given, each with a folder.

A folder is named as the original names it, ``all_filtered_r-{respacing}_i-{inpaint}_d-{dilation}_f-{fraction}``.  So
that two settings never share one, ``_s-{seed}`` follows where the seed is not the run's, and ``_m-{file}-{digest}``
where the diffusion model is not: other weights, or other flags of the U-Net, of its process or of the sampling.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from ace_counterfactuals.core.base.notices import notice
from ace_counterfactuals.core.base.settings import (
    FlagError,
    blaming,
    flag_items,
    flags_of,
    from_dict,
    is_function,
    names_a_file,
    to_dict,
)
from ace_counterfactuals.core.data.config import DataConfig, RegionConfig
from ace_counterfactuals.core.data.datasets import spec_of
from ace_counterfactuals.core.method.config import OF_REFINEMENT, AttackConfig, SamplingConfig, by_itself
from ace_counterfactuals.core.postprocessing.config import SWEPT
from ace_counterfactuals.core.postprocessing.stored import AttackedRun
from ace_counterfactuals.core.runs.begin import file_of, weight_digests
from ace_counterfactuals.core.runs.config import MainConfig
from ace_counterfactuals.core.runs.described import CONFIG, STUDENT, WEIGHTS, described_flags, read_config
from ace_counterfactuals.core.runs.layout import REFINED
from ace_counterfactuals.guided_diffusion.config import DiffusionConfig, ModelConfig
from ace_counterfactuals.models.config import ClassifierConfig, WeightsConfig
from ace_counterfactuals.models.denoisers import settle
from ace_counterfactuals.models.loading import digest, is_url
from ace_counterfactuals.models.specs import runs_code
from ace_counterfactuals.models.told import Given, newest


def result_flags(*configs: type) -> list[str]:
    """The flags that results depend on."""
    return [name for config in configs for name, known in flags_of(config).items() if known.result]


OF_THE_RUN = result_flags(DataConfig, WeightsConfig, AttackConfig, RegionConfig)
"""What pre-explanations depend on"""
OF_THE_MODEL = [name for name in result_flags(SamplingConfig, ModelConfig, DiffusionConfig) if name not in SWEPT]
"""What tells one diffusion model from another"""


@dataclass(frozen=True)
class Setting:
    """config: the flags of main.py that describe it, exp_name being EXP/all_filtered_...; digests: of its weights."""

    config: MainConfig
    digests: Mapping[str, str]


def make_settings(post: Any, run: AttackedRun) -> list[Setting]:
    """Every combination of the values, those of one model together.  post: the flags, a ``PostConfig``.

    Raises ValueError for flags that contradict what the pre-explanations were made with.
    """
    given = {name: value for name, value in to_dict(post).items() if value is not None}
    taken = by_itself(given)
    if "classifier" in taken:
        said = ClassifierConfig(**{name: value for name, value in taken.items() if name in flags_of(ClassifierConfig)})
        taken |= {name: getattr(said, name) for name in ("classifier", "classifier_path", "classifier_arch")}
        taken = {name: value for name, value in taken.items() if value or name == "classifier" or name in given}
    if "dataset" in taken:
        taken["dataset"] = DataConfig(**{name: taken[name] for name in flags_of(DataConfig) if name in taken}).dataset
    for own, name in OF_REFINEMENT.items():
        if name in given and given[name] != taken[name]:
            notice(f"{name} is taken to be the attack's, since {own} is given, with which is refined")
    base, fixed = to_dict(MainConfig()), {name: value for name, value in taken.items() if name not in SWEPT}
    if run.settings:
        refuse_other_flags(run.settings, fixed, run.results.root)
        base |= described_flags(run.settings["flags"])
        refuse_far_reaching(base, given, run.results.root / CONFIG)
    base |= fixed | {STUDENT: ""}  # which a refinement has no use for
    if not {"classifier", "classifier_path"} & given.keys() and runs_code(base["classifier"], base["classifier_path"]):
        code = base["classifier"] or base["classifier_path"]
        said = f"the run's is code ({code}), which is run only for who types it; give --classifier"
        raise FlagError("classifier", said)
    if "model_path" not in given and is_function(base["model_path"]):
        said = f"the run's is code ({base['model_path']}), which is run only for who types it; give it"
        raise FlagError("model_path", said)
    axes = [taken.get(name, (base[name],)) for name in SWEPT]
    combinations = [base | dict(zip(SWEPT, values, strict=True)) for values in product(*axes)]
    other_models = {path: of_model(path, given, base, run) for path in taken.get("model_path", ())}
    combinations = [flags | other_models.get(flags["model_path"], {}) for flags in combinations]
    models = {flags["model_path"]: flags for flags in combinations}
    digests = {path: weight_digests(from_dict(MainConfig, flags)) for path, flags in models.items()}
    first = {"flags": combinations[0], "weights": digests[combinations[0]["model_path"]]}
    for name in (*WEIGHTS, "region") if run.settings else ():
        chosen = name == "model_path" and name in taken
        if not chosen and first["weights"].get(name) != run.settings["weights"].get(name):
            reason = f"{combinations[0][name]}: is not what {run.results.root} was made with; give that one"
            raise FlagError(name, reason)
    own, settings = run.settings or first_setting(run.results.root) or first, {}
    for flags in combinations:  # a value may be given twice
        sha = digests[flags["model_path"]]
        exp_name = f"{flags['exp_name']}/{folder_name(flags, sha, own)}"
        settings[exp_name] = Setting(from_dict(MainConfig, flags | {"exp_name": exp_name}), sha)
    return list(settings.values())


def of_model(path: str, given: Mapping[str, Any], base: Mapping[str, Any], run: AttackedRun) -> dict[str, Any]:
    """Path and flags of a diffusion model, the run's or another.  base: flags of the run, with those that are given."""
    with blaming("model_path"):
        path = newest(path)
        recorded = run.settings["weights"].get("model_path") if run.settings else None
        if recorded and (file := file_of(path)) and f"sha256:{digest(file)}" == recorded:
            return {"model_path": path}
        told = {name for name, known in flag_items(MainConfig).items() if known.told}
        typed, others = ({name: one[name] for name in told if name in one} for one in (given, base))
        known = Given(typed, others, f"the run in {run.results.root}") if run.settings else Given(typed)
        return {"model_path": path, **settle(path, known)}


def refuse_far_reaching(made: Mapping[str, Any], given: Mapping[str, Any], config: Path) -> None:
    """Raises FlagError for weights that would be fetched, and a folder that would be read through, because of
    config.yaml alone.  made: the flags there."""
    fetched = {name: made[name] for name in WEIGHTS if is_url(made[name])}
    if made["classifier"] and not made["classifier_path"] and "classifier_path" not in given:
        fetched["classifier"] = made["classifier"]
    for name in fetched.keys() - given.keys():
        said = f"{made[name]}: {config} alone names it, and what is named there is not fetched"
        raise FlagError(name, f"{said}; give it if you trust it, or a path")
    for name in (*WEIGHTS, "region"):
        path = made[name]
        if path and name not in given and names_a_file(path) and Path(path).expanduser().is_dir():
            said = f"{path}: {config} alone names this folder, and a folder that is named there is not opened"
            raise FlagError(name, f"{said}; give it if you trust it")


def refuse_other_flags(made: Mapping[str, Any], given: Mapping[str, Any], root: Path) -> None:
    """Flags of data, classifier and attack may be repeated but not differ.  made: what config.yaml holds."""
    number = {name: i for i, name in enumerate(made.get("classes") or ())}
    stored, differences = {**to_dict(MainConfig()), **made["flags"]}, []
    for name in OF_THE_RUN:
        value, there = given.get(name), stored[name]
        # An attribute's name is known to its data set alone, which is not opened.
        attribute = name == "label_query" and spec_of(stored["dataset"]).binary and isinstance(value, str)
        if value is not None and not attribute and number.get(value, value) != there:
            differences.append(f"{name} {value} (there: {there!r})")
    if differences:
        other = f"its pre-explanations were made with other settings: {'; '.join(differences)}"
        advice = "leave these flags out, or run main.py with them under another exp_name"
        raise ValueError(f"{root}: {other}; {advice}")


def first_setting(root: Path) -> dict | None:
    """Of a folder of the original program, whose own model is not known: what it was first refined with."""
    folders = (path.parent for path in sorted(root.glob(f"{REFINED}*/{CONFIG}")))
    plain = (folder for folder in folders if "_s-" not in folder.name and "_m-" not in folder.name)
    return next(map(read_config, plain), None)


def folder_name(flags: Mapping[str, Any], digests: Mapping[str, str], own: Mapping[str, Any]) -> str:
    """As the head of this file says.  own: flags and weights of the run, or of the first refinement of it."""
    names = ("timestep_respacing", "sampling_inpaint", "sampling_dilation", "sampling_time_fraction")
    name = REFINED + "_".join(f"{letter}-{flags[key]}" for letter, key in zip("ridf", names, strict=True))
    if flags["seed"] != own["flags"]["seed"]:
        name += f"_s-{flags['seed']}"
    stored = {**to_dict(MainConfig()), **own["flags"]}
    other = {key: flags[key] for key in OF_THE_MODEL if flags[key] != stored[key]}
    if digests.get("model_path") != own["weights"].get("model_path"):
        other["model_path"] = digests.get("model_path")
    if other:
        digits = hashlib.sha256(json.dumps(other, sort_keys=True).encode()).hexdigest()[:8]
        name += f"_m-{Path(flags['model_path']).stem}-{digits}"
    return name
