"""What bench sees of a GPU, on a machine that has one (`make test-gpu`), and the same with stand-ins for it.

The stand-in for NVML is a small library with made-up values, for the comparison the same servers on a CPU.
"""

import json
import os
import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean, median
from typing import Any

import pytest
from bench_command import BENCH, bench, made
from nvml_asking import GIB, ask, build_library
from places import TESTS

from serving_bench.engines import ENGINES
from serving_bench.harness.contracts import InstallSpec, Reason, mean_power_w, throttle_names
from serving_bench.harness.install.install import cache_dir, installed
from serving_bench.harness.sampling import gpu
from serving_bench.harness.sampling.device_sample import DeviceSample
from serving_bench.harness.sampling.guard import others_on
from serving_bench.reports import open_run
from serving_bench.reports.data import Run
from serving_bench.reports.measures.anatomy import REST, WEIGHTS, anatomies
from serving_bench.reports.measures.values import values_of

pytestmark = pytest.mark.alone

HELD_BYTES = 2 * GIB
ON_MACHINE = os.path.realpath("/proc/self/ns/pid").endswith("pid:[4026531836]")

WATCHED = """
def watched(pid, step, scale):
    def rows(seconds, pids):
        def are_enough(rows): return bool(rows) and rows[-1].t_ns - rows[0].t_ns >= seconds * scale * 1e9
        return sampled([0], pids, are_enough)
    seen = {"before": rows(2, {pid})}
    step("hold HELD_BYTES")
    seen |= {"held": rows(2, {pid}), "of others": rows(2, set())}
    step("work")
    rows(3, {pid})  # NVML's power and utilization are of up to a second before
    return seen | {"working": rows(10, {pid})}
""".replace("HELD_BYTES", str(HELD_BYTES))
# A process of PyTorch's uses the device.
ON_CARD = """
def on_card(python, program):
    argv = [python, program]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as user:
        def step(line):
            print(line, file=user.stdin, flush=True)
            assert user.stdout.readline().split() == line.split()[:1], "PyTorch's process has ended"
        assert user.stdout.readline() == "ready\\n", "PyTorch does not find the device"
        return watched(user.pid, step, 1)
"""
# The stand-in is told what it is to say.
ON_LIBRARY = """
def on_library():
    def step(line):
        if line.startswith("hold"):
            held = int(line.split()[1])
            os.environ.update(NVML_USED=str(held + (5 << 30)), NVML_PROCESSES=f"41:{held + (1 << 30)}")
    return watched(41, step, 0.1)
"""


def torch_environment(device: str) -> Path:
    """The environment whose Python has PyTorch for this device; without one the test is skipped."""
    if given := os.environ.get("TORCH_ENVIRONMENT"):
        return Path(given).absolute()
    spec = ENGINES["transformers"].install(None, device)
    assert isinstance(spec, InstallSpec)
    found = installed(cache_dir(), spec)
    if found is None:
        pytest.skip(f"{spec.environment} is not installed, and TORCH_ENVIRONMENT=DIR names none")
    return found.folder


def need_card() -> gpu.DeviceFacts:
    found = gpu.devices()
    if isinstance(found, Reason):
        pytest.skip(f"needs an NVIDIA GPU: {found}")
    return found[0]


# --- what NVML tells -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Card:
    """Device 0: its name, where its library is, and the samples of `watched`, by what happened meanwhile."""

    name: str
    library: str
    is_real: bool  # not the stand-in
    samples: Mapping[str, Any] = field(repr=False)

    def rows(self, when: str) -> list[DeviceSample]:
        return [DeviceSample(**row) for row in self.samples[when]["rows"]]


