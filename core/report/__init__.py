"""report.html: an evaluation as a page that opens from disk and loads nothing from elsewhere."""

from pathlib import Path

from ace_counterfactuals.core.base import atomic
from ace_counterfactuals.core.evaluation.model import Evaluation
from ace_counterfactuals.core.report.data import write_data
from ace_counterfactuals.core.report.masks import draw_mean_masks
from ace_counterfactuals.core.report.page import ASSETS, SCRIPTS, STYLES, render
from ace_counterfactuals.core.report.sheets import remove_others, write_all_sheets


def write_report(evaluation: Evaluation, folder: Path) -> Path:
    """Write ``folder/report.html`` and the folder ``report`` beside it, which the page loads; returns the page's path.

    Thumbnails are kept from the last call where their pictures did not change.  Pictures larger than a thumbnail are
    linked where ``folder`` lies in the output folder that holds them.  Raises UnreadableImage naming a picture.
    """
    parts = folder / "report"
    for name in ("sheets", "data", "masks"):
        (parts / name).mkdir(parents=True, exist_ok=True)
    sheets = write_all_sheets(evaluation, parts / "sheets")
    means = [draw_mean_masks(e, sheets, parts / "masks", f"{i}") for i, e in enumerate(evaluation.experiments)]
    data = write_data(evaluation, sheets, parts / "data", folder)
    for asset in (*STYLES, *SCRIPTS):
        atomic.write_bytes(parts / asset, (ASSETS / asset).read_bytes())
    page = folder / "report.html"
    atomic.write_text(page, render(evaluation, means))
    remove_others(parts / "data", data)
    remove_others(parts / "masks", {mean.file for found in means for mean in found})
    return page
