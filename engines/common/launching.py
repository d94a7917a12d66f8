"""Share what engines have in common at a start: checkpoints, flags, paths, templates, containers, images.

Also makes the engines that bench can only attach to.
"""

import re
import shlex
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import fields, replace
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from serving_bench.engines.model.files import split_parts
from serving_bench.engines.model.models import MODELS
from serving_bench.engines.model.sizes import QUANTIZATIONS
from serving_bench.harness.contracts import (
    AttachSpec,
    ContainerSpec,
    Deployment,
    Engine,
    EngineTerms,
    Fact,
    LaunchSpec,
    Place,
    Reason,
    Weights,
    because,
    key,
)
from serving_bench.harness.errors import UserError

# Quantizations that are one 16-bit checkpoint, cast on load.
DTYPES = {"fp16": "float16", "bf16": "bfloat16"}
# Quantized checkpoints that all these engines serve, by the method in config.json.
QUANTIZED = ("fp8", "awq", "gptq", "w4a16")
NO_CACHE_WITH_ADAPTERS = "it is off with LoRA adapters: it would reuse one adapter's KV cache for another"
# The dtype that a model computes in -> its name in engine.kv_cache_type.
_PLAIN_TYPES = {"float16": "fp16", "bfloat16": "bf16", "float32": "fp32"}
# Neutral values. A model's generation_config may set any of these, and an attached server uses it. It may set
# top_k too, but the value that means "all tokens" differs between engines.
PLAIN_SAMPLING: Mapping[str, float] = {
    "top_p": 1.0,
    "min_p": 0.0,
    "repetition_penalty": 1.0,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
}
# Beside the packages, both in a checkout and in the harness image.
VERSIONS = Path(__file__).resolve().parents[2] / "docker" / "versions.env"
# Every user of an image may write there.
CACHE_IN_IMAGE = Path("/var/tmp")

T = TypeVar("T")


def checkpoint(
    deployment: Deployment,
    engine: str,
    no_float16: Collection[str],
    why: str,
    *,
    casts_quantized: bool = True,
    may_run_code: bool = True,
) -> Weights | Reason:
    """Return the checkpoint that an engine needs, or why it does not serve it.

    `no_float16`: architectures that do not work in float16; `why` says so, with {} for the architecture.
    `casts_quantized`: whether engine.dtype applies to quantized weights too. `may_run_code`: whether the
    engine heeds engine.trust_remote_code.
    """
    quantization, dtype = deployment.quantization, deployment.terms.dtype
    served = (*DTYPES, *QUANTIZED)
    known_format = QUANTIZATIONS.get(quantization)
    if quantization not in served and not (known_format and deployment.engine in known_format.engines):
        return Reason(
            "{engine} serves no {quantization} checkpoints; it serves {served}",
            engine=engine,
            quantization=quantization,
            served=", ".join(served),
        )
    if quantization in DTYPES and dtype not in (None, DTYPES[quantization]):
        return Reason(
            "{setting} would cast the weights: they would not be {quantization}",
            setting=f"engine.dtype={dtype}",
            quantization=quantization,
        )
    if may_run_code and deployment.terms.trust_remote_code and deployment.model.startswith("hf:"):
        return Reason(
            "{setting}: bench does not download the Python code of {model}; give model=/path to a checkpoint "
            "with its code",
            setting="engine.trust_remote_code=true",
            model=deployment.model,
        )
    listed = MODELS.get(deployment.model)
    is_float16 = "float16" in (dtype if casts_quantized else None, DTYPES.get(quantization))
    if listed and is_float16 and listed.facts.architecture in no_float16:
        return Reason(why.format(listed.facts.architecture))
    return Weights(deployment.model, quantization, "safetensors")


def unmatched(terms: EngineTerms, only: Mapping[str, tuple[object, str]]) -> dict[str, Fact]:
    """Return why terms were asked for in vain. `only`: the only value that an engine has for a term (None: it
    has no such term), and why."""
    return {
        term: because("one_at_a_time", why=why)
        if (term, value) == ("concurrent_sequences", 1)
        else Reason(why)
        for term, (value, why) in only.items()
        if getattr(terms, term) not in (None, value)
    }


def kv_cache_types(deployment: Deployment, others: Iterable[str] = ()) -> list[str]:
    """Return the dtype that the model was asked to compute in, if any, and the `others`."""
    computed = deployment.terms.dtype or DTYPES.get(deployment.quantization, "")
    return list(dict.fromkeys([*filter(None, [_PLAIN_TYPES.get(computed)]), *others]))


