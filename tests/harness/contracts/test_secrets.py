"""What a secret is, in names, command lines and texts; and what is none stays readable."""

from __future__ import annotations

import pytest

from harness.contracts import MASK, is_secret, masked, masked_argv, masked_values


@pytest.mark.parametrize(
    "name",
    ["HF_TOKEN", "OPENAI_API_KEY", "--api-key", "AWS_SECRET_ACCESS_KEY", "db_password", "--hf-token",
     "apiKey", "HTTP_AUTHORIZATION", "GITHUB_PAT", "API_KEY", "VLLM_API_KEYS"],
)  # fmt: skip
def test_names_of_secrets(name):
    assert is_secret(name)


@pytest.mark.parametrize(
    "name",
    ["TOKENIZERS_PARALLELISM", "--max-total-tokens", "--tokenizer", "api_key_env", "HF_TOKEN_PATH",
     "KEYBOARD", "OMP_NUM_THREADS", "VLLM_PREFILL_MAX_TOKENS", "--max-num-batched-tokens",
     "VLLM_CACHE_ROOT", "--ssl-keyfile"],
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
        (["get", "http://user:p@w@host:1/v1"], ("get", f"http://{MASK}@host:1/v1")),
    ],
)
def test_command_lines(argv, shown):
    assert masked_argv(argv) == shown


def test_environments_by_name_and_by_what_a_value_looks_like():
    given = {"HF_TOKEN": "x", "NOTE": "hf_abcdefghijklmnopqrst", "OMP_NUM_THREADS": "2"}
    assert masked_values(given) == {"HF_TOKEN": MASK, "NOTE": MASK, "OMP_NUM_THREADS": "2"}


def test_headers_and_well_known_tokens_in_a_text():
    said = masked("sent Authorization: Bearer abc.def with sk-abcdefghijklmnopqrst to http://a:b@c/")
    assert said == f"sent Authorization: Bearer {MASK} with {MASK} to http://{MASK}@c/"


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("exited: vllm serve --api-key sesame --port 1", f"exited: vllm serve --api-key {MASK} --port 1"),
        ("ServerArgs(api_key='sesame', tp=1)", f"ServerArgs(api_key='{MASK}', tp=1)"),
        ("args: {'api_key': ['sesame'], 'port': 1}", f"args: {{'api_key': ['{MASK}'], 'port': 1}}"),
        ('{"hf_token":"sesame"}', f'{{"hf_token":"{MASK}"}}'),
        ("ServerArgs(api_key=None, admin_api_key=None)", "ServerArgs(api_key=None, admin_api_key=None)"),
        ("KeyError: 'model.norm'", "KeyError: 'model.norm'"),
        ("print_info: BOS token = 2 '<bos>'", "print_info: BOS token = 2 '<bos>'"),
        ("api_key_env=OPENAI_API_KEY", "api_key_env=OPENAI_API_KEY"),
        ('"http://host:1","user@x"', '"http://host:1","user@x"'),
    ],
)
def test_arguments_that_a_server_repeats(said, shown):
    assert masked(said) == shown


def test_values_by_their_names_however_deep():
    given = {"settings": {"openai.api_key": ["sesame"], "model": ["tiny"]}, "ready": None, "t_ns": (1, 2)}
    assert masked_values(given) == {
        "settings": {"openai.api_key": [MASK], "model": ["tiny"]},
        "ready": None,
        "t_ns": [1, 2],
    }
