"""SHA-256 of bytes, files and folders: the one place where the lab hashes."""

from __future__ import annotations

import hashlib
from pathlib import Path


def sha256(data: bytes) -> str:
    """Return the digest of some bytes, in hex."""
    return hashlib.sha256(data).hexdigest()


def digest_of(path: Path) -> str:
    """Return the sha256 (hex) of a file.

    For a folder, return that of the lines `<relative path>\\0<sha256>\\n`, sorted.
    """
    if path.is_file():
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    files = sorted(p for p in path.rglob("*") if p.is_file())
    lines = [f"{p.relative_to(path).as_posix()}\0{digest_of(p)}\n" for p in files]
    return sha256("".join(lines).encode())
