"""The files of a gate, written to a folder of their own: an edit of the work tree judges nothing.

A gate is given, and its digest covers, exactly the files of `gate_scope`: what it could import is
digested, and what is not digested it cannot import.
"""

from __future__ import annotations

import json
from pathlib import Path

from phases.base import durable
from phases.git.tree import Tree
from phases.plan.lock import gate_scope
from phases.plan.schema import Gate, Plan
from phases.record.statement import ResourceDescriptor, sha256_descriptor


def write_gate_files(tree: Tree, folder: Path, plan: Plan, gate: Gate) -> None:
    """Write the files of `gates/` that a gate may import, as the tree has them, below `folder`."""
    (folder / "gates").mkdir(parents=True, exist_ok=True)
    for path, data in _gate_files(tree, plan, gate).items():
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)


def gate_digest(tree: Tree, plan: Plan, gate: Gate) -> str:
    """Return a gate's digest: over the path and content of every file that it may import."""
    files = _gate_files(tree, plan, gate)
    digests = {path: durable.sha256(data) for path, data in files.items()}
    return durable.sha256(json.dumps(digests, sort_keys=True).encode())


def gate_descriptor(tree: Tree, plan: Plan, gate: Gate) -> ResourceDescriptor:
    """Return a gate's name and digest."""
    return sha256_descriptor(gate.name, gate_digest(tree, plan, gate))


def _gate_files(tree: Tree, plan: Plan, gate: Gate) -> dict[str, bytes]:
    return tree.read_files(gate_scope(plan, gate, tree.files("gates")))
