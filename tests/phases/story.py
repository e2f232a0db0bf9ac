"""A ledger that grows in memory, entry by entry, as the runner would seal them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

from phases.git.record_history import RecordCommit
from phases.record import entries
from phases.record.approval_rule import PRESENCE, ApprovalRule
from phases.record.decision_check import ValidDecision
from phases.record.entries import RecordedFile
from phases.record.evidence import Evidence
from phases.record.ledger import Entry, EntryKind, Ledger, new_header, seal_entry
from phases.record.state import done_counts
from phases.record.states import FeatureState

DIGEST = "ab" * 32
TIME = "2026-11-23T10:12:31Z"
COMMIT = "0" * 40


class Story:
    """What happened so far, and the digests of the decision records that count."""

    def __init__(self) -> None:
        self.ledger = Ledger(new_header("Toy"), ())
        self.records: set[str] = set()

    @property
    def evidence(self) -> Evidence:
        """What the history says: each entry has its commit, each decision with a record counts."""
        return evidence_of(self.ledger.entries, self.records)

    def add(
        self, kind: str, phase: int | None = None, feature_id: str | None = None, *lines: str
    ) -> Self:
        """Append any entry."""
        title = ""
        if feature_id:
            title = f"Title of {feature_id}"
        entry = seal_entry(
            self.ledger, kind, lines, time=TIME, phase=phase, feature=feature_id, title=title
        )
        self.ledger = self.ledger.with_entry(entry)
        return self

    def lock(
        self,
        phase: int = 1,
        record: str | None = None,
        reset: Sequence[str] = (),
        approval: ApprovalRule = PRESENCE,
    ) -> Self:
        """Append LOCKED; with the digest of a record it is a relock."""
        decision = ()
        if record:
            decision = (_record_line(record, phase),)
        lock = RecordedFile(DIGEST, f"results/phase-{phase}/lock.json")
        lines = entries.locked_lines(lock, COMMIT, reset, decision, approval=approval.lines)
        return self.add("LOCKED", phase, None, *lines)

    def attempt(self, feature_id: str, kind: str = "VERIFIED", phase: int = 1) -> Self:
        """Append STARTED and an outcome."""
        self.add("STARTED", phase, feature_id)
        return self.add_outcome(kind, phase, feature_id)

    def add_outcome(self, kind: str, phase: int, feature_id: str) -> Self:
        """Append an outcome that was never started, with its receipt."""
        receipt = f"receipt sha256:{DIGEST} results/{feature_id}/receipt.json"
        return self.add(kind, phase, feature_id, receipt)

    def halt(self, phase: int = 1) -> Self:
        """Append HALTED."""
        request = f"request sha256:{DIGEST} results/phase-{phase}/request.json"
        features = entries.FEATURES.format(counts=done_counts(self._done(phase)))
        return self.add("HALTED", phase, None, features, request)

    def _done(self, phase: int) -> list[FeatureState]:
        """Return verified or waived for each feature of a phase that is, by its newest entry."""
        done: dict[str, FeatureState] = {}
        for entry in self.ledger.entries:
            if entry.phase != phase:
                continue
            for fields in entry.match_all(entries.RESET):
                done.pop(fields["feature"], None)
            if entry.feature:
                done.pop(entry.feature, None)
                if entry.kind in ("VERIFIED", "WAIVED"):
                    done[entry.feature] = FeatureState(entry.kind.lower())
        return list(done.values())

    def decide(self, kind: str, record: str, phase: int = 1, reset: Sequence[str] = ()) -> Self:
        """Append a decision that names a record; it counts once `records` has its digest."""
        return self.add(kind, phase, None, _record_line(record, phase), *entries.reset_lines(reset))


def evidence_of(ledger_entries: Sequence[Entry], records: set[str]) -> Evidence:
    """Return the evidence of a history in which every entry was committed by itself.

    A record that counts is about the phase's newest checkpoint before its entry.
    """
    commits, decisions = {}, {}
    halted: dict[int | None, int] = {}
    for entry in ledger_entries:
        trailers = {"Phases-Entry": f"{entry.seq:04d}"}
        commits[entry.seq] = RecordCommit(COMMIT, COMMIT, (COMMIT,), trailers, {})
        if entry.kind == EntryKind.HALTED:
            halted[entry.phase] = entry.seq
        line = entry.match(entries.RECORD)
        if line and line["sha256"] in records:
            checkpoint = halted.get(entry.phase, entry.seq - 1)
            decisions[entry.seq] = ValidDecision(checkpoint, DIGEST, DIGEST)
    return Evidence(commits, decisions)


def _record_line(sha256: str, phase: int) -> str:
    return f"record sha256:{sha256} prd/approvals/phase-{phase}.1.json"
