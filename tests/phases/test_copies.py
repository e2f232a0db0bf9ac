"""Copies of outputs, changed in place: what a run may see of that, and what it may not do to it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from phases.errors import IntegrityError
from phases.judge.copies import CopyPool, OutputCopy, list_outputs

FILES = {"a.txt": b"one\n", "folder/b.bin": bytes(range(256)), "folder/deep/c.json": b"{}"}


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """Return a folder with outputs."""
    for path, data in FILES.items():
        (tmp_path / "out" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "out" / path).write_bytes(data)
    return tmp_path / "out"


@pytest.fixture
def copy(out: Path, tmp_path: Path) -> OutputCopy:
    """Return a copy of the outputs."""
    digests = {path: digest(data) for path, data in FILES.items()}
    return OutputCopy(tmp_path / "copies", list_outputs(out, digests))


def contents(folder: Path) -> dict[str, bytes]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def test_a_mutant_and_back(copy: OutputCopy) -> None:
    digests = copy.lay_out({"folder/b.bin": b"shorter"})
    assert contents(copy.folder) == {**FILES, "folder/b.bin": b"shorter"}
    assert digests["folder/b.bin"] == digest(b"shorter")
    assert digests["a.txt"] == digest(FILES["a.txt"])
    assert copy.describe_tampering() == ""
    assert copy.describe_corruption() == "folder/b.bin was changed"
    copy.restore()
    assert contents(copy.folder) == FILES
    assert copy.describe_corruption() == ""


def test_a_changed_file_stays_the_same_file(copy: OutputCopy) -> None:
    facts = []
    for changed in ({}, {"a.txt": b"other"}):
        copy.lay_out(changed)
        stat = (copy.folder / "a.txt").stat()
        facts.append((stat.st_ino, stat.st_nlink, stat.st_mode, stat.st_mtime_ns, stat.st_atime_ns))
    assert facts[0] == facts[1]


def test_every_layout_has_another_name(copy: OutputCopy) -> None:
    names = set()
    for _ in range(5):
        copy.lay_out({})
        names.add(copy.folder.name)
    assert len(names) == 5
    assert [path.name for path in copy.folder.parent.iterdir()] == [copy.folder.name]


def overwrite(folder: Path) -> None:
    (folder / "a.txt").chmod(0o600)
    (folder / "a.txt").write_bytes(FILES["a.txt"])  # the very same bytes


def replace(folder: Path) -> None:
    folder.chmod(0o700)
    (folder / "a.txt").unlink()
    (folder / "a.txt").write_bytes(FILES["a.txt"])


def remove(folder: Path) -> None:
    folder.chmod(0o700)
    (folder / "a.txt").unlink()


def link(folder: Path) -> None:
    remove(folder)
    (folder / "a.txt").symlink_to("folder/b.bin")


def add(folder: Path) -> None:
    (folder / "folder").chmod(0o700)
    (folder / "folder" / "new").mkdir()


def set_times(folder: Path) -> None:
    os.utime(folder / "a.txt", ns=(5, 5))


@pytest.mark.parametrize("tamper", [overwrite, replace, remove, link, add, set_times])
def test_what_a_run_did_is_seen_and_undone(
    copy: OutputCopy, tamper: Callable[[Path], None]
) -> None:
    copy.lay_out({"folder/b.bin": b"mutant"})
    tamper(copy.folder)
    assert copy.describe_tampering() != ""
    copy.restore(whole=True)
    assert contents(copy.folder) == FILES
    copy.lay_out({})
    assert copy.describe_tampering() == ""


def test_reading_is_no_tampering(copy: OutputCopy) -> None:
    copy.lay_out({})
    assert contents(copy.folder) == FILES
    assert copy.describe_tampering() == ""


def test_an_output_that_changes_meanwhile_is_refused(copy: OutputCopy, out: Path) -> None:
    copy.lay_out({"a.txt": b"mutant"})
    (out / "a.txt").write_bytes(b"two\n")
    with pytest.raises(IntegrityError, match=r"a\.txt: got sha256 .* expected"):
        copy.restore()


def test_a_pool_notes_what_was_changed(out: Path, tmp_path: Path) -> None:
    digests = {path: digest(data) for path, data in FILES.items()}
    pool = CopyPool(tmp_path / "copies", list_outputs(out, digests), 2)
    with pool.laid_out({}) as (first, _), pool.laid_out({"a.txt": b"x"}) as (second, _):
        assert first != second
    with pool.laid_out(None) as (empty, stated):
        assert list(empty.iterdir()) == [] and stated == {}
    assert pool.tampering == pool.find_corruption() == ""
    with pool.laid_out({}) as (folder, _):
        overwrite(folder)
    assert pool.tampering == "the gate changed its input: a.txt was changed"
    pool.remove()
    assert not (tmp_path / "copies").exists()
