"""GitHub-flavoured Markdown out of text that may be anything: a model's words, a file's name, a log."""

import re
from collections.abc import Iterable, Sequence

NOTHING = "–"
# All that XML 1.0 may hold is outside of this; nothing else is shown, escaped or not.
NOT_XML = "[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]"
# What no terminal and no page shows as it stands, and directions of writing, which could show text in
# another order.
_UNWRITABLE = re.compile(f"{NOT_XML}|[\u202a-\u202e\u2066-\u2069\u200e\u200f\u061c]")
# An underscore within a word is no markup.
_MARKUP = re.compile(r"([\\`*\[\]<>#|~&$]|(?<!\w)_|_(?!\w))")
# What a forge makes a link of without any markup: mentions, addresses, numbers of issues.
_LINKED = re.compile(r"@|(?<=:)(?=//)|(?i:(?<=www)(?=\.))|(?<=#)(?=\d)")
_INVISIBLE = "\u200b"


def plain(value: str) -> str:
    """Return text without markup, on one line; an invisible character keeps it from being a link."""
    return _MARKUP.sub(r"\\\1", _LINKED.sub(lambda found: f"{found.group()}{_INVISIBLE}", one_line(value)))


def code(value: str) -> str:
    """Return a code span: no markup, no mention, no entity in it; a table's cell still ends at a bar."""
    inside = one_line(value).replace("`", "'")
    # A backslash that stands before the bar's own would be taken for the escaped one.
    inside = re.sub(r"\\(?=\|)", "\\\\\u200b", inside).replace("|", r"\|")
    return f"`{inside or NOTHING}`"


def table(heads: Sequence[str], rows: Iterable[Sequence[str]], *, right_from: int | None = None) -> str:
    """Return a table of cells in Markdown; columns from `right_from` on are set to the right."""
    right = len(heads) if right_from is None else right_from
    rule = ["---" if at < right else "---:" for at in range(len(heads))]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (heads, rule, *rows))


def folded(title: str, content: str) -> str:
    """Return Markdown that stands behind a title, Markdown without markup, until it is asked for."""
    return f"<details><summary>{title}</summary>\n\n{content}\n\n</details>"


def fenced(value: str, language: str = "") -> str:
    """Return text on one line as a block of code, whatever is in it."""
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", value)), default=0))
    return f"{fence}{language}\n{one_line(value)}\n{fence}"


def one_line(value: str) -> str:
    """Return text without line breaks and without what cannot be shown."""
    return " ".join(_UNWRITABLE.sub("\ufffd", value).split())
