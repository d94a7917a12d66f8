"""A launcher that writes what a TGI writes as it fails, and ends: what the user reads of it."""

import shlex
from pathlib import Path

import pytest
from bench_command import bench, made, quick
from checkpoint_files import write_checkpoint
from shell_script import shell_script

# As rich writes it: source lines beside the one that raised. Then the launcher's own lines.
TRACEBACK = """\
2026-11-27T13:00:00.000000Z ERROR shard-manager: text_generation_launcher: Shard complete standard error \
output:

│    96 │   │   raise RuntimeError(                                             │
│    97 │   │   │   "Only 1 can be set between `dtype` and `quantize`, as they   │
│ ❱ 116 │   server.serve(                                                      │
╰──────────────────────────────────────────────────────────────────────────────╯
ValueError: The backend cpu does not support sliding window attention that is used by the model type
gemma3_text. To use this model nonetheless with the cpu backend, please launch TGI with the argument
`--max-input-tokens` smaller than sliding_window=512 (got here max_input_tokens=2047). rank=0
"""
ENDED = """\
2026-11-27T13:00:00.100000Z ERROR text_generation_launcher: Shard 0 failed to start
2026-11-27T13:00:00.100000Z  INFO text_generation_launcher: Shutting down shards
Error: ShardCannotStart
"""
KILLED = """\
2026-11-27T13:00:00.000000Z ERROR shard-manager: text_generation_launcher: Shard complete standard error \
output:
 rank=0
2026-11-27T13:00:00.000000Z ERROR shard-manager: text_generation_launcher: Shard process was signaled to \
shutdown with signal 9 rank=0
"""


def told(tmp_path: Path, log: str) -> str:
    """What `bench run` writes of a start whose launcher writes this log and ends."""
    lines = f"printf %s {shlex.quote(log)}\nexit 1"
    launcher = shell_script(tmp_path / "text-generation-launcher", lines)
    model, place = write_checkpoint(tmp_path / "checkpoint"), made(tmp_path / "place")
    keys = quick("engine=tgi", f"tgi.program={launcher}", f"model={model}", "quantization=bf16", "device=cpu")
    own = ("engine.launcher=native", "engine.context_length=2048")
    done = bench(place, "run", *keys, *own, "--output", place.run_dir)
    assert done.returncode == 1
    [start] = place.starts()
    assert start["error"] in " ".join(done.stderr.split())
    return str(start["error"])


@pytest.mark.parametrize(
    ("log", "quoted", "advice"),
    [
        (TRACEBACK + ENDED,
         "ValueError: The backend cpu does not support sliding window attention that is used by the model "
         "type",
         "must not exceed the window, which the log gives as sliding_window=."),
        (KILLED + ENDED, "Shard process was signaled to shutdown with signal 9 rank=0",
         "probably memory ran out"),
        (ENDED, "Error: ShardCannotStart",
         "A shard died: if it wrote an error of its own, the log has that before this line."),
    ],
    ids=["window", "killed", "silent"],
)  # fmt: skip
def test_the_cause_is_quoted_and_not_that_a_shard_failed(tmp_path: Path, log: str, quoted: str, advice: str):
    said = told(tmp_path, log)
    assert quoted in said.partition("the end of ")[2].partition(";")[0]
    assert advice in said
    assert "the line above" not in said
    assert "tgi.quantize" not in said
