"""Two machines: clones with journals of their own that exchange through a bare repository."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from quick import Quick


class Machines:
    """The machine that goes on, and the other one, which is behind until it pulls.

    What git refuses raises CalledProcessError.
    """

    def __init__(self, here: Quick) -> None:
        self.here = here
        self.there: Quick | None = None
        self._shared = here.root.with_name("shared.git")

    def change(self) -> None:
        """Push here, clone or pull there, bring the artifacts, and go on there."""
        if not self._shared.exists():
            self.here.git("init", "-q", "--bare", "-b", "main", str(self._shared))
        self.here.git("push", "-q", str(self._shared), "main")
        there = self.there or self._clone(self.here.root.with_name("second"))
        is_dirty = bool(there.git("status", "--porcelain"))  # by a killed run, or by PULLED
        if is_dirty:
            there.git("stash", "-q", "-u")
        there.git("pull", "-q", "--ff-only", str(self._shared), "main")
        if is_dirty:
            there.git("stash", "drop", "-q")
        copy_artifacts(self.here, there)
        self.here, self.there = there, self.here

    def run_where_it_is_behind(self) -> bool:
        """Run on the machine that is behind; return False where there is none.

        Neither its pull nor its push is a fast-forward, so git refuses both. It is cloned anew, as
        the documentation says of a clone that went on by itself.
        """
        head = self.here.git("rev-parse", "HEAD")
        behind = self.there
        if behind is None or behind.git("rev-parse", "HEAD") == head:
            return False
        self.here.git("push", "-q", str(self._shared), "main")
        behind.write("late.md", "too late\n")
        behind.git("add", "late.md")
        behind.git("commit", "-q", "-m", "too late", "--", "late.md")
        behind.run("run", "--next", code=None)
        for words in (("pull", "-q", "--ff-only"), ("push", "-q")):
            with pytest.raises(subprocess.CalledProcessError):
                behind.git(*words, str(self._shared), "main")
        shutil.rmtree(behind.root)
        self.there = self._clone(behind.root)
        return True

    def _clone(self, root: Path) -> Quick:
        self.here.git("clone", "-q", str(self._shared), str(root))
        clone = adopt(root)
        clone.git("config", "user.name", "Second Machine")
        clone.git("config", "user.email", "second@example.org")
        return clone


def has_pending_record(quick: Quick) -> bool:
    """Return whether a killed run had prepared an outcome or a decision."""
    return any((quick.root / ".phases/pending").glob("*"))


def copy_artifacts(source: Quick, target: Quick) -> None:
    """Bring the artifacts to another folder, as the runner's hint says."""
    folder = source.root / ".phases/artifacts"
    if folder.exists():
        shutil.copytree(folder, target.root / ".phases/artifacts", dirs_exist_ok=True)


def adopt(root: Path) -> Quick:
    """Return a repository that git made as one to run in."""
    quick = Quick.__new__(Quick)
    quick.root = root
    quick.temporary.mkdir(exist_ok=True)
    return quick


def merge_of_a_colleague(quick: Quick, number: int, commit: str = "HEAD") -> None:
    """Merge a note that a colleague wrote in a clone, on top of a commit."""
    clone = quick.root.with_name(f"colleague-{number}")
    quick.git("clone", "-q", ".", str(clone))
    theirs = adopt(clone)
    theirs.git("config", "user.name", "A Colleague")
    theirs.git("config", "user.email", "colleague@example.org")
    theirs.git("switch", "-q", "-c", "theirs", quick.git("rev-parse", commit))
    theirs.write(f"theirs-{number}.md", "a colleague's\n")
    theirs.git("add", ".")
    theirs.git("commit", "-q", "-m", f"theirs {number}")
    quick.git("fetch", "-q", str(clone), "theirs")
    quick.git("merge", "-q", "--no-ff", "-m", f"merge theirs {number}", "FETCH_HEAD")
    shutil.rmtree(clone)
    shutil.rmtree(theirs.temporary)
