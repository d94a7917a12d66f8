"""The fairness ledger: what was asked of each deployment by common terms, and what its server says it uses.

Compares and names; draws nothing. A term of which a server says nothing is not said to differ.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeGuard

from harness.contracts import Deployment, Scalar
from harness.store.store import StartRecord
from reports.data.run import Run

# A server rounds its KV cache to blocks; beyond this share above what was asked it is another budget.
MORE_SHARE = 0.1
NOTHING_ASKED = "not asked"
ITS_DEFAULT = "its own default"
AS_STARTED = "as it was started"
NOT_SAID = "not said"

# same: got what was asked, or nothing to compare. less, more: of a number. other: of anything else.
# untold: the engine cannot be told, and does not say that it is the same.
State = Literal["same", "less", "more", "other", "untold"]


@dataclass(frozen=True)
class Term:
    """A row of the ledger: `name` in EngineTerms or in what a server resolved; `is_asked`: a common term.
    `is_work`: deployments that do the same work have it equal."""

    name: str
    title: str
    is_asked: bool = True
    is_work: bool = True


TERMS = (
    Term("context_length", "context length"),
    Term("concurrent_sequences", "concurrent sequences"),
    Term("kv_cache_tokens", "KV cache, tokens"),
    Term("kv_cache_bytes", "KV cache, bytes", False, False),
    Term("prefix_cache", "prefix cache"),
    Term("chunked_prefill", "chunked prefill"),
    Term("dtype", "dtype"),
    Term("tensor_parallel", "tensor parallel"),
    Term("seed", "seed"),
    Term("graphs", "graphs"),
    Term("speculative_tokens", "speculative tokens"),
    Term("chat_template", "chat template"),
)
KERNELS = (
    Term("threads", "threads", False),
    Term("quantization_kernel", "quantization kernel", False, False),
    Term("attention_backend", "attention backend", False, False),
    Term("kv_cache_type", "KV cache type", False, False),
    Term("kernel_stand_in", "stand-in for kernels", False, False),
    Term("engine_version", "engine version", False, False),
)


@dataclass(frozen=True)
class Entry:
    """One deployment's side of a row. `got`: what its starts say, each different value once with its starts
    (from 1); none where they say nothing; `values`: the same, as they were said. `asked_text`: None where the
    row is no common term. `state` is of the worst start. `clause`: why it could not be told, or not
    exactly."""

    asked_text: str | None
    got: tuple[tuple[str, tuple[int, ...]], ...]
    values: tuple[Scalar, ...]
    state: State
    share_above: float | None = None
    clause: str | None = None

    @property
    def is_off(self) -> bool:
        """Whether it is not what was asked."""
        return self.state != "same" and not self.is_more

    @property
    def is_more(self) -> bool:
        """Whether it is only a larger KV cache than was asked."""
        return self.share_above is not None

    @property
    def disagrees(self) -> bool:
        """Whether its starts say different things."""
        return len(self.got) > 1

    @property
    def got_text(self) -> str:
        if not self.disagrees:
            return self.got[0][0] if self.got else NOT_SAID
        return ", ".join(f"{text} (start {', '.join(map(str, starts))})" for text, starts in self.got)


@dataclass(frozen=True)
class Row:
    """`entries` by the deployment's label, in the plan's order."""

    term: Term
    entries: Mapping[str, Entry]

    @property
    def title(self) -> str:
        return self.term.title

    @property
    def is_uneven(self) -> bool:
        """Whether servers say different things of what should be equal, asked or not."""
        texts = {text for entry in self.entries.values() for text, _ in entry.got}
        if self.term.name == "kv_cache_tokens":  # rounded to blocks
            values = [value for entry in self.entries.values() for value in entry.values]
            if least := min((float(value) for value in values if _is_number(value)), default=None):
                return any(_compare_kv_cache(least, value)[0] != "same" for value in values)
        return self.term.is_work and len(texts) > 1


@dataclass(frozen=True)
class Ledger:
    """What was asked of each deployment and what it got.

    `rows` are the common terms, `kernels` what else a server says of how it computes. Rows of which nothing
    is asked and nothing said are left out, as is a single device that nobody mentions. `modes` are the labels
    by engine.fairness.
    """

    rows: tuple[Row, ...]
    kernels: tuple[Row, ...]
    modes: Mapping[str, tuple[str, ...]]


def ledger_of(run: Run) -> Ledger:
    """Of all planned deployments, also those that never started."""
    rows = {term: Row(term, dict(_entries(run, term))) for term in (*TERMS, *KERNELS)}
    said = [row for row in rows.values() if any(_is_telling(row.term, e) for e in row.entries.values())]
    modes: dict[str, tuple[str, ...]] = {}
    for label, deployment in run.deployments.items():
        fairness = deployment.terms.fairness
        modes[fairness] = (*modes.get(fairness, ()), label)
    kernels = tuple(row for row in said if row.term in KERNELS)
    return Ledger(tuple(row for row in said if row.term in TERMS), kernels, modes)


_NO_MODEL = "-"
_NOT_ASKED = (None, NOTHING_ASKED, ITS_DEFAULT, AS_STARTED)


def _is_telling(term: Term, entry: Entry) -> bool:
    is_one_device = term.name == "tensor_parallel" and entry.asked_text == "1"
    return bool(entry.got) or (entry.asked_text not in _NOT_ASKED and not is_one_device)


def _entries(run: Run, term: Term) -> Iterator[tuple[str, Entry]]:
    for label, deployment in run.deployments.items():
        records = run.starts_of(label)
        is_attached = deployment.terms.base_url is not None
        asked = getattr(deployment.terms, term.name) if term.is_asked and not is_attached else None
        clause = next((r.unmatched[term.name] for r in records if term.name in r.unmatched), None)
        got = _got(deployment, records, term)
        state, above = _judged(term, asked, [value for value, _ in got], clause)
        if state == "untold" and deployment.model == _NO_MODEL:
            state = "same"  # a term that means nothing without a model is not unlike another's
        text = None
        if term.is_asked:
            text = _asked_text(term, asked, deployment.terms.fairness, is_attached)
        shown = tuple((value_text(term.name, value), starts) for value, starts in got)
        yield label, Entry(text, shown, tuple(value for value, _ in got), state, above, clause)


def _got(
    deployment: Deployment, records: Sequence[StartRecord], term: Term
) -> list[tuple[Scalar, tuple[int, ...]]]:
    found: dict[Scalar, tuple[int, ...]] = {}
    for record in records:
        value = record.resolved.get(term.name)
        if term.name == "engine_version":
            value = record.version or value
        if term.name == "chat_template" and value is not None:
            value = template_name(deployment, value)
        if value is not None:
            found[value] = (*found.get(value, ()), record.repeat + 1)
    return list(found.items())


def _asked_text(term: Term, asked: Any, fairness: str, is_attached: bool) -> str:
    if asked is not None:
        return value_text(term.name, asked)
    if is_attached:
        return AS_STARTED
    return ITS_DEFAULT if fairness == "stock" else NOTHING_ASKED


def _judged(term: Term, asked: Any, got: Sequence[Scalar], clause: str | None) -> tuple[State, float | None]:
    """The worst start's state; of a KV cache that is only too large, by what share."""
    if asked is None:
        return "same", None
    if not got:
        return ("untold" if clause else "same"), None
    compare = _COMPARE.get(term.name, _compare_plainly)
    states = [compare(asked, value) for value in got]
    worst = max((state for state, _ in states), key=_BADNESS.index)
    above = max((share for _, share in states if share is not None), default=None)
    return worst, above if worst == "more" else None


