"""Why: what bounded each load point, a word for each, and the sentence of its evidence."""

from collections.abc import Iterator, Sequence

from reports.checks.bounds import BUSY_SHARE, KV_FULL_SHARE, MOST, Bound, bound_of
from reports.data.cells import Group
from reports.data.run import Run
from reports.measures.written import NOTHING
from reports.page.charts import Section
from reports.page.looks import looks, named
from reports.page.markup import Head, Html, Of, Row, details, join, note, paragraph, table, tag
from reports.words.said import capital

_NOTE = note(
    "What kept each deployment from serving more at a load. Users: no request waited; arrival rate: as many "
    "ended as came; slots full, KV cache full: requests waited for these; compute: processor or device busy "
    "all the time; the client: bench itself did not keep up; not clear: the evidence is not there.",
    "Slots: as many requests ran as the server serves at once. KV cache: it was full, or had no room for a "
    "long request. Users: each request's own time is what counts.",
)
_RULE = (
    f"By the servers' metrics, asked once a second, and the client's own record, in the windows of the "
    f"starts that count. Waited: in more than {100 * MOST:.0f} % of the samples. Full: "
    f"{100 * KV_FULL_SHARE:.0f} % of the KV cache or more. Busy: {100 * BUSY_SHARE:.0f} % of what there is, "
    "less the cores that a server keeps busy while nothing is asked. The first that holds is given: client, "
    "KV cache, slots, compute, arrival rate, users. SGLang's gauges are as of its last prefill or 40th "
    "decode step; for its slots the client's count of requests in flight decides as well. A device that runs "
    "kernels all the time may have room in each of them, so it counts as full with all slots taken only."
)
# What limits the server, the reader, or bench; the others are what was asked for.
_TONES = {"client": "bad", "kv_cache": "warn", "slots": "warn", "compute": "", "unclear": "none"}


def section(run: Run) -> Section | None:
    """None where no cell counts."""
    found = [(group, bound) for group in run.groups if (bound := bound_of(run, group))]
    if not found:
        return None
    parts: list[Html] = [_NOTE]
    scenarios = list(dict.fromkeys(group.scenario for group, _ in found))
    for scenario in scenarios:
        own = [(group, bound) for group, bound in found if group.scenario == scenario]
        parts += [tag("h3", scenario)] if len(scenarios) > 1 else []
        parts += [_words(run, own), details("Evidence", _evidence(run, own), paragraph(_RULE))]
    return Section("Why: what bounded each load", join(parts))


def _words(run: Run, found: Sequence[tuple[Group, Bound]]) -> Html:
    """A row per deployment, a column per load."""
    loads = _loads(found)
    by_place = {(group.deployment, group.load): bound for group, bound in found}
    rows = [
        Row(
            [named(looks(run)[label]), *(_word(by_place.get((label, load))) for load in loads)],
            Of(label),
        )
        for label in dict.fromkeys(group.deployment for group, _ in found)
    ]
    heads = (Head(load, Of(load=load)) for load in loads)
    return table(["deployment", *heads], rows, "plain loads bounds", "What bounded each load")


def _loads(found: Sequence[tuple[Group, Bound]]) -> list[str]:
    places = {(group.family, group.level, group.load) for group, _ in found}
    return [load for _, _, load in sorted(places)]


def _word(bound: Bound | None) -> Html | str:
    if bound is None:
        return NOTHING
    word = tag("span", bound.words, title=bound.sentence, class_=_TONES.get(bound.kind, "quiet"))
    few = f"{bound.starts} of {bound.of} starts"
    return join([word, tag("span", few, class_="range") if bound.starts < bound.of else ""])


def _evidence(run: Run, found: Sequence[tuple[Group, Bound]]) -> Html:
    return table(
        ["deployment", "load", "bound", "evidence"],
        _evidence_rows(run, found),
        "plain loads bounds",
        "Evidence",
    )


def _evidence_rows(run: Run, found: Sequence[tuple[Group, Bound]]) -> Iterator[Row]:
    for group, bound in found:
        agreement = f" ({bound.agreement})" if bound.agreement else ""
        sentence = f"{capital(bound.sentence)}{agreement}."
        why = tag("span", sentence, class_="why")
        cells = (named(looks(run)[group.deployment]), group.load, bound.words, why)
        yield Row(cells, Of(group.deployment, group.load))
