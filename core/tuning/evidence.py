"""What a search leaves: tuned.yaml and, in tuning/, what was tried, as tables and pictures."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from PIL import Image, ImageDraw, ImageFont

from ace_counterfactuals.core.base import atomic, guard
from ace_counterfactuals.core.base.notices import notice
from ace_counterfactuals.core.base.reading import read_text
from ace_counterfactuals.core.base.settings import convert, flag_items, flags_of
from ace_counterfactuals.core.data.pictures import to_pil
from ace_counterfactuals.core.evaluation.tables import markdown_rows, number
from ace_counterfactuals.core.method.config import OF_REFINEMENT
from ace_counterfactuals.core.runs.config import MainConfig
from ace_counterfactuals.core.runs.sheet import BAD, CAPTION, FAINT, GAP, GOOD, HEADER, INK, TILE, fit, name_of
from ace_counterfactuals.core.runs.tables import read_table
from ace_counterfactuals.core.tuning.ground import Ground, with_flags
from ace_counterfactuals.core.tuning.strength import KEPT, Strength, largest
from ace_counterfactuals.core.tuning.trials import FLAGS, Row, choose

FIGURES = ("flip", "l1", "validity", "transfer")
COLUMNS = ("trial", *FLAGS, "at_most", *OF_REFINEMENT, "n", *FIGURES, "seconds")
SHOWN = 8  # pictures on the sheet
MARK, LINE = "#D55E00", "#0072B2"


@dataclass(frozen=True)
class Evidence:
    """place: the folder that was given."""

    place: Path

    @property
    def folder(self) -> Path:
        return self.place / "tuning"

    @property
    def preset(self) -> Path:
        return self.place / "tuned.yaml"

    @property
    def table(self) -> Path:
        return self.folder / "trials.csv"

    def read(self, ground: Ground, *, anew: bool) -> list[Row]:
        """What an earlier search has tried.  One with other settings or pictures is forgotten, which a notice says."""
        made_with, rows, why = self.folder / "made_with.yaml", [], "overwrite is True"
        if not anew and self.table.exists():
            try:
                if read_text(made_with) == ground.made_with:
                    rows = read_rows(self.table)
                why = "it was made with other settings, networks or pictures"
            except (OSError, ValueError) as error:
                why = " ".join(str(error).split())
        if rows:
            notice(f"{self.table}: {rows[-1]['trial']} trials are there; going on")
        elif self.table.exists():
            notice(f"{self.table}: begins anew: {why}")
            guard.remove([self.table])
        atomic.write_text(made_with, ground.made_with)
        return rows

    def write_filter(self, ground: Ground, strengths: Sequence[Strength]) -> None:
        rows = [{"share": one.share, "step": one.step, **one.flags, "kept": one.kept} for one in strengths]
        atomic.write_csv(self.folder / "filter.csv", rows, list(rows[0]))
        atomic.write_png(self.folder / "filter.png", draw_filter(ground, strengths))

    def write_trials(self, ground: Ground, rows: Sequence[Row]) -> None:
        """What was tried so far, and the preset by that."""
        atomic.write_csv(self.table, rows, list(COLUMNS))
        atomic.write_text(self.preset, preset_text(ground, choose(rows)))

    def write_views(self, rows: Sequence[Row], strengths: Sequence[Strength]) -> None:
        """The same to look at."""
        atomic.write_text(self.folder / "trials.md", table(rows))
        atomic.write_figure(self.folder / "trials.png", draw_trials(rows, strengths))


def read_rows(path: Path) -> list[Row]:
    """The rows of trials.csv.  Raises ValueError for what is none, and OSError."""
    known, rows = flag_items(MainConfig), []
    for row in read_table(path, *COLUMNS):
        values: Row = {name: None if row[name] == "" else float(row[name]) for name in FIGURES}
        values |= {name: int(row[name]) for name in ("trial", "at_most", "n")} | {"seconds": float(row["seconds"])}
        values |= {name: convert(name, known[name], row[name]) for name in (*FLAGS, *OF_REFINEMENT)}
        if min(values["trial"], values["at_most"], values["n"]) < 1:
            raise ValueError(f"{path}: wanted numbers of 1 and more")
        rows.append({name: values[name] for name in COLUMNS})
    return rows


def told(row: Row) -> str:
    """What a setting does, in words."""
    shares = {"flips": row["flip"], "l1": row["l1"], "still flips after fresh noise": row["validity"]}
    shares["transfer"] = row["transfer"]
    return ", ".join(f"{name} {number(value)}" for name, value in shares.items() if value is not None)


def preset_text(ground: Ground, best: Row) -> str:
    """A preset of main.py: the settings of attack and refinement that are not its defaults."""
    config = with_flags(ground.config, {name: best[name] for name in (*FLAGS, *OF_REFINEMENT)})
    settings: dict[str, Any] = {}
    for part in (config.attack, config.sampling):
        for name, known in flags_of(type(part)).items():
            value = getattr(part, name)
            if known.result and value != known.default:
                settings[name] = value
    said = f"# Found by tune.py, on {best['n']} pictures: {told(best)}; tuning/ beside it has what else was tried.\n"
    return said + atomic.to_yaml(settings)


def table(rows: Sequence[Row]) -> str:
    """Markdown: of each trial the best row, the chosen one in bold."""
    best, shown = choose(rows), [name for name in COLUMNS if name not in ("n", "at_most")]
    lines = [shown]
    for trial in dict.fromkeys(row["trial"] for row in rows):
        own = [row for row in rows if row["trial"] == trial]
        row = best if best in own else choose(own)
        cells = [number(row[name]) if name in FIGURES else str(row[name]) for name in shown]
        lines.append([f"**{cell}**" for cell in cells] if row is best else cells)
    return markdown_rows(lines) + f"\n\n{best['n']} pictures; of each trial the row that the rule prefers.\n"


def draw_trials(rows: Sequence[Row], strengths: Sequence[Strength]) -> Figure:
    """Left what the filter alone leaves of the predictions, right what every setting convinces and changes."""
    figure, best = Figure(figsize=(9, 4), layout="tight"), choose(rows)
    left, right = figure.subplots(1, 2)
    left.plot([one.share for one in strengths], [one.kept for one in strengths], "o-", color=LINE)
    left.axhline(KEPT, color=FAINT, linestyle=":")
    left.axvline(largest(strengths).share, color=MARK)
    left.set(xlabel="noise, share of the chain", ylabel="predictions kept by the filter alone", ylim=(-0.03, 1.03))
    by = "validity" if best["transfer"] is None else "transfer"
    points = right.scatter(
        [row["l1"] for row in rows], [row[by] or 0 for row in rows], c=[row["flip"] for row in rows], vmin=0, vmax=1
    )
    right.plot(best["l1"], best[by] or 0, "*", color=MARK, markersize=16, label="chosen")
    right.set(xlabel="mean change (l1)", ylabel=f"{by} of the flips", ylim=(-0.03, 1.03))
    right.legend(frameon=False, loc="lower right")
    figure.colorbar(points, label="flips")
    return figure


def draw_filter(ground: Ground, strengths: Sequence[Strength]) -> Image.Image:
    """A row a picture: as it is, and filtered alone with ever more noise, with what the classifier then says."""
    images, before = ground.batch.image.cpu(), ground.batch.prediction.tolist()
    height, width = images.shape[2:]
    scale = TILE // height if height < TILE else TILE / height
    size, font = (round(width * scale), round(height * scale)), ImageFont.load_default(13)
    block, row_height, rows = size[0] + GAP, size[1] + CAPTION + GAP, min(SHOWN, len(images))
    sheet = Image.new("RGB", ((1 + len(strengths)) * block + GAP, HEADER + rows * row_height), "white")
    draw, most = ImageDraw.Draw(sheet), largest(strengths)
    title = f"the filter alone: {KEPT:.0%} of the predictions stay up to step {most.step}"
    draw.text((GAP, 8), title, INK, ImageFont.load_default(16))
    for column, one in enumerate([None, *strengths]):
        left = GAP + column * block
        head = f"step {one.step}: {one.kept:.0%} stay" if one else "original"
        draw.text((left, HEADER - 20), fit(draw, head, size[0], font), MARK if one is most else FAINT, font)
        for row in range(rows):
            top, label = HEADER + row * row_height, one.seen[row] if one else before[row]
            picture = to_pil((one.filtered if one else images)[row]).resize(size, Image.Resampling.NEAREST)
            sheet.paste(picture, (left, top))
            text = name_of(label, ground.names) + (f" {one.sure[row]:.0%}" if one else "")
            ink = GOOD if label == before[row] else BAD
            draw.text((left, top + size[1] + 2), fit(draw, text, size[0], font), ink, font)
    return sheet
