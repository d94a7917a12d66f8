"""The reference engine: its command line starts the real server with every option."""

import json
import re
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal

import pytest
from progress_lines import KeptLines
from reference_serving import body, native_program, page, serving, spawned, start_line, whole

from serving_bench.engines.reference.engine import ENGINE, Options
from serving_bench.harness.contracts import (
    Deployment,
    EngineTerms,
    InstallSpec,
    Message,
    NativeSpec,
    Place,
    Reason,
    Turn,
)
from serving_bench.harness.errors import UserError
from serving_bench.harness.install import install
from serving_bench.harness.settings.decoding import points


def spec_of(
    options: Options, scratch: Path, terms: EngineTerms | None = None, program: Path | None = None
) -> NativeSpec:
    deployment = Deployment("reference", "a model", "-", terms or EngineTerms(), options, "reference")
    spec = ENGINE.launch(deployment, Place(None, None, "127.0.0.1", 0, scratch, program))
    assert isinstance(spec, NativeSpec)
    return spec


@pytest.mark.parametrize("program", ["python", "native"])
def test_every_option_reaches_the_server(tmp_path, tmp_path_factory, program: Literal["python", "native"]):
    options = Options(
        program=program,
        ttft_s=0.1,
        itl_s=0.02,
        output_tokens=7,
        slots=3,
        start_delay_s=0.01,
        label="-a",
        tokens_per_chunk=2,
        prefill_per_token_s=0.001,
        memory_bytes=4096,
    )
    if program == "python":
        options = replace(options, fault="reset@12/5", role_chunk=True, thinking_chunks=2)
    changed = {name for name, value in asdict(options).items() if value != getattr(Options(), name)}
    assert changed | {"program", "fault", "role_chunk", "thinking_chunks"} == asdict(options).keys()
    path = native_program(tmp_path_factory) if program == "native" else None
    with spawned(spec_of(options, tmp_path, program=path).argv) as process:
        port = int(start_line(process).rpartition(":")[2])
        facts = {"/info": json.loads(page(port, "/info"))}
    info = facts["/info"]
    given = asdict(options) | ({"fault": ["reset", 12, 5]} if program == "python" else {})
    assert {name: info[name] for name in changed} == {name: given[name] for name in changed}
    assert (info["program"], info["model"], info["context_length"]) == (program, "a model", 4096)
    assert ENGINE.said("", facts).terms == {"context_length": 4096, "concurrent_sequences": 3}


def test_slots_follow_the_common_term_unless_given(tmp_path: Path) -> None:
    terms = EngineTerms(concurrent_sequences=9)
    assert "--slots=64" in spec_of(Options(), tmp_path).argv
    assert "--slots=9" in spec_of(Options(), tmp_path, terms).argv
    assert "--slots=2" in spec_of(Options(slots=2), tmp_path, terms).argv


def test_only_the_native_program_is_installed_and_it_names_all_its_files() -> None:
    assert ENGINE.install("python", "cpu") is None
    assert isinstance(ENGINE.install("native", "cuda"), Reason)
    spec = ENGINE.install("native", "cpu")
    assert isinstance(spec, InstallSpec)
    assert spec.lock is None
    names = {path.name for path in spec.sources}
    assert {"reference_server.c", "reference_request.h"} < names
    for path in spec.sources:
        included = re.findall(r'#include "(.+)"', path.read_text())
        assert set(included) <= names


def test_the_native_program_is_never_started_without_being_built(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="needs the program"):
        spec_of(Options(program="native"), tmp_path)


def test_the_sources_compile_without_a_warning(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory):
    native_program(tmp_path_factory)  # skips where no compiler is
    spec = ENGINE.install("native", "cpu")
    assert isinstance(spec, InstallSpec)
    lines = KeptLines()
    install.build(spec.sources, tmp_path / "program", lines)
    assert lines[0].startswith(" ".join(install.compiler()))
    assert lines[1:] == []


def test_requests_need_no_further_fields() -> None:
    turn = Turn(messages=(Message("user", "hello"),), max_tokens=24)
    assert ENGINE.request_fields(turn, Options(output_tokens=5), "matched") == {}


def test_nothing_is_resolved_where_the_server_told_nothing() -> None:
    assert ENGINE.said("", {}).terms == {}


@pytest.mark.parametrize(
    "fault",
    ["reset@1", "stall@1", "truncate@1", "end@1/2", "error@1", "garbage@1", "exit@9", "http@404", "no_done"],
)
def test_the_options_and_the_server_know_the_same_faults(fault: str) -> None:
    assert Options(fault=fault).fault == fault
    with serving("--fault", fault) as server:
        status, _ = whole(server.port, body(stream=False))
    assert status == (404 if fault == "http@404" else 200)


@pytest.mark.parametrize(
    ("options", "key"),
    [
        ({"fault": "reset@3"}, "reference.fault=reset@3"),
        ({"role_chunk": True}, "reference.role_chunk=true"),
        ({"thinking_chunks": 3}, "reference.thinking_chunks=3"),
    ],
)
def test_what_only_the_python_program_has_is_refused_for_the_native_one(options: dict[str, Any], key: str):
    with pytest.raises(UserError) as caught:
        Options(program="native", **options)
    assert str(caught.value) == f"{key}: the native program lacks it; reference.program=python has it"
    assert Options(program="python", **options)


def test_wrong_options_are_the_users_mistake() -> None:
    with pytest.raises(UserError, match=r"reference\.fault=rest@12: no such fault; choose from reset@K"):
        Options(fault="rest@12")
    with pytest.raises(UserError, match=r"reference\.slots=0: must be 1 or more"):
        points("reference", Options, {"reference.slots": (0,)})
    with pytest.raises(UserError, match=r"reference\.ttft=-1s: must not be negative"):
        points("reference", Options, {"reference.ttft": ("-1s",)})
