"""Shows pages in a browser for tests, and tells what a reader sees of them."""

import json
import os
import re
import shutil

import pytest

_FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --hide-scrollbars --disable-dev-shm-usage"
)
_CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
_DRIVER = shutil.which("chromedriver")
# Words that programs write for a missing number, and that no sentence of ours contains.
MISSING = r"(?<![\w-])(?:None(?! (?:of|is)\b)|nan|NaN|undefined(?! below)|null|Infinity|inf)(?![\w-])"
UNDRAWN = """
    return [...document.querySelectorAll('.chart')]
      .filter((place) => !place.querySelector('.main-svg .trace, .main-svg .point, .heatmaplayer image'))
      .map((place) => place.dataset.chart)"""


def driver():
    """Start a Chromium without a window. The caller ends it with `quit`."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = _CHROMIUM
    for flag in _FLAGS.split():
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    return webdriver.Chrome(options=options, service=Service(_DRIVER))


@pytest.fixture(scope="module")
def browser():
    if not (_CHROMIUM and _DRIVER):
        message = "no chromium with chromedriver here: the page is not looked at"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    made = driver()
    yield made
    made.quit()


def show(browser, path, width: int = 1280, theme: str = "light") -> None:
    set_theme(browser, theme)
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    browser.get(path.as_uri())


def set_theme(browser, theme: str) -> None:
    features = [{"name": "prefers-color-scheme", "value": theme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})


def open_all(browser) -> None:
    """Open what is folded, and draw all charts, not only those near the screen. A page may have none."""
    browser.execute_script("document.querySelectorAll('main details').forEach((box) => { box.open = true; })")
    draw_all(browser)


def draw_all(browser) -> None:
    browser.set_script_timeout(60)
    browser.execute_async_script("Promise.resolve(window.bench?.drawAll()).then(arguments[0])")


def requested(browser) -> list[str]:
    """Return the addresses that the page asked for, by the browser's own log."""
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    sent = [m["params"] for m in messages if m["method"] == "Network.requestWillBeSent"]
    return [params["request"]["url"] for params in sent]


def visible_text(browser) -> str:
    """Return all text of the page as a reader sees it, with that of its charts, hovers and tooltips."""
    return browser.execute_script("""
      const given = Object.values(window.bench?.charts ?? {});
      const traces = given.flatMap((chart) => chart.traces);
      const words = ({ name, text, hovertext, customdata }) => [name, text, hovertext, customdata].flat(2);
      const hovers = traces.flatMap(words);
      const titles = [...document.querySelectorAll('[title]')].map((each) => each.title);
      const drawn = [...document.querySelectorAll('.chart text')].map((each) => each.textContent);
      const written = hovers.filter((each) => typeof each === 'string');
      return [document.title, document.body.innerText, ...titles, ...drawn, ...written].join('\\n')""")


def problems(browser) -> list[str]:
    """Return what no page may show: charts without marks, tables without rows, text wider than the screen,
    a program's words for a missing number, and anything on the console."""
    found = [f"undrawn: {each}" for each in browser.execute_script(UNDRAWN)]
    found += browser.execute_script("""
      const wide = document.documentElement.scrollWidth - document.documentElement.clientWidth;
      const empty = [...document.querySelectorAll('main table')]
        .filter((table) => !table.tBodies[0]?.rows.length);
      const bare = [...document.querySelectorAll('main section')].filter((section) =>
        [...section.children].every((each) => each.matches('h2, .key')));
      return [...(wide > 0 ? [`wider than the screen by ${wide} px`] : []),
        ...empty.map((table) => `empty table in ${table.closest('section')?.id}`),
        ...bare.map((section) => `empty section ${section.id}`)]""")
    missing = re.findall(MISSING, visible_text(browser))
    return found + [f"said: {each}" for each in missing] + [str(each) for each in browser.get_log("browser")]
