"""Where a repository is, as its users see it: for tests that decide what honest people do next."""

from __future__ import annotations

import json
from typing import Any

from invariants import Block, committed_entries, entries, git
from quick import Quick

PLAN = "prd/plan.json"
OUTCOMES = ("VERIFIED", "FAILED", "ERRORED", "HALTED")
DECISIONS = ("APPROVED", "REJECTED", "WAIVED")


def has_outcome(kinds: list[str]) -> bool:
    """Return whether an outcome or a decision is among these kinds."""
    return not {*OUTCOMES, *DECISIONS}.isdisjoint(kinds)


class Situation:
    """What files, git and `status` say of a repository now."""

    def __init__(self, quick: Quick) -> None:
        self.quick = quick
        self.plan: Any = json.loads((quick.root / PLAN).read_text())
        """The plan in the work tree."""
        result = quick.call("status", "--json")
        self.status: Any = json.loads(result.stdout)
        self.warnings = result.stderr
        """What `status` says on stderr."""

    @property
    def action(self) -> str:
        """What is next: `run`, `approve` or `done`."""
        return str(self.status["next"]["action"])

    @property
    def is_spent(self) -> bool:
        """Whether only a decision leads on, as the attempts are spent."""
        return "relock" in (self.status["next"]["command"] or "")

    @property
    def open_phase(self) -> Any:
        """The first phase that is not approved, or None."""
        for phase in self.status["phases"]:
            if phase["state"] != "approved":
                return phase
        return None

    @property
    def waits(self) -> bool:
        """Whether a phase awaits approval."""
        phase = self.open_phase
        return phase is not None and phase["state"] == "awaiting_approval"

    def features(self, *states: str) -> list[str]:
        """Return the features of the open phase that are in one of these states."""
        phase = self.open_phase or {"features": []}
        return [item["id"] for item in phase["features"] if item["state"] in states]

    @property
    def phase_entries(self) -> list[Block]:
        """The entries of the open phase since it was last rejected."""
        blocks: list[Block] = []
        phase = self.open_phase
        for block in entries(self.quick.root):
            if phase and block.phase == phase["id"]:
                blocks = [] if block.kind == "REJECTED" else [*blocks, block]
        return blocks

    @property
    def is_locked(self) -> bool:
        """Whether the open phase holds a lock."""
        return any(block.kind == "LOCKED" for block in self.phase_entries)

    @property
    def has_changed(self) -> bool:
        """Whether the open phase's plan differs from its lock in what only a relock may change."""
        blocks = self.phase_entries
        locks = [block for block in blocks if block.kind == "LOCKED"]
        if not locks or not any(block.kind in (*OUTCOMES, "WAIVED") for block in blocks):
            return False
        (commit,) = [line.split()[1] for line in locks[-1].lines if line.startswith("head ")]
        locked = json.loads(git(self.quick.root, "show", f"{commit}:{PLAN}"))
        number = self.open_phase["id"] - 1
        return bool(locked["phases"][number] != self.plan["phases"][number])

    def uncommitted_kinds(self) -> list[str]:
        """Return the kinds of the entries that HEAD does not have."""
        count = len(committed_entries(self.quick.root))
        return [block.kind for block in entries(self.quick.root)[count:]]
