"""Commits by `git fast-import`: thousands a minute, each with its id as soon as it is made.

It stores a file as its difference to the file that it got before, whatever that is. So only the
largest one goes through it; the others are written as loose objects.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Self

BRANCH = "refs/heads/main"
IDENTITY = b"Toy User <toy@example.org>"


class FastImport:
    """A stream of commits to the branch `main`; what it made is in the repository at its end."""

    def __init__(self, root: Path):
        self._objects = root / ".git/objects"
        answers, theirs = os.pipe()
        self._process = subprocess.Popen(
            ["git", "fast-import", "--quiet", f"--cat-blob-fd={theirs}"],
            cwd=root,
            stdin=subprocess.PIPE,
            pass_fds=(theirs,),
        )
        os.close(theirs)
        assert self._process.stdin is not None
        self._stream = self._process.stdin
        self._reader = os.fdopen(answers, "rb")
        self._commits = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._stream.close()
        status = self._process.wait()
        self._reader.close()
        assert status == 0, f"git fast-import: exit {status}"

    def commit(
        self, parent: str, message: str, seconds: int, files: Mapping[str, bytes]
    ) -> tuple[str, str]:
        """Commit these files on top of a commit; return the ids of the commit and of its tree.

        Each commit but the first of a stream has the one before as its parent.
        """
        self._commits += 1
        mark = f":{self._commits}"
        time = f"{seconds} +0000".encode()
        self._write(f"commit {BRANCH}\nmark {mark}\n".encode())
        self._write(b"author " + IDENTITY + b" " + time + b"\n")
        self._write(b"committer " + IDENTITY + b" " + time + b"\n")
        self._write_data(message.encode())
        if self._commits == 1:
            self._write(f"from {parent}\n".encode())
        for path, data in files.items():
            if path == "progress.txt":
                self._write(f"M 100644 inline {path}\n".encode())
                self._write_data(data)
            else:
                self._write(f"M 100644 {self._store(data)} {path}\n".encode())
        self._write(f'\nget-mark {mark}\nls {mark} ""\n'.encode())
        self._stream.flush()
        commit = self._reader.readline().decode().strip()
        tree = self._reader.readline().decode().split()[2]
        return commit, tree

    def _write(self, data: bytes) -> None:
        self._stream.write(data)

    def _write_data(self, data: bytes) -> None:
        self._stream.write(b"data %d\n" % len(data))
        self._stream.write(data)
        self._stream.write(b"\n")

    def _store(self, data: bytes) -> str:
        """Write a blob as a loose object; return its id."""
        stored = b"blob %d\0" % len(data) + data
        name = hashlib.sha1(stored).hexdigest()
        path = self._objects / name[:2] / name[2:]
        if not path.exists():
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(zlib.compress(stored, 1))
            path.chmod(0o444)
        return name
