"""report.html: an evaluation as a page that opens from disk and loads nothing from elsewhere."""

import re
from pathlib import Path

from ace_counterfactuals.core.base import atomic, guard
from ace_counterfactuals.core.base.settings import FlagError
from ace_counterfactuals.core.evaluation.model import Evaluation
from ace_counterfactuals.core.evaluation.places import claim
from ace_counterfactuals.core.report.data import write_data
from ace_counterfactuals.core.report.masks import draw_mean_masks
from ace_counterfactuals.core.report.page import ASSETS, SCRIPTS, STYLES, render
from ace_counterfactuals.core.report.sheets import write_all_sheets

PARTS = {
    "sheets": re.compile(r"(original|counterfactual|mask)-\d{5,}\.(png|jpg)|\.sheets\.json"),  # the last: before 0.2
    "data": re.compile(r"(about|experiment-\d+|likeliest-\d+-\d+)\.js"),
    "masks": re.compile(r"\d+-\d{2,}\.png"),
}
"""Folders of ``report`` that hold what was written for one page alone, and the names of that"""


def write_report(evaluation: Evaluation, folder: Path, cache: Path | None = None) -> Path:
    """Write ``folder/report.html`` and the folder ``report`` beside it, which the page loads; returns the page's path.

    Thumbnails are kept from the last call where their pictures did not change, by what is remembered in ``cache``.
    Pictures larger than a thumbnail are linked where ``folder`` lies in the output folder that holds them.
    Raises UnreadableImage naming a picture, and FlagError for a folder that holds what was not written here.
    """
    claim(folder)
    written_before(folder)
    parts = folder / "report"
    for name in PARTS:
        guard.make_folder(parts / name)
    sheets, files = write_all_sheets(evaluation, parts / "sheets", cache)
    means = [draw_mean_masks(e, sheets, parts / "masks", f"{i}") for i, e in enumerate(evaluation.experiments)]
    data = write_data(evaluation, sheets, parts / "data", folder)
    for asset in (*STYLES, *SCRIPTS):
        atomic.write_bytes(parts / asset, (ASSETS / asset).read_bytes())
    page = folder / "report.html"
    atomic.write_text(page, render(evaluation, means))
    wanted = {*files, *data, *(mean.file for found in means for mean in found)}
    guard.remove(path for path in written_before(folder) if path.name not in wanted)
    return page


def written_before(folder: Path) -> list[Path]:
    """The files of earlier pages in PARTS, which a new one may remove.

    Raises FlagError for one that no report wrote, and Outside for a link in place of a folder.
    """
    found = []
    for name, known in PARTS.items():
        guard.refuse_links([part := folder / "report" / name])
        for path in sorted(part.iterdir()) if part.is_dir() else ():
            if not (known.fullmatch(path.name) or atomic.STRAY.fullmatch(path.name)):
                reason = f"{path}: was not written by evaluate.py, which empties that folder"
                raise FlagError("evaluation_path", f"{reason}; move it away, or name another folder")
            found.append(path)
    return found
