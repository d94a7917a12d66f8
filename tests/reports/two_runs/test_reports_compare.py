"""Two sides compared: what belongs together, what differs, B over A by hand, and what gets no verdict."""

import json
import re
from dataclasses import asdict, replace

import pytest
from make_run import GIB, HOSTILE, S, deployment, empty_run, failed_row
from make_sides import A, B, rows_of, sides_run

from serving_bench.harness.contracts import CompareTerms, Load, Price, QualityTerms, SearchTerms
from serving_bench.harness.errors import StoreError, UserError
from serving_bench.harness.store import store
from serving_bench.reports import compare_runs, write_comparison
from serving_bench.reports.data.run import open_run
from serving_bench.reports.page.several_runs import comparison_page
from serving_bench.reports.two_runs.matching import open_sides, pairs_of
from serving_bench.reports.verdicts.comparisons import comparisons_of
from serving_bench.reports.verdicts.pairs import estimate_of, why_not

TTFT = CompareTerms(metrics=("ttft_s.p50",))
# Standard deviation of the logarithms 0.09531, that of a factor of 1.1.
AROUND_100 = (100 / 1.1, 100, 100 * 1.1)
AROUND_200 = (200 / 1.1, 200, 200 * 1.1)
STEADY = (100.0, 101.0, 102.0)


def row_of(comparison, metric="ttft_s.p50", case=0):
    return next(row for row in comparison.cases[case].rows if row.metric == metric)


def two(folder, a=STEADY, b=STEADY, a_has=None, b_has=None):
    """The directories of two runs of one deployment each."""
    return sides_run(folder / "a", {A: a}, **(a_has or {})), sides_run(folder / "b", {A: b}, **(b_has or {}))


def two_runs(*made, terms=TTFT, **has):
    return compare_runs(*two(*made, **has), terms)


def cases(a, b):
    """What two sides have in common, without their values."""
    return pairs_of(*open_sides(str(a), str(b)))


def case_of(*made, **has):
    """The only case of two runs."""
    [found], _ = cases(*two(*made, **has))
    return found


# --- B over A --------------------------------------------------------------------------------------


def test_two_runs_are_compared_by_welchs_test_on_logarithms(tmp_path):
    found = two_runs(tmp_path, AROUND_100, AROUND_200)
    row = row_of(found)
    assert (row.a.mean, row.b.mean) == pytest.approx((0.1, 0.2))
    # error sqrt(2 x 0.09531^2 / 3) = 0.07782, 4 degrees of freedom, t = 2.7764: half-width 0.21606.
    assert row.verdict.ratio == pytest.approx(2.0, rel=1e-4)
    assert (row.verdict.low, row.verdict.high) == pytest.approx((1.6114, 2.4823), rel=1e-3)
    assert (row.verdict.kind, row.verdict.k) == ("worse", 3)
    assert "not interleaved" in found.how


def test_two_deployments_of_one_run_are_compared_in_pairs_of_a_block(tmp_path):
    """Pairs of 1.1, 1.21 and 1.331: the mean of logarithms is 2 x 0.09531, their deviation 0.09531."""
    run = sides_run(tmp_path / "r", {A: (100, 200, 300), B: (110, 242, 399.3)})
    found = compare_runs(f"{run}:{A}", f"{run}:{B}", TTFT)
    verdict = row_of(found).verdict
    assert verdict.ratio == pytest.approx(1.21, rel=1e-4)
    # error 0.09531 / sqrt(3) = 0.05503, 2 degrees of freedom, t = 4.3027: half-width 0.23677.
    assert (verdict.low, verdict.high) == pytest.approx((0.9549, 1.5333), rel=1e-3)
    assert verdict.kind == "unknown"
    assert "Paired" in found.how
    assert [case.deployment for case in found.cases] == [f"{B} against {A}"]


