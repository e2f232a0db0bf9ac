"""What is recorded of an attempt: the entry's lines, the commit, receipt and verdict, and the files that are kept."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from stat import S_ISDIR, S_ISLNK, S_ISREG
from typing import Any

from phases.base import durable
from phases.execution import collect, inputs
from phases.judge import gate, predictions
from phases.record import entries, receipt
from phases.run import checkpoint
from phases.run.attempt import Judged, Planned
from phases.errors import EnvironmentFaultError, IntegrityError
from phases.base.paths import Paths
from phases.plan.schema import Feature
from phases.record.project import Book
from phases.base.text import printable

KEPT_BYTES = 4_000_000_000
"""At most so much of a failed attempt's outputs is kept."""
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


def outcome_of(planned: Planned, judged: Judged, book: Book) -> AttemptOutcome:
    """The entry's lines and the committed files of an attempt; stores artifacts or quarantines outputs on the way."""
    is_verified = judged.state == "verified"
    measurements = _measurements(planned.place.out) if judged.outputs else {}
    scored = score(planned.feature, measurements) if is_verified else []
    verdict = _verdict(planned, judged, scored)
    receipt_bytes = receipt.encode(_receipt(planned, judged))
    digest = durable.sha256(receipt_bytes)
    removed: tuple[str, ...] = ()
    if is_verified:
        files, removed, where = _results(planned, judged, receipt_bytes, verdict)
    else:
        files, where = _attempt_file(planned, judged, receipt_bytes, verdict)
        _quarantine(planned)
    checks = judged.judgement.true_run.checks if judged.judgement else ()
    return AttemptOutcome(
        kind=judged.state.upper(),
        lines=(
            *_what_happened(planned, judged, measurements, scored, book),
            *_what_the_gate_said(planned.feature, judged),
            *(item.line(word) for word, item in where),
        ),
        message=_subject(planned.feature, judged),
        trailers=checkpoint.trailers(planned.phase.id, planned.feature.id, planned.number, digest),
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
    planned: Planned, judged: Judged, measurements: Mapping[str, Any], scored: list[dict[str, str]], book: Book
) -> Iterator[str]:
    """What ran, what it found, how its predictions fared."""
    seconds, tier = judged.finished.seconds, planned.tier.tier
    yield entries.ran(planned.what, seconds, planned.number, planned.seed, planned.profile, tier)
    yield from entries.found(measurements)
    is_first = book.state.phase(planned.phase.id).feature(planned.feature.id).receipt is None
    for line in entries.predictions([item["outcome"] for item in scored]):
        yield line if is_first else f"{line} (a repeated attempt)"


def _what_the_gate_said(feature: Feature, judged: Judged) -> Iterator[str]:
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


def _reasons(judged: Judged) -> Sequence[str]:
    """Why an attempt was not verified."""
    return judged.reasons or (judged.judgement.reasons if judged.judgement else ())


def _subject(feature: Feature, judged: Judged) -> str:
    """The commit's first line."""
    if judged.judgement is not None and judged.state == "verified":
        told = f"{sum(check.passed for check in judged.judgement.true_run.checks)} checks"
    else:
        told = _reasons(judged)[0]
    return printable(f"{feature.id} {feature.title}: {judged.state} ({told})", 120)


def coverage_counts(judgement: gate.Judgement) -> tuple[int, int, int] | None:
    """Measurements (recomputed, bounded, all); None without measurements or proof."""
    covered = judgement.coverage
    if covered is None:
        return None
    recomputed, bounded = len(covered.recomputed), len(covered.bounded)
    total = recomputed + bounded + len(covered.claimed)
    return (recomputed, bounded, total) if total else None


def _measurements(out: Path) -> Mapping[str, Any]:
    path = out / "result.json"
    if not path.is_file():
        return {}
    document = json.loads(path.read_bytes())
    found = document.get("measurements") if isinstance(document, dict) else None
    return {name: item for name, item in found.items() if isinstance(item, dict)} if isinstance(found, dict) else {}


def score(feature: Feature, measurements: Mapping[str, Any]) -> list[dict[str, str]]:
    """Every prediction of a feature, scored against its measurements."""
    scored = []
    for item in feature.predictions:
        claim = predictions.Claim(item.id, item.claim, item.measurement, item.comparator, item.value, item.margin)
        result = predictions.score(claim, measurements)
        scored.append({"id": item.id, "claim": item.claim, "outcome": result.outcome, "reason": result.reason})
    return scored


