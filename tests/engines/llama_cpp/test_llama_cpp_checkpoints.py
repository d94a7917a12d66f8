"""Saved states beside the KV cache, from lines of a real log of xllamacpp 2026.10.11549."""

import pytest

from serving_bench.engines.common.llama_cpp_output import kept_bytes

LOG = """\
0.00.670.753 I srv    load_model: context checkpoints enabled, max = 32, min spacing = 8192
0.02.236.133 I slot create_check: id  3 | task 0 | created context checkpoint 1 of 32 (pos_min = 0, pos_max = 0, n_tokens = 1, size = 0.015 MiB)
0.02.392.147 I slot create_check: id  3 | task 0 | created context checkpoint 2 of 32 (pos_min = 0, pos_max = 10, n_tokens = 11, size = 0.162 MiB)
0.04.555.190 I slot   operator(): id  3 | task 11 | checking checkpoint with [0, 10] against 0...
0.04.555.277 I slot   operator(): id  3 | task 11 | restored context checkpoint (pos_min = 0, pos_max = 10, n_tokens = 11, n_past = 10, size = 0.162 MiB)
0.04.555.401 I slot create_check: id  3 | task 11 | created context checkpoint 3 of 32 (pos_min = 0, pos_max = 9, n_tokens = 10, size = 0.147 MiB)
0.05.013.375 I slot create_check: id  3 | task 11 | superseding context checkpoint at n_tokens = 11
0.05.013.435 I slot create_check: id  3 | task 11 | created context checkpoint 3 of 32 (pos_min = 0, pos_max = 10, n_tokens = 11, size = 0.162 MiB)
0.11.973.108 I slot   operator(): id  3 | task 22 | restored context checkpoint (pos_min = 0, pos_max = 0, n_tokens = 1, n_past = 1, size = 0.015 MiB)
0.11.973.111 I slot   operator(): id  3 | task 22 | erased invalidated context checkpoint (pos_min = 0, pos_max = 9, n_tokens = 10, n_swa = 512, pos_next = 1, size = 0.147 MiB)
0.11.973.114 I slot   operator(): id  3 | task 22 | erased invalidated context checkpoint (pos_min = 0, pos_max = 10, n_tokens = 11, n_swa = 512, pos_next = 1, size = 0.162 MiB)
0.11.973.126 I slot create_check: id  3 | task 22 | superseding context checkpoint at n_tokens = 1
0.11.973.142 I slot create_check: id  3 | task 22 | created context checkpoint 1 of 32 (pos_min = 0, pos_max = 0, n_tokens = 1, size = 0.015 MiB)
0.12.316.079 I slot create_check: id  3 | task 22 | created context checkpoint 2 of 32 (pos_min = 0, pos_max = 15, n_tokens = 16, size = 0.235 MiB)
"""  # noqa: E501
OTHER_SLOT = (
    "0.29.309.634 I slot create_check: id  0 | task 206 | created context checkpoint 1 of 32 "
    "(pos_min = 0, pos_max = 98, n_tokens = 99, size = 1.452 MiB)\n"
)


def in_mib(log: str) -> float:
    return kept_bytes(log) / 2**20


def test_erased_and_superseded_states_count_no_longer():
    # 0.015 + 0.162 + 0.147 of 1, 11 and 10 tokens are the most at once
    assert in_mib(LOG) == pytest.approx(0.324, abs=1e-6)


def test_states_of_all_slots_are_added():
    # 0.015 + 0.235 are left of the first slot
    assert in_mib(LOG + OTHER_SLOT) == pytest.approx(0.015 + 0.235 + 1.452, abs=1e-6)


def test_the_prompt_cache_is_added():
    state = (
        "srv          update:  - cache state: 3 prompts, 45.250 MiB (limits: 8192.000 MiB, 0 tokens, 0 est)\n"
    )
    assert in_mib(LOG + OTHER_SLOT + state) == pytest.approx(0.25 + 1.452 + 45.25, abs=1e-6)


def test_a_log_without_any_has_none():
    assert kept_bytes("srv    load_model: prompt cache is enabled, size limit: 8192 MiB\n") == 0
