"""Objects of git, read one after the other by one process of git that stays."""

from __future__ import annotations

import subprocess
import weakref
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from phases.base.command_log import log_command
from phases.base.text import printable
from phases.errors import IntegrityError
from phases.git.probe import DAMAGED_OBJECT_WAY, git_environment, git_options

READERS: dict[int, subprocess.Popen[bytes]] = {}
"""The processes of git by which this process reads objects, by their ids."""


@dataclass(frozen=True)
class StoredObject:
    """An object of git."""

    id: str
    kind: str
    """`commit`, `tree`, `blob` or `tag`."""
    data: bytes


class ObjectReader:
    """Reads objects of a repository; its process ends with it, or when the runner dies.

    Names are looked up anew each time: a ref may have moved. Only objects themselves never change.
    """

    def __init__(self, root: Path):
        self._root = root
        self._process: subprocess.Popen[bytes] | None = None

    def read(self, name: str) -> StoredObject | None:
        """Return an object by its id, or by a name such as `HEAD^{commit}`; None for no object.

        Raises:
            IntegrityError: the object is damaged.
        """
        requests, answers = self._pipes()
        try:
            requests.write(f"{name}\n".encode())
            requests.flush()
            fields = answers.readline().rsplit(b" ", 2)
            if len(fields) == 3 and fields[2].strip().isdigit():
                size = int(fields[2])
                data = answers.read(size + 1)  # a line end follows
                if len(data) == size + 1:
                    return StoredObject(fields[0].decode(), fields[1].decode(), data[:-1])
            elif len(fields) > 1:
                return None  # git answered `NAME missing`
        except BrokenPipeError:
            pass
        # git ends at an object that it cannot read.
        if self._process:
            _end(self._process)
            self._process = None
        raise _damaged(name)

    def require(self, name: str) -> StoredObject:
        """Return an object that must be there.

        Raises:
            IntegrityError: it is not, or it is damaged.
        """
        stored = self.read(name)
        if stored is None:
            raise _damaged(name)
        return stored

    def entries(self, tree: str) -> dict[str, tuple[str, str]]:
        """Return name -> mode and id of everything in a folder of a commit, by the tree's id.

        Raises:
            IntegrityError: there is no such tree, or it is damaged.
        """
        stored = self.require(tree)
        entries = {}
        data, position, id_size = stored.data, 0, len(stored.id) // 2
        while position < len(data):
            # `MODE NAME`, NUL, the bytes of the id
            end = data.index(b"\0", position)
            mode, _, name = data[position:end].partition(b" ")
            position = end + 1 + id_size
            object_id = data[end + 1 : position].hex()
            entries[name.decode("utf-8", "surrogateescape")] = (mode.decode(), object_id)
        return entries

    def _pipes(self) -> tuple[IO[bytes], IO[bytes]]:
        """Return the pipes to and from the process, which is started where none runs."""
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
        requests, answers = self._process.stdin, self._process.stdout
        assert requests is not None
        assert answers is not None
        return requests, answers


def end_readers() -> None:
    """End every process by which this one reads objects, as at the end of a command."""
    for process in list(READERS.values()):
        _end(process)


def _damaged(name: str) -> IntegrityError:
    message = f"git cannot read {printable(name)}"
    return IntegrityError("git-object", message, hint=DAMAGED_OBJECT_WAY)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Let the process end, as it does at the end of what it reads."""
    with process:
        pass
    READERS.pop(process.pid, None)