def test_the_verdict_is_on_b_within_the_margin(tmp_path):
    for margin, kind in ((0.1, "same"), (0.01, "worse")):
        terms = CompareTerms(margin_share=margin, metrics=("ttft_s.p50",))
        assert row_of(two_runs(tmp_path / kind, STEADY, (104, 105, 106), terms=terms)).verdict.kind == kind


def test_all_verdicts_shown_are_one_family_and_loads_of_one_side_are_left_out(tmp_path):
    loads = ([Load(concurrency=n) for n in own] for own in ((1, 4, 2), (1, 4, 9)))
    a_has, b_has = ({"loads": each} for each in loads)
    found = two_runs(tmp_path, a_has=a_has, b_has=b_has, terms=CompareTerms())
    assert [case.load for case in found.cases] == ["1 user", "4 users"]
    assert found.family == 8
    assert {row.metric for row in found.cases[0].rows if row.verdict} == set(CompareTerms().metrics)
    left_out = [("A", f"{A}, chat_multi_turn, 2 users"), ("B", f"{A}, chat_multi_turn, 9 users")]
    assert [(each.side, each.what) for each in found.left_out] == left_out


# --- what belongs together -------------------------------------------------------------------------


def test_a_deployment_is_named_by_label_or_slug_and_a_colon_may_be_part_of_it(tmp_path):
    label = "reference url=http://a:1, ttft=5ms"
    made = {label: replace(deployment("reference", "-"), label=label)}
    run = sides_run(tmp_path / "a:b", {label: STEADY, B: STEADY}, made=made)
    for name in (label, made[label].slug):
        [found], _ = cases(f"{run}:{name}", f"{run}:{B}")
        assert found.groups[0].deployment == label


def test_a_deployment_of_a_directory_without_a_run_is_refused_by_what_the_directory_lacks(tmp_path):
    run = sides_run(tmp_path / "r", {A: STEADY})
    (tmp_path / "empty").mkdir()
    with pytest.raises(StoreError, match=r"empty: no run here \(run\.json is missing\)"):
        open_sides(f"{tmp_path / 'empty'}:{A}", str(run))
    with pytest.raises(StoreError, match=rf"none:{A}: no run here \(there is no such directory\)"):
        open_sides(f"{tmp_path / 'none'}:{A}", str(run))


def test_a_run_against_one_deployment_is_the_same_or_the_only_one_of_it(tmp_path):
    run, only = sides_run(tmp_path / "r", {A: STEADY, B: STEADY}), sides_run(tmp_path / "o", {A: STEADY})
    for label in (A, B):
        [found], _ = cases(f"{run}:{label}", only)
        assert (found.groups[0].deployment, found.groups[1].deployment) == (label, A)
    third = sides_run(tmp_path / "t", {"tgi fp16": STEADY})
    with pytest.raises(UserError, match=f"cannot tell which deployment to compare with tgi fp16.*{A}, {B}"):
        open_sides(str(run), f"{third}:tgi fp16")


@pytest.mark.parametrize(
    ("b_has", "note"),
    [({"loads": [Load(concurrency=1, duration_s=20.0)]}, "the load is bounded differently; see what differs"),
     ({"seed": 70}, "other seeds: not the same conversations on both sides")],
)  # fmt: skip
def test_other_bounds_and_seeds_are_compared_and_told(tmp_path, b_has, note):
    [case] = two_runs(tmp_path, b_has=b_has).cases
    assert (case.notes, case.why_none) == ((note,), None)


@pytest.mark.parametrize(
    ("b_has", "said"),
    [({"loads": [Load(concurrency=9)]},
      "their traffic differs: A has chat_multi_turn at 1 user, B has chat_multi_turn at 9 users; "
      f"give runs of the same scenario and load ({A}, chat_multi_turn, 1 user: only A has it; "),
     ({"scenario": {"turns": 5}}, f"({A}, chat_multi_turn, 1 user: other scenario options: turns 2 and 5"),
     ({"made": {A: deployment("llama_cpp", "fp16", "other-lm")}},
      "give runs of the same model and scenario options "
      f"({A}, chat_multi_turn, 1 user: other models: tiny-lm and other-lm")],
)  # fmt: skip
def test_what_has_nothing_to_compare_is_refused(tmp_path, b_has, said):
    with pytest.raises(UserError, match=re.escape(said)) as caught:
        two_runs(tmp_path, b_has=b_has)
    assert "\n" not in str(caught.value)


