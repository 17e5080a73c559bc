"""Write the flags of main.py into the README, from their declarations."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from core.config import MainConfig
from core.flags import flags_table

START, END = "<!-- flags: written by scripts/update_readme.py -->\n", "<!-- end of flags -->"


def updated(readme: str) -> str:
    """The text with a fresh table between the two marks."""
    before, rest = readme.split(START)
    return before + START + "\n" + flags_table(MainConfig) + END + rest.split(END, 1)[1]


if __name__ == "__main__":
    path = ROOT / "README.md"
    path.write_text(updated(path.read_text()))
