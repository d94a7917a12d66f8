"""The run's answer in sentences: which deployment to serve, by how much, how sure, and unless what.

Puts the decisions of reports/verdicts/decisions.py into words, and those of a search (search_text.py).
"""

import shlex

from reports.data.cells import Group
from reports.data.run import Run, once
from reports.measures.metrics import metric_of
from reports.measures.over_starts import aggregate, shorter_half
from reports.measures.written import plural, several, span_text, supported
from reports.stats.family import STARTS_NEEDED
from reports.verdicts.comparisons import comparisons_of
from reports.verdicts.decisions import Decision, decisions_of
from reports.verdicts.searches import capacities_of, verdict_count
from reports.words.said import HEADLINE_AT_MOST, Said, at, capital, clipped, sentence
from reports.words.search_text import search_answers
from reports.words.verdict_words import family_text, margin_text, ratio_words, slo_words, title_of

MEMORY = "memory_peak_bytes"
# From this ratio of busy cores on it is said that they differ.
OTHER_CORES = 1.15
# What is said of a deployment that stands alone.
_ALONE = ("output_tokens_per_s", "ttft_s.p50", "tpot_s.p50", MEMORY)
_REASON_AT_MOST = 200
# The metrics of "unless", in the order in which one is looked for, with what its leader does.
_UNLESS = {
    "ttft_s.p50": "answers first",
    MEMORY: "needs the least memory",
    "tpot_s.p50": "streams fastest",
    "energy_j_per_output_token": "needs the least energy",
}


@once
def answers_of(run: Run) -> tuple[Said, ...]:
    """Return the answer of each scenario and model; with an SLO of each family of loads too."""
    if run.record.search is not None:
        return tuple(search_answers(run))
    decisions = decisions_of(run)
    if not decisions:
        return (_nothing_measured(run),)
    return tuple(_said(run, each, len(decisions) > 1) for each in decisions)


def _said(run: Run, made: Decision, is_one_of_several: bool) -> Said:
    where = _where(run, made, is_one_of_several)
    say = {
        "named": _named,
        "slight": _named,
        "same": _same,
        "open": _open,
        "values": _values,
        "only": _only,
        "none": _none,
    }[made.kind]
    return say(run, made, where)


def _where(run: Run, made: Decision, is_one_of_several: bool) -> str:
    """Return `at 4 users`, with what tells it from the run's other answers."""
    case = made.case
    parts = [at(case.load)]
    if is_one_of_several and len({group.scenario for group in run.groups}) > 1:
        parts.append(f"of {case.scenario}")
    if is_one_of_several and len({group.model for group in run.groups}) > 1:
        parts.append(f"with {case.model}")
    return " ".join(parts)


# --- a winner --------------------------------------------------------------------------------------


def _named(run: Run, made: Decision, where: str) -> Said:
    best = made.best
    assert best is not None
    said = f"{capital(where)} {_lead(made)}{_memory(run, made)}{_cores(run, made)}."
    if made.kind == "slight":
        said += f" The lead may be less than {margin_text(run.record.compare.margin_share)}."
    if made.disturbed:
        said += f" {plural(made.disturbed, 'disturbed repeat')} left out."
    said += _slo(run, made) + _left_out(made)
    is_log = best.over[best.next].is_log
    by = f"{_leader_over(made, best.next)[0]:.2f}x" if is_log else "better"
    short = f"Serve {best.leader}: {by} the {title_of(made.metric)} of {best.next} {where}"
    return Said(f"Serve {best.leader}", said, short, unless=_unless(run, made))


