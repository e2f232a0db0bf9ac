"""Folders that are hard to read and to remove; and what is outside of them, which stays."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from phases.base.trees import empty_folder, remove_tree, walk_tree
from tests.soak import mark_soak

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can make these folders")


def make_deep(folder: Path, levels: int, name: str) -> None:
    """Make nested folders with a file in the deepest, whose path no call of the kernel takes."""
    descriptor = os.open(folder, os.O_RDONLY)
    for _ in range(levels):
        os.mkdir(name, dir_fd=descriptor)
        subfolder = os.open(name, os.O_RDONLY, dir_fd=descriptor)
        os.close(descriptor)
        descriptor = subfolder
    os.close(os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=descriptor))
    os.close(descriptor)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "folder/a/b").mkdir(parents=True)
    (tmp_path / "folder/a/b/file").write_text("x")
    (tmp_path / "outside").mkdir(mode=0o750)
    (tmp_path / "outside/file").write_text("kept")
    return tmp_path / "folder"


@pytest.fixture
def quick_disk() -> Iterator[Path]:
    """Return a folder in memory, where there is one: a disk takes long for thousands of folders."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as path:
        yield Path(path)


@pytest.fixture
def few_files() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


DEEP = [(32, "d" * 250), (1400, "dd"), (4000, "d"), (900, "long" * 10)]


@pytest.mark.parametrize(("levels", "name"), mark_soak(DEEP, short=DEEP[:2]))
@pytest.mark.usefixtures("few_files")
def test_a_deep_tree_is_read_as_far_as_it_can_be_and_removed_i_61(
    quick_disk: Path, levels: int, name: str
) -> None:
    folder = quick_disk / "folder"
    folder.mkdir()
    (folder / "file").touch()
    make_deep(folder, levels, name)
    entries = list(walk_tree(folder))
    assert [entry.path for entry in entries if not entry.is_folder] == ["file"]
    assert [entry.is_read for entry in entries if entry.is_folder].count(False) == 1
    assert remove_tree(folder)
    assert not folder.exists()


def test_links_are_removed_and_not_followed(folder: Path) -> None:
    outside = folder.parent / "outside"
    (folder / "a/link").symlink_to(outside)
    (folder / "a/b/link").symlink_to(outside / "file")
    (folder / "loop").symlink_to("..")
    os.mkfifo(folder / "a/pipe")
    assert sorted(entry.path for entry in walk_tree(folder) if not entry.is_folder) == [
        "a/b/file",
        "a/b/link",
        "a/link",
        "a/pipe",
        "loop",
    ]
    assert remove_tree(folder)
    assert (outside / "file").read_text() == "kept"
    assert outside.stat().st_mode & 0o777 == 0o750


def test_a_link_in_the_place_of_the_folder_stays(folder: Path) -> None:
    outside = folder.parent / "outside"
    link = folder.parent / "link"
    link.symlink_to(outside)
    assert not remove_tree(link)
    assert (outside / "file").exists()
    assert link.is_symlink()


def test_what_is_kept_and_what_is_missing(folder: Path) -> None:
    (folder / "lock").touch()
    assert empty_folder(folder, keep="lock")
    assert [path.name for path in folder.iterdir()] == ["lock"]
    assert remove_tree(folder)
    assert remove_tree(folder)
    assert list(walk_tree(folder)) == []


#### what resists


@pytest.fixture
def as_nobody() -> Iterator[Callable[[Path], None]]:
    """Return what gives a folder to another user and becomes that user for the test."""

    def become(folder: Path) -> None:
        for path in (folder, *folder.rglob("*")):
            os.chown(path, 65534, 65534)
        for parent in folder.parents:
            if parent.stat().st_uid == 0 and not parent.stat().st_mode & 0o001:
                parent.chmod(0o711)
        os.chown(folder.parent, 65534, 65534)
        os.seteuid(65534)

    yield become
    os.seteuid(0)


@needs_root
def test_permissions_that_were_taken_away_are_restored_i_61(
    folder: Path, as_nobody: Callable[[Path], None]
) -> None:
    make_deep(folder / "a", 8, "d" * 250)
    as_nobody(folder)
    for path in (folder / "a" / ("d" * 250), folder / "a/b", folder / "a", folder):
        path.chmod(0)
    assert list(walk_tree(folder)) == []
    assert remove_tree(folder)


@needs_root
def test_a_folder_of_another_user_stays_and_the_rest_goes_i_61(
    folder: Path, as_nobody: Callable[[Path], None]
) -> None:
    as_nobody(folder)
    os.seteuid(0)
    for path in ("a/b/roots", "a/b/roots/private", "a/empty"):
        (folder / path).mkdir(mode=0o700)
    (folder / "a/b/roots/file").touch()
    os.seteuid(65534)
    assert [entry.path for entry in walk_tree(folder) if not entry.is_read] == [
        "a/empty",
        "a/b/roots",
    ]
    assert not remove_tree(folder)
    os.seteuid(0)
    assert sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*")) == [
        "a",
        "a/b",
        "a/b/roots",
        "a/b/roots/file",
        "a/b/roots/private",
    ]


@needs_root
def test_an_immutable_file_stays_and_the_rest_goes_i_61(folder: Path) -> None:
    file = folder / "a/b/file"
    if subprocess.run(["chattr", "+i", file], capture_output=True, check=False).returncode:
        pytest.skip("no immutable files here")
    (folder / "a/c/d").mkdir(parents=True)
    try:
        assert not remove_tree(folder)
        assert [path.name for path in (folder / "a").iterdir()] == ["b"]
    finally:
        subprocess.run(["chattr", "-i", file], check=True)
    assert remove_tree(folder)


@needs_root
@pytest.mark.parametrize("place", ["mount", "a/b/mount", "a/" + "/".join(["d" * 250] * 5)])
def test_nothing_is_removed_from_a_mounted_folder_i_61(folder: Path, place: str) -> None:
    """Also where the mounted folder is of the same file system, and not writable."""
    outside, point = folder.parent / "outside", folder / place
    point.mkdir(parents=True)
    outside.chmod(0o550)
    mount = ["mount", "--bind", str(outside), str(point)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("this user may not mount")
    try:
        assert not remove_tree(folder)
        assert (outside / "file").read_text() == "kept"
        assert outside.stat().st_mode & 0o777 == 0o550
        assert not (folder / "a/b/file").exists()
    finally:
        for line in Path("/proc/self/mountinfo").read_text().splitlines():
            mount_point = line.split()[4]
            if mount_point.startswith(str(folder)):
                subprocess.run(["umount", mount_point], check=True)
    assert remove_tree(folder)
    shutil.rmtree(outside)
