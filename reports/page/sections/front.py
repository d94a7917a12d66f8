"""The front of speed, quality and memory: a mark for each deployment at the load that is told first."""

from reports.page.cells import aggregate_cell
from reports.page.declared import Chart, below, of_group
from reports.page.drawing.kinds import Point, plane
from reports.page.looks import looks
from reports.verdicts.decisions import SPEED
from reports.verdicts.front import Stand, front_of
from reports.words import quality as words
from reports.words.claims import gib


def _point(stand: Stand) -> Point:
    at = f"KL {words.nats(stand.kl_nats)}, {gib(stand.memory_bytes)} GiB"
    if stand.kl_nats < words.LEAST_NATS:
        return Point(SPEED, of_group(stand.group), at, 0.0, stand.speed, {})
    return Point(SPEED, of_group(stand.group), at, stand.kl_nats, stand.speed, {}, stand.kl_interval)


FRONT = Chart[Stand](
    "speed-quality-memory",
    lambda run: f"Output tokens/s against KL at {front_of(run)[0].group.load}",
    front_of,
    lambda run, stands: plane(
        looks(run),
        list(map(_point, stands)),
        {each.group.deployment: each.memory_bytes for each in stands},
        "KL nats, lower is better",
    ),
    lambda _: {
        "deployment": lambda each: each.group.deployment,
        "KL nats": lambda each: below(words.nats(each.kl_nats), words.ends(each.kl_interval)),
        "output tokens/s": lambda each: aggregate_cell(SPEED, each.speed),
        "peak memory GiB": lambda each: gib(each.memory_bytes),
    },
    lambda each: of_group(each.group),
    note=words.front,
    names_ends=True,
    is_wide=True,
)
