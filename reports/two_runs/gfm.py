"""GitHub-flavoured Markdown out of text that may be anything: a model's words, a file's name, a log."""

import re
from collections.abc import Sequence

NOTHING = "–"
# An underscore within a word is none.
_MARKUP = re.compile(r"([\\`*\[\]<>#|~&$]|(?<!\w)_|_(?!\w))")
_UNWRITABLE = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
# Directions of writing that could show what follows in another order.
_BIDI = re.compile("[\u202a-\u202e\u2066-\u2069\u200e\u200f\u061c]")
# What a forge makes a link of without any markup: mentions, addresses, numbers of issues.
_LINKED = re.compile(r"@|(?<=:)(?=//)|(?i:(?<=www)(?=\.))|(?<=#)(?=\d)")
_INVISIBLE = "\u200b"


def plain(value: str) -> str:
    """Text without markup, on one line; an invisible character keeps it from being a mention or a link."""
    parted = _LINKED.sub(lambda found: f"{found.group()}{_INVISIBLE}", one_line(value))
    return _MARKUP.sub(r"\\\1", parted)


def code(value: str) -> str:
    """A code span: no markup, no mention, no entity in it; a table's cell still ends at a bar."""
    inside = one_line(value).replace("`", "'")
    # A backslash that stands before the bar's own would be taken for the escaped one.
    inside = re.sub(r"\\(?=\|)", "\\\\\u200b", inside).replace("|", r"\|")
    return f"`{inside or NOTHING}`"


def table(
    heads: Sequence[str], rows: Sequence[Sequence[str]], *, numbers_from: int | None = None
) -> list[str]:
    """Its lines, of cells that are Markdown already; columns from `numbers_from` on are set to the right."""
    right = len(heads) if numbers_from is None else numbers_from
    rule = ["---" if at < right else "---:" for at in range(len(heads))]
    return [f"| {' | '.join(cells)} |" for cells in (heads, rule, *rows)]


def folded(title: str, lines: Sequence[str]) -> list[str]:
    """Lines that stand behind a title until they are asked for; `title` is Markdown without markup."""
    return ["", f"<details><summary>{title}</summary>", "", *lines, "", "</details>"]


def one_line(value: str) -> str:
    return " ".join(_BIDI.sub("\ufffd", _UNWRITABLE.sub("\ufffd", value)).split())


def fenced(value: str, language: str = "") -> list[str]:
    """Text on one line as a block of code, whatever is in it."""
    longest = max((len(run) for run in re.findall("`+", value)), default=0)
    fence = "`" * max(3, longest + 1)
    return [f"{fence}{language}", one_line(value), fence]
