"""What a container needs mounted for weights, by their path alone and on real links."""

import shutil
from pathlib import Path

import pytest

from serving_bench.engines.common.launching import weights_mount

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
