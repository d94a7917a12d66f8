"""Writes a complete run that bench could resume, with each kind of record and table that a run can have."""

from pathlib import Path

from bench_command import Place, told
from make_quality import Voice, with_quality
from make_run import GIB, S
from make_tasks import answers
from repeated_run import Made, repeated_run

from serving_bench.harness.cli.commands.planning import planned
from serving_bench.harness.quality.planned import keep_references
from serving_bench.harness.sampling import environment
from serving_bench.harness.sampling.device_sample import DeviceSample
from serving_bench.harness.servers.scrape import ServerSample
from serving_bench.harness.settings import config, overrides
from serving_bench.harness.store import checksums, quality_table, store
from serving_bench.harness.store.named_files import PAGE_FILE, TASKS_FILE

FP16, Q4 = "llama_cpp fp16", "llama_cpp gguf-q4_0"
EARLIER = "/an/earlier/run"
# None of its servers can be started, so a command that resumes it reads it and ends.
KEYS = (
    "engine=llama_cpp", "quantization=fp16,gguf-q4_0", "load.concurrency=1,4", "repeats=2", "device=cpu",
    "llama_cpp.environment=/nowhere", "slo.ttft_s.p95=1s", "quality=fidelity",
)  # fmt: skip
# What a run of somebody else's with these keys asks for.
ASKED = ("llama_cpp.environment=/nowhere", f"quality.against={EARLIER}")
CLAIM = """\
sentence: Four bits are as fast.
source: {who: nobody, where: nowhere, date: "2026-01-01"}
conditions: {}
original: {engine: llama_cpp}
here: {engine: llama_cpp}
predicates:
  - metric: output_tokens_per_s
    ratio: [{quantization: gguf-q4_0}, {quantization: fp16}]
    at_least: 1
  - metric: kl_nats.mean
    value: {quantization: gguf-q4_0}
    at_most: 1
"""


def good_run(path: Path) -> Path:
    """Write a run of two deployments, two loads and two repeats, with samples, answers and tasks of each, and
    with the reference of an earlier run."""
    settings = config.settings(overrides.parse([*KEYS, f"quality.against={EARLIER}"]))
    plan = planned(settings)
    made = [Made(plan.deployments[FP16], 1.5), Made(plan.deployments[Q4])]
    repeated_run(
        path, made, requests=12, plan=plan, settings=settings.given, environment=environment.facts(),
        slo=settings.slo, quality=settings.quality,
    )  # fmt: skip
    ways = ("prompt", "chat", "again", "text")
    with_quality(path, {FP16: Voice(k=5, ways=ways), Q4: Voice(0.3, k=5, ways=ways)})
    for record in store.read_starts(path):
        folder = path / "starts" / record.name
        samples = [record.spawned_ns + each * S for each in range(40)]
        store.write_samples(
            folder / "device.parquet", [DeviceSample(at, 0, GIB, GIB, 50, 40) for at in samples]
        )
        store.write_samples(folder / "server.parquet", [ServerSample(at, 1.0, 0.0, 0.5) for at in samples])
        quality_table.write_items(folder / TASKS_FILE, answers("rrwr"))
    first = path / "starts" / store.read_starts(path)[0].name
    keep_references([first], path)
    claim = path.with_name("claim.yaml")
    claim.write_text(CLAIM)
    told(Place(path.parent), "claim", claim, "--from", path)
    (path / PAGE_FILE).unlink()  # no command reads it
    checksums.begin(path)
    checksums.end(path)
    return path
