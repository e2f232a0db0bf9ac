"""Human decisions other than approvals: relocks, rejections, waivers. Every view shows them first.

They are how a project goes on where a gate fails, and no reader of a result should have to look for
them.
"""

from __future__ import annotations

from dataclasses import dataclass

from phases.record import entries
from phases.record.ledger import Entry, EntryKind

VERBS = {
    EntryKind.LOCKED: "relocked",
    EntryKind.REJECTED: "rejected",
    EntryKind.WAIVED: "waived",
}


@dataclass(frozen=True)
class Override:
    """One such decision."""

    verb: str
    """`relocked`, `rejected` or `waived`."""
    phase: int
    feature: str | None
    entry: int
    time: str
    reason: str
    previous_state: str
    """A waived feature's state before: `failed, 3 attempts under this lock`."""

    @property
    def sentence(self) -> str:
        """`TOY-002 waived (failed, 3 attempts): no such data here (entry 0012)`."""
        subject = self.feature or f"phase {self.phase}"
        state = f" ({self.previous_state})" if self.previous_state else ""
        reason = self.reason or "no reason given"
        return f"{subject} {self.verb}{state}: {reason} (entry {self.entry:04d})"


def override_of(entry: Entry) -> Override | None:
    """Return the override that an entry records, or None."""
    if entry.kind not in VERBS or entry.phase is None:
        return None
    # The first lock of a phase is the runner's own.
    if entry.kind == EntryKind.LOCKED and not entry.match(entries.RELOCKED_BY):
        return None
    reason = entry.match(entries.REASON) or {}
    previous_state = entry.match(entries.PREVIOUS_STATE) or {}
    return Override(
        verb=VERBS[entry.kind],
        phase=entry.phase,
        feature=entry.feature,
        entry=entry.seq,
        time=entry.time,
        reason=reason.get("text", ""),
        previous_state=previous_state.get("text", ""),
    )
