"""Find or make the LoRA adapters for weights on this machine.

Random adapters only serve to measure speed: rank 8 on the attention projections, the same in both formats for
a given name and model shape. The user's adapters are served as they are, or converted to GGUF.
"""

import hashlib
from array import array
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from random import Random

from serving_bench.engines.model import adapter_files
from serving_bench.engines.model.adapter_files import ATTENTION, IN_GGUF, Tensor, half_of
from serving_bench.engines.model.files import config_of, gguf_facts, gguf_header
from serving_bench.engines.model.shape import facts_of, text_part
from serving_bench.engines.model.weights import kept
from serving_bench.harness.contracts import Adapter, AdapterFile, ModelFacts, Reason, Weights
from serving_bench.harness.errors import MissingError, UserError
from serving_bench.harness.whole_files import locked

RANK, ALPHA = 8, 16
RANDOM = f"random weights of rank {RANK} on {', '.join(ATTENTION)}: for speed only"
# Small beside a projection's output, so that the model still answers in words, if other ones.
_REACH = 0.1
# Increased when random adapters change.
_RECIPE = 1


# Projection -> its inputs and outputs; None is not known.
Sizes = Mapping[str, tuple[int | None, int | None]]


@dataclass(frozen=True)
class Base:
    """The shape of the model that an adapter is for. `heads`: the number of heads of q_proj and k_proj.

    `inner_size`: the outputs of gate_proj and up_proj; None if not known or not the same in all layers.
    """

    architecture: str
    layers: int
    hidden_size: int
    head_size: int
    heads: Mapping[str, int]
    inner_size: int | None = None

    @property
    def sizes(self) -> Iterator[tuple[str, int, int]]:
        """Yield each attention projection with its inputs and outputs."""
        queries, keys = (count * self.head_size for count in self.heads.values())
        outputs = (queries, keys, keys)
        yield from zip(ATTENTION, (self.hidden_size,) * 3, outputs, strict=False)
        yield ATTENTION[-1], queries, self.hidden_size

    @property
    def all_sizes(self) -> Sizes:
        hidden, inner = self.hidden_size, self.inner_size
        others = {"gate_proj": (hidden, inner), "up_proj": (hidden, inner), "down_proj": (inner, hidden)}
        return {name: (inputs, outputs) for name, inputs, outputs in self.sizes} | others


def misfit(adapter: Adapter, weights: Weights, facts: ModelFacts | None) -> Reason | None:
    """Return why an adapter does not fit these weights; None if it may fit."""
    if adapter.source is None:
        lack = f"random adapters need {', '.join(ATTENTION)}, which not every layer of {weights.model} has"
        return Reason(lack) if facts and has_others(facts) else None
    given, folder = f"scenario.adapters={adapter.source}", Path(adapter.source)
    try:
        base = adapter_files.read_config(folder).get("base_model_name_or_path")
        shapes = adapter_files.read_shapes(folder)
    except UserError as error:
        return Reason("{setting}: {why}", setting=given, why=str(error))
    other = next((name for name in shapes if half_of(name) is None), None)
    if other and weights.file_format == "gguf":
        why = f"has {other}; bench converts only {', '.join(IN_GGUF)} to GGUF"
        return Reason("{setting}: {why}", setting=given, why=why)
    difference = next(_differences(shapes, facts.layers, _told_sizes(facts)), None) if facts else None
    why = f"is an adapter of {base}, not of {weights.model}: {difference}"
    return Reason("{setting}: {why}", setting=given, why=why) if difference else None


def _told_sizes(facts: ModelFacts) -> Sizes:
    hidden, keys = facts.hidden_size, facts.kv_heads * facts.head_size
    return {
        **dict.fromkeys(("q_proj", "gate_proj", "up_proj"), (hidden, None)),
        **dict.fromkeys(("k_proj", "v_proj"), (hidden, keys)),
        **dict.fromkeys(("o_proj", "down_proj"), (None, hidden)),
    }


def _differences(shapes: Mapping[str, tuple[int, ...]], layers: int, sizes: Sizes) -> Iterator[str]:
    """Yield a clause for each tensor that is known not to fit a model of this shape."""
    for name, shape in shapes.items():
        half = half_of(name)
        if half is None:
            continue
        if half.layer >= layers:
            yield f"it has a layer {half.layer}, and the model has layers 0 to {layers - 1}"
        inputs, outputs = sizes[half.projection]
        wanted, size, side = (inputs, shape[1], "inputs") if half.is_input else (outputs, shape[0], "outputs")
        if wanted not in (None, size):
            yield f"its {half.projection} has {size} {side}, the model's {wanted}"


