"""Cells of tables: numbers, and the marks beside a row or number that may not be compared."""

from collections.abc import Mapping, Sequence

from serving_bench.harness.contracts import Fact, ServerTerm
from serving_bench.reports.checks.bounds import WORDS, Bound
from serving_bench.reports.checks.examine import mark_text, marks_of
from serving_bench.reports.checks.finding import Finding
from serving_bench.reports.data import Cell, Group, Run, device_samples, grouped, mean_gauge
from serving_bench.reports.measures import (
    NOTHING,
    Aggregate,
    Value,
    aggregate,
    counted,
    mean_text,
    metric_of,
    number,
    plural,
    pooled,
    shown,
    span_text,
    value_cells,
    values_of,
    why_missing,
    withheld,
    work_of,
)
from serving_bench.reports.measures.distributions import Spread
from serving_bench.reports.measures.fidelity import Fidelity
from serving_bench.reports.measures.memory_parts import Held, mean_parts
from serving_bench.reports.measures.quality import Quality
from serving_bench.reports.measures.slo import Attainment, Judged
from serving_bench.reports.measures.traffic.cache import Served
from serving_bench.reports.page.looks import Html, join, looks, macro, named, tag
from serving_bench.reports.page.parts import below
from serving_bench.reports.two_runs.compare import Reason
from serving_bench.reports.verdicts import State, comparisons_of, decisions_of
from serving_bench.reports.words import quality
from serving_bench.reports.words.claims import gib, repeat_word
from serving_bench.reports.words.report import STATES
from serving_bench.reports.words.verdict_words import (
    capital,
    is_slight,
    margin_text,
    objective_words,
    ratio_parts,
    short_word,
)

# What limits the server or bench itself is coloured; the other bounds are what was asked for.
_TONES = {
    "others": "warn",
    "client": "bad",
    "kv_cache": "warn",
    "slots": "warn",
    "compute": "",
    "unclear": "none",
}
# The columns of Side by side, and of the table of cells.
COMPARED = (
    "output_tokens_per_s", "requests_per_s", "ttft_s.p50", "ttft_s.p95", "tpot_s.p50", "e2e_s.p50",
    "memory_peak_bytes", "launch_s",
)  # fmt: skip
LEGEND = "At a row's name: ▲ suspect, ✕ invalid or failed, ≠ other prompts."
_TONES_OF_STATES: Mapping[State, str] = {"kept": "", "broken": "bad", "unclear": "warn", "unknown": "none"}


# --- numbers ---------------------------------------------------------------------------------------


def mean_cell(run: Run, group: Group, name: str) -> Html:
    """Return a group's mean of a value by its name (`ttft_s.p50`), with its interval."""
    return aggregate_cell(name, aggregate(run, group, name))


def aggregate_cell(name: str, aggregate: Aggregate, mark: Html | str = "") -> Html:
    """Return a mean, to the digits that its interval supports, and that interval or the range of two starts.

    Says how many starts have a value if not all do, and that a percentile is pooled over all starts if one
    lacks it. The tooltip has the n, or why there is no value.
    """
    if aggregate.mean is None and aggregate.pooled is None:
        return none_cell(aggregate.why or why_missing(name, Value(None, 0)))
    if aggregate.pooled is not None:
        title = f"n = {counted(aggregate.pooled.n, aggregate.pooled.requests)}; {aggregate.why}"
        return macro("measured", shown(name, aggregate.pooled.value), title, mark, [aggregate.pooled_over])
    word = "start" if aggregate.is_of_starts else "block"
    each = ", ".join(shown(name, value) for value in aggregate.values)
    title = f"n = {counted(aggregate.n, aggregate.requests)}; by {word}: {each}"
    some = f"{aggregate.k} of {len(aggregate.values)} {word}s" if aggregate.k < len(aggregate.values) else ""
    return macro("measured", mean_text(name, aggregate), title, mark, [span_text(name, aggregate), some])


