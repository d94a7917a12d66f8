"""Turns and cache: what each turn of the conversation takes, and what of its prompt the prefix cache has."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from reports.data.cells import Group
from reports.data.run import Run
from reports.measures.equal_work import stand_ins
from reports.measures.over_starts import BARS, by_start, withheld
from reports.measures.written import plural, several
from reports.page.charts import Chart, Section, grid
from reports.page.looks import key
from reports.page.markup import Html, Of, details, join, note, paragraph, tag
from reports.page.sections.by_load import by_load_charts
from reports.page.sections.by_turn import turn_chart
from reports.stats.family import STARTS_NEEDED
from reports.stats.intervals import CONFIDENCE
from reports.verdicts.load_cases import LoadPoint, load_points, opened

_SHOWN = ("ttft_s.p50", "cached_share", "input_tokens", "tpot_s.p50")
_FOLDED = ("itl_s.p50", "e2e_s.p50")
_NO_CACHE = (
    "No server says how many tokens of a prompt it found in its prefix cache "
    "(usage.prompt_tokens_details.cached_tokens), so no share is drawn."
)


@dataclass(frozen=True)
class _AtLoad:
    """The charts of one load."""

    point: LoadPoint
    title: str
    shown: Sequence[Chart]
    folded: Sequence[Chart]


def section(run: Run) -> Section | None:
    """None where no conversation has a second turn and no server tells of its cache."""
    hits = by_load_charts(run, "cached_share")
    questions = _questions(run)
    loads = list(_loads(run, 1 - (1 - CONFIDENCE) / max(questions, 1)))
    charts = [*(chart for each in loads for chart in (*each.shown, *each.folded)), *hits]
    if not charts:
        return None
    parts = [*_notes(run, questions), key(run), *_parts(run, loads)]
    parts += [tag("h3", "Prefix cache by load"), grid(hits)] if hits else []
    return Section("Turns and cache", join(parts), charts)


def _notes(run: Run, questions: int) -> Iterator[Html]:
    yield note(
        "Points are means over starts of each start's median (tokens: of its mean; cached: of its cached "
        f"tokens per input token). {BARS}",
        "A title that says rises, falls or stays compares the last turn with the first of the same start: "
        "the whole interval of their ratio lies beyond the margin, or within it. Such a title and one on the "
        f"cache go by 95 % intervals, corrected for {plural(questions, 'question')} of all loads together.",
    )
    untold = _untold(run)
    if len(untold) == len(run.deployments):
        yield paragraph(_NO_CACHE)
    elif untold:
        yield paragraph(f"Cached tokens are not reported by {several(untold)}.")


def _questions(run: Run) -> int:
    """How many a title here may answer: of each deployment with enough starts at each load, one per latency
    and one on its cache."""
    fakes, untold = stand_ins(run), _untold(run)

    def may_be_told(group: Group, name: str) -> bool:
        if name == "cached_share":
            return group.deployment not in untold
        is_own = name.endswith(".p50") and group.deployment not in fakes
        return is_own and run.is_restarted(group.deployment) and withheld(run, group.key, name) is None

    known = [group for group in run.groups if len(group.counted_by_start) >= STARTS_NEEDED]
    return sum(may_be_told(group, name) for group in known for name in (*_SHOWN, *_FOLDED))


def _untold(run: Run) -> list[str]:
    """Deployments whose server never told how much of a prompt was cached."""
    told = {g.deployment for g in run.groups if any(v.n for v in by_start(run, g, "cached_share").values())}
    return [label for label in run.deployments if label not in told]


def _loads(run: Run, confidence: float) -> Iterator[_AtLoad]:
    """Of each scenario the load told first at the front; none without a chart. `confidence`: of the intervals
    that titles go by."""
    by_scenario = load_points(run)
    points = [point for each in by_scenario.values() for point in each]
    for index, point in enumerate(points):
        title = f"{point.load}, {point.scenario}" if len(by_scenario) > 1 else point.load
        shown, folded = (
            [chart for name in names if (chart := turn_chart(run, point, name, index, confidence))]
            for names in (_SHOWN, _FOLDED)
        )
        if shown or folded:
            yield _AtLoad(point, title, shown, folded)


def _parts(run: Run, loads: Sequence[_AtLoad]) -> Iterator[Html]:
    """The load told first open, the others folded."""
    first = opened(run, [each.point for each in loads])
    for each in loads:
        if each.point in first:
            parts = [tag("h3", f"By turn at {each.title}"), grid(each.shown)]
            parts += [details("ITL and E2E by turn", grid(each.folded))] if each.folded else []
        else:
            parts = [details(f"By turn at {each.title}", grid([*each.shown, *each.folded]))]
        yield tag("div", *parts, **Of(load=each.point.load).attributes)
