"""Why this runner cannot have prepared a record: the rules that every record of its own follows.

Pure: a transaction is judged by the ledger before it, the state that this ledger folds to, and what
the plan of the commit that ran publishes. The binding (`pending.py`) says who prepared a record;
these rules say that it is one that could have been prepared here and now.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import cached_property

from phases.base import durable
from phases.base.paths import Paths, is_plain
from phases.base.text import is_printable, printable
from phases.record import entries
from phases.record.decision_check import APPROVALS
from phases.record.ledger import LOCKS_AND_DECISIONS, OUTCOMES, Entry, EntryKind, Ledger
from phases.record.state import PhaseStatus, State
from phases.record.statement import DocumentError
from phases.record.states import UNFINISHED_STATES, FeatureState, PhaseState
from phases.record.transaction import Transaction, subject_trailers
from phases.record.verdict import AttemptRecord

_LOCK_NAME = re.compile(r"(?P<results>.+)/phase-\d+/lock\.json")


@dataclass(frozen=True)
class Claim:
    """A transaction, and what it is judged by."""

    transaction: Transaction
    before: Ledger
    """The ledger up to the transaction's first entry."""
    state: State
    """What that ledger folds to."""
    paths: Paths
    lost: Collection[int]
    """Numbers of the decisions that were lost before."""
    published: Collection[str]
    """What the feature publishes by the plan of the commit that its STARTED names."""

    @cached_property
    def own_entries(self) -> tuple[Entry, ...]:
        """Its entries, but for the PULLED by which a decision first takes entries over."""
        own = self.transaction.entries
        if own[0].kind == EntryKind.PULLED and own[-1].kind in LOCKS_AND_DECISIONS:
            return own[1:]
        return own

    @property
    def last(self) -> Entry:
        """The entry that says what the transaction is about."""
        return self.transaction.entries[-1]

    @property
    def phase(self) -> int:
        """The phase that it is about; 0 for none."""
        return self.last.phase or 0

    @property
    def status(self) -> PhaseStatus | None:
        """That phase before the transaction, or None."""
        for phase in self.state.phases:
            if phase.id == self.phase:
                return phase
        return None

    @cached_property
    def lock(self) -> dict[str, str]:
        """Digest and path of the phase's newest lock, the transaction's own included; or {}."""
        newest: dict[str, str] = {}
        for entry in (*self.before.entries, *self.own_entries):
            is_lock = entry.kind == EntryKind.LOCKED and entry.seq not in self.lost
            if is_lock and entry.phase == self.phase:
                newest = entry.match(entries.LOCK) or {}
        return newest

    @property
    def results(self) -> str:
        """The folder of results that the phase was locked with."""
        name = _LOCK_NAME.fullmatch(self.lock.get("path", ""))
        return name["results"] if name else self.paths.results_name

    @property
    def started(self) -> Entry | None:
        """The newest entry of the phase, if it is the STARTED of the feature; else None."""
        newest = None
        for entry in self.before.entries:
            if entry.phase == self.phase:
                newest = entry
        if newest and newest.kind == EntryKind.STARTED and newest.feature == self.last.feature:
            return newest
        return None


def foreign_reasons(claim: Claim) -> list[str]:
    """Return why this runner cannot have prepared the transaction, in words; [] if it can."""
    # 1. What it is about, and whether that can happen now.
    reasons = [*_message_reasons(claim.transaction), *_subject_reasons(claim)]
    if reasons:
        return reasons

    # 2. What it writes and removes: only what is its own, as its entries name it.
    reasons += [*_path_reasons(claim), *_named_file_reasons(claim)]
    if reasons:
        return reasons

    # 3. What its commit will say. What a decision's record says, `completion.py` checks as `audit`
    #    does.
    expected = _expected_trailers(claim)
    if claim.transaction.trailers != expected:
        actual = printable(str(dict(claim.transaction.trailers)))
        reasons.append(f"its trailers are {actual}; expected {expected}")
    return reasons


def _message_reasons(transaction: Transaction) -> Iterator[str]:
    if not transaction.message or not is_printable(transaction.message):
        yield f"its message is not one printable line: {printable(transaction.message)}"


#### what it is about


