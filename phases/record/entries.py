"""The vocabulary of progress.txt: every line that an entry may hold, written and read by one table.

A `LineFormat` is a template and the pattern of each of its fields; `format` writes a line, `parse`
reads it back. So no other file needs a regular expression to read the ledger. Text of an experiment
appears only behind a fixed first word (`measured`, `failing`, `reason`): no measurement's name or
message can be read as a field that the runner states.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from phases.base.text import printable
from phases.record.result import ReportedMeasurements

BINARY_UNITS = {"GiB": 1 << 30, "MiB": 1 << 20, "KiB": 1 << 10}
SHOWN_FAILING = 3
SHOWN_DISCARDED = 5
SHOWN_REASONS = 5
SHOWN_DIGEST_ONLY = 20

SAMPLE_REASON = "sample run, approved by no human"
SAMPLE_RUN = f"scripted ({SAMPLE_REASON})"
"""The assurance of a sample run."""

_COMMIT = r"[0-9a-f]{40,64}"
_COUNT = r"[0-9]{1,12}"  # `int` fails on thousands of digits
_SHA256 = r"[0-9a-f]{64}"
_TEXT = r".+"
_WORD = r"\S+"


class LineFormat:
    """One kind of line: `LineFormat("lock sha256:{sha256} {path}", sha256=..., path=...)`."""

    def __init__(self, template: str, **fields: str):
        self._template = template
        self._fields = fields

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        """The template as a pattern; compiled when needed, since `status` must start quickly."""
        pattern = re.escape(self._template)
        for name, field_pattern in self._fields.items():
            pattern = pattern.replace(re.escape(f"{{{name}}}"), f"(?P<{name}>{field_pattern})")
        return re.compile(pattern)

    def format(self, **fields: object) -> str:
        """Return the line with these values."""
        return self._template.format(**fields)

    def parse(self, line: str) -> dict[str, str] | None:
        """Return the values of a line, or None where it is of another kind."""
        match = self._pattern.fullmatch(line)
        return match.groupdict() if match else None


def _file_line(word: str) -> LineFormat:
    # A path may hold spaces: a line that is not read back would void the lock that it names.
    return LineFormat(f"{word} sha256:{{sha256}} {{path}}", sha256=_SHA256, path=_TEXT)


#### the table

# GENESIS: the project and the history that the ledger is bound to; of a sample run also that.
PROJECT = LineFormat("project {name}", name=_TEXT)
ROOT = LineFormat("root {commit}", commit=_COMMIT)
SAMPLE = LineFormat("assurance: scripted ({reason})", reason=SAMPLE_REASON)

# Files that an entry names by digest.
LOCK = _file_line("lock")
RECEIPT = _file_line("receipt")
VERDICT = _file_line("verdict")
ATTEMPT_RECORD = _file_line("attempt-record")
REQUEST = _file_line("request")
RECORD = _file_line("record")
QUARANTINED = LineFormat("quarantined sha256:{sha256}", sha256=_SHA256)

# LOCKED: what the plan asks of an approval.
APPROVAL = LineFormat("approval {assurance}", assurance=_WORD)
APPROVER = LineFormat("approver {who}", who=_WORD)

# Commits: HEAD when the entry was written, and the checkpoint that a decision is about.
HEAD = LineFormat("head {commit}", commit=_COMMIT)
CHECKPOINT = LineFormat("checkpoint {commit}", commit=_COMMIT)

# STARTED: what is about to run.
STARTED = LineFormat(
    "attempt {attempt}, {what}, seed {seed}, profile {profile}, sandbox {sandbox}",
    attempt=_COUNT,
    what=_TEXT,
    seed=_COUNT,
    profile=_WORD,
    sandbox=_WORD,
)
TRANSACTION = LineFormat("txn {txn}", txn=r"[0-9a-f]+")

# VERIFIED, FAILED, ERRORED: what ran, what it measured, and what its gate found.
RAN = LineFormat(
    "ran {what} for {seconds} s: "
    "attempt {attempt}, seed {seed}, profile {profile}, sandbox {sandbox}",
    what=_TEXT,
    seconds=_COUNT,
    attempt=_COUNT,
    seed=_COUNT,
    profile=_WORD,
    sandbox=_WORD,
)
# What the experiment changed in its copy of the commit; the copy is gone.
DISCARDED = LineFormat("discarded from its copy: {text}", text=_TEXT)
MEASURED = LineFormat("measured {text}", text=_TEXT)
PREDICTIONS = LineFormat("predictions: {counts}", counts=_TEXT)
GATE = LineFormat(
    "gate {name}: {passed} passed, {failed} failed", name=_TEXT, passed=_COUNT, failed=_COUNT
)
MEASUREMENT_COVERAGE = LineFormat(
    "measurement coverage {recomputed} + {bounded} of {total}",
    recomputed=_COUNT,
    bounded=_COUNT,
    total=_COUNT,
)
MUTANTS = LineFormat("mutants {killed}/{total} killed", killed=_COUNT, total=_COUNT)
DIGEST_ONLY = LineFormat("protected by digest only: {text}", text=_TEXT)
EXEMPT = LineFormat("exempt by the plan: {exemption}", exemption=_TEXT)
FAILING = LineFormat("failing {text}", text=_TEXT)
REASON = LineFormat("reason {text}", text=_TEXT)

# HALTED: what waits for the approver.
FEATURES = LineFormat("features: {counts}", counts=_TEXT)
NEXT = LineFormat("next: {command}", command=_TEXT)

# Decisions: who decided, and what follows from it.
DECIDED_BY = LineFormat("by {who}, assurance {assurance}", who=_TEXT, assurance=_WORD)
RELOCKED_BY = LineFormat("relocked by {who}, assurance {assurance}", who=_TEXT, assurance=_WORD)
PREVIOUS_STATE = LineFormat("previous state: {text}", text=_TEXT)
RESET = LineFormat("reset: {feature}", feature=_WORD)

# PULLED: what another machine recorded, and what this one had begun in the meantime.
PULLED = LineFormat(
    "entries {first} to {last} were recorded elsewhere, up to commit {commit}",
    first=_COUNT,
    last=_COUNT,
    commit=_COMMIT,
)
SET_ASIDE = LineFormat(
    "set aside {count} entries of this machine that no commit had: sha256:{sha256}",
    count=_COUNT,
    sha256=_SHA256,
)

# LOST: a decision that no commit had and that nothing can complete any more.
LOST = LineFormat("lost: {kind} of entry {entry}; it counts for nothing", kind=_WORD, entry=_COUNT)

FOR_READERS = (
    MEASURED,
    PREDICTIONS,
    GATE,
    MEASUREMENT_COVERAGE,
    MUTANTS,
    DIGEST_ONLY,
    EXEMPT,
    DISCARDED,
    FAILING,
    REASON,
    PREVIOUS_STATE,
    FEATURES,
    RESET,
    PULLED,
    SET_ASIDE,
    LOST,
)
"""Lines that tell a reader what happened; the others are digests, commits and transactions."""


@dataclass(frozen=True)
class RecordedFile:
    """A committed file by digest."""

    sha256: str
    path: str

    def line(self, kind: LineFormat) -> str:
        """Return `receipt sha256:… lab/results/FEAT-001/receipt.json`."""
        return kind.format(sha256=self.sha256, path=self.path)


#### lines of one entry


def genesis_lines(project: str, root_commit: str, *, sample: bool) -> tuple[str, ...]:
    """Return the lines that bind the ledger to a project, a history and its kind of approval."""
    lines = [PROJECT.format(name=printable(project)), ROOT.format(commit=root_commit)]
    if sample:
        lines.append(SAMPLE.format(reason=SAMPLE_REASON))
    return tuple(lines)


def locked_lines(
    lock: RecordedFile,
    head: str,
    reset: Sequence[str] = (),
    decision: Sequence[str] = (),
    *,
    approval: Sequence[str],
) -> tuple[str, ...]:
    """Return what may not change now on; after a relock also who decided and what is reset."""
    head_line = HEAD.format(commit=head)
    return (*decision, lock.line(LOCK), *approval, head_line, *reset_lines(reset))


def approval_lines(*, signed: bool, by_another: bool, scripted: bool) -> tuple[str, ...]:
    """Return what the plan of a lock asks of an approval."""
    assurance = "presence"
    if scripted:
        assurance = "scripted"
    if signed:
        assurance = "signed"
    lines = [APPROVAL.format(assurance=assurance)]
    if by_another:
        lines.append(APPROVER.format(who="another-user"))
    return tuple(lines)


def reset_lines(features: Sequence[str]) -> tuple[str, ...]:
    """Return one line per feature that becomes pending."""
    return tuple(RESET.format(feature=feature) for feature in features)


def measured_lines(reported: ReportedMeasurements) -> tuple[str, ...]:
    """Return the headline measurements, or the first ones if there is no headline.

    () if there are no measurements.
    """
    names = reported.shown_names
    if not names:
        return ()
    parts = []
    for name in names:
        parts.append(f"{printable(name, 60)} {format_measurement(reported.by_name[name])}")
    hidden = len(reported.by_name) - len(parts)
    if hidden > 0:
        parts.append(f"{hidden} more")
    return (_worker_line(MEASURED, " · ".join(parts), limit=500),)


def prediction_lines(outcomes: Sequence[str]) -> tuple[str, ...]:
    """Return `predictions: 2 held, 1 missed`; nothing where none were written."""
    counts = []
    for outcome in ("HELD", "MISSED", "INCONCLUSIVE"):
        count = outcomes.count(outcome)
        if count:
            counts.append(f"{count} {outcome.lower()}")
    if not counts:
        return ()
    return (PREDICTIONS.format(counts=", ".join(counts)),)


@dataclass(frozen=True)
class GateSummary:
    """What an entry says of a judgement, in numbers."""

    name: str
    passed: int
    failed: int
    coverage: tuple[int, int, int] | None
    """Measurements (recomputed, bounded, all); None where there are none."""
    killed: int
    mutants: int
    """Those that must be killed."""
    digest_only: tuple[str, ...] = ()
    exempt: tuple[str, ...] = ()
    """`FILES: REASON` each."""

    @property
    def lines(self) -> tuple[str, ...]:
        """The lines of an entry."""
        name = printable(self.name, 120)
        lines = [GATE.format(name=name, passed=self.passed, failed=self.failed)]
        if self.coverage is not None:
            recomputed, bounded, total = self.coverage
            lines.append(
                MEASUREMENT_COVERAGE.format(recomputed=recomputed, bounded=bounded, total=total)
            )
        if self.mutants:
            lines.append(MUTANTS.format(killed=self.killed, total=self.mutants))
        lines += _limited_lines(DIGEST_ONLY, self.digest_only, SHOWN_DIGEST_ONLY)
        for exemption in self.exempt:
            lines.append(EXEMPT.format(exemption=printable(exemption, 400)))
        return tuple(lines)


def discarded_lines(changes: Sequence[str]) -> tuple[str, ...]:
    """Return one line per file that an experiment changed in its copy, at most five."""
    return _limited_lines(DISCARDED, changes, SHOWN_DISCARDED)


def failing_lines(checks: Sequence[tuple[str, str]]) -> tuple[str, ...]:
    """Return one line per failed check (id, message), at most three."""
    texts = [f"{name}: {message}" for name, message in checks]
    return _limited_lines(FAILING, texts, SHOWN_FAILING)


def reason_lines(reasons: Sequence[str]) -> tuple[str, ...]:
    """Return one line per reason, at most five."""
    return _limited_lines(REASON, reasons, SHOWN_REASONS)


def _limited_lines(kind: LineFormat, texts: Sequence[str], limit: int) -> tuple[str, ...]:
    lines = [_worker_line(kind, text) for text in texts[:limit]]
    hidden = len(texts) - limit
    if hidden > 0:
        lines.append(kind.format(text=f"… and {hidden} more"))
    return tuple(lines)


def _worker_line(kind: LineFormat, text: str, limit: int = 300) -> str:
    # A line of an entry has no whitespace at its end, and a worker's text may be empty.
    return kind.format(text=printable(text, limit).strip() or "(no text)")


#### numbers for readers


def format_measurement(measurement: Mapping[str, Any]) -> str:
    """Return a measurement for a reader: `2.31 ± 0.02 nats (n=3)`, `1.36 GiB`."""
    value = measurement.get("value")
    stderr = measurement.get("stderr")
    unit = measurement.get("unit")
    if unit == "bytes":
        return format_bytes(value)
    text = format_value(value)
    if stderr is not None:
        text += f" ± {format_value(stderr, digits=2)}"
    if unit:
        text += f" {printable(str(unit), 40)}"
    if measurement.get("n"):
        text += f" (n={measurement['n']})"
    return text


def format_bytes(value: Any) -> str:
    """Return a number of bytes as `512 bytes`, `1.36 GiB` (IEC 80000-13)."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        for unit, size in BINARY_UNITS.items():
            if abs(value) >= size:
                return f"{value / size:,.4g} {unit}"
    return f"{format_value(value)} bytes"


def format_value(value: Any, digits: int = 4) -> str:
    """Return a value in few characters."""
    if value is None:
        return "none"
    if value is True:
        return "yes"
    if value is False:
        return "no"
    if isinstance(value, float) and math.isfinite(value):
        return f"{value:.{digits}g}"
    return printable(str(value), 40)