def test_what_is_no_side_is_refused_in_a_line(tmp_path):
    run, other = sides_run(tmp_path / "r", {A: STEADY, B: STEADY}), sides_run(tmp_path / "o", {A: STEADY})
    with pytest.raises(StoreError, match="no run here"):
        open_sides(f"{tmp_path}/none", f"{tmp_path}/none")
    with pytest.raises(UserError, match=f"r:x: no deployment x in .*r; it has {A}, {B}$"):
        open_sides(f"{run}:x", str(run))
    for label in ("", f":{A}"):
        with pytest.raises(UserError, match="are the same starts; give another run, or two deployments"):
            open_sides(f"{run}{label}", f"{run}{label}")
    store.write_record(run / "run.json", replace(store.read_run(run), search=SearchTerms()))
    with pytest.raises(UserError, match="is a search, which tried other loads on each start"):
        open_sides(str(run), str(other))


# --- no verdict ------------------------------------------------------------------------------------

GPU = {"name": "H100", "uuid": "u1", "memory_bytes": 80 * GIB, "driver": "580.1"}


def machine(**device):
    return {"machine": {"cpu_model": "Test CPU", "memory_bytes": 8 * GIB}, "devices": [{**GPU, **device}]}


@pytest.mark.parametrize(
    ("b_has", "why"),
    [({"environment": {"machine": {"cpu_model": "Other CPU", "memory_bytes": 8 * GIB}}},
      "machine.cpu_model: Test CPU and Other CPU"),
     ({"environment": {}}, "the hardware of one of them is not recorded"),
     ({"start": {"attached": True}},
      "B: the server was running already, so its repeats are blocks on one start"),
     ({"start": {"prompt_tokens": {"user": 15}}},
      "their prompts are not the same: A and B use different chat templates or tokenizers (tokens of the "
      "fixed prompts, A / B: user 13 / 15)"),
     ({"start": {"resolved": {"kernel_stand_in": "slow kernels"}}}, "B: slow kernels")],
)  # fmt: skip
def test_what_is_not_alike_has_values_and_no_verdict(tmp_path, b_has, why):
    a_has = {"start": {"prompt_tokens": {"user": 13}}}
    found = case_of(tmp_path, AROUND_100, AROUND_200, a_has=a_has, b_has=b_has)
    assert str(why_not(found, "ttft_s.p50")) == why
    estimate = estimate_of(found, "ttft_s.p50")
    if found.runs[1].start_records[0].attached:
        assert estimate is None, "blocks on one server say nothing of starts"
    else:
        assert estimate.shown == pytest.approx(2.0, rel=1e-4)


@pytest.mark.parametrize(
    ("device", "is_other"),
    [({}, False), ({"uuid": "u2"}, False), ({"driver": "590.2"}, False), ({"name": "H200"}, True),
     ({"memory_bytes": 141 * GIB}, True), ({"memory_bytes": 79 * GIB}, False)],
)  # fmt: skip
def test_another_device_of_the_same_kind_is_the_same_hardware(tmp_path, device, is_other):
    found = case_of(tmp_path, a_has={"environment": machine()}, b_has={"environment": machine(**device)})
    assert (found.why_none is not None) is is_other


def prompts_of(tokens):
    return [rows_of(100 + k, input_tokens=tokens) for k in range(3)]


