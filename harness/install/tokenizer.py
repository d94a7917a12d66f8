"""Find the tokenizer of a run's model on this machine, and count its tokens per word of bench's prose."""

from dataclasses import replace
from functools import cache
from pathlib import Path
from random import Random

from serving_bench.engines import ENGINES, QUANTIZATIONS
from serving_bench.harness.contracts import Reason, ScenarioChoice, Weights
from serving_bench.harness.errors import UserError
from serving_bench.harness.install.provisions import WeightsStore
from serving_bench.harness.settings.config import Settings, engines_with_weights
from serving_bench.harness.settings.decoding import decode
from serving_bench.harness.settings.keys import fields
from serving_bench.harness.store.tokenizer import read_tokenizer
from serving_bench.scenarios import TOKENS_PER_WORD, prose

_KEY, _FIELD = "scenario.tokens_per_word", "tokens_per_word"
_SAMPLE_WORDS = 20_000


def resolved(settings: Settings, store: WeightsStore, cache_dir: Path) -> tuple[Settings, list[str]]:
    """Return settings with scenario.tokens_per_word set by the model's tokenizer, and lines that say so.

    The value joins the given settings, so that a resumed run has the same texts. Nothing changes if the user
    gave it, or if no scenario makes texts of a length in tokens.
    """
    if _KEY in settings.given or not any(hasattr(each.options, _FIELD) for each in settings.scenarios):
        return settings, []
    tokenizer, size = tokenizer_of(settings, store, cache_dir), _bytes_per_token(settings)
    if size is not None:
        rate = round(len(_sample().encode()) / _SAMPLE_WORDS / size, 2)
        by = f"{' and '.join(settings.engines)} (a token for each {size} bytes)"
    elif isinstance(tokenizer, Reason):
        return settings, [f"{_KEY}: {TOKENS_PER_WORD}, about the average for English; {tokenizer}"]
    else:
        rate, by = tokens_per_word(tokenizer), tokenizer
    decode(_KEY, fields()[_KEY][0], rate)  # raises for what no tokenizer has

    def made(each: ScenarioChoice) -> ScenarioChoice:
        has_rate = hasattr(each.options, _FIELD)
        return replace(each, options=replace(each.options, **{_FIELD: rate})) if has_rate else each

    given = {**settings.given, _KEY: (str(rate),)}
    notice = f"{_KEY}: {rate}, by {by} on {_SAMPLE_WORDS:,} words of bench's text"
    return replace(settings, scenarios=tuple(map(made, settings.scenarios)), given=given), [notice]


def tokenizer_of(settings: Settings, store: WeightsStore, cache_dir: Path) -> str | Reason:
    """Return the path of the tokenizer.json of a run's only model, or why there is none to count with.

    It is load.tokenizer, else that of a checkpoint of the model on this machine.
    """
    given = {load.tokenizer for load in settings.loads if load.tokenizer}
    if len(given) > 1:
        return Reason("the run has several load.tokenizer")
    if not given and len(settings.models) > 1:
        return Reason("the run has several models")
    path = given.pop() if given else _beside_weights(settings, store, cache_dir)
    if isinstance(path, Reason):
        return path
    try:
        read_tokenizer(path)
    except UserError as error:
        return Reason(str(error))
    return path


def _beside_weights(settings: Settings, store: WeightsStore, cache_dir: Path) -> str | Reason:
    if not settings.is_attached and not settings.engines.keys() & set(engines_with_weights()):
        return Reason("no engine of the run has a model")
    [model] = settings.models
    for quantization in QUANTIZATIONS:
        prepared = store.find(Weights(model, quantization, "safetensors"), cache_dir)
        if prepared and (prepared.path / "tokenizer.json").is_file():
            return str(prepared.path / "tokenizer.json")
    return Reason("no tokenizer.json of the model is on this machine; load.tokenizer=FILE names one")


def _bytes_per_token(settings: Settings) -> int | None:
    """Return the bytes that all engines of a run count as one token; None if they use a tokenizer."""
    rates = {ENGINES[name].bytes_per_token for name in settings.engines}
    is_given = any(load.tokenizer for load in settings.loads)
    return rates.pop() if len(rates) == 1 and not is_given else None


@cache
def tokens_per_word(path: str) -> float:
    """Return a tokenizer's average number of tokens per word of `prose`, rounded to two decimals."""
    [tokens] = read_tokenizer(path).count([_sample()])
    return round(tokens / _SAMPLE_WORDS, 2)


def _sample() -> str:
    return prose(Random(0), _SAMPLE_WORDS)
