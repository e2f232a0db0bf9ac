"""show ID: everything about one feature, from the ledger and its committed files.

A stored file is shown only if it is the one that the ledger names; `audit` is what proves.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from phases.base import durable
from phases.base.regular_file import read_regular
from phases.base.text import printable
from phases.plan.schema import Feature, Phase
from phases.record.entries import RECEIPT, VERDICT, format_measurement
from phases.record.ledger import Entry
from phases.record.project import Project, Snapshot
from phases.record.receipt import Receipt
from phases.record.result import RESULT, ReportedMeasurements, reported_measurements
from phases.record.state import FeatureStatus
from phases.record.statement import DocumentError
from phases.record.verdict import ScoredPrediction, Verdict
from phases.views.checkpoint import VerdictDetails, verdict_details
from phases.views.log import entry_sentence, select_entries
from phases.views.status import attempts_text, coverage_fraction, receipt_name
from phases.views.why import find_feature


@dataclass(frozen=True)
class FeatureReport:
    """Everything about one feature."""

    phase: Phase
    feature: Feature
    status: FeatureStatus
    overrides: tuple[str, ...]
    """Sentences of the overrides about the feature or its whole phase."""
    entries: tuple[Entry, ...]
    verdict: VerdictDetails | None
    predictions: tuple[ScoredPrediction, ...]
    measurements: Mapping[str, str]
    """Name -> value, unit and error as text; the headline first."""
    headline: tuple[str, ...]
    """Names of the measurements to read first."""
    files: Mapping[str, str]
    """What is there -> folder, relative to the repository."""
    problem: str | None
    """Why the stored files are not shown."""


def show_feature(project: Project, snapshot: Snapshot, feature_id: str) -> FeatureReport:
    """Return the report of a feature; UsageError if the plan has no such feature."""
    phase, feature = find_feature(project.plan, feature_id)
    phase_status = snapshot.state.phase(phase.id)
    status = phase_status.feature(feature_id)
    overrides = []
    for override in phase_status.overrides:
        if override.feature in (None, feature_id):
            overrides.append(override.sentence)
    feature_entries = select_entries(snapshot.ledger, feature=feature_id)
    stored = _read_stored_results(project, status, feature_entries)
    verdict = None
    predictions: tuple[ScoredPrediction, ...] = ()
    if stored.verdict is not None:
        verdict = verdict_details(stored.verdict)
        predictions = stored.verdict.predicate.predictions
    return FeatureReport(
        phase=phase,
        feature=feature,
        status=status,
        overrides=tuple(overrides),
        entries=tuple(feature_entries),
        verdict=verdict,
        predictions=predictions,
        measurements=_format_measurements(stored.reported),
        headline=tuple(printable(name, 80) for name in stored.reported.headline),
        files=_existing_folders(project, feature_id),
        problem=stored.problem,
    )


#### stored files


@dataclass(frozen=True)
class _StoredResults:
    verdict: Verdict | None
    reported: ReportedMeasurements
    problem: str | None = None


def _read_stored_results(
    project: Project, status: FeatureStatus, feature_entries: Sequence[Entry]
) -> _StoredResults:
    """Return verdict and measurements of the newest verified attempt, or why they are not shown."""
    if status.receipt is None:
        return _StoredResults(None, ReportedMeasurements())
    folder = project.root / project.paths.results(status.id)
    problem = None
    try:
        # 1. The receipt is the one that the ledger names.
        receipt_data = read_regular(folder / "receipt.json")
        if durable.sha256(receipt_data) != status.receipt:
            expected = f"the receipt that the ledger names, sha256 {status.receipt[:12]}…"
            problem = f"{folder / 'receipt.json'} differs from {expected}"
            return _StoredResults(None, ReportedMeasurements(), problem)
        # 2. The result is the one that the receipt names.
        digests = Receipt.decode(receipt_data).digests
        reported = ReportedMeasurements()
        if RESULT in digests:
            result_data = read_regular(folder / RESULT)
            if durable.sha256(result_data) != digests[RESULT]:
                problem = f"{folder / RESULT} differs from what the receipt names"
                return _StoredResults(None, ReportedMeasurements(), problem)
            reported = reported_measurements(result_data)
        # 3. The verdict is the one that the receipt's entry names.
        verdict_data = read_regular(folder / "verdict.json")
        if durable.sha256(verdict_data) != _named_verdict(status, feature_entries):
            problem = f"{folder / 'verdict.json'} differs from the verdict that the ledger names"
            return _StoredResults(None, ReportedMeasurements(), problem)
        verdict = Verdict.decode(verdict_data)
    except FileNotFoundError as error:
        return _StoredResults(None, ReportedMeasurements(), f"{error.filename} is missing")
    except DocumentError as error:
        return _StoredResults(None, ReportedMeasurements(), f"{folder}: {error}")
    return _StoredResults(verdict, reported)


def _named_verdict(status: FeatureStatus, feature_entries: Sequence[Entry]) -> str | None:
    """Return the SHA-256 of the verdict in the entry that names the newest receipt."""
    for entry in reversed(feature_entries):
        receipt = entry.match(RECEIPT)
        if receipt and receipt["sha256"] == status.receipt:
            verdict = entry.match(VERDICT) or {}
            return verdict.get("sha256")
    return None


def _format_measurements(reported: ReportedMeasurements) -> dict[str, str]:
    texts = {}
    for name, measurement in reported.by_name.items():
        texts[printable(name, 80)] = format_measurement(measurement)
    return texts


def _existing_folders(project: Project, feature_id: str) -> dict[str, str]:
    """Return the folders with files of the feature: what is there -> path in the repository."""
    paths = project.paths
    results = project.root / paths.results(feature_id)
    folders = {
        "results": results,
        "attempts": results / "attempts",
        "logs": paths.log(feature_id, 1).parent,
        "outputs that were not verified": paths.quarantine(feature_id, 1).parent,
    }
    existing = {}
    for name, folder in folders.items():
        if folder.is_dir():
            existing[name] = folder.relative_to(project.root).as_posix()
    return existing


#### JSON and text


def feature_report_json(report: FeatureReport) -> dict[str, Any]:
    """Return the object that `show ID --json` prints."""
    entries = [
        {
            "seq": entry.seq,
            "time": entry.time,
            "kind": entry.kind,
            "sentence": entry_sentence(entry),
        }
        for entry in report.entries
    ]
    verdict = None
    if report.verdict is not None:
        verdict = asdict(report.verdict)
    return {
        "id": report.feature.id,
        "title": report.feature.title,
        "phase": report.phase.id,
        "state": report.status.state,
        "attempts": report.status.attempts,
        "started": report.status.started,
        "interruptions": report.status.interruptions,
        "needs": list(report.feature.needs),
        "overrides": list(report.overrides),
        "entries": entries,
        "receipt": receipt_name(report.status),
        "coverage": coverage_fraction(report.status),
        "verdict": verdict,
        "predictions": [prediction.model_dump(mode="json") for prediction in report.predictions],
        "measurements": dict(report.measurements),
        "headline": list(report.headline),
        "files": dict(report.files),
        "problem": report.problem,
    }


def feature_report_text(report: FeatureReport) -> str:
    """Return the report for a reader."""
    # 1. What the plan and the record say.
    feature = report.feature
    lines = [f"{feature.id} {feature.title} · phase {report.phase.id} · {report.status.state}"]
    lines += [f"  override: {printable(sentence, 400)}" for sentence in report.overrides]
    if report.problem:
        lines.append(f"  INVALID: {report.problem}; see python -m phases audit")
    if report.status.interruptions:
        lines.append(f"  {attempts_text(report.status)}")
    if feature.needs:
        lines.append(f"  needs {', '.join(feature.needs)}")
    lines += ["", "entries"]
    for entry in report.entries:
        lines.append(f"  {entry.seq:04d} {entry.time}  {entry_sentence(entry)}")
    if not report.entries:
        lines.append("  none yet")

    # 2. What the stored files say, and where they are.
    lines += _stored_lines(report)
    if report.files:
        lines += ["", "files"]
        lines += [f"  {name}: {folder}/" for name, folder in report.files.items()]
    if report.status.receipt:
        lines.append(f"  receipt {receipt_name(report.status)}")
    return "\n".join(lines)


def _stored_lines(report: FeatureReport) -> list[str]:
    lines = []
    if report.headline:
        lines += ["", "headline"]
        lines += [f"  {name:<32} {report.measurements[name]}" for name in report.headline]
    if report.verdict:
        lines += ["", "verdict", f"  checks: {report.verdict.checks_text}"]
        if report.verdict.claimed:
            lines.append(f"  only claimed: {', '.join(report.verdict.claimed)}")
        lines += [f"  protected by digest only: {item}" for item in report.verdict.digest_only]
        lines += [f"  exempt by the plan: {exemption}" for exemption in report.verdict.exempt]
    if report.predictions:
        lines += ["", "predictions"]
        for prediction in report.predictions:
            scored = f"{prediction.claim}: {prediction.reason}"
            lines.append(f"  {prediction.outcome:<12} {scored}")
    if report.measurements:
        lines += ["", "measurements"]
        lines += [f"  {name:<32} {text}" for name, text in report.measurements.items()]
    return lines
