"""The record of one human decision: what it is about, who made it, what it resets."""

from __future__ import annotations

from enum import StrEnum

from pydantic import Field

from phases.record.ledger import EntryKind
from phases.record.review_request import PhaseName, Sha256
from phases.record.statement import Document, Statement

DECISION_TYPE = "phases/decision/v1"
NOT_PROVED = (
    "This record states that a human was present at the terminal, not who it was: a process of the "
    "same user with a pseudo-terminal of its own can answer too."
)
NOTHING_PROVED = (
    "This record states nothing about a human: in a sample run a script answers at a terminal of "
    "its own."
)


class Assurance(StrEnum):
    """What stands behind a decision."""

    PRESENCE = "presence"
    SCRIPTED = "scripted"

    @property
    def not_proved(self) -> str:
        """What a record with this assurance does not show."""
        if self == Assurance.SCRIPTED:
            return NOTHING_PROVED
        return NOT_PROVED


class DecisionResult(StrEnum):
    """What was decided."""

    PASS = "pass"
    FAIL = "fail"
    RELOCK = "relock"
    WAIVE = "waive"

    @property
    def entry_kind(self) -> EntryKind:
        """The kind of the entry that may name a record with this result."""
        return _ENTRY_KINDS[self]


_ENTRY_KINDS = {
    DecisionResult.PASS: EntryKind.APPROVED,
    DecisionResult.FAIL: EntryKind.REJECTED,
    DecisionResult.RELOCK: EntryKind.LOCKED,
    DecisionResult.WAIVE: EntryKind.WAIVED,
}


class Repository(Document):
    """The history and the run that a decision is bound to: it means nothing in another."""

    root_commit: str
    genesis: str
    """Hash of the ledger's first entry."""


class RequestDigest(Document):
    """The file that was decided on."""

    digest: Sha256


class Presence(Document):
    """Who was at the terminal, as far as the machine can tell."""

    user: str
    uid: int
    tty: str
    host: str
    git_identity: str


class Decision(Document):
    """The predicate of a decision record."""

    result: DecisionResult
    phase: PhaseName
    decision: int
    """Number of this decision within the phase."""
    repository: Repository
    request: RequestDigest
    reason: str
    reset: tuple[str, ...]
    """Features that become pending."""
    waived: tuple[str, ...] = ()
    lock: Sha256 | None = None
    """With a relock: the plan lock that was agreed to."""
    decided_on: str
    by: Presence
    assurance: Assurance = Assurance.PRESENCE
    not_proved: str = NOT_PROVED


class DecisionRecord(Statement):
    """A decision record; its subjects are the checkpoint's commit, progress.txt and the request."""

    predicate_type: str = Field(DECISION_TYPE, pattern=f"^{DECISION_TYPE}$")
    predicate: Decision
