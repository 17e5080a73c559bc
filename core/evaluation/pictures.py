"""The pictures that a figure is computed on."""

from dataclasses import dataclass

from ace_counterfactuals.core.runs.layout import FOLDERS


@dataclass(frozen=True)
class Population:
    """Folders of an experiment: CC and IC hold what the classifier got right and wrong, CCF and ICF what flipped."""

    name: str
    folders: tuple[str, ...]


FLIPPED = Population("CC+IC, CCF", ("CC/CCF", "IC/CCF"))
CORRECT = Population("CC, CCF+ICF", ("CC/CCF", "CC/ICF"))
EVERY = Population("CC+IC, CCF+ICF", FOLDERS)
