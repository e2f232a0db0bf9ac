"""Gates as a commit holds them, laid out outside the work tree."""

from __future__ import annotations

import json
from pathlib import Path

from phases.base import durable
from phases.git.repo import Repo
from phases.plan.lock import shared_gate_files


def materialise_gates(repo: Repo, folder: Path) -> None:
    """Writes `gates/` as HEAD has it below `folder`, outside the work tree: edits there change no verdict."""
    for path in repo.files("HEAD", "gates"):
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(repo.blob("HEAD", path) or b"")
    (folder / "gates").mkdir(parents=True, exist_ok=True)


def gate_digest(repo: Repo, path: str) -> str:
    """A gate's digest covers its file and every file of `gates/` that it may import."""
    shared = shared_gate_files(sorted(repo.files("HEAD", "gates")))
    listing = {name: durable.sha256(repo.blob("HEAD", name) or b"") for name in (path, *shared)}
    return durable.sha256(json.dumps(listing, sort_keys=True).encode())
