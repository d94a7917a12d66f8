"""The load generators of peers.toml: their commands, their environments, and how their results are read."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from itertools import accumulate
from pathlib import Path

import clients
import msgspec
from clients import WARMUP_S, Case, Reported

from serving_bench.engines import ENGINES
from serving_bench.harness.contracts import InstallSpec
from serving_bench.harness.errors import MissingError
from serving_bench.harness.imports import aiperf, guidellm, result, vllm_bench
from serving_bench.harness.install import install, packages

ROOT = Path(__file__).parents[2]
_INSTALL_S = 1200
# The peers that clients.py starts.
_OWN = {"bench": clients.BENCH, "locust": clients.FAST_USER}


class Peer(msgspec.Struct, frozen=True, kw_only=True):
    """A load generator, as peers.toml describes it.

    `alone`: a package that is installed last, without its requirements. `environment`: the peer whose
    environment it uses, if not its own. A peer without a `command` is one of _OWN.
    """

    name: str = ""
    title: str
    page: str
    packages: list[str] = []
    alone: str = ""
    environment: str = ""
    variables: dict[str, str] = {}
    command: str = ""


def peers() -> dict[str, Peer]:
    """Return the peers by name, each with what installs it, and with its version in its title."""
    found = msgspec.toml.decode((Path(__file__).with_name("peers.toml")).read_bytes(), type=dict[str, Peer])
    return {name: _whole(name, peer, found[peer.environment or name]) for name, peer in found.items()}


def _whole(name: str, peer: Peer, owner: Peer) -> Peer:
    locks = () if owner.packages else (spec.lock for spec in _vllm_specs() if spec.lock)
    pins = [*owner.packages, owner.alone, *(line for lock in locks for line in lock.read_text().splitlines())]
    pinned = (re.match(rf"{peer.environment or name}[a-z-]*==([\w.]+)", pin) for pin in pins)
    version = next((found[1] for found in pinned if found), "")
    title, page = (text.format(version=version) for text in (peer.title, peer.page))
    return msgspec.structs.replace(
        peer, name=name, title=title, page=page, packages=owner.packages, alone=owner.alone
    )


def _vllm_specs() -> list[InstallSpec]:
    found = (ENGINES["vllm"].install(None, device) for device in ("cpu", "cuda"))
    return [spec for spec in found if isinstance(spec, InstallSpec)]


def client_of(peer: Peer, python: Path) -> clients.Client:
    """Return a peer as load.py runs it, on the Python of its environment."""
    own = _OWN.get(peer.name)

    def argv(case: Case, url: str, folder: Path) -> list[str]:
        if own:
            return [str(python), *own.argv(case, url, folder)[1:]]  # in place of our own Python
        return shlex.split(
            peer.command.format(
                python=python, bin=python.parent, server=url.removesuffix("/v1"), folder=folder,
                tokenizer=write_tokenizer(folder), streams=case.streams, tokens=case.tokens,
                requests=requests(case),
            )
        )  # fmt: skip

    def variables(case: Case, folder: Path) -> Mapping[str, str]:
        given = {name: value.format(root=ROOT) for name, value in peer.variables.items()}
        return {**given, **own.environment(case, folder)} if own else given

    return clients.Client(peer.title, argv, variables, READERS[peer.name], own.good_codes if own else (0,))


def requests(case: Case) -> int:
    """Return how many requests fill the time that bench and Locust play."""
    return case.streams * round((WARMUP_S + case.window_s) / case.request_s)


def write_tokenizer(folder: Path) -> Path:
    """Write a tokenizer with a token for each byte, which needs no download, and return its folder."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [256 + at for at in range(256 - len(plain))]
    vocabulary = {chr(symbol): at for at, symbol in enumerate([*plain, *others])}
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    model = {"type": "BPE", "vocab": vocabulary, "merges": []}
    found = {"version": "1.0", "added_tokens": [], "pre_tokenizer": level, "decoder": level, "model": model}
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 100_000}
    place = folder / "tokenizer"
    place.mkdir()
    (place / "tokenizer.json").write_bytes(msgspec.json.encode(found))
    (place / "tokenizer_config.json").write_bytes(msgspec.json.encode(settings))
    return place