def adapted(adapter: Adapter, weights: Weights, base: Path, cache: Path) -> AdapterFile:
    """Find or make an adapter for the weights at `base`, in their format. Making one takes seconds.

    A directory of the user's is served in place, unless the weights are GGUF. All other adapters are files in
    the cache. Raise MissingError if the adapter does not fit or cannot be read.
    """
    try:
        source = Path(adapter.source) if adapter.source else None
        rank = adapter_files.rank_of(source) if source else RANK
        shapes = _told(base)
        if source and shapes:
            why = next(_differences(adapter_files.read_shapes(source), shapes.layers, shapes.all_sizes), None)
            if why:
                raise UserError(f"is not an adapter of {weights.model}: {why}")
        if source and weights.file_format != "gguf":
            return AdapterFile(adapter.name, source, rank)
        if shapes is None:
            raise UserError(f"{base} does not give the shape that an adapter must have")
        return AdapterFile(adapter.name, _kept(adapter.name, source, weights, shapes, cache), rank)
    except UserError as error:
        raise MissingError(f"scenario.adapters={adapter.source or adapter.name}: {error}") from error


def _kept(name: str, source: Path | None, weights: Weights, base: Base, cache: Path) -> Path:
    identity = repr((_RECIPE, base, source and kept.measured(source)["sha256"]))
    mark = hashlib.sha256(identity.encode()).hexdigest()[:8]
    folder = cache / "weights" / "adapters" / f"{Path(weights.model).name}-{mark}"
    is_gguf = weights.file_format == "gguf"
    path = folder / (f"{name}.gguf" if is_gguf else name)
    with locked(folder / "lock"):
        if kept.read(path):
            return path
        with kept.part_of(path) as part:
            if is_gguf:
                _write_gguf(part, name, source, base)
            else:
                adapter_files.write_peft(part, _random(name, base), _config(weights.model))
            kept.finish(part, path, {})
    return path


def _write_gguf(part: Path, name: str, source: Path | None, base: Base) -> None:
    kinds = (*adapter_files.AS_THEY_ARE, adapter_files.TURNED)
    if source and base.architecture not in kinds:
        raise UserError(f"bench writes adapters as GGUF for {', '.join(kinds)}, not for {base.architecture}")
    alpha = adapter_files.alpha_of(adapter_files.read_config(source)) if source else ALPHA
    tensors = adapter_files.read_tensors(source) if source else _random(name, base)
    with part.open("wb") as file:
        file.writelines(adapter_files.gguf_parts(tensors, base.architecture, alpha, base.heads))


def _told(path: Path) -> Base | None:
    """Return the shape; None if the weights do not give it, or if layers differ in their attention."""
    if path.is_dir():
        config = config_of(path)
        facts, text = facts_of(config), text_part(config)
        heads, inner = text.get("num_attention_heads"), text.get("intermediate_size")
    else:
        header = gguf_header(path)
        facts, metadata = gguf_facts(header), header.of_model
        heads, inner = metadata("attention.head_count"), metadata("feed_forward_length")
    if facts is None or facts.hidden_size is None or not isinstance(heads, int) or has_others(facts):
        return None
    by_projection = {"q_proj": heads, "k_proj": facts.kv_heads}
    inner_size = inner if isinstance(inner, int) else None
    return Base(
        facts.architecture, facts.layers, facts.hidden_size, facts.head_size, by_projection, inner_size
    )


def has_others(facts: ModelFacts) -> bool:
    """Return whether some layers have other projections than ATTENTION, or other sizes."""
    return bool(facts.latent_size or facts.linear_layers)


def _config(model: str) -> dict[str, object]:
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": model,
        "r": RANK,
        "lora_alpha": ALPHA,
        "lora_dropout": 0.0,
        "target_modules": list(ATTENTION),
        "bias": "none",
        "inference_mode": True,
    }


def _random(name: str, base: Base) -> dict[str, Tensor]:
    tensors = {}
    for layer in range(base.layers):
        for projection, inputs, outputs in base.sizes:
            halves = (("A", (RANK, inputs), inputs**-0.5), ("B", (outputs, RANK), _REACH))
            for half, shape, reach in halves:
                key = adapter_files.name_of(layer, projection, half)
                rng = Random(f"{name} {key}")
                values = array("f", (rng.uniform(-reach, reach) for _ in range(shape[0] * shape[1])))
                tensors[key] = Tensor(shape, "F32", values.tobytes())
    return tensors
