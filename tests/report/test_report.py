"""report.html as files: figures, escaping, thumbnails, mean masks, what is kept and what is removed."""

import json
import os
import re
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from ace_counterfactuals.core.data.pictures import UnreadableImage
from ace_counterfactuals.core.evaluation.model import Evaluation
from ace_counterfactuals.core.report import write_report
from ace_counterfactuals.core.report.masks import draw_mean_masks
from ace_counterfactuals.core.report.page import (
    BINS,
    chosen_figures,
    confidence_histogram,
    distance_scatter,
    figure_text,
    round_up,
    transitions,
)
from ace_counterfactuals.core.report.sheets import sha256_of, write_all_sheets
from tests.support.report_cases import HOSTILE, figure, make_comparison, make_evaluation, make_hostile, write_level
from tests.support.toys import tree


def html_of(evaluation, folder) -> str:
    return write_report(evaluation, folder).read_text()


def data_of(folder, name) -> dict:
    """What data/NAME.js hands to the page."""
    text = (folder / f"report/data/{name}.js").read_text()
    return json.loads(re.fullmatch(rf'receive\("{name}", (.*)\);\n', text, re.DOTALL)[1])


def sheets_of(evaluation, folder):
    folder.mkdir(exist_ok=True)
    return write_all_sheets(evaluation, folder)[0]


def test_a_report_shows_figures_with_interval_population_and_number(tmp_path):
    html = html_of(make_evaluation(tmp_path), tmp_path / "page")
    for text in ("0.7500", "0.6000 to 0.9000", "CC+IC, CCF+ICF,\nn = 6", "higher is better", "Share that flips."):
        assert text in html
    assert "incomplete" not in html


def test_a_report_marks_incomplete_figures_and_shows_notes_beside_them(tmp_path):
    evaluation = make_evaluation(tmp_path)
    marked = (figure(complete=False, notes=("few pictures",)), figure(key="cd", name="CD", value=None, n=0))
    evaluation = replace(evaluation, experiments=(replace(evaluation.experiments[0], figures=marked),))
    html = html_of(evaluation, tmp_path / "page")
    assert "incomplete" in html and "few pictures" in html
    assert "n/a" in html and "n = 0 (0 images)" in html


def test_a_report_shows_four_known_figures_first(tmp_path):
    experiment = make_evaluation(tmp_path).experiments[0]
    keys = ("l1", "cd", "mask_area", "cout", "fid", "flip_rate")
    figures = tuple(figure(key=key, value=None if key == "fid" else 1.0) for key in keys)
    chosen = chosen_figures(replace(experiment, figures=figures))
    assert [figure.key for figure in chosen] == ["flip_rate", "cout", "l1", "mask_area"]


def test_a_report_of_hostile_names_holds_them_as_text_alone(tmp_path):
    html = html_of(make_hostile(tmp_path), tmp_path / "page")
    assert "<script>document" not in html and "<img src=x" not in html
    assert "&lt;script&gt;document" in html and "{{ 7 * 7 }}" in html
    for path in (tmp_path / "page/report/data").iterdir():
        text = path.read_text()
        assert text.isascii() and "<" not in text, "U+2028 ends a line, and </script> a script"
    assert data_of(tmp_path / "page", "about")["experiments"][0]["classes"] == list(HOSTILE)


def test_the_same_evaluation_gives_the_same_report(tmp_path):
    evaluation = make_evaluation(tmp_path / "out")
    for name in ("first", "second"):
        write_report(evaluation, tmp_path / name)
    assert tree(tmp_path / "first") == tree(tmp_path / "second")


def test_a_report_of_no_picture_says_so(tmp_path):
    assert "No picture was explained" in html_of(make_evaluation(tmp_path, 0), tmp_path / "page")


def test_a_report_of_a_picture_that_does_not_decode_names_it(tmp_path):
    evaluation = make_evaluation(tmp_path)
    evaluation.experiments[0].pictures[2].counterfactual.write_bytes(b"cut off")
    with pytest.raises(UnreadableImage, match=r"0000002\.png"):
        write_report(evaluation, tmp_path / "page")


