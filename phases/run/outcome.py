"""What is recorded of an attempt: the entry's lines, the commit, receipt and verdict, and the files that are kept."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from phases.base import durable
from phases.base.paths import Paths, is_artifact
from phases.base.text import printable
from phases.errors import IntegrityError
from phases.judge.predictions import score_all
from phases.judge.verdict import coverage_counts
from phases.judge.verdict import verdict as verdict_document
from phases.plan.schema import Feature
from phases.record import entries, receipt
from phases.record.project import Snapshot
from phases.record.receipt import encode
from phases.record.transaction import trailers
from phases.run.attempt import AttemptResult, AttemptSpec
from phases.run.quarantine import quarantine

LOG_LINES = 20
"""Lines of a failed attempt's log that are committed with it."""


@dataclass(frozen=True)
class AttemptOutcome:
    """What the record of an attempt will hold."""

    kind: str
    lines: tuple[str, ...]
    message: str
    trailers: Mapping[str, str]
    files: Mapping[str, bytes]
    removed: tuple[str, ...]
    seconds: int
    passed: int
    failing: tuple[str, ...]
    receipt: str | None
    timed_out: bool


def outcome_of(planned: AttemptSpec, judged: AttemptResult, snapshot: Snapshot) -> AttemptOutcome:
    """The entry's lines and the committed files of an attempt; stores artifacts or quarantines outputs on the way."""
    is_verified = judged.state == "verified"
    measurements = _measurements(planned.place.out) if judged.outputs else {}
    scored = score_all(planned.feature, measurements) if is_verified else []
    verdict = _verdict(planned, judged, scored)
    receipt_bytes = encode(_receipt(planned, judged))
    digest = durable.sha256(receipt_bytes)
    removed: tuple[str, ...] = ()
    if is_verified:
        files, removed, where = _results(planned, judged, receipt_bytes, verdict)
    else:
        files, where = _attempt_file(planned, judged, receipt_bytes, verdict)
        quarantine(planned)
    checks = judged.judgement.true_run.checks if judged.judgement else ()
    return AttemptOutcome(
        kind=judged.state.upper(),
        lines=(
            *_what_happened(planned, judged, measurements, scored, snapshot),
            *_what_the_gate_said(planned.feature, judged),
            *(item.line(word) for word, item in where),
        ),
        message=_subject(planned.feature, judged),
        trailers=trailers(planned.phase.id, planned.feature.id, planned.number, digest),
        files=files,
        removed=removed,
        seconds=max(1, round(judged.finished.seconds)),
        passed=sum(check.passed for check in checks),
        failing=tuple(check.id for check in checks if not check.passed),
        receipt=digest if is_verified else None,
        timed_out=judged.finished.timed_out,
    )


#### the entry


def _what_happened(
    planned: AttemptSpec,
    judged: AttemptResult,
    measurements: Mapping[str, Any],
    scored: list[dict[str, str]],
    snapshot: Snapshot,
) -> Iterator[str]:
    """What ran, what it found, how its predictions fared."""
    seconds, tier = judged.finished.seconds, planned.tier.tier
    yield entries.ran(planned.what, seconds, planned.number, planned.seed, planned.profile, tier)
    yield from entries.found(measurements)
    is_first = snapshot.state.phase(planned.phase.id).feature(planned.feature.id).receipt is None
    for line in entries.predictions([item["outcome"] for item in scored]):
        yield line if is_first else f"{line} (a repeated attempt)"


def _what_the_gate_said(feature: Feature, judged: AttemptResult) -> Iterator[str]:
    """The judgement, or why there is none."""
    judgement = judged.judgement
    if judgement is None:
        yield from entries.reasons(judged.reasons)
        return
    failed = [check for check in judgement.true_run.checks if not check.passed]
    yield from entries.gate(
        feature.gate.name,
        len(judgement.true_run.checks) - len(failed),
        len(failed),
        coverage_counts(judgement),
        (sum(item.ok for item in judgement.negatives), len(judgement.negatives)),
        judgement.unjudged,
    )
    yield from entries.failing([(check.id, check.message) for check in failed])
    if judged.state != "verified":
        yield from entries.reasons(judgement.reasons)


def _reasons(judged: AttemptResult) -> Sequence[str]:
    """Why an attempt was not verified."""
    return judged.reasons or (judged.judgement.reasons if judged.judgement else ())


def _subject(feature: Feature, judged: AttemptResult) -> str:
    """The commit's first line."""
    if judged.judgement is not None and judged.state == "verified":
        told = f"{sum(check.passed for check in judged.judgement.true_run.checks)} checks"
    else:
        told = _reasons(judged)[0]
    return printable(f"{feature.id} {feature.title}: {judged.state} ({told})", 120)


def _measurements(out: Path) -> Mapping[str, Any]:
    path = out / "result.json"
    if not path.is_file():
        return {}
    document = json.loads(path.read_bytes())
    found = document.get("measurements") if isinstance(document, dict) else None
    return (
        {name: item for name, item in found.items() if isinstance(item, dict)}
        if isinstance(found, dict)
        else {}
    )