def value_cell(name: str, value: Value | None, withheld: Fact | None = None) -> Html:
    """Return one value with its n in a tooltip; a dash if it is missing, or `withheld` for that reason."""
    value = value or Value(None, 0)
    if withheld or value.value is None:
        return none_cell(withheld or why_missing(name, value))
    return tag("span", shown(name, value.value), title=f"n = {counted(value.n, value.requests)}")


def pooled_cell(run: Run, name: str, spread: Spread) -> Html:
    """Return a value over the pooled requests of all starts."""
    return value_cell(name, pooled(run, spread.group, name))


def compared_cell(run: Run, name: str, group: Group) -> Html:
    """Return a group's mean, and below it its ratio to the column's reference, or why there is no ratio."""
    value, comparisons, at = mean_cell(run, group, name), comparisons_of(run), (*group.key[1:], name)
    rows = (row for row in comparisons.rows if group.deployment in (row.a, row.b))
    compared = next((row for row in rows if (row.scenario, row.load, row.metric) == at), None)
    if comparisons.why_none or compared is None:
        return value
    if compared.a != group.deployment:
        return join([value, tag("span", "reference", class_="range")])
    verdict = compared.verdict
    if verdict.kind == "none":
        return join([value, tag("span", str(verdict.why or "no verdict"), class_="range why-none")])
    ratio, interval = ratio_parts(name, verdict)
    word, margin = short_word(name, verdict), margin_text(run.record.compare.margin_share)
    how = f"by less than {margin}" if is_slight(verdict) else ""
    if verdict.kind == "unknown" and any(
        decision.leaders.get(name) == compared.b
        for decision in decisions_of(run)
        if decision.case.key == (group.scenario, group.load, group.model)
    ):
        word, how = metric_of(name).words[1], "by the leader's own test"
    both = [
        each for each in run.groups if each.key in {(label, *at[:2]) for label in (compared.a, compared.b)}
    ]
    marks = mark_html(marks_of(run, [cell for each in both for cell in value_cells(run, each)], name))
    title = f"{plural(verdict.k, 'block')}; interval at {100 * verdict.confidence:.4g} %"
    return macro("verdict", value, f"{ratio}, {word}", marks, title, verdict.kind, (how, interval))


def kept_cell(judgement: Judged | None) -> Html:
    """Return whether the windows keep the SLO, and each objective's share with its n and interval."""
    state = judgement.verdict if judgement else "unknown"
    shares = [line for each in judgement.attained for line in _share(each)] if judgement else []
    return below(
        tag("span", STATES[state], class_=_TONES_OF_STATES[state]),
        str((judgement and judgement.too_high) or ""),
        *shares,
    )


def _share(each: Attainment) -> list[str]:
    if each.share is None:
        return [f"{objective_words(each.objective)}: no request has a value"]
    low, high = (100 * end for end in each.interval)
    share = f"{objective_words(each.objective)} {100 * each.share:.1f} % of {each.n:,}"
    return [share, f"[{low:.1f}, {high:.1f}]"]


def none_cell(why: Fact | str) -> Html:
    """Return a dash whose tooltip says why there is no value."""
    return tag("span", NOTHING, title=str(why), class_="none", tabindex="0")


def inferred_cell(each: Served, scale: float = 1.0) -> Html:
    """Return `scale` times the cached tokens inferred from TTFT, with their interval."""
    if each.inferred is None:
        return none_cell(each.why or "")
    tokens, low, high = (number(value, 0, scale) for value in vars(each.inferred).values())
    return below(tokens, f"[{low}, {high}]")


def requests_cell(run: Run, group: Group) -> Html:
    """Return how many requests in a group's windows were ok, and how many failed."""
    numbers = [cell.number for cell in group.cells if cell.record]
    good, sent = (sum(int(of(each).sum()) for each in numbers) for of in (run.is_ok, run.is_counted))
    main = tag("span", f"{good:,} / {sent - good:,}", class_="bad" if sent > good else "")
    repeats, planned = (len({c.planned.repeat for c in cells}) for cells in (group.counted, group.cells))
    return below(main, f"{repeats} of {plural(planned, repeat_word(run))}")


