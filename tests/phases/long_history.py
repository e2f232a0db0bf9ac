"""The ledger and the commits of a long record, and how both grow together."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from long_project import LongProject

from phases.base import durable
from phases.base.text import utc_now
from phases.plan.schema import Feature, Phase
from phases.record import entries
from phases.record.approvals import Checkpoint
from phases.record.decision_record import (
    Decision,
    DecisionRecord,
    DecisionResult,
    Presence,
    Repository,
    RequestDigest,
)
from phases.record.entries import RecordedFile
from phases.record.evidence import Evidence
from phases.record.ledger import Entry, EntryKind, Ledger, new_header, seal_entry
from phases.record.project import Snapshot
from phases.record.reconcile import Reconciled
from phases.record.review_request import PhaseName, Sha256
from phases.record.state import PhaseStatus, State, _fold_entry, _pending_phase

PRESENCE = Presence(
    user="toy",
    uid=1000,
    tty="/dev/pts/0",
    host="machine",
    git_identity="Toy User <toy@example.org>",
)


class History:
    """What was recorded so far. Entries wait for the next commit, and so do `files`."""

    def __init__(self, toy: LongProject):
        self.ledger = Ledger(new_header("Long"), ())
        self.data = bytearray(self.ledger.header)
        """progress.txt."""
        self.head = toy.git("rev-parse", "HEAD")
        self.tree = toy.git("rev-parse", "HEAD^{tree}")
        self.status = PhaseStatus(0, "", ())
        """The open phase."""
        self.decisions = 0
        """About the open phase."""
        self.files: dict[str, bytes] = {}
        self._seconds = int(time.time())

    def begin(self, phase: Phase) -> None:
        """Begin a phase."""
        self.phase, self.status, self.decisions = phase, _pending_phase(phase), 0

    def snapshot(self) -> Snapshot:
        state = State(phases=(self.status,))
        return Snapshot(Reconciled(self.ledger), state, Evidence())

    def add_of_phase(
        self, kind: EntryKind, lines: Sequence[str], feature: Feature | None = None
    ) -> None:
        entry = self.add(kind, lines, self.phase, feature)
        self.status = _fold_entry(self.status, entry)

    def add(
        self,
        kind: EntryKind,
        lines: Sequence[str],
        phase: Phase | None = None,
        feature: Feature | None = None,
    ) -> Entry:
        entry = seal_entry(
            self.ledger,
            kind,
            tuple(lines),
            time=utc_now(),
            phase=phase.id if phase else None,
            feature=feature.id if feature else None,
            title=feature.title if feature else "",
        )
        self.ledger = self.ledger.with_entry(entry)
        self.data += entry.block
        return entry

    def commit(
        self,
        txn: str,
        message: str,
        trailers: Mapping[str, str],
        files: Mapping[str, bytes] | None = None,
    ) -> None:
        """Commit the ledger and files as the runner does, with its trailers."""
        last = self.ledger.entries[-1]
        trailers = {
            **trailers,
            "Phases-Entry": f"{last.seq:04d}",
            "Phases-Head": last.self_hash,
            "Phases-Txn": txn,
        }
        lines = "\n".join(f"{name}: {value}" for name, value in trailers.items())
        files = {**self.files, **(files or {}), "progress.txt": bytes(self.data)}
        self.files = {}
        self.commit_files(f"{message}\n\n{lines}\n", files)

    def commit_files(self, message: str, files: Mapping[str, bytes]) -> None:
        self._seconds += 1
        self.head, self.tree = self.stream.commit(self.head, message, self._seconds, files)

    def record(
        self,
        result: DecisionResult,
        decided_on: RecordedFile,
        reason: str = "",
        reset: tuple[str, ...] = (),
        waived: tuple[str, ...] = (),
    ) -> RecordedFile:
        """Compose a decision's record, for the next commit."""
        self.decisions += 1
        phase, genesis = self.phase, self.ledger.entries[0]
        root = (genesis.match(entries.ROOT) or {})["commit"]
        checkpoint = Checkpoint(
            phase=phase.id,
            entry=self.ledger.entries[-1].seq,
            commit=self.head,
            tree=self.tree,
            progress_size=len(self.data),
            progress_sha256=durable.sha256(bytes(self.data)),
            progress_head=self.ledger.head,
            request_path=decided_on.path,
            request_sha256=decided_on.sha256,
        )
        decision = Decision(
            result=result,
            phase=PhaseName(id=phase.id, name=phase.name),
            decision=self.decisions,
            repository=Repository(root_commit=root, genesis=genesis.self_hash),
            request=RequestDigest(digest=Sha256(sha256=decided_on.sha256)),
            reason=reason,
            reset=reset,
            waived=waived,
            decided_on=utc_now(),
            by=PRESENCE,
        )
        data = DecisionRecord(subject=checkpoint.subject, predicate=decision).encode()
        path = f"prd/approvals/phase-{phase.id}.{self.decisions}.json"
        self.files = {path: data}
        return RecordedFile(durable.sha256(data), path)
