"""Names, objectives, verdicts and ratios in words, the same on the page, on the terminal and in the gate."""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence

from serving_bench.harness.contracts import Fact, Objective
from serving_bench.reports.data import Group, Run
from serving_bench.reports.measures import MEANS_APART, aggregate, metric_of, plural
from serving_bench.reports.stats.intervals import Best, Kind, Verdict
from serving_bench.reports.verdicts import SECONDARY, Decision, comparisons_of, decisions_of

_SHORT = {"ttft_s": "TTFT", "itl_s": "ITL", "tpot_s": "TPOT", "e2e_s": "E2E"}
_TITLES = {
    "output_tokens_per_s": "output tokens/s",
    "input_tokens_per_s": "input tokens/s",
    "requests_per_s": "requests/s",
    "input_tokens": "input tokens",
    "output_tokens": "output tokens",
    "prefill_tokens_per_s": "prefill tokens/s (pp)",
    "decode_tokens_per_s": "decode tokens/s (tg)",
    "batch_tokens_per_s": "tokens/s of the batch",
    "steps_per_s": "steps/s",
    "answered_per_s": "answered/s",
    "cores_used": "cores used",
    "output_tokens_per_s_per_core": "tokens/s per core",
}
# The interval of three starts in a large family may be absurdly wide.
_FACTOR_AT_MOST = 1000


def title_of(name: str) -> str:
    """Return a value's name as it stands in a sentence, without its unit: `TTFT p95`, `output tokens/s`."""
    metric, _, level = name.partition(".")
    title = _SHORT.get(metric) or _TITLES.get(metric) or metric_of(name).title
    return f"{title} {level}" if level else title


def heading_of(name: str, unit: str | None = None) -> str:
    """Return a column's head: `TTFT p95 ms`. `unit` replaces the metric's own, for instance by a currency."""
    return f"{title_of(name)} {unit_beside(name, unit)}".rstrip()


def unit_beside(name: str, unit: str | None = None) -> str:
    """Return the unit that stands beside a value's title; empty if the title says it."""
    return "" if name.partition(".")[0] in _TITLES else unit or metric_of(name).shown_unit


def slo_words(slo: Sequence[Objective]) -> str:
    """Return `p95 TTFT 300 ms, p95 TPOT 20 ms, 99 % success`."""
    return ", ".join(
        f"{100 * each.share:g} % success"
        if each.limit_s is None
        else f"{objective_words(each)} {1e3 * each.limit_s:g} ms"
        for each in slo
    )


def objective_words(objective: Objective) -> str:
    """Return an objective without its limit: `p95 TTFT`, `success`."""
    if objective.limit_s is None:
        return objective.metric
    return f"p{100 * objective.share:g} {_SHORT.get(objective.metric, objective.metric)}"


def margin_text(margin_share: float) -> str:
    """Return `5 %`."""
    return f"{100 * margin_share:g} %"


def sure_text(alpha: float) -> str:
    """Return a level as confidence: `96 % confidence` for 0.04."""
    return f"{100 * (1 - alpha):.4g} % confidence"


def family_text(count: int, alpha: float = 0.05) -> str:
    """Return how sure `count` verdicts are that are decided together (reports/stats/intervals.py)."""
    return f"{sure_text(alpha)}, {f'corrected for {count:,} comparisons' if count > 1 else 'one comparison'}"


def word_of(name: str, verdict: Verdict, margin_share: float) -> str:
    """Return `faster`, `same within 5 %`, `cannot tell` or `no verdict`.

    If the interval lies within the margin and leaves out 1, it is `faster, by less than 5 %`.
    """
    word = short_word(name, verdict)
    if verdict.kind == "same":
        return f"{word}{', by less than' if is_slight(verdict) else ' within'} {margin_text(margin_share)}"
    return word


def short_word(name: str, verdict: Verdict) -> str:
    """Return `faster`, `same`, `cannot tell` or `no verdict`."""
    metric = metric_of(name)
    better, worse = metric.words
    if is_slight(verdict):
        return better if ((verdict.low or 0.0) > 1) == (metric.better == "higher") else worse
    return {
        "better": better, "worse": worse, "same": "same", "unknown": "cannot tell", "none": "no verdict"
    }[verdict.kind]  # fmt: skip


def is_slight(verdict: Verdict) -> bool:
    """Return whether there is a difference, but within the margin: its interval leaves out 1."""
    low, high = verdict.low or 0.0, verdict.high or 0.0
    return verdict.kind == "same" and not low <= 1 <= high and low < high


def ratio_text(name: str, verdict: Verdict) -> str:
    """Return `1.31x [1.24, 1.38]`, or a difference with its unit, `+2.1 [+0.4, +3.8] tokens per request`.

    Empty if there is no interval.
    """
    return " ".join(ratio_parts(name, verdict)).strip()


