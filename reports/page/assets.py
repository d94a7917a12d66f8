"""The pages' own scripts and styles, and plotly.js packed so that a page stays small."""

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from plotly.offline import get_plotlyjs

from reports.page.markup import Html, own_file, packed

# Before anything is laid out, so that nothing moves.
HAS_SCRIPT = "'use strict'; document.documentElement.className = 'js'"
STYLES = ("style.css", "opening.css", "bar.css", "figures.css", "print.css")
# One scope for all; each uses what stands before it, page.js begins it.
SCRIPTS = (
    "shared.js", "theme.js", "follow.js", "ends.js", "draw.js", "filters.js", "links.js", "tables.js",
    "printing.js", "page.js",
)  # fmt: skip


@dataclass(frozen=True)
class Assets:
    """A page's own style and script."""

    style: str
    script: str


def of_report() -> Assets:
    """Return those of pages with charts."""
    return _assets(STYLES, SCRIPTS)


def of_index() -> Assets:
    """Return those of the index of runs, which has neither charts nor filters."""
    return _assets(("style.css", "index.css", "print.css"), ("shared.js", "tables.js", "index.js"))


def _assets(styles: Sequence[str], scripts: Sequence[str]) -> Assets:
    """Return files joined. The script is one function: nothing of it is global but window.bench."""
    script = '(() => {\n"use strict";\n' + "".join(map(own_file, scripts)) + "})();"
    return Assets("".join(map(own_file, styles)), script)


def policy(scripts: Sequence[str]) -> str:
    """Return what a browser lets the page do: run these scripts as they stand here, and load nothing.

    plotly sets styles. Source: Content Security Policy Level 3, by hashes.
    """
    allowed = " ".join(map(hash_of, scripts))
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data: blob:; "
        "base-uri 'none'; form-action 'none'"
    )


@cache
def hash_of(script: str) -> str:
    """Return a script as a policy names it."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"


@cache
def plotly_source() -> str:
    """Return plotly.js, which the page's script unpacks and adds as it stands."""
    return str(get_plotlyjs())


@cache
def plotly() -> Html:
    """Return plotly.js, packed to two fifths of it."""
    return packed("plotly", plotly_source())
