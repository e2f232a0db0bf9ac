"""Many objects of git, read by one process: `git cat-file --batch`.

An object is asked for by name (`COMMIT:PATH`, `COMMIT^{tree}`, an id). The process answers from the
objects alone: no index, filter or attribute decides what is read.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from phases.base.command_log import log_command
from phases.git.probe import blob_id, git_environment, git_options

_AT_ONCE = 100
_AT_ONCE_BYTES = 30_000
"""Names, and their bytes, that are asked before the first answer is read: a pipe has room for
64 KB, and git reads no more of them while nobody reads its answers."""


FOLDER = "40000"
"""The mode of a folder in a tree object."""


@dataclass(frozen=True)
class GitObject:
    """An object of git."""

    id: str
    kind: str
    """`blob`, `tree`, `commit` or `tag`."""
    data: bytes

    @property
    def is_intact(self) -> bool:
        """Whether a blob has the bytes that its id names."""
        return blob_id([self.data], len(self.data), self.id) == self.id


@dataclass(frozen=True)
class TreeItem:
    """One line of a tree object."""

    mode: str
    name: str
    id: str

    @property
    def is_folder(self) -> bool:
        """Whether it is a tree itself."""
        return self.mode == FOLDER

    def is_file_named(self, ending: str) -> bool:
        """Return whether it is a regular file with this end of its name."""
        return self.mode.startswith("100") and self.name.endswith(ending)


class ObjectReader:
    """Reads objects of a repository through one process, until `close`."""

    def __init__(self, root: Path):
        self.damaged: list[str] = []
        """Names of objects that are damaged, or that a tree names and git does not have."""
        self._root = root
        self._process = self._start()
        self._trees: dict[str, tuple[TreeItem, ...]] = {}

    def read(self, name: str) -> GitObject | None:
        """Return the object with this name; None where there is none that can be read."""
        return next(self.read_many([name]))

    def read_many(self, names: Iterable[str]) -> Iterator[GitObject | None]:
        """Yield the object of each name, or None, one after the other: few are in memory."""
        for group in _groups(names):
            self._ask(group)
            for number, name in enumerate(group, start=1):
                try:
                    found = self._answer()
                except EOFError:
                    self.damaged.append(name)
                    self.close()
                    self._process = self._start()
                    self._ask(group[number:])
                    found = None
                yield found

    def tree_items(self, tree: str) -> tuple[TreeItem, ...]:
        """Return the lines of a tree by its id; () where there is no such tree."""
        if tree not in self._trees:
            self._trees[tree] = self._read_tree(tree)
        return self._trees[tree]

    def _read_tree(self, tree: str) -> tuple[TreeItem, ...]:
        found = self.read(tree)
        if found is not None and found.kind == "tree":
            with suppress(ValueError):  # its bytes are no lines of a tree
                return tuple(_parse_tree(found))
        self.damaged.append(tree)
        return ()

    def close(self) -> None:
        """End the process."""
        self._process.communicate()
        command = ["git", "cat-file", "--batch"]
        seconds = time.monotonic() - self._begin
        log_command(command, status=self._process.returncode, seconds=seconds)

    def _start(self) -> subprocess.Popen[bytes]:
        self._begin = time.monotonic()
        return subprocess.Popen(
            ["git", *git_options(), "cat-file", "--batch"],
            cwd=self._root,
            env=git_environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )

    def _ask(self, names: list[str]) -> None:
        assert self._process.stdin is not None
        questions = "".join(f"{name}\n" for name in names)
        with suppress(BrokenPipeError):  # `_answer` says that git ended
            self._process.stdin.write(questions.encode("utf-8", "surrogateescape"))
            self._process.stdin.flush()

    def _answer(self) -> GitObject | None:
        """Return the next answer; EOFError where git ended, as at an object that is damaged."""
        assert self._process.stdout is not None
        header = self._process.stdout.readline()
        if not header:
            raise EOFError
        fields = header.decode("utf-8", "surrogateescape").rstrip("\n").rsplit(" ", 2)
        if len(fields) != 3 or not fields[2].isdecimal():
            return None  # git answered `NAME missing`, or `NAME ambiguous`
        size = int(fields[2])
        data = self._process.stdout.read(size)
        if len(data) < size:
            raise EOFError
        self._process.stdout.read(1)
        return GitObject(fields[0], fields[1], data)


@contextmanager
def open_objects(root: Path) -> Iterator[ObjectReader]:
    """Return a reader of the repository's objects for the block."""
    reader = ObjectReader(root)
    try:
        yield reader
    finally:
        reader.close()


def _groups(names: Iterable[str]) -> Iterator[list[str]]:
    """Yield the names in groups that can be asked at once."""
    group: list[str] = []
    size = 0
    for name in names:
        if len(group) == _AT_ONCE or size > _AT_ONCE_BYTES:
            yield group
            group, size = [], 0
        # git reads one name a line, and no object has a name with a line break.
        group.append("" if "\n" in name else name)
        size += len(name)
    if group:
        yield group


def _parse_tree(tree: GitObject) -> Iterator[TreeItem]:
    """Yield the lines of a tree: `MODE NAME`, NUL, and the bytes of an id."""
    size = len(tree.id) // 2
    data, position = tree.data, 0
    while position < len(data):
        end = data.index(b"\0", position)
        mode, _, name = data[position:end].partition(b" ")
        position = end + 1 + size
        text = name.decode("utf-8", "surrogateescape")
        # Some old tools wrote `040000`; git reads it as the same mode.
        yield TreeItem(mode.decode().lstrip("0"), text, data[end + 1 : position].hex())
