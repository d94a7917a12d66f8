"""Small pieces of HTML. All text that comes in is escaped here; parts.html has the larger ones."""

import base64
import gzip
import html
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

from jinja2 import Environment, FunctionLoader

# A longer table is folded where a line or a chart says what it comes to.
OPEN_ROWS = 12
# In a table of many columns a longer word, as a path or a hash, may break anywhere.
LONG_WORD = 18
# What a reader cannot see: control characters, halves of a character, and marks that turn the direction of
# writing, also of what stands after them.
_UNSEEN = re.compile(
    r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)


@dataclass(frozen=True)
class Html:
    """Markup that is safe to put into a page as it is."""

    text: str

    def __html__(self) -> str:
        return self.text


@dataclass(frozen=True)
class Of:
    """What a part of the page is about. The page's filters and its legend hide what is about something else;
    None: about all, which no filter hides. `start` as a person counts, from 1."""

    deployment: str | None = None
    load: str | None = None
    start: int | None = None

    def to_builtins(self) -> dict[str, str]:
        """Return what is given, as text."""
        return {name: str(value) for name, value in vars(self).items() if value is not None}


ALL = Of()


@dataclass(frozen=True)
class Head:
    """A table's column by its title, and what all of it is about."""

    title: Html | str
    of: Of = ALL


@dataclass(frozen=True)
class Row:
    """A table's row, and what it is about."""

    cells: Sequence[Html | str]
    of: Of = ALL


# --- text ------------------------------------------------------------------------------------------


def escaped(value: str) -> str:
    """Return text for HTML, and for plotly, which reads labels as HTML. What is unseen becomes `\\u202e`."""
    return html.escape(_visible(value))


def _visible(value: Any) -> Any:
    if isinstance(value, str) and not hasattr(value, "__html__") and not value.isprintable():
        return _UNSEEN.sub(lambda found: f"\\u{ord(found[0]):04x}", value)
    if isinstance(value, dict):
        return {_visible(key): _visible(each) for key, each in value.items()}
    return [_visible(each) for each in value] if isinstance(value, list | tuple) else value


def tag(name: str, /, *content: Html | str, **attributes: str) -> Html:
    """Return an element; strings are escaped. `class_` for class, `_` for `-` in an attribute's name."""
    given = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escaped(value)}"' for key, value in attributes.items()
    )
    return Html(f"<{name}{given}>{join(content).text}</{name}>")


def join(parts: Iterable[Html | str]) -> Html:
    """Return parts one after the other; strings are escaped."""
    return Html("".join(part.text if isinstance(part, Html) else escaped(part) for part in parts))


def unbroken(value: str) -> Html:
    """Return text whose short words with a hyphen, as names and dates, stay on one line."""
    words = [
        tag("span", word, class_="unbroken") if "-" in word and len(word) <= LONG_WORD else word
        for word in value.split(" ")
    ]
    return join(part for word in words for part in (word, " "))


def paragraph(content: Html | str, class_: str = "note") -> Html:
    return tag("p", content, class_=class_)


def details(title: str, *content: Html) -> Html:
    return tag("details", tag("summary", title), *content)


# --- templates -------------------------------------------------------------------------------------


def own_file(name: str) -> str:
    """Return a file of this folder as text."""
    return resources.files("reports.page").joinpath(name).read_text(encoding="utf-8")


_TEMPLATES = Environment(
    loader=FunctionLoader(own_file), autoescape=True, trim_blocks=True, lstrip_blocks=True, finalize=_visible
)


def render(template: str, **given: Any) -> str:
    """Return a template of this folder, filled. Strings are escaped, `Html` is not."""
    return _TEMPLATES.get_template(template).render(**given)


def macro(name: str, *given: Any) -> Html:
    """Return one of the pieces in parts.html, filled."""
    return Html(str(getattr(_TEMPLATES.get_template("parts.html").module, name)(*given)))


def table(
    columns: Sequence[Head | Html | str],
    rows: Iterable[Row | Sequence[Html | str]],
    class_: str = "",
    name: str = "table",
) -> Html:
    """Return a table in a box that scrolls by itself; the first column heads its row. `name` says what the
    table is of to those who hear the page."""
    heads = [each if isinstance(each, Head) else Head(each) for each in columns]
    return macro("table", heads, [row if isinstance(row, Row) else Row(row) for row in rows], class_, name)


# --- data for the script ---------------------------------------------------------------------------


def packed(name: str, content: str) -> Html:
    """Return text for the page's script, gzip in base64, so that the page stays small and nothing in it can
    end the element. page.js reads it by its name, an id."""
    data = base64.b64encode(gzip.compress(content.encode(), 9, mtime=0)).decode("ascii")
    return Html(f'<script type="text/plain" id="{name}">{data}</script>')


def packed_json(name: str, data: Any) -> Html:
    """Return data for the page's script. What cannot be seen is written as in `escaped`, so that the script
    finds the same text in both."""
    return packed(name, json.dumps(_visible(data), allow_nan=False, separators=(",", ":")))
