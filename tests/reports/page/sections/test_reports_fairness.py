"""The fairness ledger: what is red, what is only marked, and what is not said."""

import re
from dataclasses import replace

import pytest
from make_run import (
    GIB,
    S,
    begin_run,
    row,
    run_record,
    served,
    write_cell,
    write_start,
)
from page_data import plain, rows_of

from serving_bench.harness.contracts import Load, because, quoted
from serving_bench.harness.sampling.host import HostSample
from serving_bench.harness.store import store
from serving_bench.reports import open_run, write_report
from serving_bench.reports.checks.examine import findings_of
from serving_bench.reports.checks.ledger import Entry, ledger_of
from serving_bench.reports.measures.equal_work import one_at_a_time
from serving_bench.reports.page.sections.why import reported
from serving_bench.reports.words.grounds import fairness_claim


def run_of(path, starts, users=4, **terms):
    """One deployment with matched terms (2,048 tokens, 4 requests, 8,192 of cache, prefix cache) and these
    starts: the changes of each one's record."""
    plan = begin_run(path, [served("vllm", "bf16", **terms)], [Load(concurrency=users)], len(starts))
    for start, changes in zip(plan.starts, starts, strict=True):
        write_start(path, start, **changes)
    return open_run(path)


def entry_of(run, name) -> Entry:
    ledger = ledger_of(run)
    row = next(row for row in ledger if row.name == name)
    return row.entries["vllm bf16"]


def entry(path, name, *got, unmatched=None, **terms) -> Entry:
    """The entry of a term of which the starts said these values."""
    said = [
        {"resolved": {} if value is None else {name: value}, "unmatched": unmatched or {}} for value in got
    ]
    return entry_of(run_of(path, said, **terms), name)


def test_what_further_arguments_change_is_not_known(tmp_path):
    run = run_of(tmp_path, [{}])
    (label,) = run.deployments
    run.deployments[label] = replace(run.deployments[label], options={"args": "--flag 1"})
    found = entry_of(run, "args")
    said = "bench does not know what they change"
    assert (found.asked_text, found.got_text, found.said, found.is_off) == (
        "--flag 1",
        "not said",
        said,
        False,
    )
    (finding,) = (each for each in findings_of(run) if each.title == "Not all terms are as asked")
    assert f"further arguments asked --flag 1, {said}" in finding.text
    assert fairness_claim(run).endswith("; bench does not know what further arguments change")


@pytest.mark.parametrize("options", [{"args": ["x"]}, {"args": {"a": 1}}, [1], None, 3])
def test_options_of_any_shape_have_no_further_arguments(tmp_path, options):
    run = run_of(tmp_path, [{}])
    (label,) = run.deployments
    run.deployments[label] = replace(run.deployments[label], options=options)
    assert "args" not in {term.name for term in ledger_of(run)}


@pytest.mark.parametrize(
    ("name", "got", "said", "is_off"),
    [
        ("kv_cache_tokens", 8191, "less than asked", True),
        ("kv_cache_tokens", 8192, "", False),
        ("kv_cache_tokens", 9011, "", False),  # 8,192 and 10 % of it are 9,011.2
        ("kv_cache_tokens", 9012, "10 % more", False),
        ("kv_cache_tokens", 16384, "100 % more", False),
        ("context_length", 2048, "", False),
        ("context_length", 1024, "less than asked", True),
        ("context_length", 4096, "more than asked", True),
        ("prefix_cache", True, "", False),
        ("prefix_cache", False, "not what was asked", True),
        ("concurrent_sequences", 1, "less than asked", True),
    ],
)
def test_a_term_is_off_unless_it_is_the_same_or_a_larger_kv_cache(tmp_path, name, got, said, is_off):
    found = entry(tmp_path, name, got)
    assert (found.said, found.is_off) == (said, is_off)


