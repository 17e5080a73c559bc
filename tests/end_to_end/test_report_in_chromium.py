"""report.html in a real browser: what a person clicks, types and sees."""

import json
import shutil
from dataclasses import replace

import pytest

from ace_counterfactuals.core.evaluation.model import Evaluation
from ace_counterfactuals.core.report import write_report
from ace_counterfactuals.core.report.training import write_training_page
from tests.support.report_cases import HOSTILE, make_comparison, make_evaluation, make_experiment, make_hostile

pytest.importorskip("selenium")

from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select

from tests.support.browser import browsing

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("chromium")]


@pytest.fixture(scope="module")
def browser():
    with browsing() as browser:
        yield browser


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """Of ten pictures, of which 3 and 7 did not flip."""
    folder = tmp_path_factory.mktemp("report")
    return write_report(make_evaluation(folder / "out", 10), folder / "page")


def test_the_report_opens_from_disk_without_error_and_asks_for_nothing_beyond_it(browser, page):
    browser.open(page)
    assert browser.count == "10 pictures" and len(browser.all("#cards > li")) == 10
    browser.run("document.getElementById('cards').scrollIntoView()")
    requests = []

    def asked_for_pictures():
        requests.extend(browser.requests)  # each is told once, a moment after it was made
        return any(url.endswith("original-00000.png") for url in requests)

    browser.wait(asked_for_pictures)
    assert all(url.startswith((page.parent.as_uri(), "data:")) for url in requests)
    assert browser.errors == []


def test_the_report_marks_flips_that_are_weak_and_failures(browser, page):
    """The pictures are 50 to 59 % sure."""
    browser.open(page)
    badges = [card.text for card in browser.all("#cards .badge")]
    assert badges.count("weakly flipped, under 60 %") == 8 and badges.count("not flipped") == 2


def test_the_report_shows_failures_at_one_click(browser, page):
    browser.open(page)
    browser.click("input[name=flipped][value=no]")
    browser.wait(lambda: browser.count == "2 of 10 pictures")
    assert browser.names == ["0000003.png", "0000007.png"] and browser.address == "flipped=no"
    browser.click("#reset")
    browser.wait(lambda: browser.count == "10 pictures")


def test_the_report_s_matrix_filters_the_cards(browser, page):
    browser.open(page)
    browser.click('.matrix a[aria-label="3, shirt to boot"]')
    browser.wait(lambda: browser.count == "3 of 10 pictures")
    assert browser.names == ["0000002.png", "0000005.png", "0000008.png"]
    assert Select(browser.find("[name=from]")).first_selected_option.text == "shirt (3)"


def test_the_report_filters_by_distance_class_and_name_together(browser, page):
    browser.open(page)
    browser.click(".more summary")
    browser.find("[name=l1_min]").send_keys("0.002")
    browser.wait(lambda: browser.count == "8 of 10 pictures")
    Select(browser.find("[name=label]")).select_by_visible_text("boot (4)")
    browser.wait(lambda: browser.count == "3 of 10 pictures")
    browser.find("[name=search]").send_keys("boot/9")
    browser.wait(lambda: browser.names == ["0000009.png"])
    browser.find("[name=search]").send_keys("none")
    browser.wait(lambda: browser.count == "No picture of 10 passes these filters")
    assert browser.errors == []


def test_the_report_sorts_by_distance_from_either_end(browser, page):
    browser.open(page)
    Select(browser.find("[name=sort]")).select_by_value("mask_area")
    Select(browser.find("[name=order]")).select_by_value("down")
    browser.wait(lambda: browser.names[0] == "0000009.png")
    assert browser.names == sorted(browser.names, reverse=True)


def test_the_report_s_slider_moves_by_keyboard(browser, page):
    browser.open(page, "#view=slider")
    frame, slider = browser.find("#cards .slider"), browser.find("#cards .slider input")
    browser.run("arguments[0].focus()", slider)
    browser.press(Keys.ARROW_RIGHT * 10)
    cut = browser.run("return getComputedStyle(arguments[0].querySelector(':nth-child(2)')).clipPath", frame)
    assert slider.get_attribute("value") == "60" and "40%" in cut


@pytest.mark.parametrize(("view", "rule"), [("mask", "--opacity"), ("difference", "--gain")])
def test_the_report_s_range_changes_all_cards_of_a_view(browser, page, view, rule):
    browser.open(page, f"#view={view}")
    before = browser.run(f"return document.getElementById('cards').style.getPropertyValue('{rule}')")
    browser.run("arguments[0].focus()", browser.find("#strength input"))
    browser.press(Keys.HOME)
    after = browser.run(f"return document.getElementById('cards').style.getPropertyValue('{rule}')")
    assert len(browser.all(f"#cards .{view}")) == 10 and float(after) < float(before)


