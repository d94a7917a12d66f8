"""The engine seam: everything that bench knows about a serving program."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from serving_bench.harness.contracts.deployments import (
    Deployment,
    Fairness,
    InstallSpec,
    Launcher,
    LaunchSpec,
    MemoryNeed,
    MemoryPart,
    ModelFacts,
    Place,
    Weights,
)
from serving_bench.harness.contracts.quality import LOGPROBS, Ask, Token
from serving_bench.harness.contracts.records import Scalar
from serving_bench.harness.contracts.scenarios import Adapter, Form, Message, Turn
from serving_bench.harness.contracts.sentences import Fact, Reason
from serving_bench.harness.contracts.servers import HttpCall, ServerMetric, ServerTerm

# How a server is asked and answers: OpenAI's chat completions, Anthropic's messages, Gemini's content.
ApiName = Literal["anthropic", "gemini", "openai"]


@dataclass(frozen=True)
class Hint:
    """A remedy (a sentence, or "") for a failed start whose log matches `pattern` (a regular expression).

    `of_own`: the remedy if the weights are the user's own files. `is_effect`: the line says only that a part
    failed, and is quoted only if no other line names an error.
    """

    pattern: str
    remedy: str
    of_own: str | None = None
    is_effect: bool = False


@dataclass(frozen=True)
class Stage:
    """A step of a start, reached at the first line of the log that matches `pattern` (a regular expression).

    The names are, in order: `weights_begin` (until then the program itself loads), `weights_loaded`,
    `engine_ready`.
    """

    name: str
    pattern: str


@dataclass(frozen=True)
class Tuned:
    """A named set of an engine's own options for fairness=tuned, and who recommends it (`source`)."""

    name: str
    options: Mapping[str, Scalar]
    source: str


@dataclass(frozen=True)
class Said:
    """What a server reports about its settings and its memory. What it does not report is left out.

    `terms`: by the names of EngineTerms and, besides these, engine_version, weights_type, kv_cache_bytes,
    quantization_kernel, attention_backend, threads, chat_template. `memory`: bytes of each part, summed over
    all devices. `unmatched`: of terms that were asked for, what is known only now: why the server does not
    use one as asked, or None for one that `Engine.unmatched` named before the start but that it does keep.
    """

    terms: Mapping[str, Scalar] = field(default_factory=dict)
    memory: Mapping[MemoryPart, int] = field(default_factory=dict)
    unmatched: Mapping[str, Fact | None] = field(default_factory=dict)


