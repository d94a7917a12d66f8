"""Quality is asked of those deployments that have something to be compared with."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from bench_command import Place, told
from make_run import one_cell_run

from serving_bench.harness.contracts import (
    Asked,
    Deployment,
    EngineTerms,
    Item,
    PlannedStart,
    QualityRecord,
    QualityTerms,
    Token,
)
from serving_bench.harness.errors import StoreError, UserError
from serving_bench.harness.quality.planned import asking, due, earlier_references, keep_references
from serving_bench.harness.settings import config, overrides
from serving_bench.harness.store import store
from serving_bench.harness.store.named_files import QUALITY_FILE, TASKS_FILE
from serving_bench.harness.store.quality_table import read_quality, write_items, write_quality
from serving_bench.reports.data import reference_folders


def deployment(label: str, model: str = "tiny") -> Deployment:
    return Deployment("llama_cpp", model, label, EngineTerms(), None, label)


PAIR = (deployment("fp16"), deployment("gguf-q8_0"))
ALONE = (deployment("fp16"),)
AUTO = QualityTerms()


def labels(terms: QualityTerms, *deployments: Deployment, run_dir: Path | None = None) -> set[str]:
    found = due(terms, deployments, run_dir)
    return found.labels if found else set()


def test_by_itself_a_deployment_has_nothing_to_be_compared_with() -> None:
    assert labels(AUTO, *PAIR) == {"fp16", "gguf-q8_0"}
    assert labels(AUTO, *ALONE) == set()
    assert labels(AUTO, *PAIR, deployment("other", "large")) == {"fp16", "gguf-q8_0"}
    assert labels(AUTO, deployment("a", "-"), deployment("b", "-")) == set()


def test_asked_for_it_is_measured_alone_for_later_runs() -> None:
    assert labels(QualityTerms(("fidelity",)), *ALONE) == {"fp16"}
    assert labels(QualityTerms(()), *PAIR) == set()


@pytest.mark.parametrize(
    ("terms", "at_length"),
    [
        (AUTO, False),
        (QualityTerms(budget_s=5), False),
        (QualityTerms(budget_s=60), True),
        (QualityTerms(("fidelity",)), True),
        (QualityTerms(("fidelity", "tasks"), budget_s=5), True),
    ],
)
def test_a_run_that_was_told_to_asks_more_texts(terms: QualityTerms, at_length: bool) -> None:
    found = due(terms, PAIR)
    assert found is not None
    assert found.at_length is at_length


def test_a_plan_says_what_is_asked_of_whom_and_against_which() -> None:
    plans = [PlannedStart(at, each, 0, ()) for at, each in enumerate((*PAIR, *ALONE))]
    both = asking(due(QualityTerms(("fidelity", "tasks"), budget_s=20, tasks_budget_s=40), PAIR), plans)
    assert both is not None
    assert (both.deployments, both.tasks) == (["fp16", "gguf-q8_0"], ("bench-basics",))
    assert (both.budgets_s, both.planned_s) == ({"fidelity": 20, "tasks": 40}, 120)
    assert (both.bounds_s, both.most_s) == ({"fidelity": 40, "tasks": 340}, 760), "lm_eval loads in 300 s"
    only = asking(due(QualityTerms(("tasks",)), PAIR), plans)
    assert only is not None
    assert only.budgets_s == {"tasks": 900}
    brief = asking(due(QualityTerms(budget_s=5), PAIR), plans)
    assert brief is not None
    assert brief.bounds_s == {"fidelity": 15}, "a request gets 10 s at least"
    assert asking(due(QualityTerms(()), PAIR), plans) is None
    assert asking(due(AUTO, PAIR), []) is None


def test_a_plan_names_those_with_most_bits_as_the_reference() -> None:
    def named(*labels: str, against: str | None = None) -> dict[str, str]:
        found = due(QualityTerms(("fidelity",), against=against), [deployment(each) for each in labels])
        assert found is not None
        return dict(found.against)

    assert named("gguf-q8_0", "bf16", "fp16") == {"tiny": "fp16"}
    assert named("gguf-q4_0", "gguf-q8_0") == {"tiny": "gguf-q8_0"}
    assert named("gguf-q4_0", "fp16", against="gguf-q4_0") == {"tiny": "gguf-q4_0"}
    assert named("fp16", "-") == {"tiny": "nobody (the bits of - are not known: give quality.against=LABEL)"}
    assert named("fp16", "-", against="-") == {"tiny": "-"}
    assert named("-") == {"tiny": "-"}, "nothing is beside it"
    # Only the size of their weights tells two like them apart.
    twins = [deployment("a"), deployment("b"), deployment("other", "large")]
    found = due(QualityTerms(("fidelity",)), [replace(each, quantization="fp16") for each in twins])
    assert found is not None
    assert found.against == {"tiny": "a or b", "large": "other"}


def test_a_plan_counts_the_bits_of_the_kv_cache_too() -> None:
    own = [EngineTerms(kv_cache_type="q4_0"), EngineTerms(), EngineTerms(dtype="bfloat16")]
    asked = [replace(PAIR[0], terms=each, label=f"{at}") for at, each in enumerate(own)]
    found = due(AUTO, asked)
    assert found is not None
    assert found.against == {"tiny": "1"}


def test_a_reference_that_does_not_exist_is_refused() -> None:
    for against in ("fp32", "results/typo"):
        with pytest.raises(UserError, match=f"quality.against={against}: no deployment of this run"):
            due(QualityTerms(against=against), PAIR)


@pytest.mark.parametrize(
    ("words", "terms"),
    [
        ([], AUTO),
        (["quality=auto"], AUTO),
        (["quality=off"], QualityTerms(())),
        (["quality=fidelity"], QualityTerms(("fidelity",))),
        (["quality=fidelity,tasks"], QualityTerms(("fidelity", "tasks"))),
        (["quality=tasks", "quality.tasks=gsm8k,mmlu"], QualityTerms(("tasks",), tasks=("gsm8k", "mmlu"))),
        (["quality.budget=1min"], QualityTerms(budget_s=60)),
        (["quality.limit=0.3"], QualityTerms(limit_nats=0.3)),
        (["quality.limit=off"], QualityTerms(limit_nats=None)),
        (["slo.kl_nats.mean=off"], QualityTerms(limit_nats=None)),
        (["slo.kl_nats.mean=0.2"], QualityTerms(limit_nats=0.2)),
        (["quality=tasks", "slo.tasks.score=60%"], QualityTerms(("tasks",), least_score_share=0.6)),
    ],
)
def test_the_keys_of_quality(words: list[str], terms: QualityTerms) -> None:
    assert config.settings(overrides.parse(words)).quality == terms


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["quality=best"], "quality=best: choose from auto, fidelity, tasks, off"),
        (["quality=off,fidelity"], "quality=off,fidelity: off stands alone"),
        (["quality=null"], "quality=null: needs a value"),
        (["quality=auto,tasks"], "quality=auto,tasks: auto stands alone"),
        (["quality.limit=1", "slo.kl_nats.mean=1"], "slo.kl_nats.mean and quality.limit are one limit"),
        (["quality=tasks", "slo.tasks.score=120%"], "slo.tasks.score=120%: must be 100% or less"),
        (["slo.kl_nats.mean=-1"], "slo.kl_nats.mean=-1: must be 0 or more"),
        (["slo.kl_nats.mean=1,2"], "slo.kl_nats.mean=1,2: cannot be swept"),
        (["slo.kl_nats.mean=low"], "slo.kl_nats.mean=low: "),
        (
            ["quality=off", "quality.limit=0.2"],
            "quality.limit=0.2: would have no effect; leave out quality=off",
        ),
        (["slo.tasks.score=60%"], "slo.tasks.score=60%: would have no effect"),
        (["quality.limit=-1"], "quality.limit=-1: must be 0 or more"),
        (["quality.limit=low"], "quality.limit=low: "),
        (["quality.budget=1,2"], "quality.budget=1,2: cannot be swept"),
        (["quality.tasks=gsm8k"], "quality.tasks=gsm8k: would have no effect; give quality=fidelity,tasks"),
        (["quality.text=/nowhere/x.txt"], "quality.text=/nowhere/x.txt: cannot be read (No such file"),
    ],
)
def test_wrong_values_of_quality(words: list[str], why: str) -> None:
    with pytest.raises(UserError) as error:
        due(config.settings(overrides.parse(words)).quality, PAIR)
    assert str(error.value).startswith(why)


def asked_start(run_dir: Path, name: str, own: Deployment, status: Any = "completed") -> Path:
    """Write a start that was asked for its quality; return its folder."""
    first = store.read_starts(run_dir)[0]
    folder = run_dir / "starts" / name
    folder.mkdir(exist_ok=True)
    quality = QualityRecord("0", 20, 1.0, bits=16.0 if own.quantization.startswith("fp16") else 8.5)
    asked = replace(first, name=name, deployment=own, quality=quality, status=status)
    store.write_record(folder / "start.json", asked)
    run = store.read_run(run_dir)
    plan = replace(run.plan, starts=(*run.plan.starts, PlannedStart(first.index, own, 0, ())))
    store.write_record(run_dir / "run.json", replace(run, plan=plan))
    write_quality(folder / QUALITY_FILE, ROWS)
    return folder


ROWS = [Asked("chat", 0, (Token("Hello", -0.1, {"Hello": -0.1}),))]
OTHER = deployment("fp16 of large", "large")


def test_a_run_is_the_reference_of_a_later_one(tmp_path: Path) -> None:
    earlier, later = tmp_path / "earlier", tmp_path / "later"
    one_cell_run(earlier, [])
    with pytest.raises(UserError, match="has no reference for tiny; measure its"):
        earlier_references(earlier, PAIR, reference_folders(earlier))
    asked_start(earlier, "02-q8_0", PAIR[1])
    folder = asked_start(earlier, "03-fp16", PAIR[0])
    assert earlier_references(earlier, PAIR, reference_folders(earlier)) == [folder], "the one with most bits"
    with pytest.raises(UserError, match="has no reference for large, only for tiny"):
        earlier_references(earlier, [*PAIR, OTHER], reference_folders(earlier))
    with pytest.raises(StoreError, match="no run here"):
        reference_folders(tmp_path)
    other = asked_start(earlier, "04-large", OTHER)
    assert earlier_references(earlier, [*PAIR, OTHER, deployment("a", "-")], reference_folders(earlier)) == [
        other,
        folder,
    ]
    later.mkdir()
    keep_references([other, folder], later)
    kept = store.read_references(later)
    assert [start.deployment.model for start in kept.values()] == ["tiny", "large"]
    assert [read_quality(each / QUALITY_FILE) for each in kept] == [ROWS, ROWS]
    # What was copied is enough, wherever the earlier run is now.
    assert due(QualityTerms(against="/nowhere"), PAIR, later)
    assert (later / "reference/03-fp16/start.json").read_bytes() == (folder / "start.json").read_bytes()


def test_what_is_missing_of_a_reference_is_named(tmp_path: Path) -> None:
    """Also to a run that goes on with its own copy, which would else look for the earlier run."""
    earlier, later = tmp_path / "earlier", tmp_path / "later"
    one_cell_run(earlier, [])
    folder = asked_start(earlier, "02-fp16", PAIR[0])
    later.mkdir()
    keep_references([folder], later)
    (later / "reference/03-killed").mkdir()
    assert len(store.read_references(later)) == 1
    (later / "reference/02-fp16/start.json").unlink()
    with pytest.raises(StoreError, match=r"reference/02-fp16/start\.json"):
        due(QualityTerms(against="/nowhere"), PAIR, later)
    (folder / QUALITY_FILE).unlink()
    with pytest.raises(UserError, match=r"no reference for tiny \(no file at .*02-fp16/quality\.parquet\)"):
        earlier_references(earlier, PAIR, reference_folders(earlier))


def test_a_start_that_was_asked_is_not_asked_again(tmp_path: Path) -> None:
    one_cell_run(tmp_path, [])
    asked_start(tmp_path, "02-fp16", PAIR[0])
    found = due(AUTO, PAIR, tmp_path)
    assert found is not None
    assert found.labels == {"gguf-q8_0"}


def test_one_that_said_nothing_is_asked_again(tmp_path: Path) -> None:
    one_cell_run(tmp_path, [])
    folder = asked_start(tmp_path, "02-fp16", PAIR[0])
    assert due(AUTO, PAIR[:1], tmp_path) is None
    (folder / QUALITY_FILE).unlink()  # it was too busy to answer anything
    assert labels(AUTO, *PAIR, run_dir=tmp_path) == {"fp16", "gguf-q8_0"}
    write_items(folder / TASKS_FILE, [Item("bench-basics", "0", 1.0, "4", "a")])
    assert labels(AUTO, *PAIR, run_dir=tmp_path) == {"gguf-q8_0"}


@pytest.mark.parametrize("status", ["running", "interrupted", "completed"])
def test_one_that_was_ended_among_its_tasks_is_asked_again(tmp_path: Path, status: str) -> None:
    one_cell_run(tmp_path, [])
    asked_start(tmp_path, "02-fp16", PAIR[0], status)
    found = due(QualityTerms(("fidelity", "tasks")), PAIR, tmp_path)
    assert found is not None
    assert ("fp16" in found.labels) == (status != "completed")


@pytest.mark.parametrize("name", [QUALITY_FILE, TASKS_FILE])
def test_a_reference_with_damaged_answers_is_refused(tmp_path: Path, name: str) -> None:
    one_cell_run(tmp_path, [])
    folder = asked_start(tmp_path, "02-fp16", PAIR[0])
    (folder / name).write_bytes(b"PAR1 and no more")
    damaged = f"^quality.against={tmp_path}: .*/{name}: damaged .*; measure it again, or give another$"
    with pytest.raises(UserError, match=damaged):
        earlier_references(tmp_path, PAIR, reference_folders(tmp_path))


def test_quality_of_what_serves_no_model_is_refused(tmp_path: Path) -> None:
    refused = told(Place(tmp_path), "plan", "engine=reference", "quality=fidelity")
    assert refused.returncode == 2
    assert refused.stderr == (
        "quality=fidelity: would have no effect, since reference serves no model; leave it out, "
        "or add another engine\n"
    )
    both = told(Place(tmp_path), "plan", "engine=reference,llama_cpp", "quality=fidelity")
    assert both.returncode == 0, both.stderr
    assert told(Place(tmp_path), "plan", "engine=reference").returncode == 0


def test_a_task_that_cannot_be_ends_a_plan(tmp_path: Path) -> None:
    refused = told(Place(tmp_path), "plan", "quality=tasks", "quality.tasks=/nope.yaml")
    assert (refused.returncode, refused.stderr) == (
        2, "quality.tasks=/nope.yaml: there is no such file; give a task's YAML, or a name\n",
    )  # fmt: skip


def test_a_wrong_file_ends_a_run_before_anything_is_started(tmp_path: Path) -> None:
    place = Place(tmp_path)
    ended = told(place, "run", "quality.text=nowhere.txt", "quality=fidelity")
    assert ended.returncode == 2
    assert "quality.text=" in ended.stderr
    assert "No such file" in ended.stderr
