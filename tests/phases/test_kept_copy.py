"""A copy of a commit is used again if nothing in it was touched; then it is the next commit."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from toy import EXPERIMENT, Toy, toy_plan, with_shell_gates

from phases.git.repo import Repo
from phases.git.tree import CommitTree
from phases.run.kept_copy import KeptCopy


class Copies:
    """Copies of a repository's commits, one after the other."""

    def __init__(self, toy: Toy, folder: Path):
        self.toy = toy
        self.folder = folder
        (folder / "kept").mkdir(parents=True)
        self.kept = KeptCopy(folder / "kept")
        self.count = 0

    def lay_out(self) -> Path:
        """Return a copy of HEAD, which is what HEAD has, file by file."""
        self.count += 1
        tree = CommitTree(Repo(self.toy.root), self.toy.git("rev-parse", "HEAD"))
        layout = self.kept.lay_out(tree, self.folder / str(self.count))
        fresh = tree.lay_out(self.folder / f"fresh-{self.count}")
        assert layout.digests == fresh.digests
        assert layout.links == fresh.links
        assert describe(layout.folder) == describe(fresh.folder)
        assert layout.changes() == []
        return layout.folder


def describe(folder: Path) -> dict[str, object]:
    """Return path -> mode, and bytes or target, of everything below a folder."""
    found: dict[str, object] = {}
    for path in folder.rglob("*"):
        content: object = None
        if path.is_symlink():
            content = os.readlink(path)  # noqa: PTH115
        elif path.is_file():
            content = path.read_bytes()
        found[str(path.relative_to(folder))] = (path.lstat().st_mode, content)
    return found


@pytest.fixture
def copies(make_toy: Callable[..., Toy], tmp_path: Path) -> Copies:
    toy = make_toy()
    toy.write("data/deep/words.txt", "three short words")
    (toy.root / "link").symlink_to("data/deep/words.txt")
    (toy.root / "gates/test_count.py").chmod(0o755)
    toy.commit("more files")
    return Copies(toy, tmp_path / "copies")


def inode(folder: Path) -> int:
    return (folder / "experiment.py").stat().st_ino


def test_an_untouched_copy_becomes_the_next_commit(copies: Copies) -> None:
    first = copies.lay_out()
    (first / "experiment.py").read_bytes()
    number = inode(first)
    copies.kept.keep()
    assert not first.exists()
    # Files that are new, in new folders too; files and links with other bytes.
    copies.toy.write("results/F/result.json", "{}")
    copies.toy.write("data/deep/words.txt", "other words, and more of them")
    (copies.toy.root / "link").unlink()
    (copies.toy.root / "link").symlink_to("experiment.py")
    copies.toy.commit("the next one")
    second = copies.lay_out()
    assert inode(second) == number
    # And once more: what was written in between is known.
    copies.kept.keep()
    copies.toy.write("results/G/result.json", "{}")
    copies.toy.commit("one more")
    assert inode(copies.lay_out()) == number


def put_back(folder: Path) -> None:
    file = folder / "experiment.py"
    file.write_bytes(file.read_bytes())


def put_back_with_its_times(folder: Path) -> None:
    status = (folder / "experiment.py").stat()
    put_back(folder)
    os.utime(folder / "experiment.py", ns=(status.st_atime_ns, status.st_mtime_ns))


def replace_by_its_like(folder: Path) -> None:
    shutil.copy2(folder / "experiment.py", folder / "other")
    (folder / "other").replace(folder / "experiment.py")


def come_and_go(folder: Path) -> None:
    (folder / "data/deep/new").mkdir()
    (folder / "data/deep/new").rmdir()


def link_twice(folder: Path) -> None:
    (folder.parent / "outside").hardlink_to(folder / "experiment.py")


TOUCHES: dict[str, Callable[[Path], object]] = {
    "other mode": lambda folder: (folder / "experiment.py").chmod(0o600),
    "other mode of a folder": lambda folder: (folder / "data").chmod(0o700),
    "new folder": lambda folder: (folder / "new").mkdir(),
    "same bytes": put_back,
    "same bytes and times": put_back_with_its_times,
    "same bytes, another file": replace_by_its_like,
    "came and went": come_and_go,
    "hard link": link_twice,
}


@pytest.mark.parametrize("touch", TOUCHES)
def test_a_copy_that_was_touched_is_not_used_again(copies: Copies, touch: str) -> None:
    first = copies.lay_out()
    file = (first / "experiment.py").open("rb")  # its inode is not given to another file
    TOUCHES[touch](first)
    copies.kept.keep()
    second = copies.lay_out()
    assert inode(second) != os.fstat(file.fileno()).st_ino
    file.close()


@pytest.mark.parametrize("change", ["removed", "mode", "kind"])
def test_a_commit_that_takes_away_gets_a_copy_of_its_own(copies: Copies, change: str) -> None:
    copies.lay_out()
    copies.kept.keep()
    file = copies.toy.root / "data/deep/words.txt"
    if change == "removed":
        (copies.toy.root / "link").unlink()
        file.unlink()
    elif change == "mode":
        file.chmod(0o755)
    else:
        file.unlink()
        file.symlink_to("../../experiment.py")
    copies.toy.commit("takes away")
    copies.lay_out()
    assert not list((copies.folder / "kept").iterdir())


def test_what_is_not_kept_is_not_used_again(copies: Copies) -> None:
    first = copies.lay_out()
    copies.lay_out()
    copies.kept.keep()
    assert first.exists()
    assert len(list((copies.folder / "kept").iterdir())) == 1


def test_each_experiment_of_a_run_has_the_commit_as_it_is(make_toy: Callable[..., Toy]) -> None:
    plan = with_shell_gates(toy_plan(features=4))
    features = plan["phases"][0]["features"]
    look = "test ! -e added && test -x run.sh && test $(stat -c %a experiment.py) = 644 && "
    look += "test $(wc -l < experiment.py) = LINES"
    look = look.replace("LINES", str(EXPERIMENT.count("\n")))
    touches = ["chmod 600 experiment.py", "mkdir added", "echo >> experiment.py", "true"]
    for feature, touch in zip(features, touches, strict=True):
        feature["command"] = f"{look} && {feature['command']} && {touch}"
    toy = make_toy(plan)
    toy.write("run.sh", "true")
    (toy.root / "run.sh").chmod(0o755)
    toy.commit("a program")
    toy.run("run", "--next")
    assert set(toy.states().values()) == {"verified"}
    assert toy.progress.count("discarded from its copy: experiment.py (changed)") == 1
