"""Files that must not be lost: whole or not at all, on real file systems, a full one among them."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phases.base import durable
from phases.errors import EnvironmentFaultError

SMALL_DISK_BYTES = 256 * 1024  # bytes of the small file system


@pytest.fixture(scope="module")
def _small_disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("small")
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={SMALL_DISK_BYTES}", "phases-test", str(folder)],
        capture_output=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip(f"no small file system to fill: {mounted.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.fixture
def small_disk(_small_disk: Path) -> Iterator[Path]:
    """Return the folder of an empty file system of 256 KiB."""
    yield _small_disk
    for path in _small_disk.iterdir():
        path.unlink()


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@given(old=st.none() | st.binary(max_size=100), new=st.binary(max_size=100))
def test_a_write_replaces_the_whole_file(
    tmp_path_factory: pytest.TempPathFactory, old: bytes | None, new: bytes
) -> None:
    path = tmp_path_factory.mktemp("write") / "a" / "b"
    for data in (old, new):
        if data is not None:
            durable.write(path, data)
    assert path.read_bytes() == new
    assert names(path.parent) == ["b"]


def test_a_write_sets_the_mode(tmp_path: Path) -> None:
    durable.write(tmp_path / "open", b"")
    assert (tmp_path / "open").stat().st_mode & 0o777 == 0o644 & ~_umask()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_a_full_disk_leaves_the_old_file(small_disk: Path) -> None:
    path = small_disk / "ledger"
    durable.write(path, b"old")
    with pytest.raises(EnvironmentFaultError) as excinfo:
        durable.write(path, b"x" * (2 * SMALL_DISK_BYTES))
    assert str(excinfo.value) == f"cannot write {path}: {os.strerror(errno.ENOSPC)}"
    assert excinfo.value.hint.startswith("free disk space there")
    assert excinfo.value.exit_code == 7
    assert path.read_bytes() == b"old"
    assert names(small_disk) == ["ledger"]


def test_a_full_disk_leaves_no_half_entry(small_disk: Path) -> None:
    path = small_disk / "ledger"
    durable.append(path, b"first\n")
    durable.write(small_disk / "filler", b"x" * (SMALL_DISK_BYTES - 3 * os.sysconf("SC_PAGE_SIZE")))
    with pytest.raises(EnvironmentFaultError, match="cannot append to"):
        # The kernel takes the part that fits.
        durable.append(path, b"y" * (4 * os.sysconf("SC_PAGE_SIZE")))
    assert path.read_bytes() == b"first\n"
    (small_disk / "filler").unlink()
    durable.append(path, b"second\n")
    assert path.read_bytes() == b"first\nsecond\n"


def test_a_full_disk_leaves_no_half_copy(small_disk: Path, tmp_path: Path) -> None:
    source = tmp_path / "weights"
    source.write_bytes(b"w" * 2 * SMALL_DISK_BYTES)
    with pytest.raises(EnvironmentFaultError, match="No space left"):
        durable.copy(source, small_disk / "weights", durable.sha256_file(source))
    assert names(small_disk) == []


def test_short_writes_are_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A write may take fewer bytes than it was given: a signal, a network file system."""
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: write(descriptor, bytes(data[:7])))
    durable.write(tmp_path / "file", b"0123456789" * 5)
    assert (tmp_path / "file").read_bytes() == b"0123456789" * 5


def test_a_short_append_is_undone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    durable.append(path, b"first\n")
    write = os.write
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", lambda descriptor, data: write(descriptor, bytes(data[:7])))
        with pytest.raises(EnvironmentFaultError, match="No space left"):
            durable.append(path, b"a long second line\n")
    assert path.read_bytes() == b"first\n"


@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC])
def test_a_failed_fsync_is_fatal_and_not_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    path, calls = tmp_path / "file", []
    durable.write(path, b"old")

    def fail(descriptor: int) -> None:
        calls.append(descriptor)
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", fail)
    for action in (lambda: durable.write(path, b"new"), lambda: durable.append(path, b"more")):
        calls.clear()
        with pytest.raises(EnvironmentFaultError, match=os.strerror(code)):
            action()
        assert len(calls) == 1
    assert names(tmp_path) == ["file"]


def test_symlinks_are_not_written_through(tmp_path: Path) -> None:
    (tmp_path / "precious").write_bytes(b"unchanged")
    (tmp_path / "link").symlink_to("precious")
    with pytest.raises(EnvironmentFaultError, match="cannot append to"):
        durable.append(tmp_path / "link", b"more")
    temporary = tmp_path / f".file.{os.getpid()}.tmp"
    temporary.symlink_to("precious")
    with pytest.raises(EnvironmentFaultError, match="cannot write"):
        durable.write(tmp_path / "file", b"new")
    durable.write(tmp_path / "link", b"the link is replaced, not what it points to")
    assert (tmp_path / "precious").read_bytes() == b"unchanged"


def test_a_copy_is_checked_against_its_digest(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "store" / "ab" / "target"
    source.write_bytes(b"bytes")
    with pytest.raises(EnvironmentFaultError, match="changed while it was copied"):
        durable.copy(source, target, durable.sha256(b"other bytes"))
    assert names(target.parent) == []
    durable.copy(source, target, durable.sha256(b"bytes"))
    assert target.read_bytes() == b"bytes"


def test_remove_takes_files_folders_and_links_but_not_what_they_point_to(tmp_path: Path) -> None:
    (tmp_path / "target").mkdir()
    (tmp_path / "target" / "file").write_text("")
    (tmp_path / "link").symlink_to("target")
    (tmp_path / "folder" / "deep").mkdir(parents=True)
    (tmp_path / "file").write_text("")
    for name in ("link", "folder", "file", "absent"):
        durable.remove(tmp_path / name)
    durable.remove(tmp_path / "no" / "such")
    assert names(tmp_path) == ["target"]
    assert names(tmp_path / "target") == ["file"]


def test_digests_are_sha256(tmp_path: Path) -> None:
    (tmp_path / "abc").write_bytes(b"abc")
    # FIPS 180-4, example B.1
    digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert durable.sha256(b"abc") == digest
    assert durable.sha256_file(tmp_path / "abc") == digest
    with (tmp_path / "abc").open("rb") as file:
        assert durable.sha256_stream(file) == digest


WRITER = """
import sys
from pathlib import Path
from phases.base import durable
for number in range(1_000_000):
    durable.write(Path(sys.argv[1]), (f"{number:09d}\\n" * 2000).encode())
"""


def test_a_killed_writer_leaves_the_old_or_the_new(tmp_path: Path) -> None:
    path = tmp_path / "file"
    for _ in range(5):
        child = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path)], cwd=Path(__file__).parents[2]
        )
        end = time.monotonic() + 30
        while not path.exists() and time.monotonic() < end:
            time.sleep(0.01)
        time.sleep(0.1)
        child.send_signal(signal.SIGKILL)
        child.wait()
        lines = path.read_text().splitlines()
        assert len(lines) == 2000
        assert len(set(lines)) == 1
