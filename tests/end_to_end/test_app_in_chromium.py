"""The app in a real browser: a picture is given, painted on, watched, explained, kept and evaluated."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("selenium")
pytest.importorskip("starlette")

from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select

from ace_counterfactuals.core.cli import evaluate
from tests.support.app_cases import png
from tests.support.browser import browsing
from tests.support.paths import ROOT
from tests.support.toys import Workshop

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("chromium")]
ENDLESS = "100000"


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    return Workshop(tmp_path_factory.mktemp("app"))


@pytest.fixture(scope="module")
def address(shop):
    """Of app.py, which runs until the tests end, and is then told to stop."""
    words = shop.arguments(port=0, open_browser=False, batch_size=None, unseen=shop.classifier, attack_step=60)
    environ = os.environ | {"PYTHONPATH": str(ROOT), "TMPDIR": str(shop.folder)}
    program = subprocess.Popen(
        [sys.executable, "-W", "error", str(ROOT / "app.py"), *words], stdout=subprocess.PIPE, text=True, env=environ
    )
    yield re.search(r"http://\S+/", program.stdout.readline())[0]
    program.send_signal(signal.SIGINT)
    assert program.wait(30) == 0
    assert list(shop.folder.glob("ace-app-*")) == []  # what is temporary is gone
    program.stdout.close()


@pytest.fixture(scope="module")
def browser():
    with browsing() as browser:
        yield browser


@pytest.fixture
def asked(browser, address):
    """The page with its first example."""
    browser.go(address)
    browser.wait(lambda: browser.run("return about !== null"))
    browser.click("[data-example='0']")
    browser.wait(lambda: browser.find("#question").is_displayed())
    return browser


def choose(browser, name, value):
    browser.click(f"label:has([name={name}][value={value}])")


def flag(browser, name, value):
    browser.run("document.querySelector('#flags').closest('details').open = true")
    field = browser.find(f"[name={name}]")
    field.clear()
    field.send_keys(value)


def explain(browser, iterations="3"):
    flag(browser, "attack_iterations", iterations)
    browser.click("[type=submit]")


def answered(browser):
    browser.wait(lambda: browser.find("#answers").is_displayed())


def pixels(browser, css):
    """Whether the pictures are loaded."""
    return browser.run(
        "return [...document.querySelectorAll(arguments[0])].every(i => i.complete && i.naturalWidth)", css
    )


def test_from_an_upload_to_a_folder_that_evaluate_py_reads(browser, address, shop, tmp_path):
    picture = tmp_path / "<b>mine<b>.png"
    picture.write_bytes(png(20, 20, "orange"))
    browser.go(address)
    browser.wait(lambda: browser.run("return about !== null"))
    browser.find("#file").send_keys(str(picture))
    browser.wait(lambda: browser.find("#question").is_displayed())
    assert browser.find("#said").text.startswith("<b>mine<b>.png") and len(browser.all("#says tr")) == 3
    Select(browser.find("[name=target]")).select_by_index(0)
    choose(browser, "where", "may")
    browser.click("#canvas")  # the brush is round, in the middle
    explain(browser, "4")
    browser.wait(lambda: browser.all("#runs img[src^='data:image/png']"))
    answered(browser)
    assert browser.find("#state").text == "Done." and len(browser.all("polyline.after")) == 1
    browser.wait(lambda: pixels(browser, "#found img"))
    assert browser.find("#found .unseen tbody").text
    browser.click(".keeping button")
    browser.wait(lambda: "saved in" in browser.find(".keeping [role=status]").text)
    place = browser.find(".keeping [role=status]").text.removeprefix("saved in ")
    assert evaluate.main(["--output-path", place]) == 0
    assert {"picture.png", "region.png", "command.txt"} <= {path.name for path in Path(place).iterdir()}
    assert browser.errors == []


def test_a_picture_is_dropped_from_the_desktop(browser, address, tmp_path):
    (tmp_path / "dropped.png").write_bytes(png(20, 20, "orange"))
    browser.go(address)
    browser.wait(lambda: browser.run("return about !== null"))
    place = browser.run("const { x, y } = arguments[0].getBoundingClientRect(); return [x, y]", browser.find("#drop"))
    where = {"x": place[0] + 5, "y": place[1] + 5}
    carried = {"items": [], "files": [str(tmp_path / "dropped.png")], "dragOperationsMask": 1}
    for kind in ("dragEnter", "dragOver", "drop"):
        browser("Input.dispatchDragEvent", type=kind, data=carried, **where)
    browser.wait(lambda: browser.find("#question").is_displayed())
    assert browser.find("#said").text.startswith("dropped.png") and browser.errors == []


def test_a_picture_is_pasted_from_the_clipboard(browser, address):
    browser.go(address)
    browser.wait(lambda: browser.run("return about !== null"))
    browser("Browser.grantPermissions", permissions=["clipboardReadWrite", "clipboardSanitizedWrite"])
    copied = browser.driver.execute_async_script(
        "const [done] = arguments, canvas = new OffscreenCanvas(20, 20); canvas.getContext('2d').fillRect(0, 0, 9, 9);"
        "canvas.convertToBlob().then(png => navigator.clipboard.write([new ClipboardItem({'image/png': png})]))"
        ".then(() => done(''), error => done(String(error)))"
    )
    assert copied == ""
    webdriver.ActionChains(browser.driver).key_down(Keys.CONTROL).send_keys("v").key_up(Keys.CONTROL).perform()
    browser.wait(lambda: browser.find("#question").is_displayed())
    assert browser.find("#said").text.startswith("image.png") and browser.errors == []


def test_stop_ends_what_is_watched_and_the_next_question_is_answered(asked):
    explain(asked, ENDLESS)
    asked.wait(lambda: asked.all("#runs img[src^='data:image/png']"))
    asked.click("#stop")
    asked.wait(lambda: asked.find("#state").text == "Stopped.")
    explain(asked)
    answered(asked)
    assert asked.errors == []


def test_a_tab_that_goes_away_frees_the_machine(asked, address):
    explain(asked, ENDLESS)
    asked.wait(lambda: asked.all("#runs img[src^='data:image/png']"))
    asked.go(address)
    asked.wait(lambda: asked.run("return about !== null"))
    asked.click("[data-example='1']")
    asked.wait(lambda: asked.find("#question").is_displayed())
    began = time.monotonic()
    explain(asked)
    answered(asked)
    assert time.monotonic() - began < 15


@pytest.mark.parametrize(("answers", "count"), [("seeds", 3), ("targets", 2)])
def test_several_answers_stand_beside_each_other(asked, answers, count):
    choose(asked, "answers", answers)
    explain(asked, "2")
    answered(asked)
    assert len(asked.all("#found article")) == count and len(asked.all("#together figure")) == 2
    asked.wait(lambda: pixels(asked, "#together img"))
    assert asked.errors == []


def test_a_broken_picture_is_refused_in_a_sentence_and_the_next_is_taken(asked, tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_bytes(png()[:40])
    asked.find("#file").send_keys(str(broken))
    asked.wait(lambda: "no picture that can be read" in asked.find("#said").text)
    asked.click("[data-example='1']")
    asked.wait(lambda: "8 x 8 pixels" in asked.find("#said").text)


def test_all_can_be_done_with_the_keyboard(asked):
    asked.run("document.querySelector('[name=where][value=all]').focus()")
    asked.press(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
    assert asked.run("return document.querySelector('[name=where]:checked').value") == "not"
    asked.run("document.querySelector('#brush summary').focus()")
    asked.press(Keys.ENTER, Keys.TAB, "2", Keys.TAB, "1")
    asked.run("document.querySelector('#fill').focus()")
    asked.press(Keys.ENTER)
    assert not asked.run("return painter.empty")
    flag(asked, "attack_iterations", "2")
    asked.press(Keys.ENTER)
    answered(asked)
    asked.find("#found input[type=range]").send_keys(Keys.ARROW_RIGHT)
    assert asked.run("return document.querySelector('.slider').style.getPropertyValue('--cut')") == "51%"


@pytest.mark.parametrize(("width", "dark"), [(1280, True), (360, False)])
def test_the_pages_have_no_serious_fault_of_accessibility_and_fit_a_phone(asked, address, width, dark):
    explain(asked, "2")
    answered(asked)
    asked.look(width=width, dark=dark)
    asked.run("document.querySelectorAll('details').forEach(one => (one.open = true))")
    assert asked.faults() == [] and not asked.scrolls_sideways
    asked.go(f"{address}browse", width=width, dark=dark)
    assert asked.faults() == [] and not asked.scrolls_sideways


def test_a_report_is_opened_and_asked_about_again(asked, address, shop):
    explain(asked, "2")
    answered(asked)
    asked.click(".keeping button")
    asked.wait(lambda: "saved in" in asked.find(".keeping [role=status]").text)
    place = asked.find(".keeping [role=status]").text.removeprefix("saved in ")
    evaluate.main(["--output-path", place])
    asked.go(f"{address}browse")
    link = next(one for one in asked.all("#reports a") if Path(place).name in one.text)
    link.click()
    asked.driver.switch_to.frame(asked.find("#report"))
    asked.wait(lambda: asked.all("#cards a.title"))
    asked.driver.find_element(By.CSS_SELECTOR, "#cards a.title").click()
    asked.wait(lambda: asked.all("#detail[open]"))
    assert asked.run("return self.origin") == "null"  # whoever made the report, it may ask the app for nothing
    asked.driver.switch_to.default_content()
    asked.wait(lambda: asked.find("#again").is_enabled())
    asked.click("#again")
    asked.wait(lambda: asked.all("#question") and asked.find("#question").is_displayed())
    assert "8 x 8 pixels" in asked.find("#said").text and asked.errors == []


def test_no_page_asks_for_anything_beyond_this_machine(tmp_path, address):
    """In the net log, which knows who asked: the browser's own requests apart."""
    log = tmp_path / "log.json"
    with browsing(f"--log-net-log={log}") as browser:
        browser.go(address)
        browser.wait(lambda: browser.run("return about !== null"))
        browser.click("[data-example='0']")
        browser.wait(lambda: browser.find("#question").is_displayed())
        explain(browser, "2")
        answered(browser)
        browser.wait(lambda: pixels(browser, "#found img"))
    own = address.rstrip("/")
    events = json.loads(log.read_text())["events"]
    asked = [event["params"] for event in events if "url" in event.get("params", {})]
    pages = [one["url"] for one in asked if str(one.get("initiator", "")).startswith(own)]
    assert len(pages) > 10 and all(url.startswith((own, "data:")) for url in pages)
    assert {url for url in (one["url"] for one in asked) if "127.0.0.1" in url and not url.startswith(own)} == set()