@pytest.mark.parametrize(
    ("tokens", "why"),
    [(204, None),
     (205, "at 1 user, turn 1, A 200.0 against B 205.0 tokens: different tokenizers or chat templates")],
)  # fmt: skip
def test_prompts_of_two_runs_are_judged_as_those_of_one(tmp_path, tokens, why):
    found = case_of(tmp_path, prompts_of(200), prompts_of(tokens))
    assert str(found.why_none) == (f"their prompts are not the same: {why}" if why else "None")
    both = sides_run(tmp_path / "r", {A: prompts_of(200), B: prompts_of(tokens)})
    assert (cases(f"{both}:{A}", f"{both}:{B}")[0][0].why_none is None) is (why is None)
    # Of other conversations on average.
    other = case_of(tmp_path / "seed", prompts_of(200), prompts_of(tokens), b_has={"seed": 70})
    differ = "their prompts have different lengths: 200.0 and 205.0 tokens"
    assert str(other.why_none) == (differ if tokens == 205 else "None")


LENGTHS = CompareTerms(metrics=("ttft_s.p50", "output_tokens_per_s", "e2e_s.p50", "requests_per_s"))


def test_answers_of_other_lengths_leave_figures_per_token_and_mark_those_that_go_by_length(tmp_path):
    """The same rule within a run and between two: no verdict on E2E and requests/s."""
    answers = [[rows_of(100 + k, output_tokens=tokens) for k in range(3)] for tokens in (10, 9)]
    runs = two_runs(tmp_path, *answers, terms=LENGTHS)
    run = sides_run(tmp_path / "r", dict(zip((A, B), answers, strict=True)))
    one = compare_runs(f"{run}:{A}", f"{run}:{B}", LENGTHS)
    for found in (runs, one):
        kinds = {name: row_of(found, name).verdict.kind for name in LENGTHS.metrics}
        assert [kinds[name] == "none" for name in LENGTHS.metrics] == [False, False, True, True]
        assert "output_lengths_differ" in row_of(found, "output_tokens_per_s").marks
        assert "output_lengths_differ" not in row_of(found, "ttft_s.p50").marks
        assert "output_lengths_differ" in [reason.check for reason in found.distrust]
    why = row_of(runs, "e2e_s.p50").verdict.why
    assert str(why) == "their answers have different lengths: 10.0 and 9.0 tokens"
    # The page asks of the same pairs, and says the same.
    page = comparisons_of(open_run(run))
    kinds = {name: row_of(one, name).verdict.kind for name in ("ttft_s.p50", "output_tokens_per_s")}
    assert {name: page.of("chat_multi_turn", "1 user", name, B, A).kind for name in kinds} == kinds


def test_answers_of_far_other_lengths_leave_no_verdict_at_all(tmp_path):
    answers = [[rows_of(100 + k, output_tokens=tokens) for k in range(3)] for tokens in (10, 7)]
    run = sides_run(tmp_path / "r", dict(zip((A, B), answers, strict=True)))
    for found in (
        two_runs(tmp_path, *answers, terms=LENGTHS),
        compare_runs(f"{run}:{A}", f"{run}:{B}", LENGTHS),
    ):
        assert {row_of(found, name).verdict.kind for name in LENGTHS.metrics} == {"none"}
        assert "10" in str(found.cases[0].why_none)


def test_a_faster_side_that_played_further_turns_has_the_same_lengths(tmp_path):
    """The turns that both answered are the same; those beyond are longer."""
    more = []
    for k in range(3):
        further = enumerate(rows_of(100 + k, input_tokens=500))
        longer = [replace(each, request_id=f"x{n}", conversation=100 + n) for n, each in further]
        more.append(rows_of(100 + k) + longer)
    assert case_of(tmp_path, STEADY, more).why_none is None


def test_two_starts_show_values_and_no_verdict(tmp_path):
    found = two_runs(tmp_path, (100, 101), (200, 201))
    verdict = row_of(found).verdict
    assert (verdict.kind, found.family) == ("none", 0)
    assert str(verdict.why) == "a verdict needs 3 starts of each or more, here 2 and 2"
    assert verdict.ratio == pytest.approx(2.0, rel=0.01)
    assert row_of(found).values[0] == "100.5 (100.0–101.0)"
    alone = row_of(two_runs(tmp_path / "one", (100,), (200,)))
    assert (alone.verdict.ratio, alone.a.interval) == (None, None)
    found = compare_runs(tmp_path / "a", empty_run(tmp_path / "empty"), TTFT)
    assert str(row_of(found).verdict.why) == "B: its server was not started"


