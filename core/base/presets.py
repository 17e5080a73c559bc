"""Presets: YAML files of settings, by name or by path."""

from collections.abc import Container, Mapping
from pathlib import Path
from typing import Any

from ace_counterfactuals.core.base.reading import read_yaml
from ace_counterfactuals.core.base.settings import Flag, FlagError, convert, did_you_mean, flag_items

OF_TRAINING = {"lr_anneal_steps", "ema_rate"}  # in the config.yaml of train_diffusion.py
PRESETS = Path(__file__).resolve().parents[2] / "configs"


def read_preset(config: type, preset: str, *, whole: bool = True, given: Container[str] = ()) -> dict[str, Any]:
    """Settings of a preset, by its name or its file's path, checked as if they were typed.

    whole: all that it sets must be settings of ``config``.  given: settings that are not taken from it.  Of what a
    training wrote, only what describes its diffusion model is taken by other programs.
    Raises FlagError for a preset or a value that cannot be used, ValueError for a setting that is not known.
    """
    file = Path(preset) if preset.endswith((".yaml", ".yml")) else PRESETS / f"{preset}.yaml"
    try:
        settings = read_yaml(file)
    except FileNotFoundError:
        if file == Path(preset):
            raise FlagError("preset", f"{preset}: no such file") from None
        names = ", ".join(sorted(path.stem for path in PRESETS.glob("*.yaml")))
        raise FlagError("preset", f"{preset}: no such preset; there are {names}, or name a .yaml file") from None
    except (OSError, ValueError) as error:
        raise FlagError("preset", f"{preset}: cannot be read: {' '.join(str(error).split())}") from None
    if not isinstance(settings, dict):
        raise FlagError("preset", f"{preset}: wanted lines of 'flag: value'")
    known, values = flag_items(config), {}
    if settings.keys() >= OF_TRAINING and not known.keys() >= OF_TRAINING:
        settings = {name: value for name, value in settings.items() if name in known and known[name].told}
    covered = tuple(f"{name}_" for name, one in known.items() if one.whole and name in given)
    for name, value in settings.items():
        if name in given or str(name).startswith(covered) or (name not in known and not whole):
            continue
        if name not in known:
            raise ValueError(f"{file}: {name} is no flag of this program{did_you_mean(str(name), known)}")
        given_values = value if isinstance(value, list) else [value]
        if len(given_values) != 1 and not known[name].many:
            raise ValueError(f"{file}: {name}: wanted one value, found {len(given_values)}")
        texts = [_in_full(name, known[name], "" if one is None else str(one), file) for one in given_values]
        values[name] = convert(name, known[name], texts if known[name].many else texts[0])
    return values


def read_settings(
    config: type, settings: Mapping[str, Any], preset: str | None = None, *, names: Container[str] | None = None
) -> dict[str, Any]:
    """Settings given as keywords, before those of a preset, checked as if they were typed.

    names: of those of ``config`` that can be given; all, if None.  What else the preset sets is not taken.
    Raises FlagError for a setting that there is not, and for a value that cannot be used.
    """
    known = {name: item for name, item in flag_items(config).items() if names is None or name in names}
    for name in settings:
        if name not in known:
            raise FlagError(name, f"is no setting here{did_you_mean(name, known)}")
    others = {*settings, *(flag_items(config).keys() - known.keys())}
    values = read_preset(config, preset, whole=False, given=others) if preset else {}
    return values | {name: convert(name, known[name], value) for name, value in settings.items()}


def _in_full(name: str, known: Flag, text: str, file: Path) -> str:
    """A value of a preset file, where a relative path is relative to the file."""
    is_path = known.path(text) if callable(known.path) else known.path
    if not is_path or not text or "://" in text:
        return text
    path = (file.parent / text).resolve()
    if file.parent == PRESETS and not path.exists():
        raise FlagError(
            "preset",
            f"{file.stem}: its {name} {text} lies in a clone of the repository, and not in an installed package; "
            f"run it in a clone, or give {name}",
        )
    return str(path)
