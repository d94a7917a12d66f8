"""The race: how far each deployment was behind the one that leads at the end, look by look, and who left."""

from serving_bench.reports.data import Run
from serving_bench.reports.measures import number
from serving_bench.reports.page.drawing.more_kinds import to_leader
from serving_bench.reports.page.looks import Row, looks, prose
from serving_bench.reports.page.parts import Chart, Part, Topic, of_group
from serving_bench.reports.verdicts import Decision, decisions_of, place_of_case
from serving_bench.reports.verdicts.race import courses_of
from serving_bench.reports.words.verdict_words import title_of


def race(run: Run) -> Topic:
    charts: list[Part] = [_course(run, decision) for decision in decisions_of(run) if decision.best]
    return Topic("race", "Who stayed in, repeat by repeat" if any(charts) else "", charts, prose("race", run))


def _course(run: Run, decision: Decision) -> Chart:
    courses, leader = courses_of(run, decision), decision.groups[0].deployment
    rows = [
        Row(
            {
                "deployment": course.group.deployment,
                "after repeats": str(look.repeats),
                f"against {leader}": f"{number(look.ratio, 3)}x",
                "interval": f"{number(look.low, 3)} – {number(look.high, 3)}",
                "level %": f"{100 * look.alpha:.3g}",
                "left": str(course.left or "") if look is course.looks[-1] else "",
            },
            of_group(course.group),
        )
        for course in courses
        for look in course.looks
    ]
    what = f"{title_of(decision.metric)} against {leader} {place_of_case(run, decision.case)}"
    drawn = to_leader(looks(run), courses) if rows else ([], {})
    note = "Bars: the interval of the look's own test. A cross: beaten at this look, and started no more."
    return Chart(f"race-{decision.case.key}", what, *drawn, rows, note, names_ends=True, is_wide=True)
