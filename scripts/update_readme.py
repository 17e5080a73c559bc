"""Write the flags of main.py into the README, from their declarations."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from core.config import MainConfig
from core.flags import flags_table

README = Path(__file__).resolve().parent.parent / "README.md"
START, END = "<!-- flags: written by scripts/update_readme.py -->\n", "<!-- end of flags -->"


def updated(readme: str) -> str:
    """The text with a fresh table between the two marks."""
    before, rest = readme.split(START)
    return before + START + "\n" + flags_table(MainConfig) + END + rest.split(END, 1)[1]


if __name__ == "__main__":
    README.write_text(updated(README.read_text()))
