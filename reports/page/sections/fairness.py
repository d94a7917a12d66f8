"""The fairness ledger: what was asked of each deployment, and what its server says that it uses."""

from collections.abc import Mapping, Sequence

from reports.checks.ledger import (
    AS_STARTED,
    ITS_DEFAULT,
    MORE_SHARE,
    NOT_SAID,
    NOTHING_ASKED,
    Entry,
    Ledger,
    Row,
    ledger_of,
)
from reports.data.run import Run
from reports.measures.equal_work import counted_prompts, work_of
from reports.measures.written import NOTHING, several
from reports.page.charts import Section
from reports.page.looks import looks, named
from reports.page.markup import LONG_WORD, Head, Html, Of, join, paragraph, table, tag

_MODES = {
    "matched": "context length, requests served at once, KV cache and prefix cache are asked to be the "
    "same, and sampling parameters are sent with each request",
    "stock": "each engine with its own defaults; only what was given is asked",
    "tuned": "as matched, with each engine's named set of options on top",
}
_NOTE = (
    "Asked → what the server says that it uses, of all its starts. ✕: not what was asked, or the engine "
    f"could not be told. ▲: a KV cache of more than {100 * MORE_SHARE:.0f} % above what was asked, which is "
    "another budget, or starts that disagree. “not said”: the server does not tell; “–”: nor was it asked."
)
_PROMPTS = {"user": "prompt of one user message", "system": "the same with a system message",
            "turns": "prompt of three messages"}  # fmt: skip


def section(run: Run) -> Section | None:
    """None where nothing was asked and no server said anything."""
    ledger = ledger_of(run)
    prompts = _prompts(run)
    if not (ledger.rows or ledger.kernels or prompts):
        return None
    notes = _Notes()
    rows = [_row(row, notes) for row in (*ledger.rows, *ledger.kernels)] + prompts
    found = looks(run)
    columns = [Head("term"), *(Head(named(found[label]), Of(label)) for label in run.deployments)]
    parts = [_modes(ledger), paragraph(_NOTE), table(columns, rows, "ledger", "Fairness")]
    return Section("Fairness: what was asked and what was got", join([*parts, *notes.shown()]))


class _Notes:
    """Clauses in the order in which cells refer to them; each clause has one number."""

    def __init__(self) -> None:
        self._clauses: list[str] = []

    def reference(self, clause: str) -> Html:
        if clause not in self._clauses:
            self._clauses.append(clause)
        return tag("sup", str(self._clauses.index(clause) + 1))

    def shown(self) -> list[Html]:
        items = [tag("li", clause) for clause in self._clauses]
        return [tag("ol", *items, class_="note ledger-notes")] if items else []


def _modes(ledger: Ledger) -> Html:
    said: list[Html | str] = []
    for mode, labels in ledger.modes.items():
        whose = "" if len(ledger.modes) == 1 else f" ({several(labels)})"
        said += [tag("code", f"engine.fairness={mode}"), f"{whose}: {_MODES.get(mode, mode)}. "]
    return tag("p", *said, class_="sub")


def _row(row: Row, notes: _Notes) -> Sequence[Html | str]:
    uneven = [tag("span", "not the same everywhere", class_="said warn")] if row.is_uneven else []
    return [join([row.title, *uneven]), *(_cell(entry, notes) for entry in row.entries.values())]


def _cell(entry: Entry, notes: _Notes) -> Html:
    parts: list[Html | str] = []
    is_asked = entry.asked_text not in (None, NOTHING_ASKED)
    if entry.asked_text is not None and (is_asked or entry.got):
        parts += [_asked(entry.asked_text), " → "]
    parts.append(_got(entry) if is_asked or entry.got else tag("span", NOTHING, class_="none"))
    if entry.clause:
        parts.append(notes.reference(entry.clause))
    if words := _words(entry):
        kind = "bad" if entry.is_off else "warn"
        parts.append(tag("span", words, class_=f"said {kind}"))
    if entry.disagrees:
        parts.append(tag("span", "▲ starts disagree", class_="said warn"))
    return tag("div", *parts, class_=f"entry{' off' if entry.is_off else ''}")


def _asked(asked: str) -> Html:
    is_none = asked in (NOTHING_ASKED, ITS_DEFAULT, AS_STARTED)
    return tag("span", asked, class_="asked none" if is_none else "asked")


def _got(entry: Entry) -> Html:
    if not entry.got:
        return tag("span", NOT_SAID, class_="none")
    is_long = max(map(len, entry.got_text.split())) > LONG_WORD
    return tag("b", entry.got_text, class_="long") if is_long else tag("b", entry.got_text)


def _words(entry: Entry) -> str:
    if entry.share_above is not None:
        return f"▲ {100 * entry.share_above:.0f} % more"
    return {
        "same": "",
        "less": "✕ less than asked",
        "more": "✕ more than asked",
        "other": "✕ not what was asked",
        "untold": "✕ could not be told",
    }[entry.state]


def _prompts(run: Run) -> list[Sequence[Html | str]]:
    """Rows of the fixed prompts' tokens; none where no server counted them."""
    counts = {label: counted_prompts(run.starts_of(label)) for label in run.deployments}
    return [
        [f"{title}, tokens", *(_prompt(run, label, found, name) for label, found in counts.items())]
        for name, title in _PROMPTS.items()
        if any(name in found for found in counts.values())
    ]


def _prompt(run: Run, label: str, counts: Mapping[str, int], name: str) -> Html:
    if name not in counts:
        return tag("div", tag("span", NOT_SAID, class_="none"), class_="entry")
    return tag("div", tag("b", f"{counts[name]:,}"), _other_prompts(run, label), class_="entry")


def _other_prompts(run: Run, label: str) -> Html | str:
    if label not in work_of(run).unlike:
        return ""
    letter = work_of(run).prompt_class(label)
    if letter == "A":
        return tag("span", "prompts A", class_="said quiet")
    return tag("span", f"≠ prompts {letter}", class_="said warn")
