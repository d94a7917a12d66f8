"""Read GuideLLM's JSON report: a benchmark for each load, with its requests."""

from pathlib import Path

import msgspec

from serving_bench.harness.contracts import Load, Outcome
from serving_bench.harness.errors import UserError
from serving_bench.harness.imports import result

SIGNS = frozenset({"metadata", "benchmarks"})
_DEFINITIONS = (
    "GuideLLM's inter_token_latency_ms is bench's TPOT; its time_per_output_token_ms counts from the "
    "request's start, TTFT included, and is not a quantity of bench's",
    "Tokens are the server's where it gave a usage, else GuideLLM's tokenizer's; the file does not say which",
)
_MISSING = (
    "when each chunk came, so that ITL is not known and a request's tokens are spread evenly from its first "
    "to its last",
    "the status of a failed request",
)


class _Strategy(msgspec.Struct):
    type_: str
    streams: result.Users | None = None
    rate: result.Rate | None = None
    max_concurrency: result.Users | None = None


class _Backend(msgspec.Struct):
    model: str | None = None


class _Config(msgspec.Struct):
    strategy: _Strategy
    backend: _Backend


class _Timings(msgspec.Struct):
    targeted_start: result.Seconds | None = None
    request_start: result.Seconds | None = None
    first_token_iteration: result.Seconds | None = None
    first_output_token_iteration: result.Seconds | None = None
    last_token_iteration: result.Seconds | None = None
    request_end: result.Seconds | None = None
    resolve_end: result.Seconds | None = None


class _Info(msgspec.Struct):
    timings: _Timings
    turn_index: result.Count | None = None
    error: str | None = None


class _Stats(msgspec.Struct):
    request_id: str
    info: _Info
    prompt_tokens: result.Count | None = None
    output_tokens: result.Count | None = None
    cached_tokens: result.Count | None = None


class _Requests(msgspec.Struct):
    successful: list[_Stats]
    errored: list[_Stats]
    incomplete: list[_Stats]


class _Scheduler(msgspec.Struct):
    requests_made: dict[str, result.Count]
    measure_start_time: result.Seconds
    measure_end_time: result.Seconds


class _Benchmark(msgspec.Struct):
    config: _Config
    scheduler_metrics: _Scheduler
    requests: _Requests


class _Report(msgspec.Struct):
    metadata: dict[str, str | int]
    benchmarks: list[_Benchmark]


def read(path: Path, content: bytes) -> result.Result:
    """Read all benchmarks of a report. Raises UserError."""
    report = result.decoded(content, _Report, str(path))
    models = dict.fromkeys(result.told(each.config.backend.model) for each in report.benchmarks)
    return result.Result(
        tool="GuideLLM",
        version=result.told(str(report.metadata.get("guidellm_version", ""))),
        model=", ".join(filter(None, models)),
        loads=[_one(each, f"{path}, benchmark {at}") for at, each in enumerate(report.benchmarks, 1)],
        definitions=_DEFINITIONS,
        missing=_MISSING,
    )


def _one(benchmark: _Benchmark, where: str) -> tuple[Load, list[result.Request]]:
    kinds: dict[Outcome, list[_Stats]] = {
        "ok": benchmark.requests.successful,
        "failed": benchmark.requests.errored,
        "cancelled": benchmark.requests.incomplete,
    }
    window = benchmark.scheduler_metrics
    made_count = window.requests_made.get("total", 0)
    requests = [_request(kind, each, window) for kind, of_kind in kinds.items() for each in of_kind]
    if len(requests) < made_count:
        few = f"has {len(requests):,} of its {made_count:,} requests, and rates need all of them"
        raise UserError(f"{where}: {few}; run GuideLLM without sample_size")
    return _load(benchmark.config.strategy, len(requests), where), requests


def _load(strategy: _Strategy, requests: int, where: str) -> Load:
    match strategy:
        case _Strategy(type_="synchronous"):
            return result.load_of(requests, 1)
        case _Strategy(type_="concurrent", streams=int() as users):
            return result.load_of(requests, users)
        case _Strategy(type_="throughput", max_concurrency=users):
            return result.load_of(requests, users, arrival="poisson" if users else "batch")
        case _Strategy(type_="constant" | "poisson" as arrival, rate=float() as rate, max_concurrency=most):
            return result.load_of(requests, most, rate, arrival)
        case _Strategy(type_="trace"):
            return result.load_of(requests, arrival="trace")
    readable = "synchronous, concurrent, throughput, constant, poisson and trace are read"
    raise UserError(f"{where}: its strategy is {result.told(strategy.type_)}; {readable}")


def _request(outcome: Outcome, stats: _Stats, window: _Scheduler) -> result.Request:
    timings = stats.info.timings
    sent_s, end_s = timings.request_start, timings.request_end
    return result.Request(
        outcome=outcome,
        sent_ns=result.ns(sent_s),
        end_ns=result.ns(timings.resolve_end if end_s is None else end_s),
        request_id=result.told(stats.request_id),
        turn=stats.info.turn_index,
        error=result.told(stats.info.error) or None,
        scheduled_ns=result.ns(timings.targeted_start),
        first_content_ns=result.ns(timings.first_token_iteration),
        first_answer_ns=result.ns(timings.first_output_token_iteration),
        last_content_ns=result.ns(timings.last_token_iteration),
        input_tokens=stats.prompt_tokens,
        output_tokens=stats.output_tokens,
        cached_tokens=stats.cached_tokens,
        counts=sent_s is not None and window.measure_start_time <= sent_s <= window.measure_end_time,
    )
