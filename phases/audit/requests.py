"""Review requests: each says of its phase what the ledger says of it when it halted."""

from __future__ import annotations

from collections.abc import Iterator

from phases.audit.findings import Finding, Report
from phases.base import durable
from phases.git.repo import Repo
from phases.record import entries
from phases.record.committed_plan import committed_plan
from phases.record.ledger import Entry, EntryKind
from phases.record.project import Snapshot
from phases.record.review_request import Review, ReviewRequest
from phases.record.state import FeatureStatus, fold_state
from phases.record.statement import DocumentError, is_commit_id
from phases.record.states import FeatureState
from phases.record.verdict import PhaseVerdict, VerdictResult


def check_requests(repo: Repo, report: Report, snapshot: Snapshot) -> None:
    """Check that whoever halted had done all of the phase, by the plan that judged it."""
    for entry in snapshot.ledger.entries:
        if entry.kind == EntryKind.HALTED and snapshot.evidence.ends_commit(entry.seq):
            commit = snapshot.evidence.commits[entry.seq].sha
            for message in _contradictions(repo, snapshot, entry, commit):
                report.findings.append(
                    Finding("request-contradicts", message, entry.seq, commit=commit)
                )


def _contradictions(repo: Repo, snapshot: Snapshot, entry: Entry, commit: str) -> Iterator[str]:
    # 1. The request.
    named = entry.match(entries.REQUEST)
    if named is None:
        yield "this HALTED entry names no review request"
        return
    data = repo.blob(commit, named["path"]) or b""
    if durable.sha256(data) != named["sha256"]:
        return  # a finding already: the named file differs
    try:
        review = ReviewRequest.decode(data).predicate
    except DocumentError as error:
        yield f"the review request is invalid: {error}"
        return
    if review.phase.id != entry.phase:
        yield f"the review request is about phase {review.phase.id}"
        return

    # 2. By the plan of the commit that it names, all of the phase is done.
    judged = review.commit.git_commit
    if not is_commit_id(judged) or not repo.is_ancestor(judged, commit):
        yield "the review request names a commit that is not before the one that recorded it"
        return
    try:
        plan = committed_plan(repo, judged)
        phase = plan.phase(review.phase.id)
    except (ValueError, KeyError) as error:
        yield f"the plan in commit {judged[:12]} cannot be read: {error}"
        return
    state = fold_state(plan, snapshot.ledger.entries[: entry.seq - 1], snapshot.evidence)
    yield from _feature_contradictions(review, state.phase(phase.id).features)
    if phase.exit:
        yield from _exit_contradictions(repo, entry, commit)


def _feature_contradictions(review: Review, features: tuple[FeatureStatus, ...]) -> Iterator[str]:
    stated = [(item.id, item.state, item.receipt) for item in review.features]
    actual = []
    for item in features:
        receipt = item.receipt if item.state == FeatureState.VERIFIED else None
        actual.append((item.id, item.state, receipt))
        if not item.is_done:
            yield f"{item.id} was {item.state} when the phase halted"
    if stated != actual:
        yield "the review request states other features, states or receipts than the ledger"


def _exit_contradictions(repo: Repo, entry: Entry, commit: str) -> Iterator[str]:
    named = entry.match(entries.VERDICT)
    if named is None:
        yield "the phase has exit gates, and this HALTED entry names no verdict of theirs"
        return
    try:
        verdicts = PhaseVerdict.decode(repo.blob(commit, named["path"]) or b"").verdicts
    except DocumentError as error:
        yield f"the exit gates' verdict is invalid: {error}"
        return
    if any(verdict.predicate.result != VerdictResult.PASSED for verdict in verdicts):
        yield "the phase halted, and its exit gates did not pass"
