"""A log file that may not grow without end: the beginning and the end of what a process wrote are kept."""

from __future__ import annotations

import os
from pathlib import Path

LOG_HEAD = LOG_TAIL = 8 * 1024 * 1024
"""Bytes kept of the beginning and of the end of what a process wrote."""


class CappedLog:
    """A file that keeps the first LOG_HEAD and the last LOG_TAIL bytes, with a line between that tells what is missing.

    The end waits in a ring in memory until the file is closed, so memory stays flat whatever is written.
    """

    def __init__(self, path: Path):
        self._path = path
        self._ring = bytearray()
        self._notes: list[str] = []
        self.total = 0

    def __enter__(self) -> CappedLog:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        self._file = os.fdopen(os.open(self._path, flags, 0o600), "wb", buffering=0)
        return self

    def __exit__(self, *_exc: object) -> None:
        with self._file:
            self._write_tail()

    @property
    def truncated(self) -> bool:
        """Whether bytes were dropped."""
        return self.total > LOG_HEAD + LOG_TAIL

    def write(self, chunk: bytes) -> None:
        """Takes bytes as they are."""
        head = chunk[: max(0, LOG_HEAD - self.total)]
        self._write_all(head)
        position = self.total + len(head) - LOG_HEAD
        self.total += len(chunk)
        tail = chunk[len(head) :]
        if not tail:
            return
        if not self._ring:
            self._ring = bytearray(LOG_TAIL)
        tail = tail[-LOG_TAIL:]
        start = (position + len(chunk) - len(head) - len(tail)) % LOG_TAIL
        first = min(len(tail), LOG_TAIL - start)
        self._ring[start : start + first] = tail[:first]
        self._ring[: len(tail) - first] = tail[first:]

    def note(self, text: str) -> None:
        """A line of the runner's own at the end of the log."""
        self._notes.append(text)

    def _write_tail(self) -> None:
        beyond = self.total - LOG_HEAD
        if self.truncated:
            self._write_all(f"\n[phases: {beyond - LOG_TAIL} bytes dropped here]\n".encode())
            start = beyond % LOG_TAIL
            self._write_all(self._ring[start:] + self._ring[:start])
        elif beyond > 0:
            self._write_all(self._ring[:beyond])
        for text in self._notes:
            self._write_all(f"\n[phases: {text}]\n".encode())

    def _write_all(self, data: bytes | bytearray) -> None:
        view = memoryview(data)
        while view:
            view = view[self._file.write(view) :]
