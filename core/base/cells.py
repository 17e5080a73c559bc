"""Text in a cell of a CSV, which a spreadsheet program shows and does not compute."""

import re
from contextlib import suppress
from typing import Any

FORMULA = re.compile(r"'*[=+\-@\t\r]")


def as_cell(value: Any) -> Any:
    """Text that begins as a formula does is given an apostrophe, and one more where it begins with one before that.

    Numbers stay as they are, as text, too.
    """
    if not isinstance(value, str) or not FORMULA.match(value):
        return value
    with suppress(ValueError):
        float(value)
        return value
    return f"'{value}"


def from_cell(text: str) -> str:
    """The text that ``as_cell`` was given."""
    return text[1:] if text.startswith("'") and FORMULA.match(text) else text
