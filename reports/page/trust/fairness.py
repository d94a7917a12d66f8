"""The fairness ledger on the page: what was asked of each deployment, and what its server says it uses."""

from collections.abc import Iterator, Sequence

from reports.checks.ledger import MORE_SHARE, NOT_ASKED, NOT_SAID, Entry, Row, ledger_of
from reports.data.run import Run
from reports.measures.equal_work import counted_prompts, work_of
from reports.measures.written import NOTHING, plural, several
from reports.page.listed import fold
from reports.page.looks import looks, named
from reports.page.markup import LONG_WORD, Head, Html, Of, join, paragraph, table, tag

_MODES = {
    "matched": "context length, requests served at once, KV cache and prefix cache are asked to be the same",
    "stock": "each engine with its own defaults; only what was given is asked",
    "tuned": "as matched, with each engine's named set of options on top",
}
_NOTE = (
    "Asked → what the server says that it uses, of all its starts. ✕: not what was asked, or the engine "
    f"could not be told. ▲: a KV cache of more than {100 * MORE_SHARE:.0f} % above what was asked, which is "
    "another budget, or starts that disagree. “not said”: the server does not tell; “–”: nor was it asked."
)
_WORDS = {
    "same": "",
    "less": "✕ less than asked",
    "more": "✕ more than asked",
    "other": "✕ not what was asked",
    "untold": "✕ could not be told",
}
_PROMPTS = {"user": "prompt of one user message", "system": "the same with a system message",
            "turns": "prompt of three messages"}  # fmt: skip


def fairness_part(run: Run) -> Html | None:
    """Return None where nothing was asked and no server said anything."""
    ledger, prompts = ledger_of(run), list(_prompts(run))
    if not ledger and not prompts:
        return None
    clauses = [entry.clause for row in ledger for entry in row.entries.values() if entry.clause]
    notes = list(dict.fromkeys(clauses))
    rows = [*(_row(row, notes) for row in ledger), *prompts]
    columns = [Head("term"), *(Head(named(look), Of(name)) for name, look in looks(run).items())]
    numbered = [tag("ol", *(tag("li", note) for note in notes), class_="note ledger-notes")] if notes else []
    off = sum(entry.is_off for row in ledger for entry in row.entries.values())
    claim = f"{plural(off, 'term')} not as asked" if off else "all terms are as asked, as far as servers tell"
    parts = [_modes(run), paragraph(_NOTE), table(columns, rows, "ledger", "Fairness"), *numbered]
    return fold("fairness", "Fairness", claim, *parts)


def _modes(run: Run) -> Html:
    modes: dict[str, list[str]] = {}
    for label, deployment in run.deployments.items():
        modes.setdefault(deployment.terms.fairness, []).append(label)
    said: list[Html | str] = []
    for mode, labels in modes.items():
        whose = "" if len(modes) == 1 else f" ({several(labels)})"
        said += [tag("code", f"engine.fairness={mode}"), f"{whose}: {_MODES.get(mode, mode)}. "]
    return tag("p", *said, class_="note")


def _row(row: Row, notes: Sequence[str]) -> Sequence[Html | str]:
    uneven = [tag("span", "not the same everywhere", class_="said warn")] if row.is_uneven else []
    return [join([row.term.title, *uneven]), *(_cell(entry, notes) for entry in row.entries.values())]


def _cell(entry: Entry, notes: Sequence[str]) -> Html:
    parts: list[Html | str] = []
    if entry.term.is_asked and (entry.got or entry.asked is not None):
        is_none = entry.asked_text in NOT_ASKED
        parts += [tag("span", entry.asked_text, class_="asked none" if is_none else "asked"), " → "]
    parts.append(_got(entry))
    if entry.clause:
        parts.append(tag("sup", str(notes.index(entry.clause) + 1)))
    above = entry.share_above
    words = f"▲ {100 * above:.0f} % more" if above is not None else _WORDS[entry.state]
    if words:
        parts.append(tag("span", words, class_=f"said {'bad' if entry.is_off else 'warn'}"))
    if len(entry.got) > 1:
        parts.append(tag("span", "▲ starts disagree", class_="said warn"))
    return tag("div", *parts, class_=f"entry{' off' if entry.is_off else ''}")


def _got(entry: Entry) -> Html:
    if not entry.got:
        return tag("span", NOT_SAID if entry.asked is not None else NOTHING, class_="none")
    is_long = max(map(len, entry.got_text.split())) > LONG_WORD
    return tag("b", entry.got_text, class_="long") if is_long else tag("b", entry.got_text)


def _prompts(run: Run) -> Iterator[Sequence[Html | str]]:
    """Yield rows of the fixed prompts' tokens, of those that any server counted."""
    counts = {label: counted_prompts(run.starts_of(label)) for label in run.deployments}
    for name, title in _PROMPTS.items():
        if any(name in found for found in counts.values()):
            cells = (_prompt(run, label, found.get(name)) for label, found in counts.items())
            yield [f"{title}, tokens", *cells]


def _prompt(run: Run, label: str, tokens: int | None) -> Html:
    if tokens is None:
        return tag("div", tag("span", NOT_SAID, class_="none"), class_="entry")
    parts = [tag("b", f"{tokens:,}")]
    if label in work_of(run).unlike:
        letter = work_of(run).prompt_class(label)
        is_most = letter == "A"
        words = f"{'' if is_most else '≠ '}prompts {letter}"
        parts.append(tag("span", words, class_=f"said {'quiet' if is_most else 'warn'}"))
    return tag("div", *parts, class_="entry")
