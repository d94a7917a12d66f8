"""The page on paper: A4, light, every chart that is not folded away drawn and whole."""

import base64
import os
import re
import shutil
import subprocess

import pytest
from browser import browser as browser
from browser import draw_all, set_theme, show
from make_run import full_run

from serving_bench.reports import write_report

pytestmark = [pytest.mark.browser, pytest.mark.long]

PAGE_PX, MARGIN_PX = (794, 1123), 45  # A4 at 96 dpi; 12 mm
# As the browser tells a page that it will be printed.
BEGIN = "window.dispatchEvent(new Event('beforeprint'))"
END = "window.dispatchEvent(new Event('afterprint'))"


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return write_report(full_run(tmp_path_factory.mktemp("full")))


@pytest.fixture(scope="module")
def pdf(browser, path, tmp_path_factory):
    """Printed from a dark screen, with nothing scrolled to before."""
    show(browser, path, theme="dark")
    browser.set_script_timeout(60)
    browser.execute_async_script("window.bench.ready.then(arguments[0])")
    printed = browser.execute_cdp_cmd("Page.printToPDF", {"preferCSSPageSize": True, "printBackground": True})
    out = tmp_path_factory.mktemp("paper") / "page.pdf"
    out.write_bytes(base64.b64decode(printed["data"]))
    return out


def read(tool: str, *arguments: str) -> bytes:
    if shutil.which(tool) is None:
        message = f"no {tool} here: the paper is not looked at"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    return subprocess.run([tool, *arguments], capture_output=True, check=True).stdout


def test_the_paper_is_a4_and_the_text_of_the_page_is_on_it(pdf):
    assert re.search(rb"Page size: +59[45][.\d]* x 84[12][.\d]* pts \(A4\)", read("pdfinfo", str(pdf)))
    text = read("pdftotext", "-layout", str(pdf), "-").decode()
    assert "Which engine, at which quantization" in text
    assert "all deployments" not in text  # the filters stay on the screen
    assert text.count("▸") == 0


def test_the_paper_is_light_from_a_dark_screen(pdf, tmp_path):
    read("pdftoppm", "-r", "20", "-gray", str(pdf), str(tmp_path / "p"))
    pages = sorted(tmp_path.glob("p*.pgm"))
    assert len(pages) > 3
    for page in pages:
        pixels = page.read_bytes().split(b"\n", 3)[3]
        assert sum(pixels) / len(pixels) > 200  # of 255


def test_charts_are_drawn_for_paper_that_no_screen_has_shown(browser, path):
    show(browser, path)
    browser.execute_async_script("window.bench.ready.then(arguments[0])")
    browser.execute_script(BEGIN)
    undrawn = """
      return [...document.querySelectorAll('.chart')].filter((place) => place.checkVisibility())
        .filter((place) => !place.querySelector('.main-svg')).length"""
    assert browser.execute_script(undrawn) == 0
    wide = """
      const edge = document.querySelector('main').getBoundingClientRect().right;
      return [...document.querySelectorAll('main :is(.main-svg, table)')].filter((e) => e.checkVisibility())
        .filter((e) => e.getBoundingClientRect().right > edge + 1).map((e) => e.outerHTML.slice(0, 80))"""
    assert browser.execute_script(wide) == []
    assert browser.execute_script("return document.querySelector('main').clientWidth") == 703
    browser.execute_script(END)


def test_paper_says_what_was_filtered_and_what_is_folded(browser, path):
    show(browser, path)
    browser.execute_async_script("window.bench.ready.then(arguments[0])")
    browser.execute_script("bench.choose({ start: '1' })")
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    browser.execute_script(BEGIN)
    first = browser.execute_script("return document.getElementById('main').firstElementChild.textContent")
    assert first.startswith("Showing start 1: ")
    folded = """return [...document.querySelectorAll('details.folded > summary')].map((summary) =>
      [summary.checkVisibility(), getComputedStyle(summary, '::after').content])"""
    assert browser.execute_script(folded).count([True, '" (folded, not printed)"']) > 0
    browser.execute_script(END)
    assert browser.execute_script("return document.querySelectorAll('.printed').length") == 0
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
    browser.execute_script("bench.choose({ start: '' })")


def test_after_printing_the_screen_is_as_before(browser, path):
    show(browser, path, theme="dark")
    draw_all(browser)
    look = """
      const svg = document.querySelector('.chart .main-svg');
      return [svg.clientWidth, getComputedStyle(document.querySelector('.chart .xtick text')).fill,
              getComputedStyle(document.body).backgroundColor]"""
    before = browser.execute_script(look)
    browser.execute_script(BEGIN)
    during = browser.execute_script(look)
    browser.execute_script(END)
    draw_all(browser)
    assert browser.execute_script(look) == before
    assert all(a != b for a, b in zip(before, during, strict=True))
    set_theme(browser, "light")


def test_no_chart_is_taller_than_a_page(browser, path):
    show(browser, path)
    browser.execute_async_script("window.bench.ready.then(arguments[0])")
    browser.execute_script(BEGIN)
    tall = "return Math.max(...[...document.querySelectorAll('figure')].map((f) => f.offsetHeight))"
    assert 0 < browser.execute_script(tall) < PAGE_PX[1] - 2 * MARGIN_PX
    browser.execute_script(END)


def test_what_is_on_the_screen_is_drawn_before_the_page_has_loaded(browser, path):
    """So a page that is saved as a picture right away has its charts."""
    size = {"width": 1280, "height": 6000, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    browser.get(path.as_uri())
    drawn = browser.execute_script(
        "return [...document.querySelectorAll('.chart')].filter((place) => place.checkVisibility()"
        " && place.getBoundingClientRect().top < innerHeight).map((place) => Boolean(place.data))"
    )
    assert len(drawn) > 3
    assert all(drawn)
