"""What a prefix cache served of each of shared_prefix's beginnings."""

from reports.data import Run
from reports.measures import number
from reports.measures.traffic.parts import Part, parts_of
from reports.page.declared import Table, Topic, of_group

_MOST = 8  # later prefixes are rarer


def _first_parts(run: Run) -> list[Part]:
    return [part for part in parts_of(run, "shared_prefix") if part.number < _MOST]


PREFIXES = Topic(
    "prefixes",
    "Shared prefixes",
    [
        Table[Part](
            "By prefix",
            _first_parts,
            lambda run: {
                "deployment": lambda part: part.group.deployment,
                "load": lambda part: part.group.load,
                "prefix": lambda part: str(part.number + 1),
                "requests": lambda part: f"{part.requests:,}",
                "input tokens": lambda part: number(part.input_tokens, 0),
                "from the cache %": lambda part: number(part.cached_share, scale=100),
                "TTFT p50 ms": lambda part: number(part.ttft_s, scale=1e3),
            },
            lambda part: of_group(part.group),
        )
    ],
    f"The {_MOST} most frequent prefixes, all starts together.",
)
