"""A ledger that grows in memory, entry by entry, as the runner would seal them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

from phases.record import entries
from phases.record.ledger import Ledger, new_header, seal_entry

DIGEST = "ab" * 32


class Story:
    """What happened so far, and which approval records exist."""

    def __init__(self) -> None:
        self.ledger = Ledger(new_header("Toy"), ())
        self.records: set[str] = set()

    def add(
        self, kind: str, phase: int | None = None, feature_id: str | None = None, *lines: str
    ) -> Self:
        title = f"Title of {feature_id}" if feature_id else ""
        place = {"phase": phase, "feature": feature_id, "title": title}
        entry = seal_entry(self.ledger, kind, lines, time="2026-11-23T10:12:31Z", **place)
        self.ledger = Ledger(self.ledger.header, (*self.ledger.entries, entry))
        return self

    def lock(self, phase: int = 1, record: str | None = None, again: Sequence[str] = ()) -> Self:
        why = (f"record sha256:{record} prd/approvals/phase-{phase}.1.json",) if record else ()
        located = entries.RecordedFile(DIGEST, f"results/phase-{phase}/lock.json")
        return self.add("LOCKED", phase, None, *entries.locked(located, "0" * 40, again, why))

    def attempt(self, feature_id: str, kind: str = "VERIFIED", phase: int = 1) -> Self:
        self.add("STARTED", phase, feature_id)
        return self.add(
            kind, phase, feature_id, f"receipt sha256:{DIGEST} results/{feature_id}/receipt.json"
        )

    def halt(self, phase: int = 1) -> Self:
        return self.add(
            "HALTED", phase, None, f"request sha256:{DIGEST} results/phase-{phase}/request.json"
        )

    def decide(self, kind: str, record: str, phase: int = 1, again: Sequence[str] = ()) -> Self:
        path = f"prd/approvals/phase-{phase}.1.json"
        return self.add(
            kind, phase, None, f"record sha256:{record} {path}", *entries.runs_again(again)
        )

    def happen(self, kind: str, place: tuple[int, str]) -> Self:
        return self.add(kind, *place, f"receipt sha256:{DIGEST} results/{place[1]}/receipt.json")