def ratio_parts(name: str, verdict: Verdict) -> tuple[str, str]:
    """Return `1.31x` and `[1.24, 1.38]`, or a difference and its interval with its unit; or nothing."""
    if verdict.ratio is None or verdict.low is None or verdict.high is None or verdict.k < 2:
        return "", ""
    values = (verdict.ratio, verdict.low, verdict.high)
    if verdict.is_log:
        return ratio_with_ends(*values)
    metric = metric_of(name)
    scaled = [value * metric.shown_scale + 0.0 for value in values]  # no -0.0
    places = max(metric.digits, _places_to_see(max(map(abs, scaled))))
    mean, low, high = (f"{value:+,.{places}f}".replace("-", "−") for value in scaled)
    return mean, f"[{low}, {high}] {metric.shown_unit}"


def change_text(name: str, verdict: Verdict) -> str:
    """Return `3 % less [5 % less, 1 % less]`, or from a factor of 2 on `2.10x [1.90x, 2.30x]`.

    A difference, and a verdict without an interval, read as in `ratio_text`.
    """
    if verdict.ratio is None or verdict.low is None or verdict.high is None or not verdict.is_log:
        return ratio_text(name, verdict)
    values = (verdict.ratio, verdict.low, verdict.high)
    changes = (_change(value, _places(*values)) for value in values)
    return "{} [{}, {}]".format(*changes) if verdict.k > 1 else ""


def _change(factor: float, places: int) -> str:
    if round(factor, places) >= 2:
        return f"{_factor(factor, places)}x"
    return f"{100 * abs(factor - 1):.{places - 2}f} % {'less' if factor < 1 else 'more'}"


def ratio_words(mean: float, low: float, high: float) -> str:
    """Return `1.31x [1.24, 1.38]`."""
    return " ".join(ratio_with_ends(mean, low, high))


def ratio_with_ends(mean: float, low: float, high: float) -> tuple[str, str]:
    """Return `1.31x` and `[1.24, 1.38]`.

    A narrow interval gets up to three decimal places, and one that nearly touches 1 as many as show that it
    leaves 1 out.
    """
    narrow = min(2 if mean >= 1 else 3, _places_to_see(min(mean - low, high - mean)))
    beside = 0 if low <= 1 <= high else min(4, _places_to_see(min(abs(low - 1), abs(high - 1))))
    places = max(3 if mean < 0.1 else 2, narrow, beside) - (low >= 10)
    ratio, *ends = (_factor(value, places) for value in (mean, low, high))
    return f"{ratio}x", f"[{', '.join(ends)}]"


def _places(mean: float, low: float, high: float) -> int:
    gaps = [mean - low, high - mean, *(abs(end - 1) for end in (low, high) if end != 1)]
    return max(3 if mean < 0.1 else 2, min(4, _places_to_see(min(gaps))))


def bound_words(ratio: float, bound: float) -> tuple[str, str]:
    """Return a ratio and its bound on the side of 1: `1.14x` and `1.06x`.

    The bound is rounded toward 1. Both have as many decimal places as it takes not to show the bound as 1.
    """
    places = min(6, max(2, math.ceil(-math.log10(abs(bound - 1) or 1e-9))))
    step, toward = 10**places, math.floor if bound > 1 else math.ceil
    return f"{ratio:.{places}f}x", f"{toward(round(bound * step, 6)) / step:.{places}f}x"


def _factor(value: float, places: int) -> str:
    least = 10.0**-places
    if value > _FACTOR_AT_MOST or 0 < value < least / 2:
        return f">{_FACTOR_AT_MOST:,}" if value > 1 else f"<{least:.{places}f}"
    return f"{value:,.{0 if value >= 100 else places}f}"


def _places_to_see(value: float) -> int:
    return 0 if value < 1e-9 else min(6, max(0, math.ceil(-math.log10(2 * value))))


def clipped(words: Fact | str, most: int) -> str:
    """Return it in at most `most` characters, cut between words and ended by an ellipsis if need be."""
    text = str(words)
    if len(text) <= most:
        return text
    head, space, _ = text[:most].rpartition(" ")
    return f"{(head if space and len(head) > most // 2 else text[: most - 1]).rstrip(' ,;:(')}…"


def capital(text: str) -> str:
    return text[:1].upper() + text[1:]


# --- titles of charts -------------------------------------------------------------------------------