def environment_key() -> str | None:
    return key(
        None,
        "Your own environment, instead of the one that bench installs.",
        takes="a directory",
        foreign="file",
    )


def image_key() -> str | None:
    return key(None, "The image of its container.", foreign="never")


def args_key() -> str | None:
    return key(
        None,
        "Further arguments of its server, whose effect bench does not know.",
        takes='flags as a shell reads them, such as "--flag value"',
        foreign="never",
    )


def launch_of(engine: Engine, deployment: Deployment, place: Place) -> LaunchSpec:
    """Return what to start, with the user's further arguments at the end of its command line.

    Raises UserError like Engine.launch, and for a flag that bench sets itself.
    """
    spec = engine.launch(deployment, place)
    words = tuple(shlex.split(getattr(deployment.options, "args", None) or ""))
    if not words or isinstance(spec, AttachSpec):
        return spec
    given = _flags_in(words)  # a server may take the beginning of a flag for the flag
    setting = f"{engine.name}.args={deployment.options.args}"
    if both := sorted(option for option in _flags_of(spec) if any(option.startswith(each) for each in given)):
        advice = _remedy(engine, deployment, place, both[0])
        raise _refused(setting, f"bench sets --{both[0]} itself; {advice}")
    if short := next((word for word in words if re.match("-[A-Za-z]", word)), None):
        why = f"{short} may stand for a flag that bench sets itself; give its long name, --NAME"
        raise _refused(setting, why)
    if isinstance(spec, ContainerSpec):
        return replace(spec, arguments=(*spec.arguments, *words))
    return replace(spec, argv=(*spec.argv, *words))


def _refused(setting: str, why: str) -> UserError:
    return UserError(Reason("{setting}: {why}", setting=setting, why=why))


def _flags_of(spec: LaunchSpec) -> set[str]:
    return _flags_in(spec.arguments if isinstance(spec, ContainerSpec) else getattr(spec, "argv", ()))


def _flags_in(words: Iterable[str]) -> set[str]:
    named = (word.partition("=")[0].replace("_", "-") for word in words if word.startswith("--"))
    return {name[2:].removeprefix("no-") for name in named}


def _remedy(engine: Engine, deployment: Deployment, place: Place, flag: str) -> str:
    """Return the advice to give the key without which the flag is not set."""
    for section, name in (("engine", "terms"), (engine.name, "options")):
        values = getattr(deployment, name)
        for each in fields(values):
            unset = replace(deployment, **{name: replace(values, **{each.name: each.default})})
            with suppress(Exception):  # values that do not work together
                if flag not in _flags_of(engine.launch(unset, place)):
                    return f"give {section}.{each.name}"
    return "leave it out, or give the key that sets it (`bench list keys`)"


def flags(values: Mapping[str, object], glue: str | None = "=") -> Iterator[str]:
    """Yield `--name=value` for each value, `--name` for True, nothing for None and False."""
    for name, value in values.items():
        if value is True:
            yield f"--{name}"
        elif value is not None and value is not False:
            yield from (f"--{name}", str(value)) if glue is None else (f"--{name}{glue}{value}",)


def named(options: Any, *others: str) -> dict[str, object]:
    """Return an engine's options that are flags of the same name: all but the `others`."""
    names = [each.name for each in fields(options) if each.name not in others]
    return {name.replace("_", "-"): getattr(options, name) for name in names}


def switch(name: str, is_on: bool | None) -> dict[str, object]:
    """Return the flag that turns something on, or the one with `no-` that turns it off; none for None."""
    return {} if is_on is None else {name if is_on else f"no-{name}": True}


def given(value: T | None, needed: str) -> T:
    """Return `value`. Raise ValueError with `needed` if it is None, which is a bug of bench's."""
    if value is None:
        raise ValueError(needed)
    return value


def template_of(deployment: Deployment, place: Place) -> Path | None:
    """Return the Jinja file of the chat template: the user's, else that of the weights."""
    template = deployment.terms.chat_template or place.chat_template
    return None if template is None else Path(template).absolute()


def adapters_at_once(terms: EngineTerms, place: Place) -> int | None:
    """Return how many adapters one batch may have: all that requests can ask for at once.

    None leaves it to the engine's default.
    """
    count, requests = len(place.adapters), terms.concurrent_sequences
    return None if terms.fairness == "stock" else min(count, requests or count)