def _lead(made: Decision) -> str:
    """Return `it gives 1.14x the output tokens/s of the next best, b (at least 1.06x, 96 %)`."""
    best = made.best
    assert best is not None
    title, sure = title_of(made.metric), f"{100 * (1 - best.alpha):.3g} %"
    if not best.over[best.next].is_log:
        return f"it is ahead of {best.next} in {title} ({sure})"
    is_alone = len(best.over) == 1
    next_best, who = (best.next, "") if is_alone else (f"the next best, {best.next}", " that of every other")
    ratio, _, _ = _leader_over(made, best.next)
    _, least, most = _leader_over(made, best.nearest)
    if metric_of(made.metric).better == "lower":
        return f"it has {ratio:.2f}x the {title} of {next_best} (at most {most:.2f}x{who}, {sure})"
    return f"it gives {ratio:.2f}x the {title} of {next_best} (at least {least:.2f}x{who}, {sure})"


def _leader_over(made: Decision, label: str) -> tuple[float, float, float]:
    """Return the leader's value over another's, with the interval of its test: below 1 if less is better."""
    best = made.best
    assert best is not None
    ratio, (low, high) = best.over[label].shown, best.lead_over(label)
    return (1 / ratio, 1 / high, 1 / low) if metric_of(made.metric).better == "lower" else (ratio, low, high)


def _memory(run: Run, made: Decision) -> str:
    """Return how the leader's memory stands to the next best's; nothing where that is not told."""
    best = made.best
    assert best is not None
    verdict = comparisons_of(run).of(made.case.scenario, made.case.load, MEMORY, best.leader, best.next)
    if verdict is None or verdict.ratio is None or verdict.kind in ("none", "unknown"):
        return ""
    return ", with the same memory" if verdict.kind == "same" else f", in {verdict.ratio:.2f}x its memory"


def _cores(run: Run, made: Decision) -> str:
    """Return on how many more or fewer cores the leader was faster; nothing within 15 %."""
    best = made.best
    assert best is not None
    groups = {group.deployment: group for group in made.groups}
    used = [aggregate(run, groups[label], "cores_used").mean for label in (best.leader, best.next)]
    if not (used[0] and used[1]) or 1 / OTHER_CORES <= used[0] / used[1] <= OTHER_CORES:
        return ""
    return f", on {used[0]:.1f} cores against {used[1]:.1f}"


def _slo(run: Run, made: Decision) -> str:
    if made.slo_row is None:
        return ""
    count, keep = len(made.slo_row.standings), len(made.slo_row.labels("kept"))
    verb, slo = "is" if keep == 1 else "are", slo_words(run.record.slo)
    return f" {keep} of {plural(count, 'deployment')} {verb} known to keep the SLO ({slo}) there."


def _unless(run: Run, made: Decision) -> str:
    """Return when another one should be served: the first other metric of which another is decided leader."""
    leader = made.groups[0]
    for metric, does in _UNLESS.items():
        label = made.leaders.get(metric)
        if label and label != leader.deployment:
            other = next(group for group in made.groups if group.deployment == label)
            values = [_amount(run, group, metric) for group in (other, leader)]
            unit = metric_of(metric).shown_unit
            return (
                f"Unless {title_of(metric)} decides: {label} {does} ({values[0]} against {values[1]} {unit})."
            )
    return ""


def _amount(run: Run, group: Group, metric: str) -> str:
    found = aggregate(run, group, metric)
    return supported(metric, found.mean, shorter_half(found))


def _left_out(made: Decision) -> str:
    """Return who is no contender and why, as a sentence; nothing where all are."""
    whys = [f"{label} ({clipped(why, _REASON_AT_MOST)})" for label, why in made.left_out.items()]
    return f" Not compared: {several(whys, '; ')}." if whys else ""


# --- no winner -------------------------------------------------------------------------------------


def _same(run: Run, made: Decision, where: str) -> Said:
    margin, title = margin_text(run.record.compare.margin_share), title_of(made.metric)
    labels = [group.deployment for group in made.groups]
    text = f"{capital(where)} they give the same {title} within {margin} ({_spread(made)})."
    short = f"{several(labels)}: the same {title} within {margin} {where}"
    lead = f"{labels[0]} or {labels[1]}" if len(labels) == 2 else "Any of them"
    return Said(lead, text + _slo(run, made) + _left_out(made), short, unless=_unless_other(run, made))


