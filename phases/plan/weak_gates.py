"""Weak gates: gates that cannot judge anything, found in their text before anything runs.

Nothing is run or imported. A gate that is not understood is not named: no honest gate may be.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from phases.plan.schema import Gate, Phase
from phases.plan.weak_pytest import pytest_weakness
from phases.plan.weak_shell import shell_weakness


@dataclass(frozen=True)
class WeakGate:
    """A gate that cannot judge anything."""

    gate: str
    """How views call it."""
    of: str
    """The feature's id, or `exit` for an exit gate."""
    reason: str


def find_weak_gates(phase: Phase, features: Collection[str], root: Path) -> list[WeakGate]:
    """Return the weak ones of these features' gates and of the phase's exit gates.

    Args:
        phase: the phase.
        features: ids of features of the phase.
        root: the repository; pytest files are read from its work tree.
    """
    gates = [(feature.id, feature.gate) for feature in phase.features if feature.id in features]
    gates += [("exit", gate) for gate in phase.exit]
    weak_gates = []
    for of, gate in gates:
        reason = _weakness(gate, root)
        if reason is not None:
            weak_gates.append(WeakGate(gate.name, of, reason))
    return weak_gates


def _weakness(gate: Gate, root: Path) -> str | None:
    if gate.pytest is not None:
        return pytest_weakness(root, gate.pytest)
    return shell_weakness(gate.shell or "")
