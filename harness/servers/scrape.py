"""Read a running server's Prometheus page once a second, in common terms.

A page that is late or damaged is a missing sample with a reason. The only importer of prometheus_client.
"""

import math
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from statistics import fmean

from prometheus_client.parser import text_string_to_metric_families

from harness.contracts import ServerMetric, ServerTerm
from harness.sampling.sampling import Sampling
from harness.servers.probe import request, root_of

# Long enough for llama.cpp, which answers between two batches. A mark may take as long as two of them.
TIMEOUT_S = 2.0

# A sample's labels and its value.
_Labelled = tuple[Mapping[str, str], float]


@dataclass(frozen=True)
class ServerSample:
    """What the page said at one instant; see ServerTerm. None: the page has no number for the term.

    `t_ns` (CLOCK_MONOTONIC) is halfway between the request and the end of its answer, which are `scrape_s`
    apart.
    """

    t_ns: int
    running: float | None = None
    waiting: float | None = None
    kv_cache_usage_share: float | None = None
    prefix_query_tokens: float | None = None
    prefix_hit_tokens: float | None = None
    preemptions: float | None = None
    prompt_tokens: float | None = None
    generated_tokens: float | None = None
    queue_s: float | None = None
    queued_requests: float | None = None
    draft_steps: float | None = None
    drafted_tokens: float | None = None
    accepted_tokens: float | None = None
    scrape_s: float = 0.0


@contextmanager
def sample_server(
    base_url: str,
    path: str,
    metrics: Mapping[ServerTerm, ServerMetric],
    *,
    key: str | None = None,
    hz: float = 1.0,
    timeout_s: float = TIMEOUT_S,
) -> Iterator[Sampling[ServerSample]]:
    """Sample the page at `path` from the server's root during the block. `key` is sent but never logged."""
    notes: dict[str, str] = {}

    def read() -> Sequence[ServerSample]:
        begun_ns = time.monotonic_ns()
        answer = request("GET", root_of(base_url) + path, timeout_s=timeout_s, key=key)
        ended_ns = time.monotonic_ns()
        if answer.status != 200:
            why = answer.text if answer.status is None else f"{path} answers HTTP {answer.status}"
            notes["samples"] = f"not all were read (the last that was not: {why})"
            return []
        found, problems = terms_on(answer.text, metrics)
        for term in found:
            notes.pop(term, None)
        notes.update(problems)
        return [ServerSample((begun_ns + ended_ns) // 2, **found, scrape_s=(ended_ns - begun_ns) / 1e9)]

    with Sampling(read, hz, notes=notes) as sampling:
        yield sampling


def terms_on(
    text: str, metrics: Mapping[ServerTerm, ServerMetric]
) -> tuple[dict[ServerTerm, float], dict[str, str]]:
    """Return the values of a page by term, and the reason for each missing one by term.

    Only the lines of the wanted samples are parsed: of vLLM's 600 lines, a dozen.
    """
    names = sorted({re.escape(name) for metric in metrics.values() for name in (metric.sample, *metric.also)})
    lines = re.findall(rf"^(?:{'|'.join(names)})[{{ \t].*$", text, re.MULTILINE)
    if not lines:
        return {}, dict.fromkeys(metrics, "not on the server's page")
    samples: dict[str, list[_Labelled]] = {}
    for line in lines:
        with suppress(ValueError, OverflowError):  # a damaged line costs its own term only
            for family in text_string_to_metric_families(line + "\n"):
                for sample in family.samples:
                    samples.setdefault(sample.name, []).append((sample.labels, float(sample.value)))
    found = {term: _value(metric, samples) for term, metric in metrics.items()}
    known = {term: value for term, value in found.items() if value is not None and math.isfinite(value)}
    missing: dict[str, str] = {
        term: "not on the server's page" if value is None else "no finite number"
        for term, value in found.items()
        if term not in known
    }
    return known, missing


def _value(metric: ServerMetric, samples: Mapping[str, Sequence[_Labelled]]) -> float | None:
    parts = [
        [value for labels, value in samples.get(name, ()) if metric.labels.items() <= labels.items()]
        for name in (metric.sample, *metric.also)
    ]
    if not parts[0]:
        return metric.absent
    if not all(parts):
        return None
    return metric.scale * sum(map(fmean if metric.combine == "mean" else sum, parts))