@pytest.fixture(scope="module", params=["stand-in", pytest.param("card", marks=pytest.mark.gpu)])
def card(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Card:
    if request.param == "stand-in":
        library = str(build_library(tmp_path_factory.mktemp("nvml")))
        told = {"NVML_POWER_MW": 312_500, "NVML_PROCESSES": f"41:{GIB}"}
        samples = ask(library, "on_library()", define=WATCHED + ON_LIBRARY, **told)
        return Card("Test GPU 0", library, False, samples)
    facts, python = need_card(), torch_environment("cuda") / "bin" / "python"
    library, program = os.environ.get("LD_LIBRARY_PATH", ""), TESTS / "support/devices/use_gpu.py"
    source = f"on_card({str(python)!r}, {str(program)!r})"
    samples = ask(library, source, define=WATCHED + ON_CARD, limit_s=180)
    return Card(str(facts.name), library, True, samples)


def test_an_allocation_is_seen_within_1_pct(card: Card) -> None:
    before, held = (median(row.used_bytes or 0 for row in card.rows(when)) for when in ("before", "held"))
    assert held - before == pytest.approx(HELD_BYTES, rel=0.01)


def test_its_process_has_it_within_1_pct_or_a_note_says_why_not(card: Card) -> None:
    before, held = (card.rows(when)[-1].process_bytes for when in ("before", "held"))
    if before is None or held is None:
        assert card.samples["held"]["notes"]["device 0 process_memory"]
    else:
        assert held - before == pytest.approx(HELD_BYTES, rel=0.01)


def test_power_clocks_and_load_are_read_while_it_computes(card: Card) -> None:
    for row in card.rows("working"):
        assert (row.power_w or 0) > 0
        assert (row.sm_clock_mhz or 0) > 0
        assert (row.memory_clock_mhz or 0) > 0
        assert (row.temperature_c or 0) > 0
        assert (row.utilization_pct or 0) > 50


def powers_w(rows: Sequence[DeviceSample]) -> tuple[float | None, float]:
    """The mean power by the energy counter, and by the readings of power, which are equally far apart."""
    by_counter = mean_power_w([(row.t_ns, row.energy_j) for row in rows])
    return by_counter, mean(row.power_w for row in rows if row.power_w is not None)


def test_the_energy_counter_agrees_with_the_power(card: Card) -> None:
    by_counter, by_power = powers_w(card.rows("working"))
    assert by_counter == pytest.approx(by_power, rel=0.1)


def test_a_counter_that_does_not_agree_is_told_from_one_that_does() -> None:
    rows = [DeviceSample(at * 10**9, 0, power_w=300.0, energy_j=70.0 * at) for at in range(5)]
    assert powers_w(rows) == (70.0, 300.0)


def test_the_guard_finds_a_foreign_process_with_its_memory(card: Card) -> None:
    if card.is_real and not ON_MACHINE:
        pytest.skip("in a container, others' processes cannot be told")
    held = card.rows("held")
    assert list(others_on(0, held, 0, may_work=False)) == []
    [(kind, fact, _)] = others_on(0, card.rows("of others"), 0, may_work=False)
    text = str(fact)
    assert kind == "foreign_process"
    if (known := held[-1].process_bytes) is None:  # then a note says why
        assert text == "another process was on device 0"
    else:
        found = re.fullmatch(
            r"another process was on device 0 with ([0-9.]+) GiB(, computing up to .+ % of the time)?", text
        )
        assert found
        assert float(found[1]) == pytest.approx(known / GIB if card.is_real else 3, abs=0.01)
        assert float(found[1]) >= HELD_BYTES / GIB


def test_reasons_for_lower_clocks_are_read_and_have_names(card: Card) -> None:
    reasons = [row.throttle_reasons for row in card.rows("working")]
    assert None not in reasons
    assert not [name for each in reasons for name in throttle_names(each or 0) if "unknown" in name]


def test_doctor_names_the_device(card: Card, tmp_path: Path) -> None:
    done = bench(made(tmp_path / "place"), "doctor", "--json", LD_LIBRARY_PATH=card.library)
    found = [each for each in json.loads(done.stdout) if each["topic"] == "gpu"]
    assert ("ok", f"0: {card.name}") in [(each["state"], each["text"]) for each in found]


# --- a comparison ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Compared:
    """A run of fp16 against bf16 on `device`, and the bytes of the model's weights."""

    device: str
    weights_bytes: int
    run: Run


@pytest.fixture(
    scope="module",
    params=[pytest.param("cpu", marks=pytest.mark.engines), pytest.param("0", marks=pytest.mark.gpu)],
)
def compared(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Compared:
    device, folder = str(request.param), tmp_path_factory.mktemp("compared")
    if device != "cpu":
        need_card()
    environment = torch_environment("cpu" if device == "cpu" else "cuda")
    # A hundred million parameters for a card: less would be lost in what CUDA itself takes.
    size = [] if device == "cpu" else ["1", "1024", "12"]
    make = [environment / "bin" / "python", "-P", TESTS / "data/transformers/tiny_checkpoint.py"]
    subprocess.run([*make, folder / "model", *size], check=True, capture_output=True)
    words = [
        "engine=transformers", f"transformers.environment={environment}", f"model={folder / 'model'}",
        "quantization=fp16,bf16", f"device={device}", "engine.context_length=512",
        f"guard={'off' if device == 'cpu' else 'mark'}",
        "scenario.system_words=0", "scenario.input_words=4", "scenario.turns=2", "scenario.output_tokens=16",
        "scenario.think_time=0s", "load.concurrency=2", "load.duration=5s", "load.warmup=1s",
        "load.min_requests=1", f"repeats={2 if device == 'cpu' else 3}",
    ]  # fmt: skip
    done = subprocess.run(
        [BENCH, "run", *words, "--output", folder / "run", "--quiet"],
        capture_output=True, text=True, timeout=450, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    files = (folder / "model").glob("*.safetensors")
    return Compared(device, sum(path.stat().st_size for path in files), open_run(folder / "run"))


def test_the_memory_of_each_server_is_made_of_known_parts(compared: Compared) -> None:
    found = anatomies(compared.run)
    assert len(found) == 2
    for each in (one for starts in found.values() for one in starts):
        parts = {name: part.size_bytes for name, part in each.parts.items()}
        assert sum(parts.values()) == pytest.approx(each.total_bytes)
        assert parts[WEIGHTS] == pytest.approx(compared.weights_bytes, rel=0.1)
        if compared.device != "cpu":
            assert each.what.startswith("device memory")
            assert parts[REST] <= 0.1 * each.total_bytes


def test_both_were_measured_on_the_device_and_stand_on_one_page(compared: Compared) -> None:
    run, page = compared.run, (compared.run.path / "report.html").read_text()
    cells = [cell for cell in run.planned_cells if cell.counts]
    assert (
        {cell.label for cell in cells} == set(run.deployments) == {"transformers fp16", "transformers bf16"}
    )
    assert all(label in page for label in run.deployments)
    for cell in cells:
        values = values_of(run)[cell.number]
        assert (values["output_tokens_per_s"].value or 0) > 0
        if compared.device != "cpu":
            assert (values["energy_j_per_output_token"].value or 0) > 0
            assert len(run.window_samples("device", cell)) > 0
    (kind,) = {record.memory_kind for label in run.deployments for record in run.starts_of(label)}
    assert kind == ("host" if compared.device == "cpu" else "device")