def test_a_report_links_whole_pictures_where_it_lies_beside_them(tmp_path):
    evaluation = make_evaluation(tmp_path / "out", size=(160, 80))
    inside, outside = evaluation.experiments[0].root.parent, tmp_path / "elsewhere"
    for folder in (inside, outside):
        write_report(evaluation, folder)
    data = data_of(inside, "experiment-0")
    linked = inside / data["places"][data["counterfactual_place"][3]] / data["name"][3]
    assert linked.resolve() == evaluation.experiments[0].pictures[3].counterfactual.resolve()
    assert data_of(outside, "experiment-0")["original_place"] == [None] * 6


def test_a_report_of_pictures_without_mask_or_probabilities_has_what_is_left(tmp_path):
    evaluation = make_evaluation(tmp_path)
    bare = [
        replace(p, mask=None, before=(), after=(), values={"l1": float("nan")})
        for p in evaluation.experiments[0].pictures
    ]
    experiment = replace(evaluation.experiments[0], pictures=tuple(bare), classes=None)
    html = html_of(Evaluation(experiments=(experiment,)), tmp_path / "page")
    data = data_of(tmp_path / "page", "experiment-0")
    assert "mask" not in data["tiles"] and data["values"]["l1"] == [None] * 6 and data["after"] == [None] * 6
    assert "class 1" in html


def test_a_report_of_unknown_decisions_leaves_out_what_would_show_them(tmp_path):
    experiment = make_evaluation(tmp_path).experiments[0]
    unknown = [replace(p, prediction=-1, cf_prediction=-1, before=(), after=(), values={}) for p in experiment.pictures]
    html = html_of(Evaluation(experiments=(replace(experiment, pictures=tuple(unknown)),)), tmp_path / "page")
    assert "From class to class" not in html and "<svg" not in html
    assert "All pictures" in html and "5</strong> of 6 change the classifier" in html


def test_a_report_of_two_experiments_sets_figures_side_by_side_with_their_difference(tmp_path):
    html = html_of(make_comparison(tmp_path), tmp_path / "page")
    assert html.count('<span class="interval">0.6000 to 0.9000') == 2
    assert "-0.2500" in html and "the interval does not hold 0" in html


def test_report_thumbnails_of_small_pictures_are_the_pictures(tmp_path):
    evaluation = make_evaluation(tmp_path, 7, size=(9, 5))
    sheets = sheets_of(evaluation, tmp_path / "sheets")
    for picture in evaluation.experiments[0].pictures:
        for kind in ("original", "counterfactual", "mask"):
            path = getattr(picture, kind)
            assert np.array_equal(sheets[kind].pixels(path), np.asarray(Image.open(path)))


def test_report_thumbnails_of_large_pictures_are_128_wide_and_many_to_a_sheet(tmp_path):
    sheets = sheets_of(make_evaluation(tmp_path, 50, size=(256, 128)), tmp_path / "sheets")
    assert sheets["original"].box == (128, 64) and sheets["original"].grid == (4, 8)
    assert len(list((tmp_path / "sheets").glob("original-*.jpg"))) == 2


def test_report_thumbnails_differ_only_where_the_pictures_do(tmp_path):
    evaluation = make_evaluation(tmp_path, 5, size=(128, 128))
    sheets = sheets_of(evaluation, tmp_path / "sheets")
    picture = evaluation.experiments[0].pictures[3]
    before, after = sheets["original"].pixels(picture.original), sheets["counterfactual"].pixels(picture.counterfactual)
    assert np.array_equal(before[64:], after[64:]) and np.array_equal(before[:, 64:], after[:, 64:])
    assert not np.array_equal(before[:64, :64], after[:64, :64])


def test_a_report_draws_again_only_the_sheets_whose_pictures_changed(tmp_path):
    evaluation = make_evaluation(tmp_path)
    pages = [write_report(evaluation, tmp_path / "page", tmp_path) for _ in range(2)]
    sheets = {path.name: path for path in (tmp_path / "page/report/sheets").glob("*.png")}
    before = {name: path.stat().st_ino for name, path in sheets.items()}
    write_level(evaluation.experiments[0].pictures[0].counterfactual, np.zeros((8, 8, 3), np.uint8))
    write_report(evaluation, pages[0].parent, tmp_path)
    redrawn = [name for name, path in sheets.items() if path.stat().st_ino != before[name]]
    assert redrawn == ["counterfactual-00000.png"]