@pytest.mark.parametrize("got", ["bfloat16", "torch.bfloat16", "bf16", "BF16"])
def test_a_dtype_is_the_same_under_its_other_names(tmp_path, got):
    found = entry(tmp_path, "dtype", got, dtype="bfloat16")
    assert (found.said, found.got_text) == ("", "bfloat16")
    assert entry(tmp_path / "other", "dtype", "float16", dtype="bfloat16").is_off


@pytest.mark.parametrize(
    ("got", "shown", "is_off"),
    [
        ("/a/gemma.jinja", "gemma.jinja", False),
        ("given", "gemma.jinja", False),
        ("chatml (the file has none)", "chatml (the file has none)", True),
        ("/a/notgemma.jinja", "notgemma.jinja", True),
    ],
)
def test_a_chat_template_that_was_asked_for_is_known_by_its_file(tmp_path, got, shown, is_off):
    found = entry(tmp_path, "chat_template", got, chat_template="/models/gemma.jinja")
    assert (found.got_text, found.is_off) == (shown, is_off)


@pytest.mark.parametrize("got", ["/models/gemma3.jinja", "gemma3.jinja", "given"])
def test_a_chat_template_that_comes_with_the_model_has_one_name(tmp_path, got):
    found = entry(tmp_path, "chat_template", got)
    assert (found.asked_text, found.got_text) == ("not asked", "the file given with the model")


def test_what_a_server_does_not_say_is_not_said_to_differ(tmp_path):
    found = entry(tmp_path, "prefix_cache", None)
    assert (found.said, found.got_text, found.is_off) == ("", "not said", False)


def test_what_an_engine_cannot_be_told_is_red_with_its_clause(tmp_path):
    found = entry(tmp_path, "prefix_cache", None, unmatched={"prefix_cache": "it keeps none"})
    assert (found.said, found.is_off, found.clause) == ("could not be told", True, "it keeps none")


def test_what_means_nothing_without_a_model_is_not_red(tmp_path):
    run = run_of(tmp_path, [{"unmatched": {"prefix_cache": "it has no model"}}])
    whole = (tmp_path / "run.json").read_text(encoding="utf-8")
    for path in (tmp_path / "run.json", *tmp_path.glob("starts/*/start.json")):
        path.write_text(path.read_text(encoding="utf-8").replace('"tiny-lm"', '"-"'), encoding="utf-8")
    assert '"tiny-lm"' in whole
    assert entry_of(run, "prefix_cache").is_off
    found = entry_of(open_run(tmp_path), "prefix_cache")
    assert (found.is_off, found.clause) == (False, "it has no model")


def test_what_it_could_not_be_told_and_is_the_same_is_not_red(tmp_path):
    found = entry(tmp_path, "kv_cache_tokens", 8192, unmatched={"kv_cache_tokens": "set in bytes"})
    assert (found.said, found.is_off, found.clause) == ("", False, "set in bytes")


def test_repeats_that_disagree_are_shown_and_the_worst_counts(tmp_path):
    found = entry(tmp_path, "kv_cache_tokens", 8192, 8000, 8192)
    assert found.got_text == "8,192 (start 1, 3), 8,000 (start 2)"
    assert found.said == "less than asked"


def test_terms_that_were_not_asked_for_are_said_to_be(tmp_path):
    assert entry(tmp_path / "matched", "graphs", True).asked_text == "not asked"
    bare = dict.fromkeys(("context_length", "concurrent_sequences", "kv_cache_tokens", "prefix_cache"))
    stock = entry(tmp_path / "stock", "context_length", 32768, fairness="stock", **bare)
    assert (stock.asked_text, stock.got_text, stock.said) == ("not asked", "32,768", "")
    attached = entry(tmp_path / "attached", "context_length", 4096, base_url="http://127.0.0.1:1/v1")
    assert (attached.asked_text, attached.said) == ("not asked", "")


