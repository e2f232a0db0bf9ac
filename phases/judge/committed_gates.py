"""Gates as HEAD has them, written outside the work tree: an edit there changes no verdict."""

from __future__ import annotations

import json
from pathlib import Path

from phases.base import durable
from phases.git.repo import Repo
from phases.plan.lock import shared_gate_files
from phases.record.statement import ResourceDescriptor, sha256_descriptor


def write_gates(repo: Repo, folder: Path) -> None:
    """Write `gates/` as HEAD has it below `folder`."""
    (folder / "gates").mkdir(parents=True, exist_ok=True)
    for path in repo.files("HEAD", "gates"):
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(repo.blob("HEAD", path) or b"")


def gate_digest(repo: Repo, path: str) -> str:
    """Return a gate's digest: over its file and every file of `gates/` that it may import."""
    shared = shared_gate_files(sorted(repo.files("HEAD", "gates")))
    digests = {name: durable.sha256(repo.blob("HEAD", name) or b"") for name in (path, *shared)}
    return durable.sha256(json.dumps(digests, sort_keys=True).encode())


def gate_descriptor(repo: Repo, name: str) -> ResourceDescriptor:
    """Return the descriptor of a gate; a shell gate has no file and so no digest."""
    if not name.startswith("gates/"):
        return ResourceDescriptor(name=name, digest={})
    return sha256_descriptor(name, gate_digest(repo, name))