def _unless_other(run: Run, made: Decision) -> str:
    """Return the decided leader of another metric, which may choose between equals."""
    for metric, does in _UNLESS.items():
        if label := made.leaders.get(metric):
            return f"{label} {does}."
    return ""


def _spread(made: Decision) -> str:
    """Return each one's ratio to the leader, with the interval that holds for all together."""
    ratios = [(group.deployment, made.ratio_to_leader(group.deployment)) for group in made.groups]
    return several([f"{label} {ratio_words(r[0], r[1:], is_told=False)}" for label, r in ratios if r])


def _open(run: Run, made: Decision, where: str) -> Said:
    best = made.best
    assert best is not None
    title, near = title_of(made.metric), best.nearest
    groups = {group.deployment: group for group in made.groups}
    values = [f"{label} ({_amount(run, groups[label], made.metric)})" for label in (best.leader, near)]
    said = f"{capital(where)} {values[0]} and {values[1]} are too close to call in {title}"
    said += f" after {made.repeats} repeats"
    if best.over[near].is_log:
        ratio, *ends = _leader_over(made, near)
        said += f": {ratio_words(ratio, ends, is_told=False)} ({100 * (1 - best.alpha):.3g} %)"
    said += f".{_behind(made)}{_slo(run, made)}{_left_out(made)}"
    short = f"Too close to call {where}: {best.leader} and {near} in {title}"
    return Said(
        "Too close to call",
        said,
        clipped(short, HEADLINE_AT_MOST),
        note=_advice(run, made),
        unless=_unless_other(run, made),
    )


def _behind(made: Decision) -> str:
    """Return which others the leader does beat."""
    best = made.best
    assert best is not None
    beaten = [
        label for label in best.over if best.lead_over(label)[0] > (1 if best.over[label].is_log else 0)
    ]
    return f" {best.leader} is ahead of {several(beaten)}." if beaten else ""


def _advice(run: Run, made: Decision) -> str:
    """Return how many repeats would tell, how long they take, and the command."""
    if made.advised is None:
        return "More than 60 repeats would be needed to tell them apart: choose by another column."
    seconds = _repeat_s(run) * (made.advised - made.planned)
    takes = f", {max(1, round(seconds / 60))} more minutes" if seconds else ""
    return f"About {made.advised} repeats would tell{takes}: {resume_with(run, made.advised)}"


def resume_with(run: Run, repeats: int) -> str:
    """Return the command that measures more repeats of a run."""
    return f"bench run --resume {shlex.quote(str(run.path))} repeats={repeats}"


def _repeat_s(run: Run) -> float:
    """Return the seconds that one repeat of all deployments took: the lives of its servers."""
    lives = [
        record.stopped_ns - record.spawned_ns
        for record in run.start_records
        if record.spawned_ns is not None and record.stopped_ns is not None
    ]
    return sum(lives) / 1e9 / len({cell.planned.repeat for cell in run.planned_cells})


def _values(run: Run, made: Decision, where: str) -> Said:
    title = title_of(made.metric)
    values = [f"{group.deployment} {_amount(run, group, made.metric)}" for group in made.groups]
    why = made.why or "no test could be made"
    text = f"{capital(where)}, {title}: {several(values)}. No winner is named: {why}."
    is_short = made.planned < STARTS_NEEDED and not run.is_going_on
    note = f"More repeats would tell: {resume_with(run, 5)}" if is_short else ""
    if not all(run.is_restarted(group.deployment) for group in made.groups):
        note = "Where bench can start the servers, leave out engine.base_url."
    short = clipped(f"No winner {where}: {why}", HEADLINE_AT_MOST)
    return Said("No winner", text + _slo(run, made) + _left_out(made), short, note=note)