#### the documents


def _receipt(planned: AttemptSpec, judged: AttemptResult) -> dict[str, Any]:
    finished = judged.finished
    run_facts = receipt.Run(
        phase=planned.phase.id,
        feature=planned.feature.id,
        attempt=planned.number,
        argv=_portable(planned),
        profile=planned.profile,
        seed=planned.seed,
        env_names=sorted(planned.env),
        commit=planned.commit,
        started_on=judged.began,
        finished_on=judged.ended,
        seconds=finished.seconds,
        cpu_seconds=finished.cpu_seconds,
        peak_memory_bytes=finished.peak_memory_bytes,
        exit_code=finished.exit_code,
        sandbox=planned.tier.tier,
        probes=planned.tier.probes,
        txn=planned.txn,
    )
    log = {
        "digest": {"sha256": durable.sha256(_log_bytes(planned))},
        "annotations": {"bytes": finished.log_bytes, "truncated": finished.log_truncated},
    }
    outputs = {path: item.sha256 for path, item in judged.outputs.items()}
    return receipt.statement(run_facts, outputs, planned.materials, log)


def _portable(planned: AttemptSpec) -> list[str]:
    """The command without this machine's folders."""
    names = {
        sys.executable: "python",
        str(planned.place.inputs_file): "INPUTS",
        str(planned.place.out): "OUT",
    }
    return [names.get(word, word) for word in planned.argv]


def _verdict(
    planned: AttemptSpec, judged: AttemptResult, scored: list[dict[str, str]]
) -> bytes | None:
    if judged.judgement is None:
        return None
    judge = {
        "name": planned.feature.gate.name,
        "digest": planned.materials.get(planned.feature.gate.name, {}),
    }
    outputs = {path: item.sha256 for path, item in judged.outputs.items()}
    document = verdict_document(judged.judgement, outputs=outputs, configuration=[judge])
    document["predicate"]["phases/predictions/v1"] = scored
    return encode(document)


#### the files

Where = list[tuple[str, entries.RecordedFile]]


def _results(
    planned: AttemptSpec, judged: AttemptResult, receipt_bytes: bytes, verdict: bytes | None
) -> tuple[dict[str, bytes], tuple[str, ...], Where]:
    """Files of a verified attempt; artifacts go to the store, outputs of the attempt before are taken away."""
    home = planned.paths.results(planned.feature.id)
    files: dict[str, bytes] = {}
    for path, item in judged.outputs.items():
        source = planned.place.out / path
        if is_artifact(path):
            _store(planned.paths, source, item.sha256)
            continue
        files[f"{home}/{path}"] = _exact(source, item.sha256)
    for path, target in planned.feature.publish.items():
        files[target] = _exact(planned.place.out / path, judged.outputs[path].sha256)
    files[f"{home}/receipt.json"] = receipt_bytes
    files[f"{home}/verdict.json"] = verdict or b""
    removed = []
    folder = planned.paths.root / home
    for old in sorted(folder.rglob("*")) if folder.is_dir() else []:
        name = old.relative_to(planned.paths.root).as_posix()
        if old.is_file() and name not in files and not name.startswith(f"{home}/attempts/"):
            removed.append(name)
    where: Where = [
        ("receipt", entries.RecordedFile(durable.sha256(receipt_bytes), f"{home}/receipt.json")),
        ("verdict", entries.RecordedFile(durable.sha256(verdict or b""), f"{home}/verdict.json")),
    ]
    return files, tuple(removed), where


def _attempt_file(
    planned: AttemptSpec, judged: AttemptResult, receipt_bytes: bytes, verdict: bytes | None
) -> tuple[dict[str, bytes], Where]:
    """What a failed attempt leaves in the repository: its verdict and its log's tail."""
    path = f"{planned.paths.results(planned.feature.id)}/attempts/{planned.number}.json"
    tail = _log_bytes(planned)[-8000:].decode("utf-8", "replace").splitlines()[-LOG_LINES:]
    document = {
        "feature": planned.feature.id,
        "attempt": planned.number,
        "state": judged.state,
        "reasons": list(_reasons(judged)),
        "receipt": json.loads(receipt_bytes),
        "verdict": json.loads(verdict) if verdict else None,
        "logTail": [printable(line, 500) for line in tail],
    }
    data = encode(document)
    return {path: data}, [("attempt-record", entries.RecordedFile(durable.sha256(data), path))]


def _exact(source: Path, digest: str) -> bytes:
    data = source.read_bytes()
    if durable.sha256(data) != digest:
        raise IntegrityError(
            "output-changed",
            f"{source.name} changed after it was judged",
            hint="python -m phases log",
        )
    return data


def _store(paths: Paths, source: Path, digest: str) -> None:
    target = paths.artifact(digest)
    if not (target.is_file() and durable.sha256_file(target) == digest):
        durable.copy(source, target, digest)


def _log_bytes(planned: AttemptSpec) -> bytes:
    """The log; empty where an unconfined experiment took it away."""
    return planned.log.read_bytes() if planned.log.is_file() else b""
