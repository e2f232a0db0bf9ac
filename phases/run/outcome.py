"""What the record holds of an attempt: the entry's lines, the commit, its documents and files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from phases import __version__
from phases.base import durable
from phases.base.paths import Paths, is_artifact
from phases.base.text import printable
from phases.errors import IntegrityError
from phases.execution.command_line import command_line
from phases.judge.predictions import score_all
from phases.judge.verdict import verdict_of
from phases.record import entries
from phases.record.entries import RecordedFile
from phases.record.ledger import EntryKind
from phases.record.outcome_lines import (
    attempt_lines,
    verified_lines,
    whole_seconds,
)
from phases.record.project import Snapshot
from phases.record.receipt import (
    BuildDefinition,
    Builder,
    ExternalParameters,
    InternalParameters,
    Metadata,
    Provenance,
    Receipt,
    RunDetails,
    SandboxReport,
    describe_host,
    list_packages,
)
from phases.record.result import RESULT, ReportedMeasurements, reported_measurements
from phases.record.statement import ResourceDescriptor, file_subjects
from phases.record.states import FeatureState
from phases.record.subjects import outcome_subject
from phases.record.transaction import subject_trailers
from phases.record.verdict import AttemptRecord, ScoredPrediction, Verdict
from phases.run.attempt import AttemptResult, AttemptSpec
from phases.run.quarantine import quarantine
from phases.run.results import FeatureResult, count_checks

LOG_LINES = 20
"""Lines of a failed attempt's log that are committed with it."""
LOG_TAIL = 8000  # bytes of the log that these lines are taken from
READ_ONLY = 0o444


@dataclass(frozen=True)
class Outcome:
    """What is recorded of an attempt, and what its run tells of it."""

    kind: EntryKind
    message: str
    """The commit's subject."""
    trailers: Mapping[str, str]
    files: Mapping[str, bytes]
    removed: tuple[str, ...]
    result: FeatureResult


@dataclass(frozen=True)
class _RecordedFiles:
    """Files of an outcome: what is committed, and what is removed."""

    files: dict[str, bytes]
    removed: tuple[str, ...]
    named: tuple[RecordedFile, ...]
    """Those that the entry names."""


def record_of(spec: AttemptSpec, result: AttemptResult, snapshot: Snapshot) -> Outcome:
    """Return what is recorded of an attempt; artifacts are stored, failed outputs quarantined."""
    is_verified = result.state == FeatureState.VERIFIED

    # 1. Predictions are scored once the gate has passed.
    reported = ReportedMeasurements()
    if RESULT in result.outputs:
        reported = reported_measurements((spec.out / RESULT).read_bytes())
    predictions = []
    if is_verified:
        predictions = score_all(spec.feature, reported.by_name)

    # 2. Documents.
    receipt = _receipt(spec, result)
    verdict = _verdict(spec, result, predictions)
    receipt_data = receipt.encode()
    receipt_sha256 = durable.sha256(receipt_data)

    # 3. Files, and the entry's lines.
    discarded = entries.discarded_lines(result.discarded)
    if is_verified and verdict is not None:
        recorded = _result_files(spec, result, receipt_data, verdict.encode())
        is_first = snapshot.state.phase(spec.phase.id).feature(spec.feature.id).receipt is None
        lines = verified_lines(
            spec.feature,
            receipt,
            verdict,
            reported,
            discarded=discarded,
            is_first=is_first,
            receipt_file=recorded.named[0],
            verdict_file=recorded.named[1],
        )
    else:
        record = _attempt_record(spec, result, receipt, verdict)
        recorded = _attempt_files(spec, record)
        quarantine(spec)
        lines = attempt_lines(
            spec.feature,
            record,
            entries.measured_lines(reported),
            discarded=discarded,
            record_file=recorded.named[0],
        )
    passed, failing = count_checks(result.judgement)
    return Outcome(
        kind=EntryKind(result.state.upper()),
        message=outcome_subject(spec.feature, result.state, verdict, result.reasons),
        trailers=subject_trailers(
            spec.phase.id, spec.feature.id, attempt=spec.number, receipt=receipt_sha256
        ),
        files=recorded.files,
        removed=recorded.removed,
        result=FeatureResult(
            id=spec.feature.id,
            state=result.state,
            seconds=whole_seconds(result.process.seconds),
            lines=lines,
            passed=passed,
            failing=failing,
            receipt=receipt_sha256 if is_verified else None,
            timed_out=result.process.timed_out,
        ),
    )


#### the documents


def _receipt(spec: AttemptSpec, result: AttemptResult) -> Receipt:
    sandbox = spec.workspace.sandbox
    definition = BuildDefinition(
        external_parameters=ExternalParameters(
            phase=spec.phase.id,
            feature=spec.feature.id,
            attempt=spec.number,
            argv=command_line(spec.feature, spec.profile, spec.seed),
            profile=spec.profile,
            seed=spec.seed,
        ),
        internal_parameters=InternalParameters(
            sandbox=SandboxReport(tier=sandbox.tier, probes=dict(sandbox.probes)),
            env=tuple(sorted(spec.workspace.env)),
        ),
        resolved_dependencies=tuple(
            ResourceDescriptor(uri=uri, digest=dict(digest))
            for uri, digest in sorted(spec.materials.items())
        ),
    )
    details = RunDetails(
        builder=Builder(id=f"phases/{sandbox.tier}", version={"phases": __version__}),
        metadata=Metadata(
            invocation_id=spec.txn,
            started_on=result.started_on,
            finished_on=result.finished_on,
        ),
        byproducts=_byproducts(spec, result),
    )
    return Receipt(
        subject=file_subjects(result.digests),
        predicate=Provenance(build_definition=definition, run_details=details),
    )


