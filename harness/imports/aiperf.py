"""Read AIPerf's profile_export.jsonl, one record per line, and the summary beside it with model and load."""

from io import BytesIO
from itertools import accumulate
from pathlib import Path
from typing import Generic, Literal, TypeVar

import msgspec

from serving_bench.harness.contracts import Load, Outcome
from serving_bench.harness.errors import UserError
from serving_bench.harness.imports import result

SIGNS = frozenset({"metadata", "metrics"})
SUMMARY = "profile_export_aiperf.json"
_DEFINITIONS = (
    "Tokens are the server's where it gave a usage; AIPerf's own figures count with its tokenizer, unless it "
    "ran with --use-server-token-count",
    "AIPerf's inter_token_latency is bench's TPOT, its inter_chunk_latency bench's ITL",
)
_Value = TypeVar("_Value")
_Unit = TypeVar("_Unit")


class _Metric(msgspec.Struct, Generic[_Value, _Unit]):
    value: _Value
    unit: _Unit


_Duration = _Metric[result.Milliseconds, Literal["ms"]]
_Gaps = _Metric[list[result.Milliseconds], Literal["ms"]]
_Tokens = _Metric[result.Count, Literal["tokens"]]


class _Metrics(msgspec.Struct):
    time_to_first_token: _Duration | None = None
    time_to_first_output_token: _Duration | None = None
    inter_chunk_latency: _Gaps | None = None
    input_sequence_length: _Tokens | None = None
    output_sequence_length: _Tokens | None = None
    usage_prompt_tokens: _Tokens | None = None
    usage_completion_tokens: _Tokens | None = None
    usage_prompt_cache_read_tokens: _Tokens | None = None


class _Metadata(msgspec.Struct):
    request_start_ns: result.Nanoseconds
    request_end_ns: result.Nanoseconds
    benchmark_phase: str
    x_request_id: str | None = None
    turn_index: result.Count | None = None
    credit_issued_ns: result.Nanoseconds | None = None
    was_cancelled: bool = False


class _Error(msgspec.Struct):
    message: str
    code: int | None = None
    type: str | None = None


class _Record(msgspec.Struct):
    metadata: _Metadata
    metrics: _Metrics
    error: _Error | None = None


class _Phase(msgspec.Struct):
    kind: str
    type: str
    concurrency: result.Users | None = None
    rate: result.Rate | None = None


class _Model(msgspec.Struct):
    name: str


class _Config(msgspec.Struct):
    models: dict[str, list[_Model]]
    phases: list[_Phase]


class _Total(msgspec.Struct):
    avg: float


class _Summary(msgspec.Struct):
    aiperf_version: str
    input_config: _Config
    completed_request_count: _Total


def read(path: Path, content: bytes) -> result.Result:
    """Read the records, and the summary in the same folder. Raises UserError, and OSError."""
    beside = path.with_name(SUMMARY)
    if not beside.is_file():
        raise UserError(f"{path}: needs AIPerf's {SUMMARY} beside it, which says model, load and version")
    summary = result.content_of(beside)
    summary_file = result.decoded(summary, _Summary, str(beside))
    lines = enumerate(BytesIO(content), 1)
    requests = [
        _request(result.decoded(line, _Record, f"{path}, line {at}")) for at, line in lines if line.strip()
    ]
    measured, expected = sum(each.counts for each in requests), summary_file.completed_request_count.avg
    if measured < expected:
        raise UserError(f"{path}: has {measured:,} of the {expected:,.0f} requests that {SUMMARY} counts")
    models = [result.told(each.name) for each in summary_file.input_config.models.get("items", ())]
    return result.Result(
        tool="AIPerf",
        version=result.told(summary_file.aiperf_version),
        model=", ".join(models),
        loads=[(_load(summary_file.input_config.phases, measured, beside), requests)],
        definitions=_DEFINITIONS,
        beside={SUMMARY: result.digest(summary)},
    )


def _load(phases: list[_Phase], requests: int, path: Path) -> Load:
    phase = next((each for each in reversed(phases) if each.kind == "profiling"), None)
    match phase:
        case _Phase(type="concurrency", concurrency=int() as users):
            return result.load_of(requests, users)
        case _Phase(type="constant" | "poisson" as arrival, rate=float() as rate, concurrency=most):
            return result.load_of(requests, most, rate, arrival)
        case _Phase(type="fixed_schedule", concurrency=most):
            return result.load_of(requests, most, arrival="trace")
    name = phase and result.told(phase.type)
    raise UserError(
        f"{path}: its profiling phase is {name}; concurrency, constant, poisson and fixed_schedule are read"
    )


def _request(record: _Record) -> result.Request:
    meta, metrics, error = record.metadata, record.metrics, record.error
    chunk_ns = _chunks(record)
    first_ns, last_ns = (chunk_ns[0], chunk_ns[-1]) if chunk_ns else (None, None)
    served, output_length = metrics.usage_completion_tokens, metrics.output_sequence_length
    status = error.code if error and error.code in range(400, 600) else None
    outcome: Outcome = "http_error" if status else "failed" if error else "ok"
    return result.Request(
        outcome="cancelled" if meta.was_cancelled else outcome,
        sent_ns=meta.request_start_ns,
        end_ns=meta.request_end_ns,
        request_id=result.told(meta.x_request_id),
        turn=meta.turn_index,
        error=result.told(f"{error.type or ''} {error.message}") if error else None,
        http_status=status,
        scheduled_ns=meta.credit_issued_ns,
        first_content_ns=first_ns,
        first_answer_ns=_after(meta, metrics.time_to_first_output_token),
        last_content_ns=last_ns,
        chunk_ns=chunk_ns or None,
        input_tokens=_count(metrics.usage_prompt_tokens or metrics.input_sequence_length),
        output_tokens=_count(served or output_length),
        cached_tokens=_count(metrics.usage_prompt_cache_read_tokens),
        tokenizer_tokens=_count(output_length),
        token_source="server" if served else "tokenizer" if output_length else None,
        counts=meta.benchmark_phase == "profiling",
    )


def _chunks(record: _Record) -> list[int]:
    """Return the instants of the content chunks, from the first one's and the gaps after it."""
    first_ns = _after(record.metadata, record.metrics.time_to_first_token)
    gaps = record.metrics.inter_chunk_latency
    waits_ns = (round(gap * 1e6) for gap in (gaps.value if gaps else ()))
    return [] if first_ns is None else list(accumulate(waits_ns, initial=first_ns))


def _after(meta: _Metadata, waited: _Duration | None) -> int | None:
    return meta.request_start_ns + round(waited.value * 1e6) if waited else None


def _count(tokens: _Tokens | None) -> int | None:
    return tokens.value if tokens else None
