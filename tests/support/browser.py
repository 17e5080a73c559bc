"""A headless Chromium for tests of pages; without one they are skipped."""

import importlib.util
import json
import shutil
from contextlib import contextmanager
from pathlib import Path

import pytest

pytest.importorskip("selenium")

from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")


class Browser:
    """A headless Chromium that knows what the page says and what it asked for."""

    def __init__(self, driver):
        self.driver = driver

    def open(self, page, fragment="", *, wait="#count", **look):
        """A page on the disk."""
        self.go(page.as_uri() + fragment, **look)
        self.wait(lambda: self.find(wait).text)

    def go(self, address, **look):
        self.look(**look)
        self.driver.get("about:blank")
        self.driver.get_log("browser"), self.driver.get_log("performance")
        self.driver.get(address)

    def look(self, *, width=1280, dark=False):
        self("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self("Emulation.setEmulatedMedia", features=[scheme])

    def __call__(self, command, **values):
        return self.driver.execute_cdp_cmd(command, values)

    def wait(self, condition, seconds=30):
        WebDriverWait(self.driver, seconds, poll_frequency=0.05).until(lambda _: condition())

    def find(self, css):
        return self.driver.find_element(By.CSS_SELECTOR, css)

    def all(self, css):
        return self.driver.find_elements(By.CSS_SELECTOR, css)

    def run(self, script, *values):
        return self.driver.execute_script(script, *values)

    def press(self, *keys):
        webdriver.ActionChains(self.driver).send_keys(*keys).perform()

    def click(self, css):
        """As a mouse would, at a place where no bar lies over it."""
        self.run("arguments[0].scrollIntoView({block: 'center'})", self.find(css))
        self.find(css).click()

    @property
    def count(self):
        return self.find("#count").text

    @property
    def names(self):
        """Of the pictures that are listed."""
        return self.run("return [...document.querySelectorAll('#cards a.title')].map(a => a.textContent)")

    @property
    def address(self):
        return self.driver.current_url.partition("#")[2]

    @property
    def errors(self):
        return [entry["message"] for entry in self.driver.get_log("browser")]

    @property
    def requests(self):
        messages = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        return [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]

    @property
    def scrolls_sideways(self):
        return self.run("return document.documentElement.scrollWidth > innerWidth")

    def faults(self):
        """What axe-core finds that is serious: rule and place of each."""
        found = importlib.util.find_spec("axe_core_python")
        if not found:
            pytest.skip("axe-core-python is not installed")
        self.run((Path(found.submodule_search_locations[0]) / "axe.min.js").read_text())
        told = self.driver.execute_async_script("axe.run().then(arguments[0])")
        serious = [one for one in told["violations"] if one["impact"] in ("serious", "critical")]
        return [f"{one['id']}: {node['html'][:120]}" for one in serious for node in one["nodes"]]


@contextmanager
def browsing(*arguments):
    """A Browser.  arguments: further ones of Chromium."""
    if not (CHROMIUM and DRIVER):
        pytest.skip("chromium and chromedriver are not installed")
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", *arguments):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    try:
        yield Browser(driver)
    finally:
        driver.quit()