def compile_caches(folder: Path | None, *variables: str) -> dict[str, str]:
    if folder is None:
        return {}
    torch = {"TORCHINDUCTOR_CACHE_DIR": str(folder / "inductor"), "TRITON_CACHE_DIR": str(folder / "triton")}
    return {**dict.fromkeys(variables, str(folder)), **torch}


def seen_by_server(
    place: Place, template: Path | None, *, in_container: bool
) -> tuple[Place, tuple[tuple[Path, str], ...]]:
    """Return the place as the server sees it, with this chat template, and what its container mounts."""
    place = replace(place, chat_template=template)
    if not in_container:
        return place, ()
    mount, weights = weights_mount(given(place.weights, "the server needs weights"))
    mounts, seen = [mount], replace(place, weights=Path(weights))
    if template is not None:
        mounts.append((template, f"/templates/{template.name}"))
        seen = replace(seen, chat_template=Path(mounts[-1][1]))
    if place.draft is not None:
        draft_mount, draft = weights_mount(place.draft.path, "/draft")
        mounts.append(draft_mount)
        seen = replace(seen, draft=replace(place.draft, path=Path(draft)))
    inside = tuple(replace(each, path=Path("/adapters", each.path.name)) for each in place.adapters)
    mounts += [(each.path, str(one.path)) for each, one in zip(place.adapters, inside, strict=True)]
    return replace(seen, adapters=inside), tuple(mounts)


def container(
    deployment: Deployment,
    place: Place,
    mounts: tuple[tuple[Path, str], ...],
    arguments: Iterable[str],
    *,
    environment: Mapping[str, str],
    **others: Any,
) -> ContainerSpec:
    """Return a container of the user's image, else of bench's. `others`: further fields of ContainerSpec."""
    fields = {"served_model": deployment.model, **others}
    return ContainerSpec(
        image=deployment.options.image or image_of(deployment.engine, "cuda" if place.devices else "cpu"),
        arguments=tuple(arguments),
        base_url=place.base_url,
        environment=environment,
        mounts=mounts,
        devices=place.devices,
        memory_limit_bytes=deployment.terms.memory_limit_bytes,
        **fields,
    )


def weights_mount(weights: Path, folder: str = "/weights") -> tuple[tuple[Path, str], str]:
    """Return the mount (outside, inside) of weights, and the weights' path inside.

    Mounts the directory that a link may point into: a link that leaves the mount is broken in a container.
    """
    # The first of several files of one model: the server looks for the others beside it.
    outer = weights.parent if len(split_parts(weights)) > 1 else weights
    for parent in weights.parents:
        # In Hugging Face's cache models--ORGANISATION--NAME/snapshots/REVISION links to ../../blobs.
        if parent.name == "snapshots" and parent.parent.name.startswith("models--"):
            outer = parent.parent
            break
    inside = f"{folder}/" + re.sub(r"[^\w.-]", "-", outer.name)
    return (outer, inside), str(PurePosixPath(inside) / weights.relative_to(outer))


def image_of(engine: str, device: str, versions: Path = VERSIONS) -> str:
    """Return the image of an engine for a `cpu` or `cuda` device. Raise UserError if there is none."""
    image = read_versions(versions).get(f"{engine}_{device}_IMAGE".upper())
    if image is None:
        why = f"{engine} has no image for {device}; {engine}.image names one of your own"
        raise _refused("engine.launcher=docker", why)
    return image


def read_versions(path: Path = VERSIONS) -> Mapping[str, str]:
    """Return the NAME=VALUE lines of versions.env. Raise UserError if there is no such file."""
    try:
        return dict(re.findall(r"^(\w+)=(.+)$", path.read_text(encoding="utf-8"), re.MULTILINE))
    except FileNotFoundError as error:
        raise UserError(
            f"{path} is missing: to start containers, run bench from its checkout or its image"
        ) from error


def attached_engine(name: str, description: str, options: type, example: str, **more: Any) -> Engine:
    """Return an engine that bench can only attach to. `example`: a base URL of such a server."""

    def launch(deployment: Deployment, place: Place) -> LaunchSpec:
        raise UserError(
            f"engine={name} needs engine.base_url=URL of a running server; "
            f"for example engine.base_url={example}"
        )

    return Engine(
        name=name,
        description=f"{description} (engine.base_url=URL)",
        options=options,
        launchers=(),
        launch=launch,
        reset_cache=lambda deployment: Reason("others started this server, and may be using its cache"),
        memory_needed=lambda deployment, facts, device: Reason(
            "others started this server; bench does not know its memory"
        ),
        **more,
    )
