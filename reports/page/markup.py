"""Small pieces of HTML. All text that comes in is escaped here."""

import base64
import gzip
import html
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Any

from reports.measures.metrics import Value, counted, why_missing
from reports.measures.over_starts import Aggregate, shorter_half
from reports.measures.written import NOTHING, shown, span_text, supported

# A longer table is folded where a line or a chart says what it comes to.
OPEN_ROWS = 12
# In a table of many columns a longer word, as a path or a hash, may break anywhere.
LONG_WORD = 18
# What a reader cannot see: control characters, halves of a character, and marks that turn the direction of
# writing, also of what stands after them.
_UNSEEN = r"\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff"
_UNSEEN_CHARACTER = re.compile(f"[{_UNSEEN}]")
_ENCODED = re.compile(r"(?<!\\)(?:\\\\)*(\\ud[89ab][0-9a-f]{2}\\ud[c-f][0-9a-f]{2}|\\u[0-9a-f]{4})")


@dataclass(frozen=True)
class Html:
    """Markup that is safe to put into a page as it is."""

    text: str


@dataclass(frozen=True)
class Of:
    """What a part of the page is about. The page's filters and its legend hide what is about something else;
    None: about all, which no filter hides. `turn` and `start` as a person counts, from 1."""

    deployment: str | None = None
    load: str | None = None
    turn: int | None = None
    start: int | None = None

    def to_builtins(self) -> dict[str, str]:
        """What is given, as text."""
        given = {f.name: getattr(self, f.name) for f in fields(self)}
        return {name: str(value) for name, value in given.items() if value is not None}

    @property
    def attributes(self) -> dict[str, str]:
        """For `tag`: `data-deployment`, `data-load` ... of an element."""
        return {f"data_{name}": value for name, value in self.to_builtins().items()}


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


def escaped(value: str) -> str:
    """Text for HTML, and for plotly, which reads labels as HTML; what is unseen is shown as `\\u202e`."""
    return html.escape(value if value.isprintable() else _UNSEEN_CHARACTER.sub(_written, value))


def _written(found: re.Match[str]) -> str:
    return f"\\u{ord(found[0]):04x}"


def text(value: object) -> Html:
    """Any value as escaped text; `–` for None."""
    return Html(NOTHING if value is None else escaped(str(value)))


def tag(name: str, /, *content: Html | str, **attributes: str) -> Html:
    """An element; strings are escaped. `class_` for class, `_` for `-` in an attribute's name."""
    given = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escaped(value)}"' for key, value in attributes.items()
    )
    return Html(f"<{name}{given}>{join(content).text}</{name}>")


def packed(name: str, content: str) -> Html:
    """Text for the page's script, gzip in base64, so that the page stays small and nothing in it can end the
    element. unpack.js reads it by its name, an id."""
    data = base64.b64encode(gzip.compress(content.encode(), 9, mtime=0)).decode("ascii")
    return Html(f'<script type="text/plain" id="{name}">{data}</script>')


def packed_json(name: str, data: Any) -> Html:
    """Data for the page's script. What cannot be seen is written as in `escaped`, so that the script finds
    the same text in both."""
    return packed(name, _ENCODED.sub(_seen, json.dumps(data, allow_nan=False, separators=(",", ":"))))


def _seen(found: re.Match[str]) -> str:
    character = json.loads(f'"{found[1]}"')
    return f"{found[0][: -len(found[1])]}\\{found[1]}" if _UNSEEN_CHARACTER.match(character) else found[0]


def unbroken(value: str) -> Html:
    """Text whose short words with a hyphen, as names and dates, stay on one line."""
    words = [
        tag("span", word, class_="unbroken") if "-" in word and len(word) <= LONG_WORD else text(word)
        for word in value.split(" ")
    ]
    return Html(" ".join(word.text for word in words))


def join(parts: Iterable[Html | str]) -> Html:
    """Parts one after the other; strings are escaped."""
    return Html("".join(part.text if isinstance(part, Html) else escaped(part) for part in parts))


def table(
    columns: Sequence[Head | Html | str],
    rows: Iterable[Row | Sequence[Html | str]],
    class_: str = "",
    name: str = "table",
) -> Html:
    """A table in a box that scrolls by itself; the first column heads its row. `name` is heard where the box
    is reached, since it is one of many: of what the table is, as its heading says."""
    heads = (each if isinstance(each, Head) else Head(each) for each in columns)
    head = tag(
        "thead", tag("tr", *(tag("th", each.title, scope="col", **each.of.attributes) for each in heads))
    )
    body = tag("tbody", *map(_row, rows))
    # Scrolls inside its box, so the box takes the keyboard's focus.
    whole = tag("table", head, body, class_=class_)
    return tag("div", whole, class_="scroll", tabindex="0", role="group", aria_label=name)


def _row(row: Row | Sequence[Html | str]) -> Html:
    cells, of = (row.cells, row.of) if isinstance(row, Row) else (row, ALL)
    return tag(
        "tr", tag("th", cells[0], scope="row"), *(tag("td", cell) for cell in cells[1:]), **of.attributes
    )


def long_table(
    columns: Sequence[Head | Html | str], rows: Sequence[Row | Sequence[Html | str]], class_: str, name: str
) -> Html:
    """A table that is folded where it has more than OPEN_ROWS rows."""
    whole = table(columns, rows, class_, name)
    return (
        whole if len(rows) <= OPEN_ROWS else tag("details", tag("summary", "Table"), whole, class_="folded")
    )


def details(title: str, *content: Html) -> Html:
    return tag("details", tag("summary", title), *content)


def paragraph(content: Html | str, class_: str = "note") -> Html:
    return tag("p", content, class_=class_)


def note(first: str, more: str) -> Html:
    """What a reader needs of a section's charts and tables, and the rest, which is folded."""
    return join([paragraph(first), details("How to read this", paragraph(more))])


def aggregate_cell(name: str, found: Aggregate, mark: Html | str = "") -> Html:
    """The starts' mean with the digits that its interval supports, that interval in brackets (of two starts
    their range), how many have a value if not all; a tooltip with the n, or why there is none. `mark`: what a
    value bears (reports/checks/examine.py)."""
    if found.mean is None:
        why = found.why or why_missing(name, 0)
        return tag("span", NOTHING, title=why, class_="none", tabindex="0")
    word = "start" if found.is_of_starts else "block"
    each = ", ".join(shown(name, value) for value in found.values)
    main = tag(
        "span",
        supported(name, found.mean, shorter_half(found)),
        title=f"n = {counted(found.n, found.requests)}; by {word}: {each}",
    )
    said = [span_text(name, found)]
    if found.k < len(found.values):
        said.append(f"{found.k} of {len(found.values)} {word}s")
    return join([main, mark, *(tag("span", part, class_="range") for part in said if part)])


def value_cell(name: str, found: Value | None, withheld: str | None = None) -> Html:
    """One cell's value, with its n in a tooltip; none where it is withheld, for that reason."""
    if withheld or found is None or found.value is None:
        why = withheld or (why_missing(name, found.n, found.requests) if found else why_missing(name, 0))
        return tag("span", NOTHING, title=why, class_="none")
    return tag("span", shown(name, found.value), title=f"n = {counted(found.n, found.requests)}")
