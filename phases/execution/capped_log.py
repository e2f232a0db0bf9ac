"""A log file that may not grow without end: it keeps the beginning and the end of the output."""

from __future__ import annotations

import os
from pathlib import Path

LOG_HEAD = LOG_TAIL = 8 * 1024 * 1024
"""Bytes kept of the beginning and of the end of what a process wrote."""


class CappedLog:
    """A file of the first LOG_HEAD and the last LOG_TAIL bytes; a line between says what is gone.

    The end waits in a ring in memory until the file is closed, so memory stays flat whatever is
    written.
    """

    def __init__(self, path: Path):
        self._path = path
        self._ring = bytearray()
        self._notes: list[str] = []
        self.total = 0

    def __enter__(self) -> CappedLog:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        # No link: the process before may have put one in the log's place.
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        self._file = os.fdopen(os.open(self._path, flags, 0o600), "wb", buffering=0)
        return self

    def __exit__(self, *_exc: object) -> None:
        with self._file:
            self._write_tail()

    @property
    def is_truncated(self) -> bool:
        """Whether bytes were dropped."""
        return self.total > LOG_HEAD + LOG_TAIL

    def write(self, chunk: bytes) -> None:
        """Append bytes as they are."""
        # 1. The beginning goes to the file.
        head = chunk[: max(0, LOG_HEAD - self.total)]
        self._write_all(head)
        tail = chunk[len(head) :]
        tail_end = self.total + len(chunk) - LOG_HEAD  # in the stream behind the head
        self.total += len(chunk)
        if not tail:
            return

        # 2. The rest goes to the ring, in at most two pieces; it overwrites the oldest bytes.
        if not self._ring:
            self._ring = bytearray(LOG_TAIL)
        tail = tail[-LOG_TAIL:]
        start = (tail_end - len(tail)) % LOG_TAIL
        first = min(len(tail), LOG_TAIL - start)
        self._ring[start : start + first] = tail[:first]
        self._ring[: len(tail) - first] = tail[first:]

    def note(self, text: str) -> None:
        """Add a line of the runner's own at the end of the log."""
        self._notes.append(text)

    def _write_tail(self) -> None:
        tail_end = self.total - LOG_HEAD
        if self.is_truncated:
            self._write_all(f"\n[phases: {tail_end - LOG_TAIL} bytes dropped here]\n".encode())
            start = tail_end % LOG_TAIL
            self._write_all(self._ring[start:] + self._ring[:start])
        elif tail_end > 0:
            self._write_all(self._ring[:tail_end])
        for text in self._notes:
            self._write_all(f"\n[phases: {text}]\n".encode())

    def _write_all(self, data: bytes | bytearray) -> None:
        view = memoryview(data)
        while view:
            view = view[self._file.write(view) :]
