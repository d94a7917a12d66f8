"""The run's answer in sentences: what to serve, by how much it leads, how sure that is, and when not to.

Puts the decisions of reports/verdicts/decisions.py into words, including those of a search.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

from serving_bench.reports.checks.examine import SIGN, findings_of
from serving_bench.reports.data import Group, Run, command, has_failed, once, resumed
from serving_bench.reports.measures import mean_text, metric_of, plural, several, span_text
from serving_bench.reports.measures.quality import quality_of
from serving_bench.reports.stats.intervals import STARTS_NEEDED, Best
from serving_bench.reports.verdicts import (
    MEMORY,
    Capacity,
    Decision,
    decisions_of,
    place_of_case,
    why_early,
)
from serving_bench.reports.words import quality
from serving_bench.reports.words.described import more_repeats
from serving_bench.reports.words.verdict_words import (
    bound_words,
    capital,
    clipped,
    margin_text,
    price_of,
    ratio_words,
    slo_words,
    sure_text,
    title_of,
    unit_beside,
)

_HEADLINE_AT_MOST, _REASON_AT_MOST = 160, 200
# Metrics that may matter more to a reader, in the order in which they are looked at, and what their leader
# does.
_UNLESS = {
    "ttft_s.p50": "answers first",
    MEMORY: "needs the least",
    "tpot_s.p50": "streams fastest",
    "energy_j_per_output_token": "needs the least",
}
_BETTER = {"memory": "and needs less memory", "quality": "and its answers are nearer to the reference's"}
# Why there is no test, if more repeats may help.
_OF_FEW = ("busy", "verdict_needs_repeats", "race_too_early")
# Said of the reference server, the only one without a model.
_NOT_SERVED = "It measures bench itself: there is nothing to serve."


@dataclass(frozen=True)
class Said:
    """An answer: `lead` names the outcome ("Serve vllm awq"), `gist` begins to say why, and `rest` goes on.

    `unless`: when another deployment is better. `advice` and `command`: what to run to know more.
    """

    lead: str
    gist: str
    rest: str = "."
    unless: str = ""
    advice: str = ""
    command: str = ""

    @property
    def text(self) -> str:
        return self.gist + self.rest

    @property
    def note(self) -> str:
        return f"{self.advice}: {self.command}" if self.command else self.advice

    @property
    def sentence(self) -> str:
        return f"{self.lead}. {self.text}".strip()

    @property
    def body(self) -> str:
        """All that follows the lead."""
        return " ".join(filter(None, (self.text, self.unless, self.note)))

    @property
    def plain(self) -> str:
        return f"{self.lead}. {self.body}".strip()


@once
def answers_of(run: Run) -> tuple[Said, ...]:
    """Return one answer for each scenario and model, and with an SLO for each family of loads."""
    answers = [
        (decision, _resumed_first(run, decision, _answer(run, decision))) for decision in decisions_of(run)
    ]
    return tuple(
        replace(each, advice=f"{_NOT_SERVED} {each.advice}".strip()) if decision.case.model == "-" else each
        for decision, each in answers
    ) or (_nothing_measured(run),)


def _resumed_first(run: Run, decision: Decision, answer: Said) -> Said:
    """Return an answer that advises no more repeats before a run that was cut short is whole."""
    if not answer.command or not run.is_cut_short or decision.leader:
        return answer
    when = ", once the machine is idle, as bench doctor will show" if decision.is_for_busy else ""
    return replace(answer, advice=f"What was not measured may settle it{when}", command=resumed(run))


def _answer(run: Run, decision: Decision) -> Said:
    where = place_of_case(run, decision.case)
    if decision.best:
        where += " within the SLO" if decision.slo_row else ""
        return {"same": _same, "open": _open}.get(decision.kind, _named)(run, decision, decision.best, where)
    return {"values": _values, "only": _only}.get(decision.kind, _none)(run, decision, where)


def headline(run: Run) -> str:
    """Return how the answer begins and how many reasons there are to distrust it, in at most 160 characters.

    For a terminal and the index of runs. If there are several answers, it is the first and says how many more
    there are.
    """
    answers, count = answers_of(run), len(findings_of(run))
    more = f" (and {len(answers) - 1} more)" if len(answers) > 1 else ""
    end = more + (f" ({SIGN} {plural(count, 'reason')} to distrust)" if count else "")
    short = f"{answers[0].lead}. {answers[0].gist}"
    return clipped(" ".join(short.split()), _HEADLINE_AT_MOST - len(end)) + end


def basis(run: Run) -> str:
    """Return the rule that names a winner, as a sentence; empty if no test was made."""
    tested = [decision for decision in decisions_of(run) if decision.best]
    if not tested:
        is_ordered = any(
            decision.kind == "only" and decision.capacities[1:] for decision in decisions_of(run)
        )
        return "Ordered by the highest load kept on every start, without a test." * is_ordered
    repeats, sure = plural(tested[0].repeats, "repeat"), sure_text(_wrong(tested[0]))
    among = f", one of {len(tested)} answers" if tested[1:] else ""
    if race := run.record.plan.race:
        return (
            f"A race over {plural(race.looked, 'repeat')}: a deployment is started no more once the leader "
            f"of those left has beaten it in a paired t test ({sure} in all looks together{among})."
        )
    return (
        f"A winner beats every other ranked deployment, each in its own paired t test over {repeats} "
        f"({sure}{among})."
    )


def of_own_tests(decision: Decision) -> str:
    """Return how sure the intervals against the leader are, as a sentence; empty for fewer than two."""
    ratios = [decision.ratio_to_leader(group.deployment) for group in decision.groups]
    if decision.left:
        return (
            "The interval of one that left is that of its last look, wider than in a single test since "
            "the values chose when that was; its own mean has none."
        )
    each = f"Each interval against the leader is that of its own test ({sure_text(decision.alpha)})"
    return f"{each}; that all of them hold is less sure." if sum(map(bool, ratios)) > 1 else ""


# --- a winner --------------------------------------------------------------------------------------


def _named(run: Run, decision: Decision, best: Best, where: str) -> Said:
    rival = best.next if len(best.over) == 1 else f"the next best, {best.next},"
    sure, title = sure_text(best.wrong), title_of(decision.metric)
    gist, surety = f"It is ahead of {rival} in {title} {where}", sure
    if best.over[best.next].is_log:
        ratio, bound = _bounded(decision, best, best.next)
        if best.left and best.lead_over(best.next)[0] > 1:
            # The values chose when the others left, so their means are the less certain part.
            ratio, bound = bound, f"{ratio} as measured"
        elif best.left:
            ratio, bound = (
                ratio_words(*lead_of(decision, best, best.next)),
                "it left behind another, by an uncertain lead",
            )
        gist = f"It has {ratio} the {title} of {rival} {where}"
        surety = ", ".join([bound, *_nearer(decision, best), sure])
    rest = f" ({surety}){price_of(run, decision, best)}{quality.clause(run, best.leader)}."
    if decision.kind == "slight":
        rest += f" The lead may be less than {margin_text(run.record.compare.margin_share)}."
    lead, advice = _serve(decision, best.leader), quality.advice(run, best.leader)
    return Said(lead, gist, rest + _left_out(decision), _unless(run, decision), *advice)


def _wrong(decision: Decision) -> float:
    return decision.best.wrong if decision.best else decision.alpha


def _bounded(decision: Decision, best: Best, label: str) -> tuple[str, str]:
    """Return `1.14x`, the lead over another, and `at least 1.06x`, the bound that its own test gives."""
    ratio, least, most = lead_of(decision, best, label)
    factor, bound = bound_words(ratio, least if least > 1 else most)
    return factor, f"at {'least' if least > 1 else 'most'} {bound}"


def _nearer(decision: Decision, best: Best) -> Iterator[str]:
    """Yield the bound of the least sure test, if that is of another than the next best: it is noisier."""
    if best.nearest not in (best.next, *best.left) and best.over[best.nearest].is_log:
        yield f"{_bounded(decision, best, best.nearest)[1]} over {best.nearest}"


def _serve(decision: Decision, label: str) -> str:
    """Return `Serve vllm awq`, or only the label for the reference server."""
    return label if decision.case.model == "-" else f"Serve {label}"


def lead_of(decision: Decision, best: Best, label: str) -> tuple[float, float, float]:
    """Return the leader's value over another's, with the interval of its test; below 1 if lower is better."""
    ratio, (low, high) = best.over[label].shown, best.lead_over(label)
    return (
        (1 / ratio, 1 / high, 1 / low) if metric_of(decision.metric).better == "lower" else (ratio, low, high)
    )


def _unless(run: Run, decision: Decision) -> str:
    clauses = (
        quality.unless(run, decision),
        quality.unless_nearest(run, decision),
        _unless_metric(run, decision),
    )
    return " ".join(filter(None, clauses))


def _unless_metric(run: Run, decision: Decision) -> str:
    named = decision.served or (decision.leader and decision.leader.deployment)
    for metric, does in _UNLESS.items():
        label = decision.leaders.get(metric)
        groups = sorted(decision.groups, key=lambda group: group.deployment != label)[:2]
        value, other = (decision.value(run, group, metric).mean or 0.0 for group in groups)
        # Lower is better for all of these.
        if label and label != named and other > (1 + run.record.compare.margin_share) * value > 0:
            values = " against ".join(
                mean_text(metric, decision.value(run, group, metric)) for group in groups
            )
            clause = f"{label} {does} ({values} {metric_of(metric).shown_unit})."
            return f"If {title_of(metric)} matters most: {clause}"
    return ""


def _left_out(decision: Decision) -> str:
    """Return how often the winner failed (without one: each), who is not ranked (the table says why), and how
    many repeats were left out or disturbed.

    In a search, a deployment that keeps some load, known or as measured, is ranked.
    """
    ordered = {each.deployment for each in decision.capacities if each.level or each.measured}
    labels = [label for label in decision.left_out if label not in {*ordered, *decision.beyond}]
    clauses = "".join(map(_failed, [decision.leader] if decision.leader else decision.groups))
    clauses += f" Left out for quality: {several(decision.beyond)}." if decision.beyond else ""
    clauses += f" Not compared: {several(labels)}." if labels else ""
    away, busy = decision.disturbed - decision.shown_disturbed, "the machine was busy or not fit"
    clauses += f" Left out: {plural(away, 'repeat')}, in which {busy}." if away else ""
    if decision.shown_disturbed and not decision.why:
        of, others = plural(len(decision.shown), "repeat"), f"fewer than {STARTS_NEEDED} others remain"
        count = "it counts" if decision.shown_disturbed == 1 else "they count"
        clauses += f" In {decision.shown_disturbed} of {of} {busy}; {count}, since {others}."
    return clauses


def _failed(group: Group) -> str:
    failed = {cell.planned.repeat for cell in group.cells if has_failed(cell)}
    of = plural(len({cell.planned.repeat for cell in group.cells}), "start")
    return f" {group.deployment} failed in {len(failed)} of {of}." if failed else ""


# --- no winner -------------------------------------------------------------------------------------


def _same(run: Run, decision: Decision, best: Best, where: str) -> Said:
    within = margin_text(run.record.compare.margin_share)
    title, labels = title_of(decision.metric), [group.deployment for group in decision.stay]
    if decision.preferred is None:
        gist = f"They have the same {title} within {within} {where}"
        return Said(
            _serve(decision, several(labels, " or ")), gist, f".{_left_out(decision)}", _unless(run, decision)
        )
    label, by = decision.preferred
    others = [each for each in labels if each != label]
    gist = f"It has the same {title} as {several(others)} within {within} {where}, {_BETTER[by]}"
    values = {g.deployment: mean_text(MEMORY, decision.value(run, g, MEMORY)) for g in decision.stay}
    if by == "memory":
        gist += f" ({values[label]} against {several([values[each] for each in others])} GiB)"
    rest = f"{quality.clause(run, label)}.{_left_out(decision)}"
    return Said(_serve(decision, label), gist, rest, _unless(run, decision))


def _open(run: Run, decision: Decision, best: Best, where: str) -> Said:
    title = title_of(decision.metric)
    gist = f"No test tells them apart in {title} {where}"
    if best.over[best.even[0]].is_log:
        over = ratio_words(*lead_of(decision, best, best.even[0]))
        gist = f"The first has {over} the {title} of the second {where}"
    rest = f" ({sure_text(best.wrong)}, {plural(decision.repeats, 'repeat')})."
    if best.levels:
        apart = f"{100 * math.expm1(best.levels):.0f} %"
        rest += f" Starts here have two levels, {apart} apart: no smaller lead is named."
    rest += _left_out(decision)
    labels = several([best.leader, *best.even], " or ")
    return Said(f"Too close to call: {labels}", gist, rest, _unless(run, decision), *_advice(run, decision))


def _advice(run: Run, decision: Decision) -> quality.Advice:
    race = run.record.plan.race
    if decision.capacities:
        return _search_again(run)
    if race and race.may_go_on:
        return "The race is not over", resumed(run)
    if decision.best and decision.best.levels:
        return "Find out why starts differ (Trust): more of them would not settle it.", ""
    if decision.advised is None:
        even = "If the measured lead is real, even 60 repeats would not settle it: choose by another column."
        return even, ""
    # The time that each start took; further repeats do not ask for quality again.
    lives = [
        record.stopped_ns - record.spawned_ns - 1e9 * (record.quality.took_s if record.quality else 0.0)
        for record in run.start_records
        if record.spawned_ns is not None and record.stopped_ns is not None
    ]
    minutes = sum(lives) / 6e10 / run.repeats * (decision.advised - run.repeats)
    repeats = f"If the measured lead is real, about {decision.advised} repeats would settle it"
    advice = f"{repeats}, in {max(1, round(minutes))} more minutes"
    return advice, more_repeats(run, decision.advised)


def _values(run: Run, decision: Decision, where: str) -> Said:
    # More repeats do not help if windows have no request, or if the work differs.
    sent = [any(run.is_counted(each.number).any() for each in group.counted) for group in decision.groups]
    may_tell = len(sent) > 1 and all(sent) and decision.why is not None and decision.why.kind in _OF_FEW
    advice: quality.Advice = ("", "")
    if not all(run.is_restarted(group.deployment) for group in decision.groups):
        advice = ("A winner needs servers that bench starts itself: leave out engine.base_url.", "")
    elif decision.capacities:
        advice = _search_again(run)
    elif decision.is_for_busy and not run.is_going_on:
        more = max(run.repeats + STARTS_NEEDED - decision.repeats, run.record.repeats_cut)
        advice = ("Once the machine is idle, as bench doctor will show", more_repeats(run, more))
    elif (run.repeats < STARTS_NEEDED or why_early(run)) and not run.is_going_on and may_tell:
        more = max(5, run.record.repeats_cut)
        advice = ("More repeats may settle it", more_repeats(run, more))
    if decision.groups:
        by = f" Ordered by {title_of(decision.metric)}." if decision.groups[1:] else ""
        gist = f"{capital(where)}: {decision.why}"
        return Said("No winner", gist, f".{by}{_left_out(decision)}", "", *advice)
    kept = [
        f"{each.deployment} {each.load} {on_each(run, each)} ({each.why})"
        for each in decision.capacities
        if each.measured
    ]
    rest = f" ({slo_words(run.record.slo)}): {several(kept)}.{_left_out(decision)}"
    return Said("No winner", "Kept as measured, but not known to be kept", rest, "", *advice)


def _search_again(run: Run) -> quality.Advice:
    again = command(run, repeats=[str(max(5, 2 * run.repeats))])
    return "More starts and longer windows (load.duration) would narrow it down", again


def _only(run: Run, decision: Decision, where: str) -> Said:
    if decision.capacities:
        return _most_load(run, decision)
    group, row = decision.groups[0], decision.slo_row
    quality_here = quality_of(run).get(group.deployment)
    limit = "not known to be beyond" if quality_here and quality_here.why_not_known else "within"
    within = f"{'known to keep the SLO and ' * bool(row)}{limit} the quality limit"
    does = {
        (False, False): "It is the only one measured",
        (False, True): "It is known to keep the SLO",
        (True, False): f"It is the only one {within if decision.served else 'that can be judged'}",
        (True, True): "It is the only one known to keep the SLO",
    }[len(decision.case.groups) > 1, row is not None and row.labels("kept") == [group.deployment]]
    spans = (_with_span(run, decision, name) for name in dict.fromkeys((decision.metric, "ttft_s.p50")))
    values = ", ".join(filter(None, spans)) or "no value"
    rest = f"{quality.clause(run, group.deployment)}.{_left_out(decision)}"
    lead, advice = _lead(decision, group.deployment), quality.advice(run, group.deployment)
    return Said(lead, f"{does} {where}: {values}", rest, quality.unless(run, decision), *advice)


def _lead(decision: Decision, label: str) -> str:
    return _serve(decision, decision.served) if decision.served else label


def _with_span(run: Run, decision: Decision, name: str) -> str:
    aggregate = decision.value(run, decision.groups[0], name)
    if aggregate.mean is None:
        return ""
    parts = (title_of(name), mean_text(name, aggregate), span_text(name, aggregate), unit_beside(name))
    return " ".join(filter(None, parts))


def on_each(run: Run, capacity: Capacity) -> str:
    unit, count = "start" if run.is_restarted(capacity.deployment) else "block", len(capacity.answers)
    return f"on each of {plural(count, unit)}" if count > 1 else f"on one {unit}"


def _most_load(run: Run, decision: Decision) -> Said:
    best, *others = decision.capacities
    limits = [f"{each.deployment} up to {each.words}" for each in others if each.level is not None]
    gist = f"It keeps the SLO up to {best.words} {on_each(run, best)}"
    gist += f", next best {several(limits)}" if limits else ""
    rest = f" ({slo_words(run.record.slo)}){quality.clause(run, best.deployment)}."
    unclear = decision.slo_row.labels("unclear", "unknown") if decision.slo_row else []
    if unclear:
        rest += f" Not clear at that load: {several(unclear)}."
    return Said(_lead(decision, best.deployment), gist, rest + _left_out(decision))


def _none(run: Run, decision: Decision, where: str) -> Said:
    if decision.slo_row and not decision.slo_row.labels("kept"):
        rest = f" ({slo_words(run.record.slo)}) at any load."
        return Said("No winner", "No deployment is known to keep the SLO", rest)
    whys = [f"{label}: {clipped(why, _REASON_AT_MOST)}" for label, why in decision.left_out.items()]
    if len(decision.case.groups) == 1 and not decision.case.groups[0].counted:
        return Said("Not measured", f"{capital(where)}: {several(whys, '; ')}")
    return Said("No winner", f"{capital(where)} no deployment can be judged: {several(whys, '; ')}")


def _nothing_measured(run: Run) -> Said:
    whys = [f"{cell.label}: {cell.reason}" for cell in run.planned_cells if cell.reason]
    why = clipped(several(whys, "; "), 2 * _REASON_AT_MOST).rstrip(".")
    return Said("No answer", f"No cell has a value that counts{': ' if why else ''}{why}")
