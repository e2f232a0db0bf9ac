"""The summary that the approver reads before a decision."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from phases.base.paths import is_artifact
from phases.base.regular_file import read_regular
from phases.base.text import format_count, printable
from phases.plan.schema import Phase
from phases.record import entries
from phases.record.entries import format_measurement
from phases.record.ledger import EntryKind
from phases.record.project import Project, Snapshot, load_unverified
from phases.record.receipt import Receipt
from phases.record.result import RESULT, ReportedMeasurements, reported_measurements
from phases.record.sample import SAMPLE_ASSURANCE, is_sample
from phases.record.state import FeatureStatus, PhaseStatus
from phases.record.statement import DocumentError
from phases.record.states import FeatureState
from phases.record.verdict import ScoredPrediction, Verdict
from phases.views.stale import NOTHING_STALE, Stale, find_stale
from phases.views.status import (
    attempts_text,
    coverage_text,
    override_lines,
    phase_heading,
    protection_lines,
    receipt_name,
)


@dataclass(frozen=True)
class VerdictDetails:
    """What of a stored verdict the approver sees."""

    passed: int
    """Checks of the gate that passed."""
    killed: int
    mutants: int
    """Mutants that must be killed."""
    digest_only: tuple[str, ...]
    """What the gate protects by digests alone."""
    exempt: tuple[str, ...]
    """Files whose damage the plan lets the gate overlook, and why."""
    claimed: tuple[str, ...]
    """Measurements that the gate neither recomputes nor bounds."""

    @property
    def checks_text(self) -> str:
        """`3 passed; mutants 6/6 killed`."""
        return f"{self.passed} passed; mutants {self.killed}/{self.mutants} killed"


def verdict_details(verdict: Verdict) -> VerdictDetails:
    """Return what of a stored verdict the approver sees."""
    gate = verdict.gate
    claimed: tuple[str, ...] = ()
    if gate.measurement_coverage is not None:
        claimed = gate.measurement_coverage.claimed
    return VerdictDetails(
        passed=len(verdict.predicate.passed_tests),
        killed=sum(mutant.killed for mutant in gate.required_mutants),
        mutants=len(gate.required_mutants),
        digest_only=gate.digest_only,
        exempt=tuple(map(str, gate.exempt)),
        claimed=claimed,
    )


@dataclass(frozen=True)
class StoredFeature:
    """What the stored files of a feature say."""

    details: VerdictDetails | None = None
    predictions: tuple[ScoredPrediction, ...] = ()
    reported: ReportedMeasurements = field(default_factory=ReportedMeasurements)
    pages: tuple[str, ...] = ()
    """Markdown files below the feature's results, such as its report."""
    images: tuple[str, ...] = ()


def checkpoint_summary(project: Project, phase: Phase) -> str:
    """Return the summary of a phase, with the verdicts that are stored in the work tree."""
    # Unverified: the decision itself reads the record again and verifies it.
    snapshot = load_unverified(project)
    status = snapshot.state.phase(phase.id)
    stored = {}
    for feature in status.features:
        if feature.state == FeatureState.VERIFIED:
            stored[feature.id] = _read_stored(project, feature.id)
    stale = find_stale(project, snapshot)
    text = checkpoint_text(
        status, stored, project.plan.results, stale=stale, pulled=_pulled_lines(snapshot)
    )
    if is_sample(project.plan, snapshot.ledger):
        text = f"{SAMPLE_ASSURANCE}\n{text}"
    return text


def _pulled_lines(snapshot: Snapshot) -> list[str]:
    """Return which entries since the last approval changed machines, and where that is recorded."""
    lines: list[str] = []
    for entry in snapshot.ledger.entries:
        line = entry.match(entries.PULLED)
        if entry.kind == EntryKind.APPROVED:
            lines = []
        elif entry.kind == EntryKind.PULLED and line:
            numbers, commit = f"{line['first']} to {line['last']}", line["commit"][:12]
            lines.append(f"  entries {numbers}, up to commit {commit} (entry {entry.seq:04d})")
    pulled = snapshot.reconciled.pulled
    if pulled:
        numbers = f"{pulled.first:04d} to {pulled.last:04d}"
        lines.append(f"  entries {numbers}; this decision takes them over")
    if lines:
        lines = ["", "recorded elsewhere:", *lines]
    return lines


