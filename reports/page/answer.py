"""The first screen: the question, the answer, a table of the candidates, and the reasons to distrust both."""

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import zip_longest

from serving_bench.harness.contracts import timing
from serving_bench.reports.checks.examine import findings_of, marks_of
from serving_bench.reports.data import Group, Run
from serving_bench.reports.measures import MEANS_APART, NOTHING, Aggregate, read_rates, several, unit_of
from serving_bench.reports.page.cells import aggregate_cell, cell_marks, mark_html, quality_columns
from serving_bench.reports.page.declared import Columns, filled
from serving_bench.reports.page.looks import (
    Html,
    Of,
    looks,
    macro,
    ratio_frame,
    ratio_picture,
    table,
    tag,
    unbroken,
)
from serving_bench.reports.verdicts import Decision, capacities_of, decisions_of
from serving_bench.reports.words import quality
from serving_bench.reports.words.answer import answers_of, basis, joint
from serving_bench.reports.words.described import cut_short, question, stopped, what_was_run
from serving_bench.reports.words.verdict_words import clipped, heading_of, ratio_with_ends

# The columns beside the metric that decides. One in which no deployment has a value is left out.
COLUMNS = (
    "output_tokens_per_s", "prefill_tokens_per_s", "decode_tokens_per_s", "makespan_s", "recovery_s",
    "valid_share", "left_share", "task_s", "finished_share", "first_answer_s",
    "ttft_s.p50", "tpot_s.p50", "memory_peak_bytes", "energy_j_per_output_token",
    "cost_per_million_output_tokens", "cores_used",
)  # fmt: skip
_PER_CORE = "output_tokens_per_s_per_core"
# How many characters of the reason why a deployment is left out fit on a narrow screen.
_NOTE = 90
# How many reasons to distrust are open; the others are folded.
_TOLD = 5


def opening(run: Run) -> Html:
    """Return the first screen: question, answer, table of candidates, and the reasons to distrust them."""
    said = answers_of(run)
    tables = [(made.case.load, _table(run, made)) for made in decisions_of(run)]
    return macro(
        "opening",
        _claimed(run),
        unbroken(question(run)),
        len(said) == 1,
        stopped(run),
        cut_short(run),
        [
            (each, each and unbroken(f"{each.lead}."), *(table or ("", "")))
            for each, table in zip_longest(said, tables)
        ],
        [*map(unbroken, [*quality.origins(run), what_was_run(run)])],
        basis(run),
        several([skip.what for skip in run.record.plan.skips]),
        findings_of(run),
        _TOLD,
    )


def _claimed(run: Run) -> Html | None:
    """Return what the run says about a published sentence; None if it was not judged by one."""
    if run.claim is None:
        return None
    told, has_gone_on = run.claim, run.claim.of_end != run.record.ended_at
    parts = [(each, _texts(each.rows, "Judged")) for each in told.parts]
    return macro("claimed", told, parts, _texts(told.differs, "What differs"), has_gone_on)


def _texts(rows: Sequence[Mapping[str, str]], name: str) -> Html | str:
    heads = list(dict.fromkeys(head for row in rows for head in row))
    return (
        table(heads, [[row.get(head, "") for head in heads] for row in rows], "plain", name) if heads else ""
    )


# --- the table of candidates ---------------------------------------------------------------------


def _table(run: Run, made: Decision) -> Html:
    """Return the table of a decision's deployments, contenders first.

    The decided leader of a column is bold.
    """
    kept = {each.deployment: each for each in capacities_of(run) if each.group in made.case.groups}
    first, *rest = ((heading_of(name, unit_of(run, name)), name) for name in _metrics(run, made))
    columns: Columns[Group] = {
        "deployment": partial(_name, run, made),
        **({"keeps the SLO up to": lambda group: macro("kept_load", kept[group.deployment])} if kept else {}),
        f"{first[0]} {'there' if kept else f'at {made.case.load}'}": partial(_value, run, made, first[1]),
        **_ratios(run, made),
        **{head: partial(_value, run, made, name) for head, name in rest},
        **quality_columns(run),
    }
    cells = filled(columns, made.ranked, lambda group: Of(group.deployment))
    few = [not _is_known(made.value(run, each, "ttft_s.p50")) for each in made.ranked if each.counted]
    what = "No TTFT or TPOT" if all(few) else f"{NOTHING} for TTFT or TPOT"
    why = f"{what}: fewer than {timing.needed(50)} requests." if any(few) else ""
    return macro("noted", table(*cells, "standing", "Standing"), [why, joint(made)])


def _metrics(run: Run, made: Decision) -> Iterator[str]:
    """Yield the metric that decides, then those in which any deployment has a value.

    Prefill rates are among them only if prompts are long, tokens/s per core only if the cores used differ.
    """
    yield made.metric
    used = [made.value(run, group, "cores_used").mean or 0.0 for group in made.ranked]
    is_uneven = max(used, default=0.0) > MEANS_APART * min(filter(None, used), default=math.inf)
    read = read_rates(run, made.ranked)
    for name in (*read, *COLUMNS, *[_PER_CORE] * is_uneven):
        if name != made.metric and any(_is_known(made.value(run, group, name)) for group in made.ranked):
            yield name


def _is_known(found: Aggregate) -> bool:
    return found.mean is not None or found.pooled is not None


def _name(run: Run, made: Decision, group: Group) -> Html:
    label, known = group.deployment, {each.deployment for each in made.capacities if each.level is not None}
    # The note is clipped here; its tooltip has all of it.
    note = "" if label in known else str(made.left_out.get(label, ""))
    marks = cell_marks(run, group) if {cell.validity for cell in group.counted} == {"suspect"} else ""
    class_ = "winner" if label == made.served else "unranked" if note and made.groups else ""
    return macro("standing", looks(run)[label], class_, clipped(note, _NOTE), note, marks)


def _value(run: Run, made: Decision, name: str, group: Group) -> Html:
    found = marks_of(run, made.cells(run, group), name)
    marks = [each for each in found if not each.is_at_name]
    cell = aggregate_cell(name, made.value(run, group, name), mark_html(marks))
    return tag("b", cell, class_="lead") if made.leaders.get(name) == group.deployment else cell


def _ratios(run: Run, made: Decision) -> Columns[Group]:
    known = [ratio for group in made.ranked if (ratio := made.ratio_to_leader(group.deployment))]
    return {"against the leader": partial(_ratio, run, made, ratio_frame(known))} if known else {}


def _ratio(run: Run, made: Decision, frame: tuple[float, float], group: Group) -> Html | str:
    ratio = made.ratio_to_leader(group.deployment)
    if ratio is None and group is not made.ranked[0]:
        return ""
    said, ends = ratio_with_ends(*ratio) if ratio else ("1.00x", "")
    drawn = ratio_picture(looks(run)[group.deployment], ratio or (1.0, 1.0, 1.0), frame)
    return macro("figures", drawn, said, ends)
