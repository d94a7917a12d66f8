"""No secret reaches the page, and what is none stays readable."""

from __future__ import annotations

import pytest

from reports.secrets import MASK, is_secret, masked, masked_argv, masked_environment


@pytest.mark.parametrize(
    "name",
    ["HF_TOKEN", "OPENAI_API_KEY", "--api-key", "AWS_SECRET_ACCESS_KEY", "db_password", "--hf-token",
     "apiKey", "HTTP_AUTHORIZATION", "GITHUB_PAT"],
)  # fmt: skip
def test_names_of_secrets(name):
    assert is_secret(name)


@pytest.mark.parametrize(
    "name",
    ["TOKENIZERS_PARALLELISM", "--max-total-tokens", "--tokenizer", "api_key_env", "HF_TOKEN_PATH",
     "KEYBOARD", "--max-num-batched-tokens", "VLLM_CACHE_ROOT", "--ssl-keyfile"],
)  # fmt: skip
def test_names_that_only_look_like_it(name):
    assert not is_secret(name)


@pytest.mark.parametrize(
    ("argv", "shown"),
    [
        (["serve", "--api-key", "abc", "--port", "1"], ("serve", "--api-key", MASK, "--port", "1")),
        (["serve", "--api-key=abc"], ("serve", f"--api-key={MASK}")),
        (
            ["docker", "run", "-e", "HF_TOKEN=abc", "image"],
            ("docker", "run", "-e", f"HF_TOKEN={MASK}", "image"),
        ),
        (["docker", "run", "-e", "HF_TOKEN", "image"], ("docker", "run", "-e", "HF_TOKEN", "image")),
        (["serve", "--api-key", "--port", "1"], ("serve", "--api-key", "--port", "1")),
        (["serve", "--max-total-tokens", "8192"], ("serve", "--max-total-tokens", "8192")),
        (["get", "http://user:pw@host:1/v1"], ("get", f"http://{MASK}@host:1/v1")),
    ],
)
def test_command_lines(argv, shown):
    assert masked_argv(argv) == shown


def test_environments_by_name_and_by_what_a_value_looks_like():
    given = {"HF_TOKEN": "x", "NOTE": "hf_abcdefghijklmnopqrst", "OMP_NUM_THREADS": "2"}
    assert masked_environment(given) == {"HF_TOKEN": MASK, "NOTE": MASK, "OMP_NUM_THREADS": "2"}


def test_headers_and_well_known_tokens_in_a_text():
    said = masked("sent Authorization: Bearer abc.def with sk-abcdefghijklmnopqrst to http://a:b@c/")
    assert said == f"sent Authorization: Bearer {MASK} with {MASK} to http://{MASK}@c/"
