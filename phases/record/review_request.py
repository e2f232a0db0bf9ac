"""The review request: what waits for the approver at a checkpoint, everything by digest."""

from __future__ import annotations

from pydantic import Field

from phases.record.statement import Document, ResourceDescriptor, Statement
from phases.record.states import FeatureState

REQUEST_TYPE = "phases/review-request/v1"


class PhaseName(Document):
    """A phase as a document names it."""

    id: int
    name: str


class Sha256(Document):
    """A digest set with a SHA-256."""

    sha256: str


class GitCommit(Document):
    """A digest set with a git commit."""

    git_commit: str


class ReviewedFeature(Document):
    """One feature as it is at the checkpoint."""

    id: str
    title: str
    state: FeatureState
    receipt: str | None
    attempts: int
    measurement_coverage: tuple[int, int, int] | None


class Review(Document):
    """The predicate of a review request."""

    phase: PhaseName
    attempt: int
    commit: GitCommit
    """The commit whose plan and gates judged the phase."""
    lock: Sha256
    gates: tuple[ResourceDescriptor, ...]
    features: tuple[ReviewedFeature, ...]
    exit_verdict: Sha256 | None
    requested_on: str
    txn: str


class ReviewRequest(Statement):
    """A review request; its subjects are the receipts of the verified features."""

    predicate_type: str = Field(REQUEST_TYPE, pattern=f"^{REQUEST_TYPE}$")
    predicate: Review
