"""The entry on an attempt, and the commit that recorded it: made again from the documents."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import takewhile

from phases.audit.attempts import Attempt
from phases.audit.findings import Finding
from phases.audit.record import Record
from phases.base.text import printable
from phases.git.record_history import RecordCommit
from phases.record import entries
from phases.record.entries import LineFormat, RecordedFile
from phases.record.ledger import Entry
from phases.record.outcome_lines import attempt_lines, started_lines, verified_lines
from phases.record.result import RESULT, reported_measurements
from phases.record.subjects import outcome_subject
from phases.record.transaction import subject_trailers

SHOWN_LINE = 120  # characters
SHOWN_BEFORE = 60  # of them, before what differs


def check_attempt_entry(record: Record, attempt: Attempt) -> Iterator[Finding]:
    """Yield where the entry says otherwise than its documents, or has another title."""
    outcome = attempt.outcome
    expected = _expected_lines(record, attempt)
    for message in (
        *line_contradictions(outcome.entry, expected),
        *_started_contradictions(attempt),
        *_title_contradictions(attempt),
        *_record_contradictions(attempt),
    ):
        yield outcome.finding("entry-contradicts", message)


def check_attempt_commit(record: Record, attempt: Attempt) -> Iterator[Finding]:
    """Yield where trailers or subject of the commit are not those of the outcome."""
    outcome, verdict = attempt.outcome, attempt.verdict
    trailers = subject_trailers(
        attempt.receipt.parameters.phase,
        outcome.feature,
        attempt=attempt.receipt.parameters.attempt,
        receipt=attempt.receipt_sha256,
    )
    reasons: Sequence[str] = attempt.record.reasons if attempt.record else ()
    subject = outcome_subject(attempt.feature, outcome.entry.kind.lower(), verdict, reasons)
    for message in commit_contradictions(record, outcome.commit, trailers, outcome.txn, subject):
        yield outcome.finding("commit-trailers", message)


def line_contradictions(entry: Entry, expected: Sequence[str]) -> Iterator[str]:
    """Yield the first line in which an entry differs from what its documents give."""
    if entry.lines == tuple(expected):
        return
    for actual, line in zip(entry.lines, expected, strict=False):
        if actual != line:
            got, wanted = _cut(actual, line)
            yield f"the entry says `{got}`; its documents give `{wanted}`"
            return
    count = len(entry.lines) - len(expected)
    if count > 0:
        extra = printable(entry.lines[len(expected)], SHOWN_LINE)
        yield f"the entry says `{extra}`, which its documents do not give"
    else:
        missing = printable(expected[len(entry.lines)], SHOWN_LINE)
        yield f"the entry lacks `{missing}`"


def commit_contradictions(
    record: Record, commit: RecordCommit, trailers: Mapping[str, str], txn: str, subject: str
) -> Iterator[str]:
    """Yield where a commit of the runner's has other trailers or another subject.

    Number and hash of its last entry are compared where all commits are.
    """
    common = ("Phases-Entry", "Phases-Head")
    stated = {name: text for name, text in commit.trailers.items() if name.startswith("Phases-")}
    expected = {**trailers, "Phases-Txn": txn}
    for name in sorted({*stated, *expected} - set(common)):
        if stated.get(name) != expected.get(name):
            got = printable(stated.get(name, "nothing"), SHOWN_LINE)
            wanted = expected.get(name) or "nothing"
            yield f"of {name} the trailers state {got}; expected {wanted}"
    line, *others = record.message(commit.sha).split("\n")
    names = [other.partition(":")[0] for other in others if other.startswith("Phases-")]
    if len(set(names)) != len(names):
        yield "the trailers state something twice"
    if line != subject:
        got, wanted = _cut(line, subject)
        yield f"the commit's subject is `{got}`; expected `{wanted}`"


def _cut(first: str, second: str) -> tuple[str, str]:
    """Return two texts as lines that are short enough, and show where they begin to differ."""
    same = takewhile(lambda pair: pair[0] == pair[1], zip(first, second, strict=False))
    start = len(list(same)) - SHOWN_BEFORE
    if max(len(first), len(second)) <= SHOWN_LINE or start <= 0:
        return printable(first, SHOWN_LINE), printable(second, SHOWN_LINE)
    lines = (printable(f"…{text[start:]}", SHOWN_LINE) for text in (first, second))
    return next(lines), next(lines)


def _expected_lines(record: Record, attempt: Attempt) -> tuple[str, ...]:
    """Return the lines that the documents give, with those that only the entry has."""
    outcome = attempt.outcome
    folder = f"{attempt.plan.results}/{outcome.feature}"
    discarded = _kept_lines(outcome.entry, entries.DISCARDED, entries.SHOWN_DISCARDED + 1)
    if attempt.record is not None:
        # What it measured is not committed.
        has_result = RESULT in attempt.receipt.digests
        measured = _kept_lines(outcome.entry, entries.MEASURED, 1) if has_result else []
        path = f"{folder}/attempts/{attempt.receipt.parameters.attempt}.json"
        named = outcome.entry.match(entries.ATTEMPT_RECORD) or {"sha256": ""}
        return attempt_lines(
            attempt.feature,
            attempt.record,
            measured,
            discarded=discarded,
            record_file=RecordedFile(named["sha256"], path),
        )
    assert attempt.verdict is not None
    result = b""
    if RESULT in attempt.receipt.digests:
        result = record.read(outcome.commit.sha, f"{folder}/{RESULT}") or b""
    verdict_named = outcome.entry.match(entries.VERDICT) or {"sha256": ""}
    return verified_lines(
        attempt.feature,
        attempt.receipt,
        attempt.verdict,
        reported_measurements(result),
        discarded=discarded,
        is_first=outcome.is_first,
        receipt_file=RecordedFile(attempt.receipt_sha256, f"{folder}/receipt.json"),
        verdict_file=RecordedFile(verdict_named["sha256"], f"{folder}/verdict.json"),
    )


def _kept_lines(entry: Entry, line_format: LineFormat, limit: int) -> list[str]:
    """Return an entry's lines of one format, which nothing else says."""
    lines = [line for line in entry.lines if line_format.parse(line)]
    return lines[:limit]