def test_blocks_on_a_server_that_was_not_restarted_have_a_range_and_no_ratio(tmp_path):
    has = {"start": {"attached": True}}
    found = two_runs(tmp_path, (80, 100, 120, 90, 110), (200,) * 5, a_has=has, b_has=has)
    assert found.cases[0].starts_text == "5 blocks of A, 5 of B"
    assert row_of(found).values[0].endswith(" (80.0–120.0)")
    assert row_of(found).verdict.ratio is None


# --- doubts ----------------------------------------------------------------------------------------


def test_what_may_not_be_compared_bears_its_marks_and_each_has_its_reason(tmp_path):
    """Requests failed on one side."""
    failing = [[*rows_of(100 + k), *(failed_row(90 + n, (103 + n) * S) for n in range(4))] for k in range(3)]
    found = two_runs(tmp_path, STEADY, failing)
    marks, reasons = row_of(found).marks, {reason.check: reason for reason in found.distrust}
    assert "requests_failed" in marks
    assert set(marks) <= set(reasons)
    assert reasons["requests_failed"].text == f"Requests failed (B). {reasons['requests_failed'].remedy}"
    page = comparison_page(found)
    assert all(f'id="distrust-{check}"' in page for check in reasons)
    assert page.count('class="doubt"') >= 2
    assert json.loads(json.dumps(asdict(found)))["cases"][0]["rows"][0]["marks"] == list(marks)


def test_across_quantizations_quality_is_a_reason_that_marks_nothing(tmp_path):
    sides_run(tmp_path / "a", {A: STEADY})
    sides_run(tmp_path / "b", {"llama_cpp awq": STEADY})
    found = compare_runs(f"{tmp_path}/a:{A}", f"{tmp_path}/b:llama_cpp awq", TTFT)
    assert "quality_not_measured" in [reason.check for reason in found.distrust]
    assert row_of(found).marks == ()


# --- what differs ----------------------------------------------------------------------------------


def differing(found):
    return {(each.kind, each.what): (each.a, each.b) for each in found.differences}


def test_what_differs_is_told_by_kind_without_secrets(tmp_path):
    environment = {"machine": {"cpu_model": "New CPU", "memory_bytes": 8 * GIB, "kernel": "Linux 7"},
                   "packages": {"locust": "3"}, "host": {"boot_id": "other"}}  # fmt: skip
    settings = {"engine": ("llama_cpp", "vllm"), "load.concurrency": ("1", "4"), "model": ("tiny lm",)}
    start = {"version": "1.1", "weights": {"sha256": "abc"},
             "environment": {"OMP_NUM_THREADS": "2", "MY_API_KEY": "sk-12345678901234567890"}}  # fmt: skip
    found = two_runs(
        tmp_path,
        a_has={"start": {"version": "1.0"}},
        b_has={"environment": environment, "settings": {**settings, "seed": ("7",)}, "start": start},
    )
    assert differing(found) == {
        ("hardware", "machine.cpu_model"): ("Test CPU", "New CPU"),
        ("versions", "machine.kernel"): (None, "Linux 7"),
        ("versions", "packages.locust"): (None, "3"),
        ("versions", "server version"): ("1.0", "1.1"),
        ("settings", "seed"): ("1", "7"),
        ("flags", "environment OMP_NUM_THREADS"): (None, "2"),
        ("flags", "weights sha256"): (None, "abc"),
    }
    kinds = ["hardware", *["versions"] * 3, "settings", *["flags"] * 2]
    assert [each.kind for each in found.differences] == kinds