def python_for(peer: Peer) -> Path:
    """Return the Python of a peer's environment, which is made again if its packages have changed.

    Raises MissingError if it cannot be made.
    """
    if not peer.packages:
        made = [install.installed(install.cache_dir(), spec) for spec in _vllm_specs()]
        pythons = [each.python for each in made if each and each.python]
        if not pythons:
            raise MissingError("vLLM is not installed; run `bench install vllm`")
        return pythons[0]
    folder = install.cache_dir() / "peers" / (peer.environment or peer.name)
    python, marker = install.python_of(folder), folder / "made-of"
    asked = "\n".join([*peer.packages, peer.alone])
    if marker.is_file() and marker.read_text() == asked:
        return python
    shutil.rmtree(folder, ignore_errors=True)
    print(f"installing {peer.title} into {folder}", file=sys.stderr, flush=True)
    _run([sys.executable, "-I", "-m", "venv", "--without-pip", str(folder)])
    try:
        command, variables = packages.installer(str(python))
    except packages.InstallError as error:
        raise MissingError(str(error)) from error
    _run([*command, *peer.packages], variables)
    if peer.alone:
        _run([*command, "--no-deps", peer.alone], variables)
    marker.write_text(asked)
    return python


def _run(argv: list[str], variables: Mapping[str, str] | None = None) -> None:
    given = {**os.environ, **(variables or {})}
    try:
        done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, env=given, timeout=_INSTALL_S)
    except subprocess.TimeoutExpired as error:
        raise MissingError(f"not installed after {_INSTALL_S} s") from error
    if done.returncode != 0:
        raise MissingError(done.stderr.strip() or f"the installer ended with code {done.returncode}")


def size_bytes(python: Path) -> int:
    """Return the size of an environment's files, each counted once."""
    paths = (path for path in python.parents[1].rglob("*") if path.is_file() and not path.is_symlink())
    return sum(
        {(each.st_dev, each.st_ino): each.st_size for each in (path.lstat() for path in paths)}.values()
    )


def _read(read: Callable[[Path, bytes], result.Result], file: str) -> Callable[[Path], Iterator[Reported]]:
    def reported(folder: Path) -> Iterator[Reported]:
        path = folder / file
        for _, found in read(path, result.content_of(path)).loads:
            yield from map(_reported, found)

    return reported


def _reported(request: result.Request) -> Reported:
    """Return a request of a result file. Without chunk times its tokens are spread evenly, first to last."""
    chunk_ns = request.chunk_ns or ()
    first_ns, last_ns, tokens = request.first_content_ns, request.last_content_ns, request.output_tokens
    if not chunk_ns and first_ns is not None and last_ns is not None and tokens and tokens > 1:
        chunk_ns = [first_ns + (last_ns - first_ns) * at // (tokens - 1) for at in range(tokens)]
    is_ok = request.outcome == "ok" and bool(chunk_ns)
    return Reported(request.request_id or "", is_ok, request.sent_ns or 0, chunk_ns, request.end_ns or 0)


class _SglangResult(msgspec.Struct):
    ttfts: list[float]
    itls: list[list[float]]
    errors: list[str]


def _read_sglang(folder: Path) -> Iterator[Reported]:
    """Read the results of SGLang's clients. They have no instants, so each request begins at 0."""
    lines = (folder / "sglang.jsonl").read_bytes().splitlines()
    if not lines:
        raise ValueError("sglang.jsonl is empty")
    found = msgspec.json.decode(lines[-1], type=_SglangResult)
    for ttft_s, gaps_s, error in zip(found.ttfts, found.itls, found.errors, strict=True):
        chunk_ns = [round(at_s * 1e9) for at_s in accumulate(gaps_s, initial=ttft_s)]
        yield Reported("", ttft_s > 0 and not error, 0, chunk_ns, chunk_ns[-1])


READERS: Mapping[str, Callable[[Path], Iterator[Reported]]] = {
    "bench": clients.BENCH.read,
    "locust": clients.FAST_USER.read,
    "aiperf": _read(aiperf.read, "profile_export.jsonl"),
    "guidellm": _read(guidellm.read, "benchmarks.json"),
    "vllm": _read(vllm_bench.read, "vllm.json"),
    "sglang": _read_sglang,
    "sglang-rust": _read_sglang,
}
# Their files have no time for each token.
WITHOUT_GAPS = ("guidellm",)
