"""Labels by index or by name."""

from collections.abc import Mapping, Sequence

from ace_counterfactuals.core.base.settings import FlagError, did_you_mean
from ace_counterfactuals.core.data.folders import first
from ace_counterfactuals.core.data.specs import UNKNOWN

MAX_LISTED = 40


def resolve_name(
    names: Mapping[int, str] | Sequence[str] | None,
    text: int | str,
    field: str,
    owner: str,
    aliases: Mapping[str, int] | None = None,
) -> int:
    """The label that ``text``, an index or a name, means; -1, not given, stays -1.  A name goes before an equal index.

    names: of the labels of ``owner``; None where they have none, so that every index is taken, but no name.
    aliases: further names.  Raises FlagError about ``field``.
    """
    known = dict(names.items() if isinstance(names, Mapping) else enumerate(names or ()))
    by_name = dict(aliases or {}) | {name: label for label, name in known.items()}
    if text in by_name:
        return by_name[text]
    try:
        label = int(text)
    except ValueError:
        label = None
    if label == UNKNOWN or label in known or (names is None and label is not None and label >= 0):
        return label
    if names is None:
        raise FlagError(field, f"{text}: {owner} has no named classes; give an index, 0 or more")
    hint = f"{did_you_mean(str(text), by_name)}; choose an index or a name: {listed(known)}"
    raise FlagError(field, f"{text}: no label of {owner}{hint}")


def listed(names: Mapping[int, str]) -> str:
    """Labels with their names, for a message."""
    return first((f"{label} {name}" for label, name in names.items()), MAX_LISTED)
