"""Writes docs/gallery/: a picture of each section of a report, and of its first screen, also dark and narrow.

`make_gallery.py REPORT.html [DIRECTORY]`. Needs Chromium with its driver, as the tests do.
"""

import base64
import sys
from pathlib import Path

from browser import draw_all, driver, show

# Longer sections are cut at this height: a picture shows what a section is like, the report has the rest.
MOST_PX = 900
SCREEN = {1280: 900, 390: 844}
_SECTIONS = """
  return [...document.querySelectorAll('main section')].map((section) => {
    const { left, top, width, height } = section.getBoundingClientRect();
    const said = section.querySelector('figcaption, section > .note, .note');
    return [section.id, section.querySelector('h2').firstChild.textContent,
      said ? said.firstChild.textContent : '', [left + scrollX, top + scrollY, width, height]];
  })"""
_HEAD = """# What a report looks like

Made by `make gallery` from [an example report](../examples/{name}).
"""


def picture(browser, path: Path, x: float, y: float, width: float, height: float) -> None:
    clip = {"x": x, "y": y, "width": width, "height": min(height, MOST_PX), "scale": 1}
    asked = {"format": "png", "clip": clip, "captureBeyondViewport": True, "optimizeForSpeed": False}
    path.write_bytes(base64.b64decode(browser.execute_cdp_cmd("Page.captureScreenshot", asked)["data"]))


def first_screens(browser, report: Path, out: Path) -> list[str]:
    lines = []
    for width, theme, title in (
        (1280, "light", "The first screen"),
        (1280, "dark", "In the dark"),
        (390, "light", "On a phone"),
    ):
        name = f"first-{width}-{theme}.png"
        show(browser, report, width, theme)
        draw_all(browser)
        picture(browser, out / name, 0, 0, width, SCREEN[width])
        lines += [f"\n## {title}\n", f"![{title}]({name})"]
    return lines


def sections(browser, report: Path, out: Path) -> list[str]:
    show(browser, report)
    draw_all(browser)
    lines = []
    for name, title, said, place in browser.execute_script(_SECTIONS):
        picture(browser, out / f"{name}.png", *place)
        lines += [
            f"\n## {title}\n",
            *([f"{said.strip()}\n"] if said.strip() else []),
            f"![{title}]({name}.png)",
        ]
    return lines


def main(report: Path, out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    for old in out.glob("*.png"):
        old.unlink()
    browser = driver()
    try:
        lines = [_HEAD.format(name=report.name), *first_screens(browser, report, out)]
        lines += sections(browser, report, out)
    finally:
        browser.quit()
    (out / "README.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve(), Path(sys.argv[2] if len(sys.argv) > 2 else "docs/gallery"))