def test_a_key_that_one_side_left_to_its_default_differs_only_if_its_value_does(tmp_path):
    """A gives no key. Its plan, its record and the declarations of keys have the values that it used."""
    given = {
        "scenario": ("chat_multi_turn",), "load.duration": ("8000ms",), "repeats": ("3",), "guard": ("mark",),
        "compare.margin": ("5%",), "engine.kv_cache_type": ("null",), "price.currency": ("EUR",),
        "seed": ("7",), "load.warmup": ("2s",), "quality": ("off",), "slo.success": ("99%",),
    }  # fmt: skip
    b_has = {
        "settings": given,
        "loads": [Load(concurrency=1, warmup_s=2.0)],
        "quality": QualityTerms(()),
        "price": Price(currency="EUR"),
    }
    found = two_runs(tmp_path, a_has={"settings": {}, "price": Price()}, b_has=b_has)
    assert differing(found) == {
        ("settings", "load.warmup"): ("1.5s", "2s"),
        ("settings", "price.currency"): ("USD", "EUR"),
        ("settings", "seed"): ("1", "7"),
        ("settings", "quality"): ("auto", "off"),
        ("settings", "slo.success"): (None, "99%"),
    }


def test_what_was_set_and_is_told_again_by_the_plan_stands_once(tmp_path):
    for name, threads in (("a", 2), ("b", 3)):
        made = {B: replace(deployment("vllm", "fp16"), options={"threads": threads})}
        sides_run(tmp_path / name, {B: STEADY}, made=made, settings={"vllm.threads": (str(threads),)})
    found = compare_runs(tmp_path / "a", tmp_path / "b", TTFT)
    assert differing(found) == {("settings", "vllm.threads"): ("2", "3")}


def test_flags_are_compared_without_what_each_start_has_of_its_own(tmp_path):
    for name, port, layers in (("a", 4001, "10"), ("b", 4002, "-1")):
        argv = ("server", "--port", str(port), "--ctx=4096", "-ngl", layers, "--no-mmap")
        sides_run(tmp_path / name, {A: STEADY, B: STEADY}, start={"argv": argv})
    found = compare_runs(f"{tmp_path}/a:{A}", f"{tmp_path}/b:{A}", TTFT)
    assert differing(found) == {("flags", "argv -ngl"): ("10", "-1")}
    # Those of two engines are not set against each other.
    found = compare_runs(f"{tmp_path}/a:{A}", f"{tmp_path}/b:{B}", TTFT)
    assert differing(found) == {("flags", "engine"): ("llama_cpp", "vllm")}


def test_flags_of_some_deployments_name_them(tmp_path):
    for name, options in (("a", {}), ("b", {"threads": 3})):
        made = {B: replace(deployment("vllm", "fp16"), options=options)}
        sides_run(tmp_path / name, {A: STEADY, B: STEADY}, made=made)
    [found] = compare_runs(tmp_path / "a", tmp_path / "b", TTFT).differences
    assert found.cells() == (f"vllm.threads ({B})", "–", "3")


# --- as a page -------------------------------------------------------------------------------------


def test_the_page_draws_each_ratio_and_escapes_all_text(tmp_path):
    label = f"vllm {HOSTILE}"
    made = {label: replace(deployment("vllm", "fp16"), label=label)}
    run = sides_run(tmp_path / "r", {A: STEADY, label: AROUND_200}, made=made)
    found = compare_runs(f"{run}:{A}", f"{run}:{label}")
    page = write_comparison(found, tmp_path / "c.html").read_text(encoding="utf-8")
    assert "<img src=x" not in page
    assert "document.title='pwned'</script>" not in page
    ratios = re.findall(
        r'<svg class="ratio".*?cx="([\d.]+)".*?</svg><div class="beside">([^<]*)', page, re.DOTALL
    )
    assert len(ratios) == 4
    assert ratios[1][1].startswith("98\u00a0% more [28\u00a0% more, ")
    assert float(ratios[1][0]) == max(float(at) for at, _ in ratios)
    with pytest.raises(UserError, match="there is no directory"):
        write_comparison(found, tmp_path / "absent" / "c.html")
