"""Find the tokenizer of a run's model on this machine, and what it makes of a word of bench's prose."""

from functools import cache
from pathlib import Path
from random import Random

from engines import QUANTIZATIONS
from harness.contracts import Reason, Weights
from harness.errors import UserError
from harness.install.provision import WeightsStore
from harness.settings.config import Settings, engines_with_weights
from harness.store.tokenizer import token_counter
from scenarios import prose

_SAMPLE_WORDS = 20_000


def tokenizer_of(settings: Settings, store: WeightsStore, cache_dir: Path) -> str | Reason:
    """Return the path of the tokenizer.json of a run's one model, or why there is none to count with.

    That is load.tokenizer, or what lies in a checkpoint of the model that is on this machine.
    """
    given = {load.tokenizer for load in settings.loads if load.tokenizer}
    if len(given) > 1:
        return Reason("the run has several load.tokenizer")
    if not given and len(settings.models) > 1:
        return Reason("the run has several models")
    path = given.pop() if given else _beside_weights(settings, store, cache_dir)
    if path is None:
        return Reason("no tokenizer.json of the model is on this machine; load.tokenizer=FILE names one")
    try:
        token_counter(path)
    except UserError as error:
        return Reason(str(error))
    return path


def _beside_weights(settings: Settings, store: WeightsStore, cache_dir: Path) -> str | None:
    if not settings.is_attached and not settings.engines.keys() & set(engines_with_weights()):
        return None  # the reference engine: a token of its is a word
    [model] = settings.models
    for quantization in QUANTIZATIONS:
        found = store.find(Weights(model, quantization, "safetensors"), cache_dir)
        path = found.path / "tokenizer.json" if found else None
        if path and path.is_file():
            return str(path)
    return None


@cache
def tokens_per_word(path: str) -> float:
    """Return the tokens that a tokenizer makes of a word of `prose`, to two digits behind the point."""
    [tokens] = token_counter(path)([prose(Random(0), _SAMPLE_WORDS)])
    return round(tokens / _SAMPLE_WORDS, 2)
