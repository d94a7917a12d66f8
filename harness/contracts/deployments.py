"""What is served and how: a deployment, its weights, what is started and installed, what a server says."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

# How a server is started: as a process of this machine, or as a container.
Launcher = Literal["native", "docker"]
# matched: the common terms are the same for all engines; stock: each engine's own defaults; tuned: matched,
# with the engine's own named set of options on top.
Fairness = Literal["matched", "stock", "tuned"]


@dataclass(frozen=True)
class EngineTerms:
    """Terms common to all engines (`engine.*`); each engine's file maps them to its own flags. None leaves it
    to the engine.

    With fairness `matched` and `tuned` the plan fills `context_length` (tokens of one conversation),
    `concurrent_sequences` (requests served at once), `kv_cache_tokens` (in all) and `prefix_cache`; see
    plan/terms.py.

    `launcher`: None is the engine's first. `chunked_prefill`: long prompts are read in parts, between the
    tokens of others. `dtype`: of activations and unquantized weights. `tensor_parallel`: devices that share
    the model. `graphs`: captured or compiled ones; false: eager. `speculative_tokens`: proposed at once from
    n-grams of the text so far. `chat_template`: a Jinja file instead of the model's. `memory_limit_bytes`: of
    a container. `trust_remote_code`: run Python code that comes with the model. `base_url`: attach to this
    running server. `api_key_env`: the environment variable that holds its key.
    """

    fairness: Fairness = "matched"
    launcher: Launcher | None = None
    context_length: int | None = None
    concurrent_sequences: int | None = None
    kv_cache_tokens: int | None = None
    prefix_cache: bool | None = None
    chunked_prefill: bool | None = None
    dtype: Literal["float16", "bfloat16", "float32"] | None = None
    tensor_parallel: int = 1
    seed: int | None = None
    graphs: bool | None = None
    speculative_tokens: int | None = None
    chat_template: str | None = None
    memory_limit_bytes: int | None = None
    trust_remote_code: bool = False
    start_timeout_s: float = 600.0
    base_url: str | None = None
    api_key_env: str = "OPENAI_API_KEY"


@dataclass(frozen=True)
class Deployment:
    """One engine serving one model at one quantization with fixed options.

    `options` is the engine's own frozen dataclass (a mapping when read back). `label` is unique in a plan;
    `slug` names files.
    """

    engine: str
    model: str
    quantization: str
    terms: EngineTerms
    options: Any
    label: str

    @property
    def slug(self) -> str:
        return "".join(c if c.isalnum() or c in "._-" else "-" for c in self.label)[:80]


@dataclass(frozen=True)
class Weights:
    """Local files that an engine needs: `gguf` is the first file, `safetensors` a Hugging Face directory."""

    model: str
    quantization: str
    file_format: str


@dataclass(frozen=True)
class ModelFacts:
    """What a model's config.json says of its shape. `architecture` is its model_type.

    `sliding_layers` of the `layers` keep no more than `sliding_window` tokens in their KV cache,
    `linear_layers` a state of fixed size instead. `latent_size`: numbers kept per token and layer by latent
    attention (MLA). `vocabulary` and `hidden_size` are the embedding's shape, which the output layer shares
    where `ties_embeddings`.
    """

    architecture: str
    layers: int
    kv_heads: int
    head_size: int
    context_length: int
    parameters: int | None = None
    sliding_window: int | None = None
    sliding_layers: int = 0
    linear_layers: int = 0
    latent_size: int | None = None
    vocabulary: int | None = None
    hidden_size: int | None = None
    ties_embeddings: bool | None = None


@dataclass(frozen=True)
class KnownFacts:
    """A shape with its parameters. `source` is a clause: where it is from. `origin`: bench's table, the hub,
    weights on this machine, or a config.json. `is_stretched`: the context length need not be the most.
    """

    facts: ModelFacts
    source: str
    is_estimated: bool = False
    origin: Literal["table", "hub", "weights", "shape"] = "shape"
    is_stretched: bool = False


@dataclass(frozen=True)
class WeightsFile:
    """Weights found on this machine: a file, or a directory.

    `note` says what their origin means for a comparison. `chat_template`: a Jinja file for every engine,
    where the model's own files disagree or have none.
    """

    path: Path
    size_bytes: int
    sha256: str | None = None
    note: str | None = None
    facts: ModelFacts | None = None
    chat_template: Path | None = None


@dataclass(frozen=True)
class Place:
    """Where a server runs. `python`: the interpreter of the engine's environment, None where it needs none.
    `scratch`: the start's own directory. `program`: what the environment was compiled to, or the user's own.
    `devices`: none on the CPU. `cache`: what one program keeps between starts (a container:
    ContainerSpec.cache).
    """

    python: Path | None
    weights: Path | None
    host: str
    port: int
    scratch: Path
    program: Path | None = None
    devices: tuple[int, ...] = ()
    facts: ModelFacts | None = None
    chat_template: Path | None = None
    cache: Path | None = None

    @property
    def base_url(self) -> str:
        return f"http://{self.host}:{self.port}/v1"


@dataclass(frozen=True)
class NativeSpec:
    """A server process. `base_url` ends in /v1; `served_model` goes into each request's `model`.

    `ready_path` (from the root) answers 200 once the server listens. `environment` is added to a copy of
    ours.
    """

    argv: tuple[str, ...]
    base_url: str
    served_model: str
    ready_path: str = "/health"
    environment: Mapping[str, str] = field(default_factory=dict)
    stop_grace_s: float = 10.0


@dataclass(frozen=True)
class ContainerSpec:
    """A server in a container on the host's network; it must listen on 127.0.0.1 and the place's port.

    `arguments` follow the image's entrypoint (or `entrypoint`). `mounts`: a path here and one inside,
    read-only. `cache`: a directory of the image that a Docker volume keeps between starts. `devices`: of
    `docker run --gpus device=`. Nothing of our environment is passed on. Else as NativeSpec.
    """

    image: str
    arguments: tuple[str, ...]
    base_url: str
    served_model: str
    ready_path: str = "/health"
    environment: Mapping[str, str] = field(default_factory=dict)
    mounts: tuple[tuple[Path, str], ...] = ()
    cache: str | None = None
    devices: tuple[int, ...] = ()
    shm_bytes: int | None = None
    memory_limit_bytes: int | None = None
    entrypoint: str | None = None
    stop_grace_s: float = 30.0


@dataclass(frozen=True)
class AttachSpec:
    """A server that is already running and that bench neither starts nor stops."""

    base_url: str
    served_model: str


LaunchSpec = NativeSpec | ContainerSpec | AttachSpec


@dataclass(frozen=True)
class InstallSpec:
    """How an environment is made: a venv from a lock, mended and tried; a program from C files; or both."""

    environment: str  # its name: a file name
    lock: Path | None  # all packages, with hashes; None: no venv
    check: str  # Python source that must run in the venv
    size_bytes: int  # roughly what lands on disk
    # C files, and the headers beside them, of which the system's compiler makes `bin/program`. When one
    # changes, the environment is made again.
    sources: tuple[Path, ...] = ()
    # Scripts of engines/inside that the venv's Python runs before `check`. They add files, and change none:
    # uv's cache may share those.
    mend: tuple[Path, ...] = ()
    program: str | None = None  # a file in the environment that is the server, where no Python starts it
    is_built: bool = False  # packages are compiled here, which takes minutes: only when the user asks for it
    needs: str | None = None  # what the packages need to be found or built: said when the install fails


@dataclass(frozen=True)
class HttpCall:
    """A request to a server of ours: `path` from its root, `body` as JSON (None: none)."""

    method: Literal["GET", "POST"]
    path: str
    body: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class CacheReset:
    """What was done so that a cell does not find prompts of an earlier one in the prefix cache.

    `how`: `reset` (the probe prompt was read again after it), `unchecked` (the server's counts do not show
    it), `failed` (still cached, or a call was refused), `none` (the engine cannot, or the server is not
    ours). `note` says why it is not `reset`. `cached_tokens` of `prompt_tokens` were cached after the reset.
    """

    how: Literal["reset", "unchecked", "failed", "none"]
    prompt_tokens: int | None = None
    cached_tokens: int | None = None
    note: str | None = None


# What a server's memory is made of. `workspace`: buffers of a step (activations, logits), used or not;
# `kv_copies`: states of conversations that are saved beside the KV cache, under load.
MemoryPart = Literal["weights", "kv_cache", "graphs", "workspace", "kv_copies"]

# What engines' metrics pages have in common. Gauges: running, waiting (requests), kv_cache_usage_share (0 to
# 1). All others only grow: prefix_hit_tokens of prefix_query_tokens, queue_s of queued_requests (in all).
ServerTerm = Literal[
    "running", "waiting", "kv_cache_usage_share", "prefix_query_tokens", "prefix_hit_tokens", "preemptions",
    "prompt_tokens", "generated_tokens", "queue_s", "queued_requests",
]  # fmt: skip

METRICS_PATH = "/metrics"  # of a server's Prometheus page, from its root


@dataclass(frozen=True)
class ServerMetric:
    """Where a server's Prometheus page has a term: `sample`, plus those of `also`, times `scale`.

    The values of all label sets that have `labels` are added, or their `mean` is taken (data-parallel
    engines' equal caches). `absent`: the term's value while the page has no `sample`: some counters appear
    with what they count.
    """

    sample: str
    scale: float = 1.0
    labels: Mapping[str, str] = field(default_factory=dict)
    also: tuple[str, ...] = ()
    absent: float | None = None
    combine: Literal["sum", "mean"] = "sum"


@dataclass(frozen=True)
class MemoryNeed:
    """What a deployment takes on all its devices together. The plan adds `weights_bytes`.

    `kv_bytes_per_token`: one more token, if no layer has a full window. `overhead_bytes`: all else.
    `overhead_source`: where that was measured. `is_assumed`: never on such a device, or with such a shape.
    """

    kv_cache_bytes: int
    kv_bytes_per_token: int
    overhead_bytes: int
    overhead_source: str
    is_assumed: bool
    weights_bytes: int = 0

    @property
    def total_bytes(self) -> int:
        return self.weights_bytes + self.kv_cache_bytes + self.overhead_bytes
