"""How tables write numbers, and what they say beside a row or a number that may not be compared."""

from collections.abc import Sequence

from reports.checks.examine import mark_text
from reports.checks.finding import Finding
from reports.data.cells import Cell, Group, grouped
from reports.data.run import Run
from reports.measures.equal_work import work_of
from reports.measures.metrics import Value, counted, why_missing
from reports.measures.over_starts import Aggregate, aggregate, shorter_half
from reports.measures.written import NOTHING, plural, shown, span_text, supported
from reports.page.markup import Html, join, tag
from reports.two_runs.compare import Reason

LEGEND = "At a row's name: ▲ suspect, ✕ invalid or failed, ≠ other prompts."


# --- numbers ---------------------------------------------------------------------------------------


def mean_cell(run: Run, group: Group, name: str) -> Html:
    """Return a group's mean of a value by its name (`ttft_s.p50`), with its interval."""
    return aggregate_cell(name, aggregate(run, group, name))


def aggregate_cell(name: str, found: Aggregate, mark: Html | str = "") -> Html:
    """Return a mean with the digits its interval supports, and that interval (of two starts their range).

    Says how many starts have a value if not all, and that a percentile is pooled over all where a start lacks
    it. The tooltip has the n, or why there is no value.
    """
    if found.mean is None and found.pooled is None:
        return none_cell(found.why or why_missing(name, 0))
    if found.pooled is not None:
        title = f"n = {counted(found.pooled.n, found.pooled.requests)}; {found.why}"
        main = tag("span", shown(name, found.pooled.value), title=title)
        return join([main, mark, tag("span", found.pooled_over, class_="range")])
    word = "start" if found.is_of_starts else "block"
    each = ", ".join(shown(name, value) for value in found.values)
    title = f"n = {counted(found.n, found.requests)}; by {word}: {each}"
    main = tag("span", supported(name, found.mean, shorter_half(found)), title=title)
    few = f"{found.k} of {len(found.values)} {word}s" if found.k < len(found.values) else ""
    said = [tag("span", part, class_="range") for part in (span_text(name, found), few) if part]
    return join([main, mark, *said])


def value_cell(name: str, found: Value | None, withheld: str | None = None) -> Html:
    """Return one cell's value, with its n in a tooltip; none where it is withheld, for that reason."""
    if withheld or found is None or found.value is None:
        missing = why_missing(name, found.n, found.requests) if found else why_missing(name, 0)
        return none_cell(withheld or missing)
    return tag("span", shown(name, found.value), title=f"n = {counted(found.n, found.requests)}")


def none_cell(why: str) -> Html:
    """Return a dash whose tooltip says why there is no value."""
    return tag("span", NOTHING, title=why, class_="none", tabindex="0")


def starts_that_count(group: Group) -> str:
    """Return `1 of 2`: the starts whose cells are in a row's values."""
    counted_of, all_of = ({cell.planned.repeat for cell in cells} for cells in (group.counted, group.cells))
    return f"{len(counted_of)} of {len(all_of)}"


# --- marks -----------------------------------------------------------------------------------------


def mark_html(found: Sequence[Finding | Reason]) -> Html:
    """Return ` ▲ 2`, a link to the reasons, or to the only one; nothing for none."""
    if not found:
        return Html("")
    titles = "; ".join(dict.fromkeys(each.title for each in found))
    href = f"#distrust-{found[0].check}" if len(found) == 1 else "#distrust"
    label = f"{plural(len(found), 'reason')} to distrust this: {titles}"
    return join([" ", tag("a", mark_text(found), href=href, class_="doubt", title=titles, aria_label=label)])


def became(cell: Cell) -> str:
    """Return a completed cell's validity, the status of any other."""
    return cell.validity if cell.status == "completed" else cell.status


def cell_marks(run: Run, group: Group) -> Html:
    """Return what is wrong with the cells of a row: `▲ starts 1, 3 suspect`, the reasons in the tooltip."""
    said = []
    if why := work_of(run).per_token_only.get(group.key):
        said.append(tag("span", "▲ per-token figures only", title=why, class_="said warn"))
    for word, cells in grouped(group.cells, became).items():
        sign, kind = ("▲", "warn") if word == "suspect" else ("✕", "bad")
        starts = [str(cell.planned.repeat + 1) for cell in cells]
        text = f"{sign} start{'s' if len(starts) > 1 else ''} {', '.join(starts)} {word}"
        reasons = "; ".join(
            f"start {start}: {cell.reason}" for start, cell in zip(starts, cells, strict=True) if cell.reason
        )
        if word != "valid":
            said.append(tag("span", text, title=reasons or word, class_=f"said {kind}"))
    return join(said)
