"""What a container needs mounted for weights, by their path alone and on real links; further arguments."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from serving_bench.engines import ENGINES, launch_of
from serving_bench.engines.common.launching import weights_mount
from serving_bench.harness.contracts import Deployment, EngineTerms, Place
from serving_bench.harness.errors import UserError

CACHE = "/home/me/.cache/huggingface/hub/models--org--tiny"


@pytest.mark.parametrize(
    ("weights", "outer", "inside", "served"),
    [
        ("/w/m-bf16", "/w/m-bf16", "/weights/m-bf16", "/weights/m-bf16"),
        ("/w/m.gguf", "/w/m.gguf", "/weights/m.gguf", "/weights/m.gguf"),
        ("/w/big/m-00001-of-00003.gguf", "/w/big", "/weights/big", "/weights/big/m-00001-of-00003.gguf"),
        (
            f"{CACHE}/snapshots/0a1b",
            CACHE,
            "/weights/models--org--tiny",
            "/weights/models--org--tiny/snapshots/0a1b",
        ),
        (
            f"{CACHE}/snapshots/0a1b/q4/m-00001-of-00003.gguf",
            CACHE,
            "/weights/models--org--tiny",
            "/weights/models--org--tiny/snapshots/0a1b/q4/m-00001-of-00003.gguf",
        ),
        # Not Hugging Face's, so there is no more to see.
        ("/data/snapshots/m", "/data/snapshots/m", "/weights/m", "/weights/m"),
        # TGI's image splits its arguments at spaces.
        ("/w/my model, 2", "/w/my model, 2", "/weights/my-model--2", "/weights/my-model--2"),
    ],
)
def test_all_that_is_read_of_weights_is_mounted(weights: str, outer: str, inside: str, served: str) -> None:
    assert weights_mount(Path(weights)) == ((Path(outer), inside), served)


def test_the_links_of_a_hugging_face_cache_lead_somewhere_in_the_container(tmp_path: Path) -> None:
    repo = tmp_path / "models--org--tiny"
    snapshot = repo / "snapshots" / "0a1b"
    snapshot.mkdir(parents=True)
    (repo / "blobs").mkdir()
    (repo / "blobs" / "ffee").write_text("{}")
    (snapshot / "config.json").symlink_to("../../blobs/ffee")
    (outer, inside), served = weights_mount(snapshot)
    container = tmp_path / "container"
    shutil.copytree(outer, container / inside.removeprefix("/"), symlinks=True)
    shutil.rmtree(repo)
    assert (container / served.removeprefix("/") / "config.json").read_text() == "{}"


STARTED = ("vllm", "sglang", "tgi", "llama_cpp")
OWN = {"tgi": {"program": "/bin/tgi"}, "llama_cpp": {"program": "llama-server"}}
TERMS = EngineTerms(context_length=2048, concurrent_sequences=4, kv_cache_tokens=9000)
PLACE = Place(Path("python"), Path("/w"), "127.0.0.1", 1, Path(), program=Path("program"), devices=(0,))


def deployed(engine: str, launcher: str, args: str, **options: object) -> Deployment:
    kind, image = ENGINES[engine].options, "an/image" if launcher == "docker" else None
    made = kind(args=args, image=image, **{**OWN.get(engine, {}), **options})
    return Deployment(engine, "tiny", "bf16", replace(TERMS, launcher=launcher), made, "label")


@pytest.mark.parametrize("engine", STARTED)
@pytest.mark.parametrize("launcher", ["native", "docker"])
def test_further_arguments_come_last_on_the_command_line(engine: str, launcher: str) -> None:
    deployment = deployed(engine, launcher, "--flag 'two words' --other=3")
    spec = launch_of(ENGINES[engine], deployment, PLACE)
    words = spec.arguments if launcher == "docker" else spec.argv
    assert words[-3:] == ("--flag", "two words", "--other=3")
    without = replace(deployment, options=replace(deployment.options, args=None))
    assert ENGINES[engine].launch(without, PLACE) == launch_of(ENGINES[engine], without, PLACE)


@pytest.mark.parametrize(
    ("engine", "args", "options", "said"),
    [
        ("vllm", "--max_num_seqs=9", {},
         "bench sets --max-num-seqs itself; give engine.concurrent_sequences"),
        ("vllm", "--no-enable-prompt-tokens-details", {}, "bench sets --enable-prompt-tokens-details itself"),
        ("sglang", "--page-size 9", {"page_size": 8}, "bench sets --page-size itself; give sglang.page_size"),
        ("sglang", "--context-length 9", {},
         "bench sets --context-length itself; give engine.context_length"),
        ("llama_cpp", "--parallel 9", {}, "bench sets --parallel itself; give engine.concurrent_sequences"),
        ("tgi", "--port 9", {}, "bench sets --port itself; leave it out"),
        ("tgi", "--por 9", {}, "bench sets --port itself; leave it out"),
        ("llama_cpp", "--x", {"program": "xllamacpp"},
         "the program xllamacpp takes no further arguments; llama_cpp.program=llama-server"),
        ("llama_cpp", "--temp -1 -c 4096", {},
         "-c may stand for a flag that bench sets itself; give its long"),
    ],
)  # fmt: skip
def test_an_argument_that_bench_sets_names_its_key(
    engine: str, args: str, options: dict[str, object], said: str
) -> None:
    with pytest.raises(UserError) as refused:
        launch_of(ENGINES[engine], deployed(engine, "native", args, **options), PLACE)
    assert str(refused.value).startswith(f"{engine}.args={args}: {said}")
