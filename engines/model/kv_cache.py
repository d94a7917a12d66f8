"""How many bytes of KV cache tokens need, from the model's shape alone.

Pure, and knows no engine: what an engine allocates beyond that (blocks, padding, a pool of its own) is the
engine's own affair. A state of fixed size, as linear attention and Mamba keep it, is not counted: it is
small, and its size is not among the facts.
"""

from __future__ import annotations

from harness.contracts import ModelFacts, Reason

HALF_BYTES = 2.0  # of a number in float16 and bfloat16


def layer_token_bytes(facts: ModelFacts, value_bytes: float = HALF_BYTES, tensor_parallel: int = 1) -> float:
    """Of one token in one layer that keeps it, on all devices together: keys and values, or the latent.

    Devices that share a model share the KV heads, of which each has one at least and as many as any other:
    where their number does not divide the heads, some are there twice. The latent each has whole.
    """
    if facts.latent_size is not None:
        return facts.latent_size * tensor_parallel * value_bytes
    heads_of_each = -(-facts.kv_heads // tensor_parallel)
    return 2 * heads_of_each * tensor_parallel * facts.head_size * value_bytes


def why_not_shared(facts: ModelFacts, tensor_parallel: int, *, can_repeat: bool = True) -> Reason | None:
    """Why an engine that gives each device equally many KV heads refuses so many devices; None where it does
    not. `can_repeat`: with more devices than heads each head is on several."""
    heads = facts.kv_heads
    if facts.latent_size is not None or heads % tensor_parallel == 0:
        return None
    if can_repeat and tensor_parallel % heads == 0:
        return None
    would = f"a divisor or a multiple of {heads}" if can_repeat else f"a divisor of {heads}"
    return Reason(
        f"engine.tensor_parallel={tensor_parallel}: its {heads} KV heads cannot be shared alike; give {would}"
    )


def full_layers(facts: ModelFacts) -> int:
    """Layers that keep every token of a conversation."""
    return facts.layers - facts.linear_layers - windowed_layers(facts)


def windowed_layers(facts: ModelFacts) -> int:
    """Layers that keep no more tokens than a window has."""
    return facts.sliding_layers if facts.sliding_window else 0


def token_bytes(facts: ModelFacts, value_bytes: float = HALF_BYTES, tensor_parallel: int = 1) -> int:
    """Of one more token in all layers, while no window is full."""
    layers = full_layers(facts) + windowed_layers(facts)
    return round(layers * layer_token_bytes(facts, value_bytes, tensor_parallel))


def needed_bytes(
    facts: ModelFacts,
    sequences: int,
    tokens: int,
    value_bytes: float = HALF_BYTES,
    tensor_parallel: int = 1,
) -> int:
    """Of so many conversations of so many tokens each, none of them shared; windows keep what they must."""
    in_window = min(tokens, facts.sliding_window or 0)
    kept = full_layers(facts) * tokens + windowed_layers(facts) * in_window
    return round(sequences * kept * layer_token_bytes(facts, value_bytes, tensor_parallel))