def _subject_reasons(claim: Claim) -> list[str]:
    """Return why its entries cannot follow now."""
    kinds = [entry.kind for entry in claim.own_entries]
    if any(entry.phase != claim.last.phase for entry in claim.own_entries):
        return ["its entries are about several phases"]
    if claim.last.phase is None:
        return [f"{claim.last.kind} is no outcome and no decision"]
    if len(kinds) > 1 and kinds[-1] != EntryKind.WAIVED:
        return [f"it has {len(kinds)} entries and ends in {kinds[-1]}; expected one entry"]
    if claim.last.kind in OUTCOMES and claim.last.feature:
        return _outcome_reasons(claim)
    if claim.last.kind == EntryKind.INTERRUPTED:
        return _interruption_reasons(claim)
    if claim.status is None:
        return [f"the plan has no phase {claim.phase}"]
    if claim.last.kind in (EntryKind.HALTED, EntryKind.FAILED) and not claim.last.feature:
        return _exit_reasons(claim, claim.status)
    if claim.last.kind in LOCKS_AND_DECISIONS:
        return _decision_reasons(claim, claim.status)
    return [f"{claim.last.kind} is no outcome and no decision"]


def _outcome_reasons(claim: Claim) -> list[str]:
    feature, started = claim.last.feature, claim.started
    if started is None:
        return [f"{feature} does not run: its {claim.last.kind} follows no STARTED that is open"]
    txn = (started.match(entries.TRANSACTION) or {}).get("txn")
    if txn != claim.transaction.txn:
        return [f"{feature} was started as transaction {txn}"]
    if started.title != claim.last.title:
        return [f"{feature} was started under another title"]
    return []


def _interruption_reasons(claim: Claim) -> list[str]:
    """Return why the feature does not run; the plan may have lost it since it was started."""
    newest = None
    for entry in claim.before.entries:
        if entry.feature == claim.last.feature and entry.phase == claim.phase:
            newest = entry.kind
    feature = claim.state.features.get(claim.last.feature or "")
    is_running = feature is None or feature.state == FeatureState.RUNNING
    if newest == EntryKind.STARTED and is_running:
        return []
    return [f"{claim.last.feature} does not run"]


def _exit_reasons(claim: Claim, status: PhaseStatus) -> list[str]:
    reason = _not_open_reason(claim, status)
    if reason:
        return [reason]
    for feature in status.features:
        if feature.state in UNFINISHED_STATES:
            return [f"{feature.id} of phase {status.id} is {feature.state}"]
    return []


def _not_open_reason(claim: Claim, status: PhaseStatus) -> str:
    for phase in claim.state.phases:
        if phase.id == status.id:
            break
        if phase.state != PhaseState.APPROVED:
            return f"phase {status.id} is not open: phase {phase.id} is {phase.state}"
    if status.state in (PhaseState.APPROVED, PhaseState.AWAITING_APPROVAL):
        return f"phase {status.id} is {status.state}"
    return ""


def _decision_reasons(claim: Claim, status: PhaseStatus) -> list[str]:
    """Return why the phase is not one to decide on like this; the fold says the rest."""
    first, is_relock = claim.own_entries[0], claim.last.kind == EntryKind.LOCKED
    if first.kind == EntryKind.LOCKED and is_relock != (status.lock is not None):
        return [f"phase {status.id} {'holds a lock' if status.lock else 'holds no lock'}"]
    if claim.last.kind != EntryKind.WAIVED:
        return []
    reason = _not_open_reason(claim, status)
    if reason:
        return [reason]
    if status.lock is None and first.kind != EntryKind.LOCKED:
        return [f"phase {status.id} holds no lock"]
    kinds = {entry.kind for entry in _deciding_entries(claim)}
    if kinds != {EntryKind.WAIVED}:
        return ["it waives, and holds another entry"]
    return []


def _deciding_entries(claim: Claim) -> tuple[Entry, ...]:
    """Return the entries that name the record: all but the lock that a waiver needs first."""
    kinds = [entry.kind for entry in claim.own_entries]
    if len(kinds) > 1 and kinds[0] == EntryKind.LOCKED:
        return claim.own_entries[1:]
    return claim.own_entries


#### what it writes


def _path_reasons(claim: Claim) -> Iterator[str]:
    """Yield the paths that are not its own."""
    transaction = claim.transaction
    own_files = _own_files(claim)
    feature_folder = f"{claim.results}/{claim.last.feature}/"
    for path in (*transaction.files, *transaction.removed):
        if not is_plain(path):
            yield f"{printable(path)} is no plain path inside the repository"
    is_verified = claim.last.kind == EntryKind.VERIFIED
    for path in transaction.files:
        is_result = is_verified and path.startswith(feature_folder)
        if path not in own_files and not is_result:
            yield f"{printable(path)} is no file of {_subject(claim)}"
    for path in transaction.removed:
        if not is_verified or not path.startswith(feature_folder) or path in transaction.files:
            yield f"{printable(path)} is not removed by {_subject(claim)}"