def title_at(run: Run, name: str, groups: Sequence[Group]) -> str | None:
    """Return who leads in a value (`ttft_s.p50`), and over which loads around the one that is decided.

    None if no one does. `groups`: some or all loads of one family of a scenario.
    """
    if len({group.model for group in groups}) != 1:
        return None
    labels = list(dict.fromkeys(group.deployment for group in groups))
    loads = dict.fromkeys(group.load for group in sorted(groups, key=lambda group: group.level))
    first = groups[0]
    kinds = {load: _kinds(run, first.scenario, load, name, labels) for load in loads}
    leaders = {
        load: next((label for label, against in shown_load.items() if against == {"better"}), None)
        for load, shown_load in kinds.items()
    }
    cases = {(first.scenario, load, first.model) for load in loads}
    decision = next((each for each in decisions_of(run) if each.case.key in cases), None)
    told_load = decision.case.load if decision else list(loads)[-1]
    if decision and (label := decision.leaders.get(name)):
        if decision.left_out and (decision.slo_row or decision.beyond):
            within = f"within the {'SLO' if decision.slo_row else 'quality limit'}"
            return f"{label} {_superlative(name)} {within} at {told_load}"
        leaders[told_load] = label
    elif decision and decision.groups[1:] and name in (decision.metric, *SECONDARY):
        leaders[told_load] = None  # verdicts compare pairs, at another level than the decision
    if leaders[told_load]:
        return f"{leaders[told_load]} {_superlative(name)} {where_it_leads(leaders, told_load)}"
    if set.union(*kinds[told_load].values()) == {"same"}:
        within = f"within {margin_text(run.record.compare.margin_share)}"
        return f"{capital(title_of(name))}: the same {within} at {told_load}"
    return None


def _kinds(run: Run, scenario: str, load: str, name: str, labels: Sequence[str]) -> dict[str, set[Kind]]:
    comparisons = comparisons_of(run)
    return {
        label: {
            verdict.kind if (verdict := comparisons.of(scenario, load, name, label, other)) else "none"
            for other in labels
            if other != label
        }
        for label in labels
    }


def _superlative(name: str) -> str:
    return f"{'gives the most' if metric_of(name).better == 'higher' else 'has the lowest'} {title_of(name)}"


def where_it_leads(leaders: Mapping[str, str | None], load: str) -> str:
    """Return over which loads around `load` the leader stays the same.

    `at every load`, `up to 16 users`, `from 16 users on`, `at 16 users` or `from 4 to 16 users`. `leaders`
    has the leader at each load, lowest load first.
    """
    loads = list(leaders)
    spans = (list(span) for _, span in itertools.groupby(loads, key=leaders.get))
    span = next(span for span in spans if load in span)
    first, last = span[0], span[-1]
    if first == last:
        return f"at {first}"
    if first == loads[0]:
        return "at every load" if last == loads[-1] else f"up to {last}"
    return f"from {first} on" if last == loads[-1] else f"from {first} to {last}"


# --- what a winner uses for its speed -------------------------------------------------------------


def price_of(run: Run, decision: Decision, best: Best) -> str:
    """Return the leader's memory, cores and devices compared with those of the next best, as clauses."""
    verdict = comparisons_of(run).of(
        decision.case.scenario, decision.case.load, "memory_peak_bytes", best.leader, best.next
    )
    clause = ""
    if verdict and verdict.ratio and verdict.kind not in ("none", "unknown"):
        clause = f", with {'the same' if verdict.kind == 'same' else f'{verdict.ratio:.2f}x the'} memory"
    # Clauses on the next best come first: a comma sorts before a semicolon.
    return clause + "".join(sorted(_means(run, decision, best)))


def _means(run: Run, decision: Decision, best: Best) -> Iterator[str]:
    """Yield a clause on the leader's cores and on its devices, where they differ from the next best's.

    Where only other contenders differ, the clause names the one that differs most. Threads are compared only
    if no cores were measured.
    """
    has_cores = any(_amount_of(run, group, "cores") for group in decision.groups)
    for title in ("cores", "devices", *(() if has_cores else ("threads",))):
        amounts = {group.deployment: _amount_of(run, group, title) for group in decision.groups}
        amount, digits = amounts[best.leader], int(title == "cores")
        apart = {
            label: much
            for label, other in amounts.items()
            if min(amount, other) >= 0.05 and (much := abs(math.log(amount / other))) > math.log(MEANS_APART)
        }
        other = best.next if best.next in apart else max(apart, key=lambda label: apart[label], default="")
        if other == best.next:
            ratio = amount / amounts[other]
            yield f", on {ratio:.1f}x the {title} ({amount:.{digits}f} against {amounts[other]:.{digits}f})"
        elif other:
            used = f"{amounts[other]:.1f} cores" if digits else plural(round(amounts[other]), title[:-1])
            yield f"; {other} used {used}, {best.leader} {amount:.{digits}f}"


def _amount_of(run: Run, group: Group, title: str) -> float:
    starts = run.starts_of(group.deployment)
    if title == "cores":
        return aggregate(run, group, "cores_used").mean or 0.0
    if title == "devices":
        return max((len(start.devices) for start in starts), default=0)
    threads = (start.resolved.get("threads") for start in starts)
    return next((float(each) for each in threads if isinstance(each, int | float)), 0.0)
