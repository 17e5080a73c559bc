"""Where things lie in a clone."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MAIN = ROOT / "main.py"
GOLDEN = ROOT / "tests/golden"
SHARED = ROOT.parent / "shared/golden"  # the ImageNet head is too large for this repository
