"""Objects of git, read by one process that stays: `git cat-file --batch`.

An object is asked for by name (`COMMIT:PATH`, `COMMIT^{tree}`, an id). The answer comes from
the objects alone: no index, filter or attribute decides what is read.
"""

from __future__ import annotations

import subprocess
import weakref
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from phases.base.command_log import log_command
from phases.base.text import printable
from phases.errors import IntegrityError
from phases.git.probe import DAMAGED_OBJECT_WAY, blob_id, git_environment, git_options

READERS: dict[int, subprocess.Popen[bytes]] = {}
"""The processes of git by which this process reads objects, by their ids."""

FOLDER = "40000"
"""The mode of a folder in a tree object."""

_AT_ONCE = 100
_AT_ONCE_BYTES = 30_000
"""Names, and their bytes, that are asked before the first answer is read: a pipe has room for
64 KB, and git reads no more of them while nobody reads its answers."""


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
    def is_file(self) -> bool:
        """Whether it is a regular file."""
        return self.mode.startswith("100")


class ObjectReader:
    """Reads objects of a repository; its process ends with it, or when the runner dies.

    Names are looked up anew each time: a ref may have moved. Only objects themselves never change.
    """

    def __init__(self, root: Path):
        self.damaged: list[str] = []
        """Names of objects that are damaged, or that a tree names and git does not have."""
        self._root = root
        self._process: subprocess.Popen[bytes] | None = None
        self._trees: dict[str, tuple[TreeItem, ...]] = {}

    #### one object, or an error

    def read(self, name: str) -> GitObject | None:
        """Return the object with this name; None for no object.

        Raises:
            IntegrityError: the object is damaged.
        """
        count = len(self.damaged)
        found = self.find(name)
        if len(self.damaged) > count:
            raise _damaged(name)
        return found

    def require(self, name: str) -> GitObject:
        """Return an object that must be there.

        Raises:
            IntegrityError: it is not, or it is damaged.
        """
        found = self.read(name)
        if found is None:
            raise _damaged(name)
        return found

    def entries(self, tree: str) -> dict[str, tuple[str, str]]:
        """Return name -> mode and id of everything in a folder of a commit, by the tree's id.

        Raises:
            IntegrityError: there is no such tree, or it is damaged.
        """
        return {item.name: (item.mode, item.id) for item in _parse_tree(self.require(tree))}

    #### what can be read

    def find(self, name: str) -> GitObject | None:
        """Return the object with this name; None where there is none that can be read."""
        return next(self.find_many([name]))

    def find_many(self, names: Iterable[str]) -> Iterator[GitObject | None]:
        """Yield the object of each name, or None, one after the other: few are in memory."""
        for group in _groups(names):
            self._ask(group)
            for number, name in enumerate(group, start=1):
                try:
                    found = self._answer()
                except EOFError:  # git ends at an object that it cannot read
                    self.damaged.append(name)
                    self.close()
                    self._ask(group[number:])
                    found = None
                yield found

    def tree_items(self, tree: str) -> tuple[TreeItem, ...]:
        """Return the lines of a tree by its id; () where there is no such tree."""
        if tree not in self._trees:
            self._trees[tree] = self._read_tree(tree)
        return self._trees[tree]

    def _read_tree(self, tree: str) -> tuple[TreeItem, ...]:
        found = self.find(tree)
        if found is not None and found.kind == "tree":
            with suppress(ValueError):  # its bytes are no lines of a tree
                return tuple(_parse_tree(found))
        self.damaged.append(tree)
        return ()

    def close(self) -> None:
        """End the process; the next question starts another one."""
        if self._process is not None:
            _end(self._process)
            self._process = None

    #### the process

    def _running(self) -> subprocess.Popen[bytes]:
        """Return the process, which is started where none runs."""
        if self._process is None or self._process.poll() is not None:
            # It only reads, so it does not inherit the runner's lock.
            self._process = subprocess.Popen(
                ["git", *git_options(), "cat-file", "--batch"],
                cwd=self._root,
                env=git_environment(),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C is for the runner, which reads on
            )
            READERS[self._process.pid] = self._process
            weakref.finalize(self, _end, self._process)
            log_command(["git", "cat-file", "--batch"], status="started", seconds=0.0)
        return self._process

    def _ask(self, names: list[str]) -> None:
        questions = "".join(f"{name}\n" for name in names)
        pipe = self._running().stdin
        assert pipe is not None
        with suppress(BrokenPipeError):  # `_answer` says that git ended
            pipe.write(questions.encode("utf-8", "surrogateescape"))
            pipe.flush()

    def _answer(self) -> GitObject | None:
        """Return the next answer; EOFError where git ended."""
        assert self._process is not None
        pipe = self._process.stdout
        assert pipe is not None
        header = pipe.readline()
        if not header:
            raise EOFError
        fields = header.decode("utf-8", "surrogateescape").rstrip("\n").rsplit(" ", 2)
        if len(fields) != 3 or not fields[2].isdecimal():
            return None  # git answered `NAME missing`, or `NAME ambiguous`
        size = int(fields[2])
        data = pipe.read(size + 1)  # a line end follows
        if len(data) <= size:
            raise EOFError
        return GitObject(fields[0], fields[1], data[:-1])


@contextmanager
def open_objects(root: Path) -> Iterator[ObjectReader]:
    """Return a reader of the repository's objects for the block."""
    reader = ObjectReader(root)
    try:
        yield reader
    finally:
        reader.close()


def end_readers() -> None:
    """End every process by which this one reads objects, as at the end of a command."""
    for process in list(READERS.values()):
        _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Let the process end, as it does at the end of what it reads."""
    with suppress(BrokenPipeError), process:
        pass
    READERS.pop(process.pid, None)


def _damaged(name: str) -> IntegrityError:
    message = f"git cannot read {printable(name)}"
    return IntegrityError("git-object", message, hint=DAMAGED_OBJECT_WAY)


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