@dataclass(frozen=True)
class Engine:
    """A serving program: `ENGINE = Engine(...)` in engines/<name>/engine.py.

    All its functions are pure except given_text and prompt_tokens, which ask the server.
    """

    name: str
    description: str
    # The frozen dataclass of its own keys (`vllm.block_size`). A sweep of one multiplies this engine only.
    # Four fields mean the same everywhere: `program` (one of `programs`, or the path of the user's own),
    # `environment` (a directory, instead of the one that bench installs), `image` (of a container), `args`
    # (further arguments of its server, which bench appends).
    options: type
    # Return what to start. The plan calls it too, with a made-up place. It is never called for a deployment
    # with engine.base_url. Raise UserError if options cannot work together.
    launch: Callable[[Deployment, Place], LaunchSpec]
    api: ApiName = "openai"
    # The environment variable with the key of a server that runs already, unless engine.api_key_env names it.
    key_env: str = "OPENAI_API_KEY"
    # Return the files it needs. None: it needs none. Reason: why it does not serve this quantization.
    weights: Callable[[Deployment], Weights | Reason | None] = lambda deployment: None
    # The programs that bench knows, the default first. None: there is no choice.
    programs: Sequence[str | None] = (None,)
    # The ways to start it, the default first; empty if bench can only attach to it.
    launchers: Sequence[Launcher] = ("native",)
    # Return what engine.kv_cache_type can be. None: bench does not choose its KV cache.
    kv_cache_types: Callable[[Deployment], Collection[str]] | None = None
    # Return how it can speculate: `ngram`, `draft`. None: bench does not choose that.
    speculations: Callable[[Deployment], Collection[str]] | None = None
    # Return the environment of one of `programs` on a `cpu` or `cuda` device. None: it runs in bench's own.
    # Reason: why there is no such build.
    install: Callable[[str | None, str], InstallSpec | Reason | None] = lambda program, device: None
    # Return the fields of a chat request beyond model, messages, max_tokens, stream and temperature; for
    # Gemini's API those of its generationConfig. They force the output length and, unless fairness is stock,
    # set every sampling parameter whose default the engine or the model's files would choose. The second
    # argument is an instance of `options`.
    request_fields: Callable[[Turn, Any, Fairness], Mapping[str, Any]] = lambda turn, options, fairness: {}
    # Return why it serves no LoRA adapters; None: it does.
    why_no_adapters: Callable[[Deployment], Reason | None] = lambda deployment: Reason(
        "bench knows no way to give it LoRA adapters"
    )
    # Return the fields of a request for an adapter, given its name and its index among the deployment's.
    adapter_fields: Callable[[str, int], Mapping[str, Any]] = lambda name, number: {"model": name}
    # Return whether each answer has as many tokens as were asked for.
    forces_length: Callable[[Deployment], bool] = lambda deployment: False
    # Return why the engine cannot give the answers that a scenario wants; None if it can. Arguments: an
    # instance of `options`, the forms that it must enforce on answers (tool calls, JSON Schemas), and the
    # tokens of the shortest answer (None: not known).
    why_not_answered: Callable[[Any, Sequence[Form], int | None], str | None] = (
        lambda options, forms, tokens: None
    )
    # Return the common terms that were asked for but that the engine has no flag for, each with the reason as
    # a clause.
    unmatched: Callable[[Deployment], Mapping[str, Fact]] = lambda deployment: {}
    # Return the calls that empty the prefix cache of an idle server, in their order. Reason: why none does.
    reset_cache: Callable[[Deployment], Sequence[HttpCall] | Reason] = lambda deployment: Reason(
        "bench knows no way to empty its prefix cache"
    )
    # Names that a running server accepts for its model, whatever it lists.
    names: Sequence[str] = ()
    # The server's JSON pages that `said` wants to see, as paths from its root.
    pages: Sequence[str] = ()
    # Read the server's log and the pages that answered, by path. A page may have any shape.
    said: Callable[[str, Mapping[str, Any]], Said] = lambda log, pages: Said()
    # How to read the common terms from its Prometheus page (METRICS_PATH); empty if it has no such page.
    metrics: Mapping[ServerTerm, ServerMetric] = field(default_factory=dict)
    stages: Sequence[Stage] = ()
    hints: Sequence[Hint] = ()
    tuned: Tuned | None = None
    # The most top tokens per position that a chat answer can list. 0: its API lists none.
    logprobs: int = LOGPROBS
    # Ask for each token of a text, with the likeliest tokens at its position (none at the first). Arguments:
    # how to ask, the served model, the text, how many of the likeliest. None: its API cannot tell them.
    given_text: Callable[[Ask, str, str, int], Iterable[Token]] | None = None
    # Ask for the token ids that a chat's messages become. None: its API does not tell.
    prompt_tokens: Callable[[Ask, str, Sequence[Message]], Sequence[str]] | None = None
    # How many bytes of a text it counts as one token, if it has no tokenizer.
    bytes_per_token: int | None = None
    # Return the memory that a deployment, with its common terms filled, needs on a `cpu` or `cuda` device.
    # Reason: it is not known, or this engine does not serve it.
    memory_needed: Callable[[Deployment, ModelFacts, str], MemoryNeed | Reason] = (
        lambda deployment, facts, device: Reason("what it takes was never measured")
    )


def all_weights(engine: Engine, deployment: Deployment) -> list[Weights | Reason | None]:
    """Return what `weights` says of a deployment and of its draft, if any; an empty list if attached."""
    started = () if deployment.terms.base_url else (deployment, deployment.draft)
    return [engine.weights(each) for each in started if each]


def all_adapters(engine: Engine, deployment: Deployment) -> list[tuple[Weights, Adapter]]:
    """Return the adapters that need files here, each with the weights it is for; none if attached."""
    needed = None if deployment.terms.base_url else engine.weights(deployment)
    return [(needed, each) for each in deployment.adapters] if isinstance(needed, Weights) else []


# The request fields that make an answer go on after the model has ended it.
_FORCES_LENGTH = ("ignore_eos", "min_tokens")


def fields_of(
    engine: Engine, turn: Turn, options: Any, fairness: Fairness, *, ends_itself: bool
) -> dict[str, Any]:
    """Return an engine's request_fields, without those that force a length if the answer `ends_itself`."""
    fields = engine.request_fields(turn, options, fairness)
    return {name: value for name, value in fields.items() if not (ends_itself and name in _FORCES_LENGTH)}
