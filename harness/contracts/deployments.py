"""Types for what is served: a deployment, its weights, how it is installed and started, what it reports."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Protocol

from serving_bench.harness.contracts.keys import COUNT, DAY_S, Range, key
from serving_bench.harness.contracts.scenarios import Adapter
from serving_bench.harness.contracts.sentences import Fact

# How a server is started: as a process of this machine, or as a container.
Launcher = Literal["native", "docker"]
# The format of the numbers in a KV cache. Those with a q are llama.cpp's; fp8 is E4M3.
KvCacheType = Literal[
    "fp32", "fp16", "bf16", "fp8", "fp8_e5m2", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "iq4_nl"
]
# matched: the common terms are the same for all engines; stock: each engine's own defaults; tuned: matched,
# with the engine's own named set of options on top.
Fairness = Literal["matched", "stock", "tuned"]


@dataclass(frozen=True)
class EngineTerms:
    """Settings that all engines share (`engine.*`). Each engine's file maps them to its own flags; None lets
    the engine decide.

    With fairness `matched` and `tuned` the plan fills `context_length`, `concurrent_sequences`,
    `kv_cache_tokens` and `prefix_cache`; see plan/terms.py. A `kv_cache_type` that an engine does not have is
    skipped.
    """

    fairness: Fairness = key("matched", "Equal common terms for all engines, or each engine's own.")
    launcher: Launcher | None = key(
        None, "How servers start.", otherwise="each engine's first", foreign="never"
    )
    context_length: int | None = key(None, "The most tokens of a conversation.", Range(16), otherwise="4096")
    concurrent_sequences: int | None = key(
        None,
        "The requests served at once.",
        COUNT,
        otherwise="largest load.concurrency x scenario.parallel, or by load.rate",
    )
    kv_cache_tokens: int | None = key(
        None,
        "The tokens that the KV cache holds for all requests.",
        Range(16),
        otherwise="engine.context_length x engine.concurrent_sequences, if all can hold it",
    )
    kv_cache_type: KvCacheType | None = key(None, "The format of the numbers in the KV cache.")
    prefix_cache: bool | None = key(None, "Whether a prompt's known beginning is reused.", otherwise="true")
    chunked_prefill: bool | None = key(
        None, "Whether long prompts are read in parts, between tokens of others."
    )
    dtype: Literal["float16", "bfloat16", "float32"] | None = key(
        None, "The type of activations and unquantized weights."
    )
    tensor_parallel: int = key(1, "How many devices share the model.", COUNT)
    seed: int | None = key(None, "The seed of the server's sampling.", Range(0))
    graphs: bool | None = key(None, "Whether graphs are captured or compiled; false runs eagerly.")
    speculation: str | None = key(
        None,
        "What proposes tokens: off, ngram (the text so far) or draft:MODEL[@QUANTIZATION].",
        foreign="speculation",
    )
    speculative_tokens: int | None = key(
        None, "The tokens proposed at once.", COUNT, otherwise="3 with engine.speculation"
    )
    chat_template: str | None = key(None, "A Jinja file instead of the model's own.", foreign="file")
    memory_limit_bytes: int | None = key(None, "The memory that a container may take.", Range(1 << 20))
    trust_remote_code: bool = key(False, "Whether Python code of the model may run.", foreign="false")
    start_timeout_s: float = key(600.0, "How long a server may take to start.", Range(0.1, DAY_S))
    base_url: str | None = key(None, "The running server to attach to.", foreign="never")
    api_key_env: str = key("OPENAI_API_KEY", "The variable with a running server's key.", foreign="never")

    @property
    def draft(self) -> tuple[str, str] | None:
        """Return the draft model and its quantization ("": the deployment's); None if no model drafts."""
        kind, _, named = (self.speculation or "").partition(":")
        model, at, quantization = named.rpartition("@")
        return (model if at else named, quantization if at else "") if kind == "draft" else None


@dataclass(frozen=True)
class Deployment:
    """One engine serving one model at one quantization with fixed options.

    `options` is the engine's own frozen dataclass (a mapping when read back). `label` is unique in a plan;
    `slug` names files. `adapters` are those that the run's scenarios name, in the server's order.
    """

    engine: str
    model: str
    quantization: str
    terms: EngineTerms
    options: Any
    label: str
    adapters: tuple[Adapter, ...] = ()

    @property
    def unspeculated(self) -> "Deployment":
        """Return the same deployment without speculation."""
        return replace(self, terms=replace(self.terms, speculation=None, speculative_tokens=None))

    @property
    def draft(self) -> "Deployment | None":
        """Return a deployment of its draft model, otherwise the same; None if no model drafts for it."""
        if self.terms.draft is None:
            return None
        model, quantization = self.terms.draft
        bare = replace(self.unspeculated, adapters=())
        return replace(bare, model=model, quantization=quantization or self.quantization)

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
    """What a model's config.json says about its shape. `architecture` is its model_type.

    Of the `layers`, `sliding_layers` keep at most `sliding_window` tokens in their KV cache, and
    `linear_layers` have a state of fixed size instead. `latent_size`: numbers kept per token and layer by
    latent attention (MLA). `vocabulary` and `hidden_size` are the embedding's shape, which the output layer
    shares if `ties_embeddings`.
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
    """A model's shape and how bench knows it. `source` says where it comes from, as a clause.

    `origin`: bench's table, the hub, weights on this machine, or a config.json. `is_stretched`: the context
    length may be stretched beyond the one given.
    """

    facts: ModelFacts
    source: str
    is_estimated: bool = False
    origin: Literal["table", "hub", "weights", "shape"] = "shape"
    is_stretched: bool = False


@dataclass(frozen=True)
class WeightsFile:
    """Weights found on this machine: a file, or a directory.

    `notes` say what their origin means for a comparison. `chat_template`: a Jinja file to give every engine
    if the model's own files disagree or have none.
    """

    path: Path
    size_bytes: int
    sha256: str | None = None
    notes: tuple[Fact, ...] = ()
    facts: ModelFacts | None = None
    chat_template: Path | None = None


@dataclass(frozen=True)
class AdapterFile:
    """A LoRA adapter on this machine: a directory in PEFT's layout, or a GGUF file."""

    name: str
    path: Path
    rank: int  # the largest of its layers


@dataclass(frozen=True)
class Place:
    """Where a server runs, and with which files.

    `python`: the interpreter of the engine's environment, None if it needs none. `scratch`: the start's own
    directory. `program`: the environment's compiled program, or the user's own. `devices`: empty on the CPU.
    `cache`: a directory in which a program keeps files between starts (for a container see
    ContainerSpec.cache). `draft`: the draft model's weights. `has_tools`: whether it will be asked for tool
    calls. `adapters`: those of the deployment, in the same order.
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
    draft: WeightsFile | None = None
    has_tools: bool = False
    adapters: tuple[AdapterFile, ...] = ()
    weights_sha256: str | None = None  # None if it was not computed

    @property
    def base_url(self) -> str:
        return f"http://{self.host}:{self.port}/v1"


@dataclass(frozen=True)
class NativeSpec:
    """A server process. `base_url` ends in /v1; `served_model` goes into each request's `model`.

    `ready_path` (from the root) answers 200 once the server listens. `environment` is added to a copy of
    bench's own environment.
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
    read-only. `cache`: a directory of the image that a Docker volume keeps between starts. `devices`: what
    `docker run --gpus device=` is given. The container gets nothing of bench's environment. The other fields
    are those of NativeSpec.
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
    """A server that is already running and that bench neither starts nor stops.

    `names`: names that it accepts for its model, besides those it lists.
    """

    base_url: str
    served_model: str
    names: Sequence[str] = ()


LaunchSpec = NativeSpec | ContainerSpec | AttachSpec


@dataclass(frozen=True)
class InstallSpec:
    """How an environment is made: a venv from a lock, a program from C files, or both."""

    environment: str  # its name: a file name
    lock: Path | None  # all packages, with hashes; None: no venv
    check: str  # Python source that must run in the venv
    size_bytes: int  # roughly what lands on disk
    # C files that the system's compiler turns into `bin/program`, with the headers beside them. When one
    # changes, the environment is made again.
    sources: tuple[Path, ...] = ()
    # Scripts of engines/inside that the venv's Python runs before `check`. They only add files, since uv's
    # cache may share the existing ones.
    mend: tuple[Path, ...] = ()
    program: str | None = None  # the server's executable in the environment, if Python does not start it
    # A lock, with hashes, of what builds the packages that have no wheel; None: they all have one.
    builders: Path | None = None
    is_built: bool = False  # packages are compiled here, which takes minutes: only when the user asks for it
    # The variable that limits how many compilers a build runs at once; None: it limits them itself.
    jobs_variable: str | None = None
    cmake_args: str | None = None  # they leave out parts of a build; the user's CMAKE_ARGS come after them
    needs: str | None = None  # what the packages need to be found or built: shown when the install fails


class ProgressLines(Protocol):
    """Receives lines of progress."""

    def line(self, text: str, /) -> None: ...


class Workshop(ProgressLines, Protocol):
    """Provides the tools that make weights, ask the hub and have the items of tasks, and reports.

    `tool` finds or makes an environment, and returns its directory. `run`
    runs a command under a watchdog, with more variables, and returns its exit code and its last lines. It
    shows the lines that begin with `shown` (a regular expression), and `doing` while there are none.
    """

    def tool(self, spec: InstallSpec) -> Path: ...
    def run(
        self, argv: Sequence[str], environment: Mapping[str, str], doing: str, shown: str
    ) -> tuple[int | None, Sequence[str]]: ...


# A part of a server's memory. `workspace`: buffers of a step (activations, logits), used or not;
# `kv_copies`: states of conversations that are saved beside the KV cache, under load.
MemoryPart = Literal["weights", "kv_cache", "graphs", "workspace", "kv_copies"]


@dataclass(frozen=True)
class MemoryNeed:
    """The memory that a deployment needs on all its devices together. The plan adds `weights_bytes`.

    `kv_bytes_per_token`: what one more token needs while no layer's window is full. `overhead_bytes`: what is
    neither weights nor KV cache; `overhead_source` says where it was measured. `is_assumed`: whether it was
    never measured on such a device, or with such a shape.
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
