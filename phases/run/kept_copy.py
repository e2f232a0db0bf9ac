"""The copy of a commit that an experiment left untouched, for the next experiment of the run.

To write a copy of a commit takes longer than all else that a small feature needs, and between two
features lies little but the runner's own commit. So a copy is used again: if its bytes are those
that were laid out, and if nothing in it was touched, as the kernel's times of change say (ctime; a
process cannot set them). Then what the next commit has besides is written to it. A copy that is in
doubt is not kept.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from phases.base.trees import remove_tree, walk_tree
from phases.execution.worker import staging_folder
from phases.git.tree import CommitTree, Layout


@dataclass(frozen=True)
class _Copy:
    """A copy of a commit as it was laid out."""

    tree: CommitTree
    layout: Layout
    stamps: Mapping[str, tuple[int, ...]]


class KeptCopy:
    """At most one copy, which waits in a folder between two experiments."""

    def __init__(self, folder: Path):
        self._folder = folder
        self._used: _Copy | None = None
        """The copy of the experiment that is under way, or was the last."""
        self._waiting: _Copy | None = None

    def lay_out(self, tree: CommitTree, folder: Path) -> Layout:
        """Return a folder that has the tree: the copy that waits, brought up to date, or a new one.

        Args:
            tree: a commit's tree.
            folder: where it is to be; there is nothing yet.

        Raises:
            EnvironmentFaultError: see `CommitTree.lay_out`.
        """
        waiting, self._waiting = self._waiting, None
        if waiting is not None and tree.only_adds_to(waiting.tree):
            waiting.layout.folder.rename(folder)
            layout = tree.update(folder, waiting.layout, waiting.tree)
            written = [entry.path for entry in tree.changed_since(waiting.tree)]
            stamps = {**waiting.stamps, **_stamps(folder, _with_parents(written))}
        else:
            if waiting is not None:
                remove_tree(waiting.layout.folder)
            layout = tree.lay_out(folder)
            stamps = _all_stamps(folder)
        self._used = _Copy(tree, layout, stamps)
        return layout

    def keep(self) -> None:
        """Keep the copy of the last experiment, if it was not touched.

        Its bytes are those that were laid out, as `Layout.changes` found.
        """
        copy, self._used = self._used, None
        if copy is None:
            return
        folder = self._folder / secrets.token_hex(8)
        # What cannot be looked at or moved is removed with its staging folder.
        with suppress(OSError):
            if _all_stamps(copy.layout.folder) == copy.stamps:
                copy.layout.folder.rename(folder)
                self._waiting = replace(copy, layout=replace(copy.layout, folder=folder))


@contextmanager
def kept_copy(root: Path) -> Iterator[KeptCopy]:
    """Yield a place for a copy that is kept, outside of the repository `root`."""
    with staging_folder(root) as staging:
        yield KeptCopy(staging.tmp)


def _all_stamps(folder: Path) -> dict[str, tuple[int, ...]]:
    return _stamps(folder, (entry.path for entry in walk_tree(folder)))


def _stamps(folder: Path, paths: Iterable[str]) -> dict[str, tuple[int, ...]]:
    """Return path -> what changes with everything that is done to it."""
    stamps: dict[str, tuple[int, ...]] = {}
    for path in paths:
        status = os.lstat(f"{folder}/{path}")  # with thousands, objects take their time
        stamps[path] = (status.st_mode, status.st_ino, status.st_ctime_ns)
    return stamps


def _with_parents(paths: Iterable[str]) -> set[str]:
    """Return the paths and all folders that lead to them."""
    found = set(paths)
    waiting = list(found)
    while waiting:
        parent = waiting.pop().rpartition("/")[0]
        if parent and parent not in found:
            found.add(parent)
            waiting.append(parent)
    return found
