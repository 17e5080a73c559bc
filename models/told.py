"""What a diffusion model is, as the files beside its weights and the weights themselves tell it: nobody has to type it.

What is typed goes first, and must be what a file beside the weights says; then what that file says; then what others
say, such as a preset, which may be of another model; then what names and shapes of the weights tell; then the defaults.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ace_counterfactuals.core.base.notices import notice
from ace_counterfactuals.core.base.reading import read_yaml
from ace_counterfactuals.core.base.schema import Plain
from ace_counterfactuals.core.base.settings import Flag, FlagError, convert
from ace_counterfactuals.guided_diffusion.config import attention_factors, format_mult, parse_channel_mult

SURE = {"num_channels", "diffusion_steps"}  # a config.yaml without these is another program's
LARGEST, LONGEST = 10**5, 100  # a number, and characters, that a file may say
TRAINED = re.compile(r"ema_(\d+(?:\.\d+)?(?:e-\d+)?)_(\d+)\.pt")


@dataclass(frozen=True)
class Said:
    """Flags that a file beside the weights says of them.  file: its path, '' where none says anything."""

    flags: Mapping[str, Any] = field(default_factory=dict)
    file: str = ""


@dataclass(frozen=True)
class Given:
    """Flags that the user gave.  typed: by name; others: of a preset, or of what ``whose`` says.

    asked: whether what nobody tells is asked for; else its default holds.
    """

    typed: Mapping[str, Any]
    others: Mapping[str, Any] = field(default_factory=dict)
    whose: str = "the preset"
    asked: bool = True


def newest(source) -> Any:
    """The last moving average in a folder of train_diffusion.py, of several the slowest; other sources as they are."""
    found = {path: TRAINED.fullmatch(path.name) for path in sorted(Path(source).glob("ema_*.pt"))}
    ages = {path: (int(match[2]), float(match[1])) for path, match in found.items() if match}
    return str(max(ages, key=lambda path: ages[path])) if ages else source


def beside(path, known: Mapping[str, Flag]) -> Said:
    """What NAME.yaml beside NAME.pt says, or else the config.yaml there, of the flags ``known``.

    A file that cannot be read, and a value that the flag cannot have, are another program's, and left.
    """
    own, shared = Path(path).with_suffix(".yaml"), Path(path).with_name("config.yaml")
    file = own if own.is_file() else shared
    try:
        settings = read_yaml(file) if Path(path).is_file() else None
    except FileNotFoundError:
        return Said()
    except (OSError, ValueError) as error:
        notice(f"{file}: is not read: {' '.join(str(error).split()):.200}")
        return Said()
    if not isinstance(settings, dict) or (file == shared != own and not settings.keys() >= SURE):
        return Said()
    values = {name: settings[name] for name in known if name in settings}
    flags = {name: value for name, text in values.items() if (value := _value(name, known[name], text)) is not None}
    if left := [name for name in values if name not in flags]:
        notice(f"{file}: {', '.join(left)}: not read, since no such flag has that value")
    return Said(flags, str(file))


def _value(name: str, known: Flag, found: Any) -> Any:
    """Of a flag; None where it cannot have it."""
    text = "" if found is None else str(found) if isinstance(found, Plain) else None
    if text is None or len(text) > LONGEST:
        return None
    try:
        value = convert(name, known, text)
        _acting(name, value, 1)
    except FlagError:
        return None
    return None if isinstance(value, int) and value > LARGEST else value


def settled(
    given: Given,
    said: Said,
    weights: Callable[[Mapping[str, Any]], Mapping[str, Any] | None],
    needed: Mapping[str, Sequence[str]],
) -> dict[str, Any]:
    """The flags that are given or told.

    weights: flags so far -> what the weights tell otherwise, by name, None where there are none to be read.
    needed: words -> flags, of which one must be known.
    Raises FlagError for what is typed against the file beside, ValueError where that file is of other weights, or
    nobody tells what is needed.
    """
    refuse_typed(given.typed, said)
    values = {**given.others, **said.flags, **given.typed}
    read = {name: value for name, value in said.flags.items() if name not in given.typed}
    if news := {name: value for name, value in read.items() if given.others.get(name) != value}:
        notice(f"{said.file} says {_listed(news)}")
    if before := {n: given.others[n] for n in read if given.others.get(n, read[n]) != read[n]}:
        notice(f"that goes before {given.whose}, which says {_listed(before)}")
    told = weights(values)
    if told is None:
        return values  # which loading explains
    if wrong := [name for name in told if name in read]:
        both = "; ".join(f"{name} {_shown(read[name])}, but the weights have {_shown(told[name])}" for name in wrong)
        raise ValueError(f"{said.file} says {both}: it is of another model; give these weights a NAME.yaml of theirs")
    if told.keys() & values.keys():
        return values  # what is given does not fit, which loading refuses with all that the file wants
    missing = [words for words, names in needed.items() if not set(names) & values.keys()]
    if missing and given.asked:
        neither = "neither the weights nor a NAME.yaml or config.yaml beside them tell it"
        raise ValueError(f"give {', '.join(missing)} as in its training: {neither}")
    if told:
        notice(f"the weights tell {_listed(told)}")
    return {**values, **told}


def refuse_typed(typed: Mapping[str, Any], said: Said) -> None:
    """Raises FlagError where something else is typed than the file says."""
    size = said.flags.get("image_size", typed.get("image_size", 1))
    both = {name: (typed[name], value) for name, value in said.flags.items() if name in typed}
    wrong = {name: pair for name, pair in both.items() if len({_acting(name, one, size) for one in pair}) == 2}
    if wrong:
        told = "; ".join(f"{name} {ours}, but {said.file} says {theirs}" for name, (ours, theirs) in wrong.items())
        first = next(iter(wrong))
        raise FlagError(first, f"{told.removeprefix(first + ' ')}; leave out what that file says, or mend it")


def _shown(value: Any) -> str:
    return str(value) or "''"


def _listed(flags: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {_shown(value)}" for name, value in flags.items())


def _acting(name: str, value: Any, image_size: int) -> Any:
    """The same for two values that make the same network."""
    if name == "channel_mult":
        return format_mult(parse_channel_mult(value, image_size))
    return attention_factors(value, image_size) if name == "attention_resolutions" else value
