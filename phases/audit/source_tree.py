"""A commit's tree as the audit reads it: through its one reader of objects, without the record."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

from phases.git.objects import FOLDER, ObjectReader
from phases.git.repo import TreeEntry
from phases.git.tree import CommitTree


@dataclass(frozen=True, kw_only=True)
class SourceTree(CommitTree):
    """The tree of a commit without the record: many commits have the same one."""

    objects: ObjectReader
    top: tuple[TreeEntry, ...]
    """Its files and folders, as far up as possible."""

    @cached_property
    def entries(self) -> dict[str, TreeEntry]:
        """Every file, link and submodule by its path; their sizes are not read."""
        return {entry.path: entry for entry in self._walk()}

    def _walk(self) -> Iterator[TreeEntry]:
        # Not recursive: a tree may be as deep as whoever made it likes.
        waiting = [*reversed(self.top)]
        while waiting:
            item = waiting.pop()
            if item.mode == FOLDER:
                waiting += reversed([*folder_items(self.objects, item)])
            else:
                yield item

    def read_files(self, paths: Iterable[str]) -> dict[str, bytes]:
        """Return path -> bytes; what git does not have is empty, and a finding of its own."""
        paths = list(paths)
        missing = [path for path in paths if path not in self._read]
        found = self.objects.find_many(self.entries[path].id for path in missing)
        for path, blob in zip(missing, found, strict=True):
            self._read[path] = blob.data if blob else b""
        return {path: self._read[path] for path in paths}


def folder_items(objects: ObjectReader, folder: TreeEntry) -> Iterator[TreeEntry]:
    """Yield what is in a folder of a tree, by its path."""
    prefix = f"{folder.path}/" if folder.path else ""
    for item in objects.tree_items(folder.id):
        yield TreeEntry(f"{prefix}{item.name}", item.mode, item.id, 0)