def _only(run: Run, made: Decision, where: str) -> Said:
    """Say what the only contender does: the run's only deployment, or the one that is left."""
    group = made.groups[0]
    label = group.deployment
    listed = [f"{title_of(name)} {text}" for name in _ALONE if (text := _with_span(run, group, name))]
    if len(made.case.groups) == 1:
        text = f"{capital(where)}: {', '.join(listed) or 'no value'}. Nothing is compared."
        return Said(label, text + _slo(run, made), f"{label}: {listed[0] if listed else 'no value'} {where}")
    row = made.slo_row
    if row and row.labels("kept") == [label]:
        others = [each for each in row.standings if each.label != label]
        unsure = [each.label for each in others if each.state != "broken"]
        only = "it is the only one that keeps" if not unsure else "only it is known to keep"
        text = f"{capital(where)} {only} the SLO ({slo_words(run.record.slo)}): {', '.join(listed)}."
        text += f" Of {several(unsure)} it is not clear." if unsure else ""
        return Said(f"Serve {label}", text, f"Serve {label}: {only.removeprefix('it is ')} the SLO {where}")
    text = f"{capital(where)}: {', '.join(listed)}. It is the only one that can be judged.{_left_out(made)}"
    return Said(label, text, clipped(f"{label}: the only one that can be judged {where}", HEADLINE_AT_MOST))


def _with_span(run: Run, group: Group, name: str) -> str:
    """Return `167 [162, 172] ms`; nothing where there is no value."""
    found = aggregate(run, group, name)
    if found.mean is None:
        return ""
    unit = "" if title_of(name).endswith("/s") else metric_of(name).shown_unit
    return " ".join(filter(None, (_amount(run, group, name), span_text(name, found), unit)))


def _none(run: Run, made: Decision, where: str) -> Said:
    row = made.slo_row
    if row and not row.labels("kept"):
        unclear = row.labels("unclear", "unknown")
        maybe = f" Of {several(unclear)} it is not clear {where}." if unclear else ""
        slo = slo_words(run.record.slo)
        text = f"No deployment is known to keep the SLO ({slo}) at any load.{maybe}"
        return Said(
            "No winner", text, clipped(f"No winner: none is known to keep the SLO ({slo})", HEADLINE_AT_MOST)
        )
    whys = [f"{label}: {clipped(why, _REASON_AT_MOST)}" for label, why in made.left_out.items()]
    text = f"{capital(where)} no deployment can be judged. {sentence(several(whys, '; '))}"
    return Said("No winner", text, clipped(f"No winner {where}: {several(whys, '; ')}", HEADLINE_AT_MOST))


def _nothing_measured(run: Run) -> Said:
    cells = run.planned_cells
    if not cells:
        return Said("No answer", "Nothing was planned.", "No answer: nothing was planned")
    count = f"None of the {plural(len(cells), 'cell')} has a value that counts"
    if len(cells) == 1:
        count = "The only cell has no value that counts"
    whys = [f"{cell.label}: {cell.reason}" for cell in cells if cell.reason]
    why = clipped(several(whys, "; "), 2 * _REASON_AT_MOST)
    return Said(
        "No answer",
        sentence(f"{count}{f': {why}' if why else ''}"),
        "No answer: no cell has a value that counts",
    )


def basis(run: Run) -> str:
    """Return by which rule a winner is named, as a sentence; nothing where no test was made."""
    if run.record.search is not None:
        count = verdict_count(capacities_of(run))
        return f"{family_text(count)}." if count else ""
    tested = [(each.best, each.repeats) for each in decisions_of(run) if each.best]
    if not tested:
        return ""
    best, repeats = tested[0]
    family = f", Holm over {len(tested)} answers" if len(tested) > 1 else ""
    level = f"{100 * (1 - best.alpha):.3g} %{family}"
    return f"A winner beats each other one in its own paired t test over {repeats} repeats ({level})."
