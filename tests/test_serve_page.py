"""The page, in a browser without a window: what it shows, by keyboard, and for every error."""

import shutil
import time
from contextlib import contextmanager

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("onnx")
pytest.importorskip("selenium")

from selenium import webdriver
from selenium.webdriver.common.keys import Keys
from serving import started
from shipped import COLUMNS, POLICY, ship

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="no Chromium with its driver is here"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]
_LUMINANCE = """
const style = getComputedStyle(document.querySelector(arguments[0]));
const [r, g, b] = style[arguments[1]].match(/\\d+/g)
  .map(v => v / 255).map(v => v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4);
return .2126 * r + .7152 * g + .0722 * b;
"""


@contextmanager
def browser(url, *, dark=False, width=1100):
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    found = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    try:
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        found.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
        metrics = {"width": width, "height": 1000, "deviceScaleFactor": 1, "mobile": False}
        found.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        found.get(url)
        until(lambda: text(found, "about") != "Asking the server what it is …")
        yield found
    finally:
        found.quit()


def until(holds, seconds=15):
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.05)


def text(page, name):
    return page.find_element("id", name).text


def click(page, name):
    page.find_element("id", name).click()


def answered(page):
    click(page, "send")
    until(lambda: text(page, "status").startswith("Answered") or text(page, "faults"))


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    with started(ship(tmp_path_factory.mktemp("page") / "rows", defer=POLICY)) as (url, _):
        yield url


def test_a_row_is_typed_and_answered_by_keyboard_alone(rows):
    with browser(rows) as page:
        first = page.find_element("id", "column-0")
        first.send_keys("0", Keys.TAB)
        page.switch_to.active_element.send_keys("0.1", Keys.TAB)
        page.switch_to.active_element.send_keys("0", Keys.ENTER)
        until(lambda: text(page, "status").startswith("Answered"))
        assert "Unsure: truly ambiguous. Nobody that it learned from knows better." in text(
            page, "why"
        )
        assert "its teachers have to be asked" in text(page, "alone")
        lines = [one.text for one in page.find_elements("css selector", "#bars tbody tr")]
        assert len(lines) == 3
        assert all(" to " in line and line.endswith("no") for line in lines)
        near = page.find_elements("css selector", "#near > li")
        assert len(near) == 5
        assert any("one:" in one.text and "label:" in one.text for one in near)
        labels = page.find_elements("tag name", "label")
        fields = page.find_elements("css selector", "input, textarea")
        assert {f.get_attribute("id") for f in fields} <= {b.get_attribute("for") for b in labels}
        assert [b.text for b in labels if b.is_displayed()] == COLUMNS
        assert page.find_element("id", "status").get_attribute("aria-live") == "polite"
        assert page.get_log("browser") == []


def test_mistakes_are_told_where_they_are_heard(rows):
    with browser(rows) as page:
        answered(page)
        assert text(page, "faults") == "Give a number for x1."
        click(page, "example")
        page.execute_script("document.getElementById('column-1').value = '1e39'")
        answered(page)
        assert "float32 can hold" in text(page, "faults")
        assert page.find_element("id", "faults").get_attribute("role") == "alert"
        click(page, "clear")
        assert text(page, "faults") == ""
        click(page, "example")
        answered(page)
        assert text(page, "faults") == ""


@pytest.mark.parametrize("dark", [False, True])
def test_it_is_narrow_and_has_contrast(dark, rows):
    with browser(rows, dark=dark, width=380) as page:
        click(page, "example")
        answered(page)
        assert page.execute_script("return document.documentElement.scrollWidth") <= 380
        for part in ("#said", "#about", "#bars td.number", "#near .soft"):
            both = page.execute_script(_LUMINANCE, part, "color")
            ground = page.execute_script(_LUMINANCE, "body", "backgroundColor")
            assert (max(both, ground) + 0.05) / (min(both, ground) + 0.05) >= 4.5, part
        assert (ground < 0.1) == dark


def test_an_image_is_chosen_and_answered(tmp_path):
    from PIL import Image

    Image.linear_gradient("L").resize((20, 20)).save(tmp_path / "one.png")
    (tmp_path / "none.png").write_bytes(b"nothing")
    with started(ship(tmp_path / "pictures", pictures=True)) as (url, _), browser(url) as page:
        answered(page)
        assert text(page, "faults") == "Choose an image first."
        for name, told in (("one.png", "Answered"), ("none.png", "It could not be asked.")):
            page.find_element("id", "image").send_keys(str(tmp_path / name))
            time.sleep(0.3)
            click(page, "send")
            until(lambda told=told: text(page, "status").startswith(told))
        assert "cannot be read" in text(page, "faults")
        click(page, "example")
        answered(page)
        assert page.find_elements("css selector", "#near img")


def test_a_token_is_asked_for_and_a_server_that_is_gone_is_told(tmp_path):
    place = ship(tmp_path / "rows")
    with started(place, MTBKD_TOKEN="word") as (url, process), browser(url) as page:
        until(lambda: "MTBKD_TOKEN" in text(page, "faults"))
        page.find_element("id", "token").send_keys("word")
        click(page, "send")
        until(lambda: "made up" in text(page, "title"))
        click(page, "example")
        answered(page)
        assert text(page, "faults") == ""
        process.terminate()
        process.wait(20)
        answered(page)
        assert text(page, "faults") == "The server cannot be reached. Is it still running?"
