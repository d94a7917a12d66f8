"""Put a description of traffic into words, and into one page of HTML that opens offline."""

from collections.abc import Iterator, Mapping, Sequence
from importlib import resources

from jinja2 import Environment

from serving_bench.harness.describe.described import Bin, Described, Histogram, Hits, Traffic

# Turns and groups that are shown; the JSON has all.
SHOWN = 12


def heading(each: Described) -> str:
    return f"{each.scenario}, {each.load}"


def looked_at(each: Described) -> str:
    """Say which conversations were looked at, and in which order they were sent."""
    traffic = each.traffic
    which = "all" if traffic.is_all else "the first"
    order = "one after the other" if traffic.users == 1 else f"as {traffic.users} users send them in turn"
    conversations = f"{which} {traffic.conversations} conversations of seed {each.seed}"
    return f"{conversations}, {traffic.requests} requests, {order}"


def lengths(traffic: Traffic) -> dict[str, Histogram]:
    """Return the histograms by their titles."""
    return {
        "prompt tokens": traffic.input_tokens,
        "output tokens, at most": traffic.output_tokens,
        "turns": traffic.turns,
    }


def bin_name(each: Bin) -> str:
    return f"{each.least} to {each.most}" if each.most > each.least else str(each.least)


def lines(traffic: Traffic) -> Iterator[str]:
    """Say what a cache could serve, what answers must be, what is sent at once, and how many users leave."""
    hits = traffic.hits
    yield (
        f"ideal hit rate {_percent(hits.hit_share)}: the share of {hits.input_tokens:,} prompt tokens that a "
        "prefix cache of unlimited size could serve"
    )
    yield f"{_percent(hits.shared_share)} of the prompt tokens were first sent in another conversation"
    for form in traffic.forms:
        how = "the server is told" if form.is_forced else "only the prompt says so"
        yield f"{form.requests} of {traffic.requests} requests want {form.asks_for} ({form.name}; {how})"
    if traffic.parallel:
        yield (
            f"{traffic.parallel} of {traffic.requests} requests are sent at once with others of their user, "
            f"up to {traffic.at_once} together"
        )
    if traffic.left_share:
        yield f"in {_percent(traffic.left_share)} of the requests the user leaves if not answered sooner"


def hit_rows(hits: Mapping[int, Hits]) -> list[tuple[str, Hits]]:
    """Return the first turns or groups with their names."""
    return [(str(number), each) for number, each in list(hits.items())[:SHOWN]]


def more_hits(hits: Mapping[int, Hits]) -> list[str]:
    """Return a line that says how many others there are, if there are."""
    return [f"... and {len(hits) - SHOWN} more (--json has all)"] if len(hits) > SHOWN else []


def page(described: Sequence[Described]) -> str:
    """Return the page of these descriptions. All text of conversations is escaped."""
    template = resources.files(__package__).joinpath("page.html").read_text(encoding="utf-8")
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.globals.update(
        heading=heading,
        bin_name=bin_name,
        looked_at=looked_at,
        lengths=lengths,
        lines=lines,
        hit_rows=hit_rows,
        more_hits=more_hits,
    )
    return environment.from_string(template).render(described=described)


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