def test_a_row_of_which_nothing_is_asked_or_said_is_left_out(tmp_path):
    ledger = ledger_of(run_of(tmp_path, [{}]))
    names = [row.name for row in ledger]
    assert names == ["context_length", "concurrent_sequences", "kv_cache_tokens", "prefix_cache"]
    two = ledger_of(run_of(tmp_path / "two", [{}], tensor_parallel=2))
    assert "tensor_parallel" in [row.name for row in two]


@pytest.mark.parametrize(
    ("mode", "said"), [("matched", "KV cache"), ("stock", "own"), ("tuned", "named set")]
)
def test_the_mode_is_named_on_top(tmp_path, mode, said):
    run_of(tmp_path, [{}], fairness=mode)
    head = plain(fairness(write_report(tmp_path))).partition("Asked →")[0]
    assert f"engine.fairness={mode}" in head
    assert said in head


@pytest.mark.parametrize(
    ("got", "clause", "users", "is_one"),
    [
        (1, None, 4, True),
        (None, because("one_at_a_time", why="it serves one request at a time"), 4, True),
        (None, quoted("its limit is that of a queue"), 4, False),
        (4, None, 4, False),
        (1, None, 1, False),
    ],
)
def test_fewer_requests_at_once_are_told(tmp_path, got, clause, users, is_one):
    resolved = {} if got is None else {"concurrent_sequences": got}
    unmatched = {"concurrent_sequences": clause} if clause else {}
    changes = [{"resolved": resolved, "unmatched": unmatched}]
    run = run_of(tmp_path, changes, users=users, concurrent_sequences=users)
    assert ("vllm bf16" in one_at_a_time(run)) is is_one


def test_the_page_has_a_column_per_deployment_and_marks_what_is_off_in_words(engines):
    table = fairness(engines)
    assert table.count('<th scope="col"') == 1 + 8
    cells = {}
    for line in re.findall(r"<tr>(.*?)</tr>", table, re.S)[1:]:
        title = plain(re.search(r'<th scope="row">(.*?)</th>', line, re.S)[1])
        cells[title] = re.findall(r"<td>(.*?)</td>", line, re.S)
    context = cells["context length not the same everywhere"]
    assert [plain(cell) for cell in context[:2]] == ["2,048 → 2,048", "2,048 → 1,024 ✕ less than asked"]
    assert ['class="entry off"' in cell for cell in context[:2]] == [False, True]
    kv = [plain(cell) for cell in cells["KV cache, tokens not the same everywhere"]]
    # 8,576 is 5 % above 8,192, 16,384 twice as much
    assert kv[3:] == [
        "8,192 → 8,576", "8,192 → 8,576", "8,192 → 16,384 ▲ 100 % more",
        "8,192 → not said 2 ✕ could not be told", "8,192 → 7,000 ✕ less than asked",
    ]  # fmt: skip
    assert "CPUWNA16LinearKernel" in cells["quantization kernel"][4]
    notes = table.partition("<ol")[2]
    assert re.findall(r"<li>(.*?)</li>", notes) == [
        "it serves one request at a time", "it has no limit", "it keeps none",
    ]  # fmt: skip


def test_what_could_not_be_matched_is_a_finding_with_its_numbers(tmp_path):
    run = run_of(tmp_path, [{"resolved": {"kv_cache_tokens": 7000, "prefix_cache": False}}])
    found = {finding.check: finding for finding in findings_of(run)}["terms_not_matched"]
    assert found.text == (
        "Servers do not use, or could not be told, what was asked for: vllm bf16: KV cache, tokens asked "
        "8,192, got 7,000; vllm bf16: prefix cache asked on, got off."
    )


def test_what_could_not_be_told_is_a_finding_with_its_clause(tmp_path):
    run = run_of(tmp_path, [{"unmatched": {"kv_cache_tokens": "it grows"}}])
    found = {finding.check: finding for finding in findings_of(run)}["terms_not_matched"]
    assert "KV cache, tokens asked 8,192, could not be told: it grows" in found.text


