"""Finished weights: names, manifests and hashes; what is unfinished never counts."""

import hashlib
import json
from contextlib import suppress
from pathlib import Path

import pytest

from serving_bench.engines.model.weights import kept
from serving_bench.harness.contracts import quoted


def write_folder(path: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(data)
    return path


def test_directory_is_hashed_file_by_file_and_as_a_whole(tmp_path: Path) -> None:
    part = write_folder(tmp_path / "m.part", {"b.json": b"{}", "a/x.bin": b"12345"})
    kept.finish(part, tmp_path / "m", {"made_by": "test"})
    here = kept.read(tmp_path / "m")
    assert here is not None
    first, second = hashlib.sha256(b"12345").hexdigest(), hashlib.sha256(b"{}").hexdigest()
    # What `sha256sum a/x.bin b.json | sha256sum` prints.
    whole = hashlib.sha256(f"{first}  a/x.bin\n{second}  b.json\n".encode()).hexdigest()
    assert here["sha256"] == whole
    assert here["size_bytes"] == 7
    assert here["files"]["a/x.bin"] == {"size_bytes": 5, "sha256": first}
    assert here["made_by"] == "test"
    assert not part.exists()


def test_directory_that_lacks_a_file_or_has_a_shorter_one_is_not_finished(tmp_path: Path) -> None:
    part = write_folder(tmp_path / "m.part", {"a": b"123", "b": b"456"})
    kept.finish(part, tmp_path / "m", {})
    (tmp_path / "m" / "a").write_bytes(b"12")
    assert kept.read(tmp_path / "m") is None
    (tmp_path / "m" / "a").write_bytes(b"123")
    assert kept.read(tmp_path / "m") is not None
    (tmp_path / "m" / "b").unlink()
    assert kept.read(tmp_path / "m") is None


def test_directory_takes_the_place_of_an_older_one(tmp_path: Path) -> None:
    kept.finish(write_folder(tmp_path / "1.part", {"old": b"1"}), tmp_path / "m", {"note": "first"})
    kept.finish(write_folder(tmp_path / "2.part", {"new": b"22"}), tmp_path / "m", {"note": "second"})
    here = kept.read(tmp_path / "m")
    assert here is not None
    assert here["notes"] == (quoted("second"),)
    assert [path.name for path in (tmp_path / "m").iterdir()] == ["new"]


def test_what_a_killed_run_left_is_removed_before_and_after(tmp_path: Path) -> None:
    left = write_folder(tmp_path / "m.part", {"half": b"1"})
    with suppress(KeyboardInterrupt), kept.part_of(tmp_path / "m") as part:
        assert part == left
        assert not part.exists()
        write_folder(part, {"new": b"2"})
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("manifest", ["", "{", "[]", "null", '{"sha256": "a"}', '{"files": {}}'])
def test_manifest_that_is_not_whole_does_not_count(tmp_path: Path, manifest: str) -> None:
    (tmp_path / "m").write_bytes(b"1")
    (tmp_path / "m.json").write_text(manifest)
    assert kept.read(tmp_path / "m") is None


def test_manifest_of_files_that_are_no_mapping_does_not_count(tmp_path: Path) -> None:
    (tmp_path / "m.json").write_text(json.dumps({"sha256": "a", "size_bytes": 1, "files": 3}))
    assert kept.read(tmp_path / "m") is None
