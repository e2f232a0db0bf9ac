"""What persons decided beside approving: relocks, rejections, waivers. Every view shows these before anything else.

They are the honest ways on where a gate says no, and nobody who reads a result should have to look for them.
"""

from __future__ import annotations

from dataclasses import dataclass

from phases.record.ledger import Entry

WORDS = {"LOCKED": "relocked", "REJECTED": "rejected", "WAIVED": "waived"}
RELOCKED = r"relocked by .+"
REASON = r"reason (?P<text>.+)"
STOOD = r"stood at (?P<text>.+)"


@dataclass(frozen=True)
class Override:
    """One such decision."""

    word: str
    """`relocked`, `rejected` or `waived`."""
    phase: int
    feature: str | None
    entry: int
    time: str
    reason: str
    stood: str = ""
    """A waived feature's state before: `failed, 3 attempts`."""

    @property
    def sentence(self) -> str:
        """`TOY-002 waived (failed, 3 attempts): no such data here (entry 0012)`."""
        what = self.feature or f"phase {self.phase}"
        stood = f" ({self.stood})" if self.stood else ""
        return f"{what} {self.word}{stood}: {self.reason or 'no reason given'} (entry {self.entry:04d})"


def override_of(entry: Entry) -> Override | None:
    """The note of an entry; None where it is no such decision (the first lock of a phase is the runner's)."""
    if (
        entry.kind not in WORDS
        or entry.phase is None
        or (entry.kind == "LOCKED" and not entry.fact(RELOCKED))
    ):
        return None
    reason, stood = entry.fact(REASON), entry.fact(STOOD)
    return Override(
        WORDS[entry.kind],
        entry.phase,
        entry.feature,
        entry.seq,
        entry.time,
        reason["text"] if reason else "",
        stood["text"] if stood else "",
    )
