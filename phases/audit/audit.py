"""audit: replay the whole record offline and list everything that is invalid.

`CHECKS` is the list. Each check gets the record, which was read once, and yields findings and what
it could not cover; none depends on what another one found. It changes no record.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from phases.audit.attempt_entries import check_attempt_commit, check_attempt_entry
from phases.audit.attempts import Attempt, read_attempt, read_outcomes
from phases.audit.commits import (
    check_commits,
    check_genesis,
    check_sample,
    check_uncommitted_outcomes,
    read_versions,
    recording_commits,
    set_outcomes_aside,
)
from phases.audit.decisions import (
    check_decision_entries,
    check_decisions,
    check_interruptions,
    check_own_lines,
    check_pulled,
    check_unrecorded_decisions,
)
from phases.audit.files import (
    check_artifacts,
    check_contents,
    check_named_files,
    check_newest_files,
    check_outputs,
    check_published,
)
from phases.audit.findings import Finding, Report, Uncovered
from phases.audit.locks import check_approved_phases, check_plan_locks
from phases.audit.receipts import check_receipt
from phases.audit.record import Record
from phases.audit.requests import check_halts
from phases.audit.unrecorded import check_unrecorded
from phases.audit.verdicts import check_verdict
from phases.base.text import format_count, printable
from phases.errors import IntegrityError
from phases.git.checks import clone_problems, read_repository_state
from phases.git.objects import ObjectReader, open_objects
from phases.record import entries
from phases.record.at_rest import MOVED, read_at_rest
from phases.record.completion import pending_errors
from phases.record.pending import read_pending
from phases.record.project import (
    Project,
    find_anchor_problems,
    reconcile_project,
    rewound_error,
    take_snapshot,
)
from phases.record.sample import is_sample

Findings = Iterator[Finding | Uncovered]
Check = Callable[[Record], Findings]
AttemptCheck = Callable[[Record, Attempt], Iterator[Finding]]


def audit_at_rest(project: Project) -> Report:
    """Return the report of `audit` while a runner may be at work."""

    def read(current: Project) -> tuple[Report, bool]:
        report = audit(current)
        return report, bool(report.findings)

    report, has_moved = read_at_rest(project, read)
    if has_moved:
        report.uncovered.append(Uncovered("record-moved", MOVED))
    return report


def audit(project: Project) -> Report:
    """Return the report on the whole record; raise only where the repository cannot be read."""
    # What is not here at all cannot be audited.
    for problem in clone_problems(read_repository_state(project.root, sign=False)):
        raise problem
    report = Report()
    with open_objects(project.root) as objects:
        record = read_record(project, objects)
        for check in CHECKS:
            try:
                for item in check(record):
                    report.add(item)
            except IntegrityError as error:  # the other checks go on
                report.add(Finding(error.code, str(error)))
        report.checked = record.checked
        if is_sample(project.plan, record.ledger):
            report.assurance = entries.SAMPLE_RUN
    return report


def read_record(project: Project, objects: ObjectReader) -> Record:
    """Return the record: what is prepared first, then ledger, history, and who recorded what."""
    repo = project.repo()
    pending = read_pending(project.paths)
    snapshot = take_snapshot(project, reconcile_project(project, repo))
    record = Record(project, repo, snapshot, objects, pending)
    record.versions = read_versions(record)
    recorded_by = recording_commits(record.versions)
    record.commits, record.set_aside = set_outcomes_aside(record, recorded_by)
    record.checked["entries"] = len(record.ledger.entries)
    return record


#### the ledger's anchors


def check_anchors(record: Record) -> Iterator[Finding]:
    """Yield what is wrong with progress.txt, its journal, HEAD's version and the runner's ref."""
    project, snapshot = record.project, record.snapshot
    if project.probe.is_rewound:
        error = rewound_error(project)
        yield Finding(error.code, str(error))
    problems = snapshot.reconciled.problems
    if not problems and not project.probe.is_rewound:
        problems = find_anchor_problems(project, snapshot)
    for problem in problems:
        if problem.code not in ("ledger-rewritten", "ledger-deleted"):  # found at the commits
            yield Finding(problem.code, problem.message, problem.entry)


def check_prepared(record: Record) -> Iterator[Finding]:
    """Yield what is prepared and was not, or not so, prepared by this runner."""
    errors = pending_errors(record.project, record.repo, record.ledger, record.pending)
    for error in errors:
        yield Finding(error.code, str(error))


def list_uncovered(record: Record) -> Iterator[Uncovered]:
    """Yield what this machine has not recorded itself, not completely, or not committed yet."""
    reconciled = record.snapshot.reconciled
    pulled = reconciled.pulled
    if not reconciled.has_journal and record.ledger.entries:
        message = "a clone has no journal: a cut at the end that was committed cannot be seen here"
        yield Uncovered("no-journal", message)
    elif pulled:
        message = f"{pulled.text}; the next run or decision takes this over"
        yield Uncovered("pulled", message)
    if reconciled.restored:
        missing = format_count(reconciled.restored, "entry", "entries")
        message = f"progress.txt lacks {missing}, which the journal has"
        yield Uncovered("uncommitted-end", f"{message}: the next run restores what is missing")
    last = max((*record.commits, *record.set_aside), default=0)
    count = len(record.ledger.entries) - last
    if count > 0:
        newest = format_count(count, "entry", "entries")
        message = f"no commit of the runner's has the {newest} after entry {last:04d} yet"
        yield Uncovered("uncommitted-entries", message)


#### attempts, one at a time


def check_attempts(record: Record) -> Iterator[Finding]:
    """Yield what is wrong with the attempts; keep of each what later checks are about."""
    for outcome in read_outcomes(record):
        attempt, findings = read_attempt(record, outcome)
        yield from findings
        if attempt is None:
            continue
        _keep(record, attempt)
        for check in ATTEMPT_CHECKS:
            yield from check(record, attempt)


def _keep(record: Record, attempt: Attempt) -> None:
    """Keep the outputs of a verified attempt: its documents are dropped."""
    if attempt.verdict is None or not attempt.is_verified:
        return
    record.checked["receipts"] += 1
    record.outputs[attempt.receipt_sha256] = attempt.receipt.digests
    record.published[attempt.receipt_sha256] = tuple(attempt.feature.publish.values())
    coverage = attempt.verdict.gate.measurement_coverage
    if coverage and (coverage.recomputed or coverage.bounded or coverage.claimed):
        record.measured.add(attempt.receipt_sha256)


def check_objects(record: Record) -> Iterator[Finding]:
    """Yield the objects that are damaged or missing."""
    for name in dict.fromkeys(record.objects.damaged):
        yield Finding("git-object", f"git cannot read {printable(name)}: it is damaged or missing")


ATTEMPT_CHECKS: tuple[AttemptCheck, ...] = (
    check_receipt,
    check_verdict,
    check_outputs,
    check_attempt_entry,
    check_attempt_commit,
)

CHECKS: tuple[Check, ...] = (
    check_anchors,
    check_prepared,
    list_uncovered,
    check_commits,
    check_uncommitted_outcomes,
    check_genesis,
    check_sample,
    check_own_lines,
    check_interruptions,
    check_attempts,
    check_plan_locks,
    check_named_files,
    check_contents,
    check_halts,
    check_unrecorded_decisions,
    check_decisions,
    check_decision_entries,
    check_pulled,
    check_newest_files,
    check_published,
    check_artifacts,
    check_approved_phases,
    check_unrecorded,
    check_objects,
)
