"""What servers told of themselves in the windows, and what their machine told."""

from reports.data import Group, foreign_share, growth, pooled, server_cores
from reports.measures import mean, number
from reports.page.cells import device_cell, gauge_cell
from reports.page.declared import Notes, Table, Topic, of_group
from reports.page.looks import prose
from reports.words import claims

TOLD = Topic(
    "told",
    "What servers and their machine told",
    [
        Table[Group](
            "By load",
            lambda run: [group for group in run.groups if group.counted],
            lambda run: {
                "deployment": lambda group: group.deployment,
                "load": lambda group: group.load,
                "running requests": lambda group: gauge_cell(run, group, "running", 1),
                "waiting requests": lambda group: gauge_cell(run, group, "waiting", 1),
                "KV cache %": lambda group: gauge_cell(run, group, "kv_cache_usage_share", 100),
                "prefix hits %": lambda group: number(
                    pooled(run, group, "prefix_hit_tokens", "prefix_query_tokens"), scale=100
                ),
                "preemptions": lambda group: number(
                    mean([growth(run, cell, "preemptions") for cell in group.counted]), 0
                ),
                "queue ms": lambda group: number(pooled(run, group, "queue_s", "queued_requests"), scale=1e3),
                "cores used": lambda group: number(mean([server_cores(run, cell) for cell in group.counted])),
                "others' CPU %": lambda group: number(
                    mean([foreign_share(run, cell) for cell in group.counted]), 0, 100
                ),
                "device %": lambda group: device_cell(run, group, "utilization_pct", "mean"),
                "hottest °C": lambda group: device_cell(run, group, "temperature_c", "max"),
                "samples": lambda group: (
                    f"{sum(len(run.window_samples('server', cell)) for cell in group.counted):,}"
                ),
                "starts": lambda group: str(len(group.counted)),
            },
            of_group,
        ),
        Notes(claims.unread),
    ],
    prose("told"),
)