def _read_stored(project: Project, feature_id: str) -> StoredFeature:
    """Read what the summary shows of a feature; what cannot be read is left out.

    A decision refuses results that differ from the commit, so nothing false can be approved.
    """
    folder = project.root / project.paths.results(feature_id)
    details = None
    predictions: tuple[ScoredPrediction, ...] = ()
    reported = ReportedMeasurements()
    with contextlib.suppress(FileNotFoundError, DocumentError):
        verdict = Verdict.decode(read_regular(folder / "verdict.json"))
        details = verdict_details(verdict)
        predictions = verdict.predicate.predictions
    with contextlib.suppress(FileNotFoundError):
        reported = reported_measurements(read_regular(folder / RESULT))
    # Only what the receipt names: any other file beside it is no result.
    outputs: list[str] = []
    with contextlib.suppress(FileNotFoundError, DocumentError):
        outputs = sorted(Receipt.decode(read_regular(folder / "receipt.json")).digests)
    pages = [name for name in outputs if name.endswith(".md") and "/" not in name]
    images = [name for name in outputs if name.endswith(".png") and not is_artifact(name)]
    return StoredFeature(
        details=details,
        predictions=predictions,
        reported=reported,
        pages=tuple(pages),
        images=tuple(images),
    )


def checkpoint_text(
    status: PhaseStatus,
    stored: Mapping[str, StoredFeature],
    results: str,
    *,
    stale: Stale = NOTHING_STALE,
    pulled: Sequence[str] = (),
) -> str:
    """Return the summary of a phase. Pure.

    Args:
        status: the phase as the ledger has it.
        stored: feature id -> what its stored files say.
        results: the folder of the results.
        stale: feature id -> what changed since it was verified.
        pulled: lines that say which entries another machine recorded.
    """
    lines = [phase_heading(status), *override_lines(status.overrides)]
    lines += [*_retry_lines(status), *pulled, ""]
    for feature in status.features:
        changes = stale.get(feature.id, ())
        stored_feature = stored.get(feature.id, StoredFeature())
        lines += _feature_lines(feature, stored_feature, results, changes)
    if status.request:
        lines += ["", f"review request sha256:{status.request}"]
    return "\n".join(printable(line, 400) for line in lines)


def _retry_lines(status: PhaseStatus) -> list[str]:
    """Return what took more than one attempt: the approver sees what was tried until it passed."""
    lines = []
    for feature in status.features:
        if feature.started > 1 or feature.interruptions:
            lines.append(f"  {feature.id}: {attempts_text(feature)}")
    if status.exit_attempts:
        lines.append(f"  exit gates: failed {format_count(status.exit_attempts, 'time')}")
    if lines:
        lines = ["", "tried more than once:", *lines]
    return lines


def _protection_lines(feature: FeatureStatus, details: VerdictDetails | None) -> list[str]:
    """Return what nobody judged: all of it, as the verdict has it, where the entry is cut short."""
    if details is None:
        return protection_lines(feature)
    return protection_lines(
        replace(feature, digest_only=details.digest_only, exempt=details.exempt)
    )


def _feature_lines(
    feature: FeatureStatus, stored: StoredFeature, results: str, changes: Sequence[str]
) -> list[str]:
    details = stored.details
    folder = f"{results}/{feature.id}"

    # 1. What is stale; what was measured, most important first, and where to read more.
    lines = [f"{feature.id} {feature.title}: {feature.state}, attempt {feature.started}"]
    lines += [f"    stale: {change}" for change in changes]
    for name in stored.reported.shown_names:
        lines.append(f"    {name} {format_measurement(stored.reported.by_name[name])}")
    lines += [f"    read {folder}/{page}" for page in stored.pages]
    if stored.images:
        count = format_count(len(stored.images), "figure")
        lines.append(f"    see {count}, the first is {folder}/{stored.images[0]}")

    # 2. Predictions: the measured value against the claim.
    for prediction in stored.predictions:
        lines.append(f"    prediction {prediction.outcome}: {prediction.claim}")
        lines.append(f"        {prediction.reason}")

    # 3. What the gate judged, and before it what it did not have to.
    lines += [f"    {line}" for line in _protection_lines(feature, details)]
    if details:
        lines.append(f"    checks: {details.checks_text}")
    coverage = coverage_text(feature)
    if coverage and details and details.claimed:
        coverage += f"; only claimed: {', '.join(details.claimed)}"
    if coverage:
        lines.append(f"    {coverage}")

    # 4. The receipt, which names everything else by digest.
    if feature.receipt and feature.state == FeatureState.VERIFIED:
        lines.append(f"    receipt {receipt_name(feature)}  {folder}/receipt.json")
    return lines
