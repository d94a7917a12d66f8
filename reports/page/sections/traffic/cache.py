"""What a prefix cache could serve, what the server says it served, and what the time to first token says."""

from reports.data import Run
from reports.measures import number
from reports.measures.traffic.cache import Served, metrics_share, served_of
from reports.page.cells import inferred_cell, name_cell
from reports.page.declared import Chart, Columns, Notes, Table, Topic, of_group
from reports.page.drawing.more_kinds import cache_bars
from reports.page.looks import prose
from reports.words import caches


def _wholes(run: Run) -> list[Served]:
    return [each for each in served_of(run) if not each.part]


def _parts(run: Run) -> list[Served]:
    return [each for each in served_of(run) if each.part]


def _columns(run: Run) -> Columns[Served]:
    return {
        "deployment": lambda each: name_cell(run, each.group),
        "load": lambda each: each.group.load,
        "part": lambda each: each.part,
        "scenario": lambda each: each.group.scenario if len({g.scenario for g in run.groups}) > 1 else "",
        "requests": lambda each: f"{each.requests:,}",
        "input tokens": lambda each: number(each.input_tokens, 0),
    }


WHOLE = Chart[Served](
    "cache",
    "",
    _wholes,
    lambda _, rows: cache_bars(rows),
    lambda run: {
        **_columns(run),
        "ideal %": lambda each: number(each.ideal, 1, 100 / each.input_tokens),
        "reported %": lambda each: number(each.reported, 1, 100 / each.input_tokens),
        "metrics page %": lambda each: number(metrics_share(run, each.group), scale=100),
        "by TTFT %": lambda each: inferred_cell(each, 100 / each.input_tokens),
        "prefill tokens saved": lambda each: number(each.saved, 0),
    },
    lambda each: of_group(each.group),
    each=lambda each: f"Input tokens of a request of {each.group.scenario} at {each.group.load}",
    is_wide=True,
)
PARTS = Table[Served](
    "By turn or prefix",
    _parts,
    lambda run: {
        **_columns(run),
        "ideal": lambda each: number(each.ideal, 0),
        "reported": lambda each: number(each.reported, 0),
        "by TTFT": inferred_cell,
        "TTFT p50 ms": lambda each: number(each.ttft_s, scale=1e3),
    },
    lambda each: of_group(each.group),
)
CACHE = Topic(
    "prefix-cache",
    "Prefix cache",
    [Notes(caches.contradictions), Notes(caches.ideals), WHOLE, PARTS],
    caches.claim,
    prose("prefix_cache"),
)
