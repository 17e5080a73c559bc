"""Adversarial counterfactual explanations: what would have to change in a picture for a classifier to decide otherwise?

An installed package holds ``core``, ``models`` and ``guided_diffusion``; in a clone they lie beside this folder.
"""

from pathlib import Path

if not (Path(__file__).parent / "core").is_dir():
    __path__.append(str(Path(__file__).resolve().parent.parent))