def test_the_report_goes_from_picture_to_picture_by_keyboard(browser, page):
    browser.open(page, "#flipped=no")
    browser.press("j", Keys.ENTER)
    browser.wait(lambda: browser.find("#detail").is_displayed())
    assert browser.find("#detail-title").text == "0000003.png" and browser.find("#place").text == "1 of 2"
    browser.press(Keys.ARROW_RIGHT)
    browser.wait(lambda: browser.find("#detail-title").text == "0000007.png")
    browser.press("k")
    browser.wait(lambda: browser.find("#detail-title").text == "0000003.png")
    browser.press(Keys.ESCAPE)
    browser.wait(lambda: not browser.find("#detail").is_displayed())
    assert browser.address == "flipped=no" and browser.errors == []
    assert browser.run("return document.activeElement.textContent") == "0000003.png"


def test_a_link_to_a_picture_of_the_report_opens_it(browser, page):
    browser.open(page, "#picture=0000004.png")
    browser.wait(lambda: len(browser.all("#detail .bars")) == 2)
    text = browser.find("#detail").text
    for shown in ("0000004.png", "flipped", "coat", "shirt", "54 %", "coat/4.jpg", "mean change (l1)", "0.004"):
        assert shown in text
    assert browser.find("#detail .facts a").get_attribute("href").endswith("#picture=0000004.png")


def test_a_link_to_a_view_of_the_report_restores_its_filters(browser, page):
    browser.open(page, "#from=0&sort=l1&order=down&view=mask&likeliest=yes")
    assert browser.names == ["0000009.png", "0000006.png", "0000003.png", "0000000.png"]
    browser.wait(lambda: len(browser.all("#cards .bars")) == 8)
    assert browser.find("[name=view][value=mask]").is_selected() and browser.find(".more").get_attribute("open")


def test_the_report_is_dark_or_light_as_the_system_until_one_chooses(browser, page):
    def ground():
        return browser.run("return getComputedStyle(document.body).backgroundColor")

    browser.open(page, dark=True)
    dark = ground()
    browser.open(page)
    assert ground() != dark
    browser.click("#theme")
    assert ground() == dark
    browser.open(page)
    assert ground() == dark, "the choice is kept"
    browser.run("localStorage.clear()")


@pytest.mark.parametrize("fragment", ["", "#view=difference&likeliest=yes&from=0", "#picture=0000004.png"])
def test_the_report_fits_a_phone(browser, page, fragment):
    browser.open(page, fragment, width=360)
    assert not browser.scrolls_sideways
    assert browser.run("const d = document.getElementById('detail'); return d.scrollWidth <= d.clientWidth")


@pytest.mark.parametrize(("fragment", "within"), [("#view=slider", "body"), ("#picture=0000004.png", "#detail")])
def test_everything_that_can_be_used_in_the_report_has_a_name(browser, page, fragment, within):
    browser.open(page, fragment)
    kinds = "button, input, select, a[href]:not(svg a), [role=img], img, nav"
    shown = f"[...document.querySelectorAll('{within} :is({kinds})')].filter(e => e.checkVisibility())"
    used = browser.run(f"return {shown}")
    unnamed = [element.get_attribute("outerHTML") for element in used if not element.accessible_name]
    assert len(used) > 10 and unnamed == []


def test_the_report_tells_a_reader_what_changed(browser, page):
    browser.open(page, "#picture=0000004.png")
    assert browser.run("return document.activeElement.id") == "detail-title"
    assert browser.find("#count").get_attribute("aria-live") == "polite"


def test_the_report_compares_experiments_on_the_same_picture(browser, tmp_path):
    page = write_report(make_comparison(tmp_path / "out"), tmp_path / "page")
    browser.open(page, width=360)
    assert not browser.scrolls_sideways
    assert [len(card.find_elements(By.CSS_SELECTOR, ".tile")) for card in browser.all("#cards > li")] == [
        3, 3, 3, 2, 3, 3, 3, 3,
    ]  # fmt: skip
    Select(browser.find("[name=experiment]")).select_by_visible_text("two/explanation")
    browser.wait(lambda: browser.count == "7 pictures")
    assert [h.text for h in browser.all("h1") if h.is_displayed()] == ["two/explanation"]
    browser.open(page, "#picture=0000002.png")
    assert len(browser.all(".comparison li")) == 2
    browser.click(".comparison li:nth-child(2) a")
    browser.wait(lambda: "experiment=two" in browser.address)
    assert browser.find("#detail-title").text == "0000002.png" and browser.errors == []


def test_a_report_of_hostile_names_shows_them_and_runs_nothing(browser, tmp_path):
    page = write_report(make_hostile(tmp_path / "out"), tmp_path / "page")
    browser.open(page, "#likeliest=yes", width=360)
    browser.wait(lambda: len(browser.all("#cards .bars")) == 20)
    assert browser.names[0] == f"{HOSTILE[0]}0.png" and not browser.scrolls_sideways
    browser.find("[name=search]").send_keys("עברי")
    browser.wait(lambda: browser.count == "4 of 10 pictures")
    browser.click("#cards a.title")
    browser.wait(lambda: browser.find("#detail").is_displayed())
    assert HOSTILE[2].split()[0] in browser.find("#detail-title").get_attribute("textContent")
    assert browser.driver.title.startswith("<script>") and browser.errors == []
    assert not browser.all("#cards script, #cards img, #detail script")


