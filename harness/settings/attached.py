"""Check what goes together with a running server: keys, its API, the prices of its tokens."""

from collections.abc import Collection, Container, Mapping, Sequence
from urllib.parse import urlsplit

from serving_bench.engines import ENGINES
from serving_bench.harness.contracts import EngineTerms, Price, QualityTerms
from serving_bench.harness.errors import refuse_first
from serving_bench.harness.settings.decoding import Varied


def key_env(engine: str) -> str:
    """Return the environment variable of an engine's API key, unless the user names another."""
    return ENGINES[engine].key_env if engine in ENGINES else EngineTerms.api_key_env


def check_attached(
    terms: Sequence[Varied],
    engines: Collection[str],
    quantizations: Sequence[str],
    quality: QualityTerms,
    given: Container[str],
) -> None:
    """Raise UserError for what a running server cannot be told or asked. `given`: the user's keys."""
    url = terms[0].value.base_url
    try:
        parts = urlsplit(url)
        is_url = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        is_url = False
    asks_quality = quality.asked not in ((), ("auto",)) or quality.against is not None
    refuse_first(
        (not is_url, f"engine.base_url={url}: must be of the form http://HOST:PORT/v1"),
        (
            "engine.launcher" in given,
            f"engine.launcher={terms[0].value.launcher}: a running server ({url}) is not started; "
            "give one of them",
        ),
        *(
            (
                f"{name}.args" in given,
                f"{name}.args: a running server ({url}) is not started; give one of them",
            )
            for name in engines
        ),
        (
            any("engine.base_url" in point.differs for point in terms),
            "engine.base_url: cannot be swept; measure one running server per run",
        ),
        (len(engines) > 1, f"engine={','.join(engines)}: a running server ({url}) is one engine; give one"),
        (
            len(quantizations) > 1,
            f"quantization={','.join(quantizations)}: a running server ({url}) is one quantization; "
            "give one, or none",
        ),
        (
            "model" not in given,
            f"engine.base_url={url}: give model=NAME, the name by which the server knows its model",
        ),
        (
            asks_quality and any(ENGINES[name].api != "openai" for name in engines),
            f"quality={','.join(quality.asked)}: cannot be asked over the API of engine={','.join(engines)}; "
            "leave it out",
        ),
        (
            "scenario.adapters" in given and any(map(_numbers_adapters, engines)),
            f"scenario.adapters: engine={','.join(engines)} knows adapters by number, and the numbers of a "
            f"running server ({url}) are not known; leave engine.base_url out, and bench starts one",
        ),
    )


def _numbers_adapters(engine: str) -> bool:
    fields = ENGINES[engine].adapter_fields
    return fields("", 0) != fields("", 1)


def check_price(price: Price, given: Mapping[str, Sequence[str]], *, is_attached: bool) -> None:
    """Raise UserError for a price of tokens without its counterpart, or without a running server."""
    key = next((key for key in given if key.startswith("price.") and key.endswith("_tokens")), "")
    setting = f"{key}={given[key][0]}" if key else ""
    refuse_first(
        (
            key and not is_attached,
            f"{setting}: is for a running server (engine.base_url); for one that bench starts give "
            "price.gpu_hour",
        ),
        (
            key and not price.is_by_token,
            f"{setting}: give both price.input_tokens and price.output_tokens, per million tokens",
        ),
    )
