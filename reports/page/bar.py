"""The bar at the top of the page: its sections in groups, and filters of what is shown.

Draws no chart and hides nothing itself: follow.js and filters.js do.
"""

from collections.abc import Iterable, Mapping, Sequence

from reports.data.run import Run
from reports.page.charts import Chart
from reports.page.markup import Html, join, tag

# What a reader asks, and the sections that say it, all in the order of the page.
GROUPS: dict[str, tuple[str, ...]] = {
    "Answer": ("decision", "verdicts", "summary"),
    "Speed": ("frontier", "latency", "paired", "timeline", "throughput", "search", "bounds"),
    "Memory": ("memory", "anatomy", "turns"),
    "Cost": ("pareto", "energy", "startup"),
    "Trust": ("serving", "fairness", "distrust", "steadiness", "client", "guard", "errors", "skipped"),
    "Run": ("environment", "method", "rerun"),
}
_FILTERS = {"deployment": "all deployments", "load": "all loads", "turn": "all turns"}


def bar(run: Run, names: Mapping[str, str], charts: Sequence[Chart]) -> Html:
    """`names`: of the sections that the page has, by id."""
    return tag("header", tag("div", _nav(names), _filters(run, charts), class_="inner"), class_="bar")


def grouped(ids: Iterable[str]) -> dict[str, list[str]]:
    """The sections of a page by group."""
    there = set(ids)
    found = {group: [name for name in names if name in there] for group, names in GROUPS.items()}
    return {group: names for group, names in found.items() if names}


def _nav(names: Mapping[str, str]) -> Html:
    menus = []
    for group, ids in grouped(names).items():
        links = [tag("a", names[name], href=f"#{name}") for name in ids]
        entries = tag("ul", *(tag("li", link) for link in links))
        # The same name: opening one menu closes the others.
        whole = tag("details", tag("summary", group), entries, name="menu", class_="menu")
        menus.append(tag("li", whole if len(links) > 1 else links[0]))
    return tag("nav", tag("ul", *menus, class_="menus"), aria_label="Sections")


def choices(run: Run, charts: Sequence[Chart]) -> dict[str, list[tuple[str, str]]]:
    """What can be chosen, as value and words, of each filter that has more than one choice."""
    by_load = {group.load: (group.family, group.level) for group in run.groups}
    starts = sorted({cell.planned.repeat + 1 for cell in run.planned_cells})
    found: dict[str, list[tuple[str, str]]] = {
        "deployment": [(label, label) for label in run.deployments],
        "load": [(load, load) for load in sorted(by_load, key=by_load.__getitem__)],
        "turn": [(str(turn), f"turn {turn}") for turn in _turns(charts)],
        "start": [(str(start), f"{_word(run)} {start}") for start in starts],
    }
    return {name: pairs for name, pairs in found.items() if len(pairs) > 1}


def _turns(charts: Sequence[Chart]) -> list[int]:
    """The turns, from 1, that any chart tells apart."""
    found: set[int] = set()
    for chart in charts:
        for trace in chart.traces:
            meta = trace.get("meta") or {}
            each = [meta.get("of", {}), *meta.get("points", ())]
            found |= {int(of["turn"]) for of in each if "turn" in of}
            found |= {int(turn) for turn in meta.get("by_turn", ())}
    return sorted(found)


def _filters(run: Run, charts: Sequence[Chart]) -> Html:
    """Empty where there is nothing to choose. Shown by the script, which does what they say."""
    found = choices(run, charts)
    if not found:
        return Html("")
    selects = [
        _select(name, pairs, f"all {_word(run)}s" if name == "start" else _FILTERS[name])
        for name, pairs in found.items()
    ]
    reset = Html('<button type="button" id="reset" disabled>Reset</button>')
    chosen = tag("div", *selects, reset, class_="chosen", role="group", aria_label="What is shown")
    box = tag("details", tag("summary", "Filter"), chosen, class_="filters")
    return join([box, tag("p", role="status", id="shown")])


def _word(run: Run) -> str:
    """What a repeat is: a start of a server, or a block on one that was running already."""
    return "start" if all(map(run.is_restarted, run.deployments)) else "block"


def _select(name: str, pairs: Sequence[tuple[str, str]], whole: str) -> Html:
    options = [("", whole), *pairs]
    made = (tag("option", words, value=value) for value, words in options)
    return tag("select", *made, id=f"filter-{name}", data_filter=name, aria_label=name)
