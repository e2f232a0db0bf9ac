"""The plan lock: what a phase may not change once its first feature has started.

It holds the digest of each thing that decides what "done" means in a phase: the phase's part of the PRD with defaults
and approval rules, its gates, configs, seeds, profiles and inputs, the approvers' keys, the runner's own code and
`constraints.txt`. A difference inside a phase stops the run; only a human's `relock` or `reject` goes on.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import phases
from phases.base import durable
from phases.plan.schema import Phase, Plan, canonical

Read = Callable[[str], bytes | None]
"""Gives a repository file's committed bytes, or None where there is no such file."""

ABSENT = "absent"


@dataclass(frozen=True)
class PlanLock:
    """What is locked: name of each thing -> its SHA-256, or `absent`."""

    phase: int
    components: Mapping[str, str]

    @property
    def data(self) -> bytes:
        """The file `lock.json`."""
        document = {"schema": 1, "phase": self.phase, "components": dict(self.components)}
        return (json.dumps(document, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode()

    @property
    def digest(self) -> str:
        """SHA-256 of the file."""
        return durable.sha256(self.data)


def compose_lock(
    plan: Plan, phase: Phase, read: Read, gate_files: list[str], runner: str
) -> PlanLock:
    """The lock of a phase as the plan stands now.

    Args:
        prd: the plan.
        phase: the phase to lock.
        read: gives a file's committed bytes.
        gate_files: every committed file of `gates/`.
        runner: digest of the runner's code as imported (`runner_digest`).
    """
    components = {
        "plan: approval": _digest(plan.approval.model_dump(mode="json")),
        "plan: defaults": _digest(plan.defaults.model_dump(mode="json")),
        "plan: phase": _digest(phase.model_dump(mode="json", exclude={"features"})),
        "runner": runner,
    }
    for feature in phase.features:
        components[f"plan: {feature.id}"] = _digest(feature.model_dump(mode="json"))
        for name in feature.inputs:
            components[f"input: {name}"] = _digest(plan.input(name).model_dump(mode="json"))
        if feature.config:
            components[feature.config] = _file(read, feature.config)
    gates = [
        gate.pytest
        for gate in (*phase.entry, *phase.exit, *(f.gate for f in phase.features))
        if gate.pytest
    ]
    for path in (*gates, *shared_gate_files(gate_files), "prd/allowed_signers", "constraints.txt"):
        components[path] = _file(read, path)
    return PlanLock(phase.id, dict(sorted(components.items())))


def shared_gate_files(gate_files: list[str]) -> list[str]:
    """The files of `gates/` that every gate may import: all but the gates themselves."""
    return [path for path in gate_files if not path.rsplit("/", 1)[-1].startswith("test_")]


def lock_differences(locked: Mapping[str, str], now: PlanLock) -> list[str]:
    """Names of the things that are not as they were locked."""
    names = sorted({*locked, *now.components})
    return [name for name in names if locked.get(name) != now.components.get(name)]


def runner_digest() -> str:
    """Digest over the runner's own modules and templates as imported, wherever they are installed."""
    package = Path(phases.__file__).parent
    files = sorted(path for path in package.rglob("*") if path.suffix in (".py", ".j2"))
    return _digest(
        {path.relative_to(package).as_posix(): durable.sha256_file(path) for path in files}
    )


def _file(read: Read, path: str) -> str:
    data = read(path)
    return ABSENT if data is None else durable.sha256(data)


def _digest(value: object) -> str:
    return durable.sha256(canonical(value))