def value_of_cell(run: Run, name: str, cell: Cell) -> Html:
    """Return the value of one cell, with its n in a tooltip."""
    return value_cell(name, values_of(run).get(cell.number, {}).get(name), withheld(run, cell.key, name))


def bound_cell(group: Group, bound: Bound) -> Html:
    """Return what limited a load, with its evidence.

    The load stands before it for narrow screens, where columns have no heads. What is not known stands once,
    below the table.
    """
    words = [
        tag("span", f"{group.load}: ", class_="at"),
        tag("span", WORDS[bound.kind], class_=_TONES.get(bound.kind, "quiet")),
    ]
    evidence = tag("span", f"{capital(bound.evidence)}.", class_="range why-none")
    return join([below(join(words), bound.agreement), evidence])


def gauge_cell(run: Run, group: Group, term: ServerTerm, scale: float) -> Html | str:
    """Return the mean and the peak of a value that the server reported in the windows."""
    gauge = mean_gauge(run, group, term)
    return below(number(gauge[0] * scale), f"peak {number(gauge[1] * scale)}") if gauge else NOTHING


def device_cell(run: Run, group: Group, column: str, how: str) -> str:
    """Return the `mean` or `max` over the device samples in the windows."""
    samples = device_samples(run, group).reindex(columns=[column])[column].dropna()
    return number(float(samples.agg(how)), 0) if len(samples) else NOTHING


def part_cell(name: str, memory: Held) -> Html | str:
    """Return the size of a part of the memory in GiB, and how it is known."""
    part = mean_parts(memory.starts).get(name)
    return below(gib(part.size_bytes), *part.sources) if part else NOTHING


def fidelity_cells(run: Run, of: Quality, by_way: Fidelity | None) -> dict[str, Html | str]:
    """Return a deployment's divergence from its reference by one way of asking, or why it is not known."""
    if by_way:
        nats = below(quality.nats(by_way.kl_nats), quality.ends(by_way.interval) or str(by_way.few or ""))
    else:
        nats = below("reference" if of.is_reference else NOTHING, str(of.why or ""))
    return {
        "deployment": named(looks(run)[of.label]),
        "KL nats": nats,
        **(quality.fidelity_texts(by_way) if by_way else {}),
    }


# --- marks -----------------------------------------------------------------------------------------


def mark_html(reasons: Sequence[Finding | Reason]) -> Html:
    """Return ` ▲ 2`, a link to the reasons (to the reason, if there is one); empty for none."""
    if not reasons:
        return Html("")
    titles = "; ".join(dict.fromkeys(each.title for each in reasons))
    href = f"#distrust-{reasons[0].check}" if len(reasons) == 1 else "#distrust"
    return macro("doubt", mark_text(reasons), href, titles, plural(len(reasons), "reason"))


def name_cell(run: Run, group: Group) -> Html:
    """Return a group's deployment with its marks, and what is wrong with the group's cells."""
    return join([named(looks(run)[group.deployment]), cell_marks(run, group)])


def cell_marks(run: Run, group: Group) -> Html:
    """Return what is wrong with the cells of a row: `▲ starts 1, 3 suspect`, the reasons in the tooltip."""
    marks = []
    if why := work_of(run).per_token_only.get(group.key):
        marks.append(tag("span", "▲ per-token figures only", title=str(why), class_="said warn"))
    doubted = [cell for cell in group.cells if cell.became != "valid"]
    for word, cells in grouped(doubted, lambda cell: cell.became).items():
        sign, kind = ("▲", "warn") if word == "suspect" else ("✕", "bad")
        starts = {cell.planned.repeat + 1: cell.reason for cell in cells}
        text = f"{sign} start{'s' if len(starts) > 1 else ''} {', '.join(map(str, starts))} {word}"
        reasons = "; ".join(f"start {start}: {reason}" for start, reason in starts.items() if reason)
        marks.append(tag("span", text, title=reasons or word, class_=f"said {kind}"))
    return join(marks)