_BADNESS: Sequence[State] = ("same", "more", "untold", "other", "less")


def _compare_plainly(asked: Any, got: Scalar) -> tuple[State, float | None]:
    if asked == got:
        return "same", None
    if _is_number(asked) and _is_number(got):
        return ("less" if got < asked else "more"), None
    return "other", None


def _compare_kv_cache(asked: Any, got: Scalar) -> tuple[State, float | None]:
    if not _is_number(got):
        return "other", None
    above = got / asked - 1
    if above < 0:
        return "less", None
    return ("more", above) if above > MORE_SHARE else ("same", None)


_DTYPES = {"half": "float16", "fp16": "float16", "f16": "float16", "bf16": "bfloat16", "float": "float32",
           "fp32": "float32", "f32": "float32"}  # fmt: skip


def _dtype(value: Scalar) -> str:
    plain = str(value).lower().removeprefix("torch.")
    return _DTYPES.get(plain, plain)


def _compare_dtype(asked: Any, got: Scalar) -> tuple[State, float | None]:
    return ("same" if _dtype(got) == asked else "other"), None


def template_name(deployment: Deployment, said: Scalar) -> str:
    """What a server's chat template is called. Servers that were given a file say its path or its name, or
    `given`; without engine.chat_template it is one that comes with the model's weights."""
    asked = deployment.terms.chat_template
    if said != _GIVEN and "/" not in str(said) and not str(said).endswith(".jinja"):
        return str(said)
    if asked is None:
        return "the file given with the model"
    is_asked = said == _GIVEN or _file_name(str(said)) == _file_name(asked)
    return _file_name(asked if is_asked else str(said))


_GIVEN = "given"


def _compare_template(asked: Any, got: Scalar) -> tuple[State, float | None]:
    return ("same" if got == _file_name(str(asked)) else "other"), None


_COMPARE: Mapping[str, Callable[[Any, Scalar], tuple[State, float | None]]] = {
    "kv_cache_tokens": _compare_kv_cache,
    "dtype": _compare_dtype,
    "chat_template": _compare_template,
}


def _is_number(value: object) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _file_name(path: str) -> str:
    return path.rstrip("/").rpartition("/")[2] or path


def value_text(name: str, value: Scalar) -> str:
    """A term's value as a person reads it."""
    if isinstance(value, bool):
        words = ("yes", "no") if name == "kernel_stand_in" else ("on", "off")
        return words[0] if value else words[1]
    if name.endswith("_bytes") and isinstance(value, int | float):
        return f"{value / 2**30:,.2f} GiB" if value >= 2**30 else f"{value / 2**20:,.0f} MiB"
    if name == "dtype":
        return _dtype(value)
    if name == "chat_template":
        return _file_name(str(value))
    return f"{value:,}" if isinstance(value, int) and name != "seed" else str(value)
