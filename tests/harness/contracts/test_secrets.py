"""What a secret is, in names, command lines and texts; and what is none stays readable."""

import base64
import json
import time

import pytest
from echoes import ECHOES, KEY

from serving_bench.harness.contracts import (
    MASK,
    OURS,
    is_secret,
    known_secrets,
    masked,
    masked_argv,
    masked_bytes,
    masked_known,
    masked_values,
    secrets_in,
)


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


@pytest.mark.parametrize("way", ECHOES)
def test_a_known_secret_is_found_however_it_is_written(way):
    said = f"it was: {ECHOES[way](KEY)} (that is all)"
    shown = masked_known(said, [None, KEY])
    assert shown.startswith("it was: ")
    assert MASK in shown
    assert shown.endswith("(that is all)")
    assert not [each for each in ECHOES.values() if each(KEY) in shown]
    left = shown.removeprefix("it was: ").removesuffix(" (that is all)").replace(MASK, "")
    assert len(left) <= len(base64.b64encode(b"someone:")), "what is not the key's alone, in base64"
    at, kind = next(secrets_in(said.encode(), {"KEY": KEY}))
    assert kind == OURS + "KEY"
    assert at <= len(said) - len(ECHOES[way](KEY))
    stars = masked_bytes(said.encode(), [KEY])
    assert len(stars) == len(said.encode())
    assert ECHOES[way](KEY).encode() not in stars


@pytest.mark.parametrize("way", ECHOES)
def test_half_of_a_secret_that_was_cut_is_found(way):
    half = ECHOES[way](KEY)
    assert masked_known("so " + half[: 3 * len(half) // 4], [KEY]) != "so " + half[: 3 * len(half) // 4]


@pytest.mark.parametrize("way", ["as it is", "by percent", "in JSON", "in base64"])
@pytest.mark.parametrize(
    "secret",
    ["пароль-длинный-1", "Эх, Ромашка!", "pässwörd", b"\xff\xfe-Zq&7tR".decode(errors="surrogateescape")],
)
def test_a_secret_that_is_no_ascii_is_found_in_bytes(secret, way):
    stored = secret.encode(errors="surrogateescape")
    written = {
        "as it is": stored,
        "by percent": "".join(f"%{byte:02X}" for byte in stored).encode(),
        "in JSON": json.dumps(secret).encode(),
        "in base64": base64.b64encode(b"me:" + stored),
    }[way]
    said = b"it was: " + written + b" (that is all)"
    assert [kind for _, kind in secrets_in(said, {"KEY": secret})][:1] == [OURS + "KEY"]
    stars = masked_bytes(said, [secret])
    assert len(stars) == len(said)
    assert stored not in stars
    assert written[-8:] not in stars or way == "in JSON"


def test_what_is_no_secret_stays():
    said = f"{KEY[:9]} and {KEY[10:]}, {base64.b64encode(KEY[:6].encode()).decode()}; &amp; %20 \\u0073 - s k"
    assert masked_known(said, [KEY]) == said
    assert list(secrets_in(said.encode(), {"KEY": KEY})) == []
    assert masked_known("EMPTY, e m p t y, RU1QVFk=", ["EMPTY"]) == f"{MASK}, e m p t y, RU1QVFk="


@pytest.mark.alone
@pytest.mark.parametrize(
    "piece",
    ["s", "s k - ", KEY[:11], "s" + " " * 50, "%73%6b", "\\", "&#0", "&#x" + "0" * 99, "s\\", "eyJ-",
     "eyJabcdefghijk", "sk-", "://", "api_key ", "Bearer ", KEY.encode()[:11].hex(), "73", KEY],
)  # fmt: skip
def test_the_time_grows_as_the_text_does(piece):
    def took_s(size: int) -> float:
        text = piece * (size // len(piece))
        began = time.process_time()
        masked_known(text, [KEY])
        masked(text)
        list(secrets_in(text.encode(), {"KEY": KEY}))
        return time.process_time() - began

    once = min(took_s(10_000) for _ in range(3))
    assert took_s(200_000) < 20 * 8 * max(once, 1e-4), "twenty times the text"


def test_the_secrets_of_an_environment_are_known_by_their_values():
    given = {"HF_TOKEN": "abcdefgh", "API_KEY": "1234567", "HOME": "/home/someone", "NOTE": "sk-" + "a" * 16}
    assert known_secrets(given) == {"HF_TOKEN": "abcdefgh", "NOTE": "sk-" + "a" * 16}


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        (b"hf_" + b"a" * 20, "a well-known token"),
        (b"Authorization: Bearer abcdef0123456789", "a bearer's token"),
        (b"http://someone:hunter2@host/", "a URL's user"),
        (b"Authorization: Bearer ***, http://***@host, the bearer understands-everything", None),
        (bytes(range(256)), None),
    ],
)
def test_bytes_that_hold_a_secret_by_its_form(said, kind):
    assert [found for _, found in secrets_in(said, {})] == ([kind] if kind else [])