#### the documents


def _receipt(planned: Planned, judged: Judged) -> dict[str, Any]:
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


def _portable(planned: Planned) -> list[str]:
    """The command without this machine's folders."""
    names = {sys.executable: "python", str(planned.place.inputs_file): "INPUTS", str(planned.place.out): "OUT"}
    return [names.get(word, word) for word in planned.argv]


def _verdict(planned: Planned, judged: Judged, scored: list[dict[str, str]]) -> bytes | None:
    if judged.judgement is None:
        return None
    judge = {"name": planned.feature.gate.name, "digest": planned.materials.get(planned.feature.gate.name, {})}
    outputs = {path: item.sha256 for path, item in judged.outputs.items()}
    document = gate.verdict(judged.judgement, outputs=outputs, configuration=[judge])
    document["predicate"]["phases/predictions/v1"] = scored
    return receipt.encode(document)


#### the files

Where = list[tuple[str, entries.Located]]


def _results(
    planned: Planned, judged: Judged, receipt_bytes: bytes, verdict: bytes | None
) -> tuple[dict[str, bytes], tuple[str, ...], Where]:
    """Files of a verified attempt; artifacts go to the store, outputs of the attempt before are taken away."""
    home = planned.paths.results(planned.feature.id)
    files: dict[str, bytes] = {}
    for path, item in judged.outputs.items():
        source = planned.place.out / path
        if inputs.is_artifact(path):
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
        ("receipt", entries.Located(durable.sha256(receipt_bytes), f"{home}/receipt.json")),
        ("verdict", entries.Located(durable.sha256(verdict or b""), f"{home}/verdict.json")),
    ]
    return files, tuple(removed), where


def _attempt_file(
    planned: Planned, judged: Judged, receipt_bytes: bytes, verdict: bytes | None
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
    data = receipt.encode(document)
    return {path: data}, [("attempt-record", entries.Located(durable.sha256(data), path))]


def _exact(source: Path, digest: str) -> bytes:
    data = source.read_bytes()
    if durable.sha256(data) != digest:
        raise IntegrityError(
            "output-changed", f"{source.name} changed after it was judged", remedy="python -m phases log"
        )
    return data


def _store(paths: Paths, source: Path, digest: str) -> None:
    target = paths.artifact(digest)
    if not (target.is_file() and durable.sha256_file(target) == digest):
        durable.copy(source, target, digest)


def _log_bytes(planned: Planned) -> bytes:
    """The log; empty where an unconfined experiment took it away."""
    return planned.log.read_bytes() if planned.log.is_file() else b""


class _Kept:
    """Chooses what of a failed attempt's outputs is kept: a hostile one could fill the disk, or never end.

    What is neither file, folder nor link (a FIFO or a device would be read for ever), what lies too deep, and what
    would go beyond half of the free room is left out.
    """

    def __init__(self, out: Path, target: Path):
        self._depth = len(out.parts)
        self._bytes = min(KEPT_BYTES, shutil.disk_usage(target.parent).free // 2)
        self._entries = collect.MAX_ENTRIES

    def left_out(self, folder: str, names: list[str]) -> list[str]:
        """The names in this folder that are not kept; `ignore` of shutil.copytree."""
        return [name for name in sorted(names) if not self._takes(Path(folder, name))]

    def _takes(self, path: Path) -> bool:
        met = path.lstat()
        if self._entries == 0 or len(path.parts) - self._depth > collect.MAX_DEPTH:
            return False
        self._entries -= 1
        if S_ISREG(met.st_mode) and met.st_size <= self._bytes:
            self._bytes -= met.st_size
            return True
        return S_ISDIR(met.st_mode) or S_ISLNK(met.st_mode)


def _quarantine(planned: Planned) -> None:
    """Outputs of a failed attempt are kept for a person to look at and never counted."""
    target = planned.paths.quarantine(planned.feature.id, planned.number)
    try:
        if any(planned.place.out.iterdir()):
            durable.make_folder(target.parent)
            kept = _Kept(planned.place.out, target)
            shutil.copytree(planned.place.out, target, symlinks=True, dirs_exist_ok=True, ignore=kept.left_out)
    except (OSError, shutil.Error) as error:
        raise EnvironmentFaultError(f"cannot keep the failed attempt's outputs in {target}: {error}") from error
