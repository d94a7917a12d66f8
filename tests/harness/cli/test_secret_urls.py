"""A URL with a secret in it is refused, whatever takes it, and nothing that is printed repeats the secret."""

import pytest
from bench_command import Place, bench, told

from serving_bench.harness.errors import UserError
from serving_bench.harness.load.client.http import endpoint

SECRET = "hunter2-4711"
URLS = {
    "key": f"http://h/v1?key={SECRET}", "token": f"http://h/v1?token={SECRET}&x=1",
    "sig": f"http://h:8000/v1?sig={SECRET}%2Fx", "user": f"http://me:{SECRET}@h/v1",
    "slash": f"http://me:{SECRET}/47@h/v1", "question": f"http://me:{SECRET}?47@h/v1",
    "at": f"http://h/v1?key=a@{SECRET}", "fragment": f"http://h/v1#{SECRET}",
    "no scheme": f"me:{SECRET}@h/v1", "other scheme": f"ftp://me:{SECRET}@h/v1",
    "no port": f"http://h:{SECRET}@x:y/v1", "spaces": f"http://h/v1?key={SECRET} and,{SECRET}",
}  # fmt: skip
FORMS = {
    "as it is": "engine.base_url={}",
    "quoted": "engine.base_url='{}'",
    "quoted twice": 'engine.base_url="{}"',
    "a list": "engine.base_url=[http://h/v1,{}]",
    "open": "engine.base_url='{}",
}
# What else takes keys, and words that are no key as they should be.
COMMANDS = {
    "run": ["run", "engine=openai", "model=m"],
    "plan": ["plan", "engine=openai", "model=m"],
    "search": ["search", "slo.success=99%"],
    "fit": ["fit"],
    "prepare": ["prepare"],
    "describe": ["describe"],
    "claim": ["claim", "llama_cpp_flat"],
    "gate": ["gate", "a", "b"],
    "selftest": ["selftest"],
}
WORDS = {
    "another key": "engine.baseurl={}",
    "no key": "engine.base_url:{}",
    "alone": "{}",
    "added": "+engine.base_url={}",
    "another's": "vllm.image={}",
}


def _is_refused(place: Place, *words: object) -> str:
    """What is said of these words, without the secret anywhere."""
    done = told(place, *words)
    assert done.returncode == 2
    assert SECRET not in done.stdout + done.stderr
    assert done.stderr.count("\n") == 1
    return done.stderr


@pytest.mark.parametrize("url", URLS.values(), ids=URLS)
@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_a_url_with_a_secret_is_refused_without_it(tmp_path, form, url):
    said = _is_refused(Place(tmp_path), "run", "engine=openai", "model=m", form.format(url))
    assert said.startswith("engine.base_url: has a ")
    assert "engine.api_key_env names the variable that holds a key" in said


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
@pytest.mark.parametrize("url", ["key", "user"])
def test_no_command_repeats_it(tmp_path, command, url):
    _is_refused(Place(tmp_path), *command, f"engine.base_url={URLS[url]}")


@pytest.mark.parametrize("word", WORDS.values(), ids=WORDS)
@pytest.mark.parametrize("url", ["key", "user", "fragment"])
def test_no_other_word_repeats_it(tmp_path, word, url):
    assert "engine.api_key_env" in _is_refused(Place(tmp_path), "run", word.format(URLS[url]))


@pytest.mark.parametrize("url", URLS.values(), ids=URLS)
@pytest.mark.parametrize(
    "line", ["engine.base_url: '{}'", "engine.base_url: [x, '{}']", "engine.baseurl: '{}'"]
)
def test_a_study_with_it_is_refused_without_it(tmp_path, line, url):
    (tmp_path / "study.yaml").write_text(line.format(url))
    assert "engine.api_key_env" in _is_refused(Place(tmp_path), "plan", "--from", "study.yaml")


@pytest.mark.parametrize(
    "words", [["run", "--resume"], ["report"], ["run", "--from"], ["run", "--only-repeat"]]
)
def test_a_url_in_the_place_of_something_else_is_not_repeated(tmp_path, words):
    for url in (URLS["key"], URLS["user"], URLS["fragment"]):
        _is_refused(Place(tmp_path), *words, url)


def test_the_installed_command_repeats_nothing(tmp_path):
    done = bench(Place(tmp_path), "run", f"engine.base_url={URLS['key']}")
    assert (done.returncode, done.stdout) == (2, "")
    assert "has a query or a fragment" in done.stderr
    assert SECRET not in done.stderr


@pytest.mark.parametrize(
    "url", [f"ftp://h/?{SECRET}", f"http://h:{SECRET}/47@h/v1", f"http://me:{SECRET}@:x/v1"]
)
def test_where_requests_go_is_refused_without_it(url):
    with pytest.raises(UserError, match="base_url=") as refused:
        endpoint(url)
    assert SECRET not in str(refused.value)
