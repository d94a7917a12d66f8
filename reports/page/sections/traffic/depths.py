"""What depth costs: TTFT and the time per token against the tokens of the prompt, and the KV cache there."""

from functools import partial

from reports.data import Run
from reports.measures import number
from reports.measures.anatomy import kv_bytes_per_token
from reports.measures.traffic.parts import Part, by_part, parts_of
from reports.page.by_load import at_depths
from reports.page.cells import aggregate_cell, gauge_cell
from reports.page.declared import Chart, Topic, of_group
from reports.page.drawing.charts import axis
from reports.page.drawing.kinds import lines
from reports.page.looks import looks, prose
from reports.page.sections.traffic.by_group import group_table

_TOKENS = axis("input tokens", rangemode="tozero")


def _chart(name: str, title: str) -> Chart[Part]:
    return Chart(
        f"depth-{name.partition('_')[0]}",
        "",
        lambda run: parts_of(run, "long_context"),
        lambda run, parts: lines(looks(run), at_depths(run, parts, name), _TOKENS, "ms"),
        lambda run: {
            "deployment": lambda part: part.group.deployment,
            "input tokens": lambda part: number(part.input_tokens, 0),
            f"{title} ms": lambda part: aggregate_cell(name, by_part(run, part, name)[0]),
            "tokens/s": lambda part: number(part.read_per_s if name == "ttft_s.p50" else part.made_per_s),
            "KV cache MiB": partial(_kv_mib, run),
            "requests": lambda part: f"{part.requests:,}",
        },
        lambda part: of_group(part.group),
        each=lambda part: f"{title} against depth, {part.group.scenario} at {part.group.load}",
        names_ends=True,
    )


def _kv_mib(run: Run, part: Part) -> str:
    per_token = kv_bytes_per_token(run, part.group.deployment)
    return number(per_token and part.input_tokens and per_token * part.input_tokens, scale=2.0**-20)


DEPTHS = Topic(
    "depths",
    "Against the depth of the context",
    [
        _chart("ttft_s.p50", "TTFT p50"),
        _chart("tpot_s.p50", "TPOT p50"),
        group_table(
            "long_context",
            ["quadratic_share", "prefill_tokens_per_s", "decode_tokens_per_s"],
            lambda run: {
                "KV cache in use %": lambda group: gauge_cell(run, group, "kv_cache_usage_share", 100)
            },
        ),
    ],
    prose("depths"),
)
