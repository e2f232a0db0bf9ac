"""Stale results: what changed in commits since a feature was verified.

It is shown and does nothing else: no state, no exit code and no run depends on it. Compared are the
commit that the receipt names and HEAD, never the work tree.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from types import MappingProxyType

from phases.base import durable, strict_json
from phases.base.regular_file import read_regular
from phases.base.text import format_count, printable
from phases.errors import EnvironmentFaultError
from phases.git.probe import changed_paths
from phases.plan.lock import gate_scope
from phases.plan.schema import Feature, Plan
from phases.record.ledger import EntryKind
from phases.record.project import Project, Snapshot
from phases.record.state import FeatureStatus
from phases.record.states import FeatureState

SHOWN_FILES = 3
_ID = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")

Stale = Mapping[str, Sequence[str]]
"""Feature id -> what changed and since when, such as `gate changed since entry 0004`."""

NOTHING_STALE: Stale = MappingProxyType({})

Materials = Mapping[str, Mapping[str, str]]
"""URI of everything that a receipt names -> its digest set."""


def find_stale(project: Project, snapshot: Snapshot) -> Stale:
    """Return what changed of every verified feature; those of which nothing did are left out."""
    # 1. What each verified result is based on, by its receipt.
    state = snapshot.state
    bases: dict[str, Materials] = {}
    commits: dict[str, str] = {}
    for status in state.features.values():
        if status.state == FeatureState.VERIFIED:
            materials = _read_materials(project, status)
            commit = _commit(materials)
            if commit:
                bases[status.id], commits[status.id] = materials, commit
    if project.probe.head is None or not bases:
        return {}

    # 2. What changed since. The results change with every outcome, thousands of files in all.
    plan, head = project.plan, project.probe.head
    without = None if _is_input(plan, plan.results) else plan.results
    changed = changed_paths(project.root, head, sorted(set(commits.values())), without)
    entries = _verified_entries(snapshot)
    receipts = {status.id: status.receipt for status in state.features.values()}
    stale = {}
    for feature_id, materials in bases.items():
        _, feature = plan.feature(feature_id)
        commit, since = commits[feature_id], f"entry {entries[feature_id]:04d}"
        basis = Basis(materials, changed.get(commit, set()), receipts)
        parts = changed_parts(plan, feature, basis)
        lines = [f"{part} changed since {since}" for part in parts]
        if commit not in changed:
            lines.append(f"unknown, as commit {commit[:12]} of {since} is not in this repository")
        if lines:
            stale[feature_id] = lines
    return stale


def _is_input(plan: Plan, folder: str) -> bool:
    """Return whether an input of the plan is in a folder, or has it inside."""
    paths = [PurePosixPath(item.tracked_path) for item in plan.inputs if not item.is_cached]
    own = PurePosixPath(folder)
    return any(path.is_relative_to(own) or own.is_relative_to(path) for path in paths)


def _read_materials(project: Project, status: FeatureStatus) -> Materials:
    """Return what the receipt names; {} where it is not the one that the ledger names."""
    path = project.root / project.paths.results(status.id) / "receipt.json"
    try:
        data = read_regular(path)
    except (OSError, EnvironmentFaultError):
        return {}
    if durable.sha256(data) != status.receipt:
        return {}
    return parse_materials(data)


def parse_materials(data: bytes) -> Materials:
    """Return what a receipt names; {} where it is malformed, which only `audit` reports. Pure."""
    try:
        document = strict_json.loads(data)
        dependencies = document["predicate"]["buildDefinition"]["resolvedDependencies"]
        return {str(item["uri"]): dict(item.get("digest") or {}) for item in dependencies}
    except (strict_json.StrictJsonError, AttributeError, KeyError, TypeError, ValueError):
        return {}


def _commit(materials: Materials) -> str:
    """Return the id of the commit that ran; empty where the receipt names none."""
    commit = materials.get("git", {}).get("gitCommit", "")
    return commit if isinstance(commit, str) and _ID.fullmatch(commit) else ""


def _verified_entries(snapshot: Snapshot) -> dict[str, int]:
    """Return feature id -> number of its newest VERIFIED entry."""
    numbers = {}
    for entry in snapshot.ledger.entries:
        if entry.kind == EntryKind.VERIFIED and entry.feature:
            numbers[entry.feature] = entry.seq
    return numbers


#### what of a feature changed


@dataclass(frozen=True)
class Basis:
    """What a verified result is based on, and what has changed since."""

    materials: Materials
    changed: Collection[str]
    """Paths that differ between the receipt's commit and HEAD."""
    receipts: Mapping[str, str | None]
    """Feature id -> SHA-256 of its newest receipt."""


def changed_parts(plan: Plan, feature: Feature, basis: Basis) -> list[str]:
    """Return what changed: `code` or files, `config FILE`, `gate`, `input NAME`. Pure."""
    # 1. Changed files that the feature names: its config, what its gate may import, its inputs.
    changed = set(basis.changed)
    config = _below(changed, feature.config) if feature.config else set()
    gate = set(gate_scope(plan, feature.gate, _below(changed, "gates")))
    inputs: dict[str, set[str]] = {}
    for name in feature.inputs:
        item = plan.input(name)
        inputs[name] = set() if item.is_cached else _below(changed, item.path)

    # 2. The rest is code, or has nothing to do with the feature.
    parts = _code_parts(plan, feature, basis, changed.difference(config, gate, *inputs.values()))
    if config:
        parts.append(f"config {feature.config}")
    if gate:
        parts.append("gate")

    # 3. Inputs, those that digests name too: in the cache, and the results of needed features.
    for name, paths in inputs.items():
        item = plan.input(name)
        recorded = basis.materials.get(f"input:{name}")
        planned = {f"sha256:{file}": digest for file, digest in item.sha256.items()}
        is_other = item.is_cached and recorded and not planned.items() <= recorded.items()
        if paths or is_other:
            parts.append(f"input {name}")
    for need in feature.needs:
        recorded = basis.materials.get(f"feature:{need}")
        if recorded not in (None, {"sha256": basis.receipts.get(need)}):
            parts.append(f"input {need}")
    return parts


def _code_parts(plan: Plan, feature: Feature, basis: Basis, paths: set[str]) -> list[str]:
    """Return `code` for a module, whose packages the receipt names; changed files for a command."""
    # 1. What the runner itself commits is no code.
    paths = paths - _below(paths, plan.results)
    for phase in plan.phases:
        for each in phase.features:
            paths.difference_update(each.publish.values())

    # 2. A module has packages.
    if feature.module:
        is_changed = any(f"code:{_top_name(path)}" in basis.materials for path in paths)
        return ["code"] if is_changed else []

    # 3. A command may read every file.
    for folder in ("prd", "gates", "progress.txt"):
        paths -= _below(paths, folder)
    if not paths:
        return []
    names = ", ".join(printable(path, 60) for path in sorted(paths)[:SHOWN_FILES])
    if len(paths) > SHOWN_FILES:
        names += f" and {len(paths) - SHOWN_FILES} more"
    return [f"{format_count(len(paths), 'file')} ({names})"]


def _below(paths: Collection[str], folder: str) -> set[str]:
    """Return those of the paths that are the file `folder`, or are below that folder."""
    name = PurePosixPath(folder).as_posix()
    return {path for path in paths if path == name or path.startswith(f"{name}/")}


def _top_name(path: str) -> str:
    """Return the top package, or the module at the top, that a file belongs to."""
    top, slash, _ = path.partition("/")
    return top if slash else top.removesuffix(".py")
