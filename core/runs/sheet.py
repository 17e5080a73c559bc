"""sheet.png: the pictures of an experiment side by side, with what the classifier says of each."""

from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from ace_counterfactuals.core.base import atomic
from ace_counterfactuals.core.data.pictures import decode, picture_size
from ace_counterfactuals.core.runs.described import sha256
from ace_counterfactuals.core.runs.layout import ResultFolder
from ace_counterfactuals.core.runs.records import WEAK, Record

COLUMNS = ("original", "pre-explanation", "mask", "explanation")
TITLES = ("original", "pre-explanation", "mask", "counterfactual")
REFINED_TITLES = ("original", "pre-explanation", "kept in white", "counterfactual")
TILE, GAP, CAPTION, HEADER, PER_ROW, LIMIT = 128, 8, 20, 56, 2, 24
INK, FAINT, GOOD, FAIR, BAD = "#1a1a1a", "#6b6b6b", "#1a7f37", "#8a5a00", "#b3261e"


def draw_sheet(results: ResultFolder, records: Sequence[Record], names: Sequence[str] | None, path: Path) -> None:
    """Write the sheet to ``path``: up to 24 pictures, the most changed and then the least changed first, two a row.

    Nothing is written where none of the pictures was saved.
    names: the classes' names, in the order of the classifier's outputs.
    """
    paths = {record.index: results.pictures_of(record) for record in records}
    shown = choose([record for record in records if paths[record.index]])
    if not shown:
        return
    width, height = tile_size(paths[shown[0].index]["original"])
    block, row_height = len(COLUMNS) * (width + GAP), height + CAPTION + GAP
    rows = -(-len(shown) // PER_ROW)
    sheet = Image.new("RGB", (PER_ROW * block + (PER_ROW + 1) * GAP, HEADER + rows * row_height + GAP), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(13)
    flipped = sum(record.outcomes["explanation"].success for record in records)
    title = f"{results.exp_name}: {flipped} of {len(records)} counterfactuals flip"
    if weak := sum(record.outcomes["explanation"].weak for record in records):
        title += f", {weak} weakly (to under {WEAK:.0%})"
    draw.text((GAP, 8), title, INK, ImageFont.load_default(16))
    for place in range(min(PER_ROW, len(shown))):
        for column, title in enumerate(REFINED_TITLES if results.refined else TITLES):
            draw.text((GAP + place * (block + GAP) + column * (width + GAP), HEADER - 20), title, FAINT, font)
    for place, record in enumerate(shown):
        left, top = GAP + place % PER_ROW * (block + GAP), HEADER + place // PER_ROW * row_height
        for column, name in enumerate(COLUMNS):
            x = left + column * (width + GAP)
            picture = decode(paths[record.index][name])
            sheet.paste(picture.resize((width, height), Image.Resampling.NEAREST), (x, top))
            text, ink = caption(record, name, names)
            draw.text((x, top + height + 2), fit(draw, text, width, font), ink, font)
    atomic.write_png(path, sheet, records=digest_of(records))


def digest_of(records: Sequence[Record]) -> str:
    """By which a sheet tells the records that it was drawn of, in any order."""
    return sha256(b"".join(sorted(record.to_bytes() for record in records)))


def choose(records: Sequence[Record]) -> list[Record]:
    """All of a small experiment, or the ends of a large one, by the counterfactual's mean change, largest first."""
    by_change = sorted(records, key=lambda record: (-record.outcomes["explanation"].l1, record.index))
    return by_change if len(by_change) <= LIMIT else by_change[: LIMIT // 2] + by_change[-LIMIT // 2 :]


def tile_size(path: Path) -> tuple[int, int]:
    """Small pictures are enlarged by a whole factor, large ones reduced, to about TILE pixels in height."""
    width, height = picture_size(path)
    scale = TILE // height if height < TILE else TILE / height
    return round(width * scale), round(height * scale)


def caption(record: Record, column: str, names: Sequence[str] | None) -> tuple[str, str]:
    """A column's text and its colour: the prediction with its probability, green where it is what was wanted."""
    if column == "mask":
        return f"{record.mask_area:.0%} may change", FAINT
    if column == "original":
        return f"{name_of(record.prediction, names)} {record.source_prob:.0%}", INK if record.correct else BAD
    outcome = record.outcomes[column]
    text = f"{name_of(outcome.prediction, names)} {outcome.prob:.0%}"
    if outcome.weak:
        return f"weak: {text}", FAIR
    return text, GOOD if outcome.success else BAD


def name_of(label: int, names: Sequence[str] | None) -> str:
    return names[label].split(",")[0] if names and 0 <= label < len(names) else str(label)


def fit(draw: ImageDraw.ImageDraw, text: str, width: int, font) -> str:
    """The text, its end left out where it is wider than ``width`` pixels."""
    shown = text
    while text and draw.textlength(shown, font) > width:
        text = text[:-1]
        shown = text + "…"
    return shown