def test_a_report_of_fewer_pictures_leaves_nothing_of_the_larger_one(tmp_path):
    write_report(make_evaluation(tmp_path / "out", 40, size=(128, 128)), tmp_path / "page")
    small = make_evaluation(tmp_path / "out", 3, size=(128, 128))
    write_report(small, tmp_path / "page")
    write_report(small, tmp_path / "fresh")
    assert tree(tmp_path / "page") == tree(tmp_path / "fresh")


def test_a_report_redraws_a_sheet_whose_record_was_cut_off(tmp_path):
    evaluation = make_evaluation(tmp_path / "out")
    write_report(evaluation, tmp_path / "page", tmp_path)
    next(tmp_path.glob("sheets-*.json")).write_text('{"original')
    write_report(evaluation, tmp_path / "page", tmp_path)
    write_report(evaluation, tmp_path / "fresh")
    assert tree(tmp_path / "page") == tree(tmp_path / "fresh")


def test_report_mean_masks_are_means_over_the_pictures_of_a_pair(tmp_path):
    evaluation = make_evaluation(tmp_path, 12)
    sheets = sheets_of(evaluation, tmp_path / "sheets")
    found = draw_mean_masks(evaluation.experiments[0], sheets, tmp_path, "0")
    assert [(mean.pair, mean.n) for mean in found[:3]] == [(None, 12), ((0, 1), 3), ((1, 2), 3)]
    assert found[0].peak == pytest.approx(200 / 255)
    heat = np.asarray(Image.open(tmp_path / found[0].file)).astype(int)
    assert (heat[:4, :4, 0] > heat[:4, :4, 2]).all(), "hot where all masks are"
    assert (heat[4:, 4:] == heat[4:, 4:, :1]).all(), "grey where none is"


def test_report_transitions_of_many_classes_keep_the_most_frequent(tmp_path):
    experiment = make_evaluation(tmp_path, 120, classes=tuple(map(str, range(40))), files=4).experiments[0]
    often = [replace(picture, prediction=7, cf_prediction=30) for picture in experiment.pictures[:50]]
    experiment = replace(experiment, pictures=(*often, *experiment.pictures[50:]))
    matrix = transitions(experiment)
    assert len(matrix.classes) == 12 and {7, 30} <= set(matrix.classes)
    assert matrix.counts[7, 30] >= 50 and matrix.heat(7, 30) == 10
    html = " ".join(html_of(Evaluation(experiments=(experiment,)), tmp_path / "page").split())
    assert matrix.found == 40 and f"of 40 classes, with {sum(matrix.counts.values())} of 120 pictures" in html


def test_report_histograms_count_every_known_confidence_once(tmp_path):
    experiment = make_evaluation(tmp_path, 100, files=4).experiments[0]
    certain = replace(experiment.pictures[0], before=((0, 1.0),), after=(), values={})
    histogram = confidence_histogram(replace(experiment, pictures=(certain, *experiment.pictures[1:])))
    assert sum(histogram["before"]) == 100 and sum(histogram["after"]) == 99
    assert len(histogram["before"]) == BINS and histogram["before"][-1] == 11


def test_report_plots_of_many_pictures_are_densities(tmp_path):
    few = distance_scatter(make_evaluation(tmp_path, 100, files=4).experiments[0])
    many = distance_scatter(make_evaluation(tmp_path, 1500, files=4).experiments[0])
    assert len(few.points) == few.n == 100 and not few.cells
    assert many.n == 1500 and not many.points and max(share for *_, share in many.cells) == 1
    assert few.limit == 0.1 and max(x for x, *_ in few.points) == pytest.approx(0.96)


@pytest.mark.parametrize(("value", "axis"), [(0.034, 0.05), (0.5, 0.5), (0, 1), (7, 10), (0.11, 0.2)])
def test_report_axes_end_at_round_numbers(value, axis):
    assert round_up(value) == pytest.approx(axis)


@pytest.mark.parametrize(
    ("value", "text"), [(None, "n/a"), (0, "0.0000"), (0.97603, "0.9760"), (123.456, "123.4560"), (2e-5, "2.0000e-05")]
)
def test_report_figures_have_four_decimals_where_that_says_something(value, text):
    assert figure_text(value) == text


def test_a_sheet_of_a_stranger_without_end_is_not_read(tmp_path):
    path = tmp_path / "sheet.png"
    path.touch()
    os.truncate(path, 2**40)
    assert sha256_of(path) == ""
