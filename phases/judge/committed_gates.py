"""Gates as HEAD has them, written outside the work tree: an edit there changes no verdict.

A gate is given, and its digest covers, exactly the files of `in_gate_scope`: what it could import
is digested, and what is not digested it cannot import.
"""

from __future__ import annotations

import json
from pathlib import Path

from phases.base import durable
from phases.git.repo import Repo
from phases.plan.lock import in_gate_scope
from phases.plan.schema import Gate
from phases.record.statement import ResourceDescriptor, sha256_descriptor


def write_gate_files(repo: Repo, folder: Path, gate: Gate) -> None:
    """Write the files of `gates/` that a gate may import, as HEAD has them, below `folder`."""
    (folder / "gates").mkdir(parents=True, exist_ok=True)
    for path in _scope(repo, gate):
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(repo.blob("HEAD", path) or b"")


def gate_digest(repo: Repo, gate: Gate) -> str:
    """Return a gate's digest: over the path and content of every file that it may import."""
    digests = {path: durable.sha256(repo.blob("HEAD", path) or b"") for path in _scope(repo, gate)}
    return durable.sha256(json.dumps(digests, sort_keys=True).encode())


def gate_descriptor(repo: Repo, gate: Gate) -> ResourceDescriptor:
    """Return a gate's name and digest."""
    return sha256_descriptor(gate.name, gate_digest(repo, gate))


def _scope(repo: Repo, gate: Gate) -> list[str]:
    return [path for path in sorted(repo.files("HEAD", "gates")) if in_gate_scope(gate, path)]