def _started_contradictions(attempt: Attempt) -> Iterator[str]:
    """Yield where STARTED says another attempt, program, seed or profile than the plan gives."""
    started, plan, feature = attempt.outcome.started, attempt.plan, attempt.feature
    if started is None:
        return
    lines = started_lines(
        feature.program,
        attempt=attempt.outcome.number,
        seed=plan.seed_of(feature),
        profile=plan.profile_of(feature),
        sandbox=attempt.receipt.tier,
        head=attempt.outcome.head,
        txn=attempt.outcome.txn,
    )
    for message in line_contradictions(started, lines):
        yield f"entry {started.seq:04d}: {message}"


def _title_contradictions(attempt: Attempt) -> Iterator[str]:
    title = attempt.feature.title
    for entry in (attempt.outcome.started, attempt.outcome.entry):
        if entry is not None and entry.title != title:
            got = printable(entry.title)
            yield f"entry {entry.seq:04d} has the title {got!r}; the plan has {printable(title)!r}"


def _record_contradictions(attempt: Attempt) -> Iterator[str]:
    """Yield where the record of a failed attempt is about another one."""
    document, outcome = attempt.record, attempt.outcome
    if document is None:
        return
    stated = f"attempt {document.attempt} of {document.feature}, {document.state}"
    number, state = attempt.receipt.parameters.attempt, outcome.entry.kind.lower()
    expected = f"attempt {number} of {outcome.feature}, {state}"
    if stated != expected:
        yield f"its record is about {printable(stated)}; expected {expected}"
    if document.verdict is not None and document.reasons != document.verdict.gate.reasons:
        yield "its record has other reasons than its verdict"
    if document.verdict is None and (document.state != "errored" or not document.reasons):
        yield "its record has no verdict and no reason why"