def _byproducts(spec: AttemptSpec, result: AttemptResult) -> tuple[ResourceDescriptor, ...]:
    process = result.process
    log = ResourceDescriptor(
        name="log",
        digest={"sha256": durable.sha256(_read_log(spec))},
        annotations={"bytes": process.log_bytes, "truncated": process.log_truncated},
    )
    usage = ResourceDescriptor(
        name="process",
        content={
            "exitCode": process.exit_code,
            "seconds": round(process.seconds, 3),
            "cpuSeconds": round(process.cpu_seconds, 3),
            "peakMemoryBytes": process.peak_memory_bytes,
        },
    )
    host = ResourceDescriptor(name="host", content=describe_host())
    packages = ResourceDescriptor(name="packages", content=dict(list_packages()))
    return (log, usage, host, packages)


def _verdict(
    spec: AttemptSpec, result: AttemptResult, predictions: Sequence[ScoredPrediction]
) -> Verdict | None:
    if result.judgement is None:
        return None
    gate = spec.feature.gate.name
    digest = dict(spec.materials.get(gate, {}))  # a shell gate has no file and so no digest
    return verdict_of(
        result.judgement,
        outputs=result.digests,
        configuration=[ResourceDescriptor(name=gate, digest=digest)],
        predictions=predictions,
    )


#### the files


def _result_files(
    spec: AttemptSpec, result: AttemptResult, receipt: bytes, verdict: bytes
) -> _RecordedFiles:
    """Return the files of a verified attempt; artifacts go to the store."""
    paths = spec.project.paths
    folder = paths.results(spec.feature.id)

    # 1. Outputs: artifacts are stored by digest, the rest is committed.
    files: dict[str, bytes] = {}
    for path, output in result.outputs.items():
        source = spec.out / path
        if is_artifact(path):
            _store_artifact(paths, source, output.sha256)
        else:
            files[f"{folder}/{path}"] = _read_exactly(source, output.sha256)
    for path, target in spec.feature.publish.items():
        files[target] = _read_exactly(spec.out / path, result.outputs[path].sha256)

    # 2. Documents.
    receipt_file = RecordedFile(durable.sha256(receipt), f"{folder}/receipt.json")
    verdict_file = RecordedFile(durable.sha256(verdict), f"{folder}/verdict.json")
    files[receipt_file.path] = receipt
    files[verdict_file.path] = verdict

    # 3. Outputs of the attempt before that this one did not write are removed.
    removed = []
    for old in sorted((paths.root / folder).rglob("*")):
        name = old.relative_to(paths.root).as_posix()
        is_attempt_record = name.startswith(f"{folder}/attempts/")
        if old.is_file() and name not in files and not is_attempt_record:
            removed.append(name)
    return _RecordedFiles(files, tuple(removed), (receipt_file, verdict_file))


def _attempt_record(
    spec: AttemptSpec, result: AttemptResult, receipt: Receipt, verdict: Verdict | None
) -> AttemptRecord:
    """Return what a failed attempt leaves in the repository: its documents and its log's tail."""
    tail = _read_log(spec)[-LOG_TAIL:].decode("utf-8", "replace").splitlines()[-LOG_LINES:]
    return AttemptRecord(
        feature=spec.feature.id,
        attempt=spec.number,
        state=result.state,
        reasons=tuple(result.reasons),
        receipt=receipt,
        verdict=verdict,
        log_tail=tuple(printable(line, 500) for line in tail),
    )


def _attempt_files(spec: AttemptSpec, record: AttemptRecord) -> _RecordedFiles:
    data = record.encode()
    path = f"{spec.project.paths.results(spec.feature.id)}/attempts/{spec.number}.json"
    return _RecordedFiles({path: data}, (), (RecordedFile(durable.sha256(data), path),))


def _read_exactly(source: Path, sha256: str) -> bytes:
    data = source.read_bytes()
    if durable.sha256(data) != sha256:
        message = f"{source.name} changed after it was judged"
        raise IntegrityError("output-changed", message, hint="python -m phases log")
    return data


def _store_artifact(paths: Paths, source: Path, sha256: str) -> None:
    target = paths.artifact(sha256)
    if target.is_file() and durable.sha256_file(target) == sha256:
        return
    durable.copy(source, target, sha256)
    target.chmod(READ_ONLY)  # features that need it get links to it


def _read_log(spec: AttemptSpec) -> bytes:
    """Return the log; empty where an unconfined experiment removed it."""
    return spec.log.read_bytes() if spec.log.is_file() else b""
