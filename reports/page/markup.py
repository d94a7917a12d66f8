"""Small pieces of HTML, and numbers as a person reads them. All text that comes in is escaped here."""

from __future__ import annotations

import html
import json
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Any

from reports.cells import Aggregate
from reports.metrics import Value, counted, metric_of, why_missing
from reports.spans import has_interval, shorter_half, span

NOTHING = "–"
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


def script_json(data: Any) -> str:
    """JSON that no text in it can end: inside a script element only these characters have a meaning. What
    cannot be seen is written as in `escaped`, so that the page's script finds the same text in both."""
    encoded = _ENCODED.sub(_seen, json.dumps(data, allow_nan=False, separators=(",", ":")))
    for character in "<>&\u2028\u2029":
        encoded = encoded.replace(character, f"\\u{ord(character):04x}")
    return encoded


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
    columns: Sequence[Html | str], rows: Iterable[Row | Sequence[Html | str]], class_: str = ""
) -> Html:
    """A table in a box that scrolls by itself; the first column heads its row."""
    head = tag("thead", tag("tr", *(tag("th", name, scope="col") for name in columns)))
    body = tag("tbody", *map(_row, rows))
    # Scrolls inside its box, so the box takes the keyboard's focus.
    whole = tag("table", head, body, class_=class_)
    return tag("div", whole, class_="scroll", tabindex="0", role="group", aria_label="table")


def _row(row: Row | Sequence[Html | str]) -> Html:
    cells, of = (row.cells, row.of) if isinstance(row, Row) else (row, ALL)
    return tag(
        "tr", tag("th", cells[0], scope="row"), *(tag("td", cell) for cell in cells[1:]), **of.attributes
    )


def details(title: str, *content: Html) -> Html:
    return tag("details", tag("summary", title), *content)


def paragraph(content: Html | str, class_: str = "note") -> Html:
    return tag("p", content, class_=class_)


def number(value: float | None, digits: int = 1) -> str:
    """With thousands separated; `–` for None. Below ten one more digit, so that small values stay apart; what
    would be rounded to zero and is none is `<` the last digit."""
    if value is None:
        return NOTHING
    places = digits + 1 if digits == 1 and abs(value) < 10 else digits
    if 0 < value < 0.5 * 10.0**-places:
        return f"<{10.0**-places:.{places}f}"
    return f"{value:,.{places}f}"


def precise(value: float | None, digits: int) -> str:
    """As `number` writes it, but with two significant digits of what is small."""
    if not value:
        return number(value, digits)
    return number(value, min(max(digits, 1 - math.floor(math.log10(abs(value)))), 9))


def shown(name: str, value: float | None) -> str:
    """A stored value of a metric in the unit that a person reads, without the unit."""
    metric = metric_of(name)
    write = precise if metric.may_be_small else number
    return write(None if value is None else value * metric.shown_scale, metric.digits)


def supported(name: str, value: float | None, half: float) -> str:
    """As `shown`, without the digits that an uncertainty of `half` (stored unit) makes noise: the last one
    left is worth a fifth of it at most. 1,234 with 434 is `1,230`."""
    whole, metric = shown(name, value), metric_of(name)
    if value is None or not half > 0 or whole.startswith("<"):
        return whole
    places = -math.floor(math.log10(half * metric.shown_scale / 5))
    if places >= len(whole.partition(".")[2]):
        return whole
    return f"{round(value * metric.shown_scale, places):,.{max(places, 0)}f}"


def aggregate_cell(name: str, found: Aggregate, mark: Html | str = "") -> Html:
    """The starts' mean with the digits that its interval supports, that interval in brackets (of two starts
    their range), how many have a value if not all; a tooltip with the n, or why there is none. `mark`: what a
    value bears (reports/marks.py)."""
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


def span_text(name: str, found: Aggregate) -> str:
    """`[9.5, 10.5]`, a mean's interval; `9.8–10.2`, a range (reports/spans.py); empty for one value."""
    ends = span(found)
    if ends is None:
        return ""
    half = shorter_half(found)
    low, high = (supported(name, end, half) for end in ends)
    if has_interval(found):
        return f"[{low}, {high}]"
    return low if low == high else f"{low}–{high}"


def value_cell(name: str, found: Value | None, withheld: str | None = None) -> Html:
    """One cell's value, with its n in a tooltip; none where it is withheld, for that reason."""
    if withheld or found is None or found.value is None:
        why = withheld or (why_missing(name, found.n, found.requests) if found else why_missing(name, 0))
        return tag("span", NOTHING, title=why, class_="none")
    return tag("span", shown(name, found.value), title=f"n = {counted(found.n, found.requests)}")


def several(names: Sequence[str], between: str = ", ") -> str:
    """The first four different names, and how many more there are."""
    different = list(dict.fromkeys(names))
    more = f" and {len(different) - 4} more" if len(different) > 4 else ""
    return between.join(different[:4]) + more


def plural(count: int, word: str) -> str:
    return f"{count:,} {word}" + ("" if count == 1 else "s")