def test_values_of_several_deployments_are_told_once(tmp_path):
    plan = begin_run(tmp_path, [served("vllm", "bf16"), served("vllm", "awq")], [Load(1)])
    for start in plan.starts:
        write_start(tmp_path, start, resolved={"prefix_cache": False})
    found = {finding.check: finding for finding in findings_of(open_run(tmp_path))}["terms_not_matched"]
    cause = "Servers do not use, or could not be told, what was asked for"
    assert found.text == f"{cause}: vllm bf16, vllm awq: prefix cache asked on, got off."


def two_servers(path, *resolved):
    plan = begin_run(path, [served("vllm", "bf16"), served("sglang", "bf16")], [Load(1)])
    for start, said in zip(plan.starts, resolved, strict=True):
        write_start(path, start, resolved=said)
    return open_run(path)


@pytest.mark.parametrize(("tokens", "is_uneven"), [(8448, False), (16384, True)])
def test_kv_caches_that_differ_by_their_rounding_are_the_same_everywhere(tmp_path, tokens, is_uneven):
    run = two_servers(tmp_path, {"kv_cache_tokens": 8192}, {"kv_cache_tokens": tokens})
    row = next(row for row in ledger_of(run) if row.name == "kv_cache_tokens")
    assert row.is_uneven is is_uneven


@pytest.mark.parametrize(("second", "is_uneven"), [(2, True), (1, False), (None, False)])
def test_unequal_threads_are_not_the_same_everywhere(tmp_path, second, is_uneven):
    two_servers(tmp_path, {"threads": 1}, {"threads": second} if second else {})
    said = "threads not the same everywhere" in plain(fairness(write_report(tmp_path)))
    assert said is is_uneven


def test_unequal_use_of_the_processor_is_in_a_table(tmp_path):
    run = two_servers(tmp_path, {}, {})
    for start, cores in zip(run.record.plan.starts, (1.0, 1.9), strict=True):
        samples = [
            HostSample(90 * S + k * S // 10, GIB, k / 10 * cores, 4, 1, 0, None, 4 * GIB, 97.0)
            for k in range(250)
        ]
        write_start(tmp_path, start, samples)
        write_cell(tmp_path, start.cells[0], start, [row(0, 103 * S)])
    shown = {row["deployment"]: row["cores used"] for row in rows_of(reported(open_run(tmp_path)).parts[0])}
    assert shown == {"vllm bf16": "1.00", "sglang bf16": "1.90"}


@pytest.mark.parametrize(
    ("name", "marks"),
    [("sglang bf16", "✕ stand-in kernels"), ("transformers bf16", "≠ other prompts ▲ one request at a time")],
)
def test_what_holds_for_a_whole_deployment_is_marked_once_at_its_name_where_values_are(engines, name, marks):
    page = engines.read_text(encoding="utf-8")
    compared = re.findall(r'<table class="(?:standing|summary verdicts)">.*?</table>', page, re.S)
    assert len(compared) > 1
    for table in compared:
        row = re.search(rf'<tr data-deployment="{name}".*?</tr>', table, re.S)[0]
        assert plain(table).count(f"{name} {marks}") == 1
        assert 'class="doubt"' not in row
    assert marks not in plain(page.partition('id="grounds"')[2])


def test_a_deployment_that_never_started_has_its_column(tmp_path):
    run = run_of(tmp_path, [{"status": "failed", "ready_ns": None}])
    other = replace(run.record.plan.starts[0].deployment, label="vllm other")
    first = run.record.plan.starts[0]
    plan = replace(run.record.plan, starts=(first, replace(first, index=1, deployment=other, cells=())))
    store.write_record(tmp_path / "run.json", run_record(plan))
    assert fairness(write_report(tmp_path)).count('<th scope="col"') == 3


def fairness(path) -> str:
    return path.read_text(encoding="utf-8").partition('id="fairness"')[2].partition("</details>")[0]