def _subject(claim: Claim) -> str:
    about = claim.last.feature or f"phase {claim.phase}"
    return f"{claim.last.kind} of {about}"


def _own_files(claim: Claim) -> set[str]:
    """Return the paths that the transaction may write besides the outputs of a feature."""
    own = set()
    if claim.lock:
        own.add(claim.lock["path"])
    kind, feature = claim.last.kind, claim.last.feature
    if kind == EntryKind.VERIFIED:
        own.update(claim.published)
    elif kind in OUTCOMES and feature:
        own.add(f"{claim.results}/{feature}/attempts/{_attempt(claim)}.json")
    elif kind in LOCKS_AND_DECISIONS:
        own.update(_record_paths(claim))
    else:
        for line_format, name in ((entries.VERDICT, "verdict"), (entries.REQUEST, "request")):
            if claim.last.match(line_format):
                own.add(f"{claim.results}/phase-{claim.phase}/{name}.json")
    return own


def _record_paths(claim: Claim) -> set[str]:
    """Return the record that its entries name, if it is called as a record of this phase."""
    name = re.compile(rf"{re.escape(APPROVALS)}/phase-{claim.phase}\.[1-9]\d*\.json")
    paths = {_named_record(entry).get("path", "") for entry in _deciding_entries(claim)}
    return {path for path in paths if name.fullmatch(path)}


def _named_record(entry: Entry) -> dict[str, str]:
    return entry.match(entries.RECORD) or {}


def _attempt(claim: Claim) -> int:
    """Return the number of the attempt that is open; 0 for none."""
    fields = claim.started.match(entries.STARTED) if claim.started else None
    return int(fields["attempt"]) if fields else 0


def _named_file_reasons(claim: Claim) -> Iterator[str]:
    """Yield what its entries name by digest and it does not bring so."""
    named = []
    for entry in claim.own_entries:
        for kind in _named_kinds(claim, entry):
            fields = entry.match(kind)
            if fields is None:
                yield f"its {entry.kind} does not name all that such an entry names"
            else:
                named.append(fields)
    if claim.lock.get("path") in claim.transaction.files:
        named.append(claim.lock)
    for fields in named:
        data = claim.transaction.files.get(fields["path"])
        if data is None or durable.sha256(data) != fields["sha256"]:
            yield f"it does not bring {printable(fields['path'])} as its entry names it"
    for entry in claim.own_entries:
        lock = entry.match(entries.LOCK)
        if lock and lock["path"] != claim.paths.plan_lock(claim.phase):
            yield f"{printable(lock['path'])} is not where the lock of phase {claim.phase} belongs"


def _named_kinds(claim: Claim, entry: Entry) -> list[entries.LineFormat]:
    """Return the files that an entry of this kind names and its transaction brings."""
    match entry.kind:
        case EntryKind.VERIFIED:
            return [entries.RECEIPT, entries.VERDICT]
        case EntryKind.FAILED | EntryKind.ERRORED if entry.feature:
            return [entries.ATTEMPT_RECORD]
        case EntryKind.HALTED if entry.match(entries.VERDICT) is None:
            return [entries.REQUEST]
        case EntryKind.HALTED:
            return [entries.REQUEST, entries.VERDICT]
        case EntryKind.FAILED:
            return [entries.VERDICT]
        case EntryKind.LOCKED if entry not in _deciding_entries(claim):
            return [entries.LOCK]
        case EntryKind.LOCKED:
            return [entries.LOCK, entries.RECORD]
        case EntryKind.APPROVED | EntryKind.REJECTED | EntryKind.WAIVED:
            return [entries.RECORD]
    return []


#### what its commit and its documents say


def _expected_trailers(claim: Claim) -> dict[str, str]:
    kind, feature = claim.last.kind, claim.last.feature
    if kind == EntryKind.WAIVED:
        feature = _deciding_entries(claim)[0].feature
    if kind in OUTCOMES and feature:
        return subject_trailers(
            claim.phase, feature, attempt=_attempt(claim), receipt=_receipt_digest(claim)
        )
    return subject_trailers(claim.phase, feature)


def _receipt_digest(claim: Claim) -> str | None:
    """Return the digest of the receipt of an outcome; None where it has none that can be read."""
    receipt = claim.last.match(entries.RECEIPT)
    if receipt:
        return receipt["sha256"]
    named = claim.last.match(entries.ATTEMPT_RECORD) or {}
    try:
        record = AttemptRecord.decode(claim.transaction.files.get(named.get("path", ""), b""))
    except DocumentError:
        return None
    return durable.sha256(record.receipt.encode())