@pytest.mark.parametrize("name", ["constructor", "toString", "__proto__", "nowhere"])
def test_an_address_of_a_stranger_that_names_what_is_no_view_shows_the_usual_one(browser, page, name):
    browser.open(page, f"#view={name}&sort={name}&from={name}&picture={name}")
    browser.open(page, f"#view={name}&sort={name}")
    assert len(browser.names) == 10 and len(browser.all("#cards .pair")) == 10
    assert browser.errors == []


def test_the_report_shows_whole_pictures_and_falls_back_to_thumbnails_when_moved(browser, tmp_path):
    evaluation = make_evaluation(tmp_path / "out", 4, size=(160, 80))
    page = write_report(evaluation, evaluation.experiments[0].root.parent)
    browser.open(page, "#picture=0000001.png")
    browser.wait(lambda: browser.run("return document.querySelector('#stage img')?.naturalWidth") == 160)
    moved = tmp_path / "moved"
    shutil.copytree(page.parent / "report", moved / "report")
    shutil.copy(page, moved)
    browser.open(moved / "report.html", "#picture=0000001.png")
    browser.wait(lambda: not browser.all("#stage img"))
    assert len(browser.all("#stage .tile")) == 8


def test_a_report_without_masks_and_probabilities_opens(browser, tmp_path):
    experiment = make_experiment(tmp_path / "out", 4)
    bare = [replace(p, mask=None, before=(), after=(), values={}) for p in experiment.pictures]
    experiment = replace(experiment, pictures=tuple(bare), classes=None)
    browser.open(write_report(Evaluation(experiments=(experiment,)), tmp_path / "page"), "#view=mask")
    assert browser.count == "4 pictures" and len(browser.all("#cards .mask .tile")) == 4
    assert not browser.find("[name=view][value=mask] + span").is_displayed()
    browser.click("#cards a.title")
    browser.wait(lambda: browser.find("#detail").is_displayed())
    assert browser.errors == []


def test_a_report_of_no_picture_opens(browser, tmp_path):
    browser.open(write_report(make_evaluation(tmp_path / "out", 0), tmp_path / "page"))
    assert browser.count == "No picture was explained" and browser.errors == []


def test_a_report_of_30000_pictures_is_a_small_page_that_filters(browser, tmp_path):
    evaluation = make_evaluation(tmp_path / "out", 30_000, classes=tuple(f"class {i}" for i in range(1000)), files=40)
    page = write_report(evaluation, tmp_path / "page")
    assert page.stat().st_size < 2e6
    browser.open(page)
    assert browser.count == "30,000 pictures" and len(browser.names) == 48
    browser.click("input[name=flipped][value=no]")
    browser.wait(lambda: browser.count == "7,500 of 30,000 pictures")
    browser.click("#pages [data-step='1']")
    browser.wait(lambda: browser.names[0] == f"{3 + 48 * 4:07d}.png")
    browser.find("[name=search]").send_keys("29999")
    browser.wait(lambda: browser.names == ["0029999.png"])
    browser.click("#cards a.title")
    browser.wait(lambda: len(browser.all("#detail .bars")) == 2)
    assert browser.errors == []


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [1280, 400])
def test_a_trainings_page_opens_from_disk_alone_in_both_schemes_and_stays_within_its_width(
    browser, tmp_path, dark, width
):
    bins = [{"answers": 3, "confidence": 0.9, "accuracy": 0.8}] * 15
    found = {"names": [HOSTILE, "b" * 200], "attributes": False, "pictures": 4, "accuracy": 1, "ece": 0, "bins": bins}
    (tmp_path / "measured.json").write_text(json.dumps(found | {"counts": [[2, 0], [0, 2]]}))
    (tmp_path / "log.csv").write_text("".join(f"{i},{1 / i},{1 / i},0.1\n" for i in range(1, 200)))
    (tmp_path / "config.yaml").write_text(json.dumps({"lr_anneal_steps": 400, "data_dir": "x" * 300}))
    page = write_training_page(tmp_path)
    browser.open(page, width=width, dark=dark, wait="h1")
    ground = browser.run("return getComputedStyle(document.body).backgroundColor")
    assert (ground == "rgb(22, 21, 20)") == dark
    assert len(browser.all("polyline")) == 4 and not browser.scrolls_sideways and browser.errors == []
    assert {url for url in browser.requests if not url.startswith("data:")} == {page.as_uri()}
    browser.click("#theme")
    assert browser.run("return getComputedStyle(document.body).backgroundColor") != ground
    browser.run("localStorage.clear()")


@pytest.mark.parametrize("dark", [False, True])
def test_the_report_has_no_serious_fault_of_accessibility(browser, page, dark):
    browser.open(page, dark=dark)
    assert browser.faults() == []
    browser.open(page, "#picture=0000000.png", dark=dark)
    browser.wait(lambda: browser.find("#detail").get_attribute("open"))
    assert browser.faults() == []
