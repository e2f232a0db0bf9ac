"""A phase's two ends: the plan lock at its start, the exit gates and the review request at its halt."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from phases.base import durable, strict_json
from phases.execution import inputs, worker
from phases.judge import gate
from phases.plan import lock as plan_lock
from phases.record import approvals as approval, entries, ledger, receipt, transaction as record
from phases.run import setup
from phases.errors import IntegrityError
from phases.record.ledger import Ledger
from phases.views.live import View
from phases.base.paths import Paths
from phases.plan.lock import PlanLock
from phases.plan.schema import Phase
from phases.record.project import Book, Project
from phases.git.repo import Repo
from phases.execution.sandbox import Sandbox
from phases.record.state import HEAD, PhaseState, State

#### the plan lock


def lock_path(paths: Paths, phase: int) -> str:
    """The committed file that says what is locked."""
    return f"{paths.phase_results(phase)}/lock.json"


def compose_lock(opened: Project, repo: Repo, phase: Phase) -> PlanLock:
    """The lock as the committed plan stands now."""
    gate_files = sorted(repo.files("HEAD", "gates"))
    return plan_lock.compose(
        opened.prd, phase, lambda path: repo.blob("HEAD", path), gate_files, plan_lock.runner_digest()
    )


def read_lock(paths: Paths, phase: PhaseState) -> Mapping[str, str]:
    """The components of the lock that the ledger names; IntegrityError if the file is not the one it names."""
    path = paths.root / (phase.lock_path or lock_path(paths, phase.id))
    data = path.read_bytes() if path.is_file() else b""
    if durable.sha256(data) != phase.lock:
        raise IntegrityError(
            "lock-changed",
            f"{path} is not the plan lock that the ledger names (sha256 {(phase.lock or '')[:12]}…)",
            remedy=f"git checkout -- {path}",
        )
    components: Mapping[str, str] = strict_json.loads(data)["components"]
    return components


def lock_file(paths: Paths, phase: PhaseState) -> dict[str, bytes]:
    """The lock as a file to commit along with an outcome; nothing where the phase is not locked."""
    if phase.lock is None or phase.lock_path is None:
        return {}
    read_lock(paths, phase)
    return {phase.lock_path: (paths.root / phase.lock_path).read_bytes()}


def lock_diff(repo: Repo, book: Ledger, phase: int, differing: Sequence[str]) -> str:
    """What changed since the phase was locked, as a diff for a person to read; at most 60 lines."""
    heads = [
        found["commit"]
        for entry in book.entries
        if entry.kind == "LOCKED" and entry.phase == phase and (found := entry.fact(HEAD))
    ]
    paths = sorted(
        {
            "prd" if name.startswith(("prd: ", "input: ")) else "phases" if name == "runner" else name
            for name in differing
        }
    )
    if not heads or not repo.is_ancestor(heads[-1], "HEAD"):
        return ""
    lines = repo.diff(heads[-1], paths).splitlines()
    more = (
        [f"… {len(lines) - 60} more lines: git diff {heads[-1][:12]} -- {' '.join(paths)}"] if len(lines) > 60 else []
    )
    return "\n" + "\n".join([*lines[:60], *more]) if lines else ""


def trailers(
    phase: int,
    feature: str | None = None,
    attempt: int | None = None,
    receipt_: str | None = None,
) -> dict[str, str]:
    """The trailers of a commit that say what it is about; `record` adds those that say which entry it holds."""
    facts = {
        "Phases-Phase": str(phase),
        "Phases-Feature": feature,
        "Phases-Attempt": attempt,
        "Phases-Receipt": f"sha256:{receipt_}" if receipt_ else None,
    }
    return {name: str(value) for name, value in facts.items() if value is not None}


#### gates from HEAD


def materialise_gates(repo: Repo, folder: Path) -> None:
    """Writes `gates/` as HEAD has it below `folder`, outside the work tree: edits there change no verdict."""
    for path in repo.files("HEAD", "gates"):
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(repo.blob("HEAD", path) or b"")
    (folder / "gates").mkdir(parents=True, exist_ok=True)


def gate_digest(repo: Repo, path: str) -> str:
    """A gate's digest covers its file and every file of `gates/` that it may import."""
    shared = plan_lock.shared_gate_files(sorted(repo.files("HEAD", "gates")))
    listing = {name: durable.sha256(repo.blob("HEAD", name) or b"") for name in (path, *shared)}
    return durable.sha256(json.dumps(listing, sort_keys=True).encode())


#### the halt


@dataclass(frozen=True)
class ExitJudged:
    """What the exit gates said."""

    txn: str
    lines: tuple[str, ...]
    reasons: tuple[str, ...]
    failing: tuple[str, ...]
    files: Mapping[str, bytes]
    """`verdict.json` of the phase, and its lock."""
    verdict: str | None
    """Digest of the verdict; None where the phase has no exit gates."""


def judge_exit(opened: Project, repo: Repo, state: State, phase: Phase, tier: Sandbox, view: View) -> ExitJudged:
    """Runs the exit gates over all results of the phase, and proves them like any other gate."""
    current = state.phase(phase.id)
    files = lock_file(opened.paths, current)
    done = [item for item in current.features if item.state == "verified"]
    waived = [item.id for item in current.features if item.state == "waived"]
    if not phase.exit:
        return ExitJudged(record.new_txn(), (), (), (), files, None)
    view.message(f"phase {phase.id}: exit gates")
    with worker.staging(opened.root) as place:
        folders = {item.id: place.folder / "phase" / item.id for item in done}
        outputs = {item.id: inputs.lay_out(opened.paths, item.id, item.receipt, folders[item.id]) for item in done}
        given = _phase_inputs(opened, repo, phase)
        inputs.check(given)
        place.inputs_file.write_bytes(inputs.document(given))
        materialise_gates(repo, place.folder / "judge")
        judgements = [
            gate.judge_exit(
                setup.spec(item, opened.prd.defaults.gate_timeout_s),
                gates_dir=place.folder / "judge",
                features=folders,
                outputs=outputs,
                inputs_file=place.inputs_file,
                workspace=place.folder / f"exit-{number}",
                sandbox=tier,
                env={**opened.prd.defaults.env, **place.environment, "PHASES_WAIVED": " ".join(waived)},
            )
            for number, item in enumerate(phase.exit)
        ]
    subject = {f"{name}/{path}": digest for name, found in outputs.items() for path, digest in found.items()}
    verdicts = [
        gate.verdict(judged, outputs=subject, configuration=[_descriptor(repo, item.name)])
        for item, judged in zip(phase.exit, judgements, strict=True)
    ]
    data = receipt.encode({"phase": phase.id, "verdicts": verdicts})
    path = f"{opened.paths.phase_results(phase.id)}/verdict.json"
    lines = [
        line for item, judged in zip(phase.exit, judgements, strict=True) for line in _gate_lines(item.name, judged)
    ]
    located = entries.Located(durable.sha256(data), path)
    reasons = [reason for judged in judgements if judged.state != "verified" for reason in judged.reasons or ("no",)]
    failing = [check.id for judged in judgements for check in judged.true_run.checks if not check.passed]
    return ExitJudged(
        record.new_txn(),
        (*lines, located.line("verdict")),
        tuple(reasons),
        tuple(failing),
        {**files, path: data},
        located.sha256,
    )


def _phase_inputs(opened: Project, repo: Repo, phase: Phase) -> list[inputs.Given]:
    """The inputs of all features of the phase; exit gates may recompute from them."""
    names = sorted({name for feature in phase.features for name in feature.inputs})
    items = [opened.prd.input(name) for name in names]
    return [inputs.cached(item) if item.is_cached else inputs.tracked(item, opened.paths, repo) for item in items]


def _descriptor(repo: Repo, name: str) -> dict[str, Any]:
    return {"name": name, "digest": {"sha256": gate_digest(repo, name)} if name.startswith("gates/") else {}}


def _gate_lines(name: str, judged: gate.Judgement) -> tuple[str, ...]:
    checks = judged.true_run.checks
    passed = sum(check.passed for check in checks)
    caught = (sum(item.ok for item in judged.negatives), len(judged.negatives))
    said_no = [(check.id, check.message) for check in checks if not check.passed]
    return (*entries.gate(name, passed, len(said_no), None, caught, judged.unjudged), *entries.failing(said_no))


def ask_review(
    opened: Project, repo: Repo, book: Book, phase: Phase, judged: ExitJudged
) -> tuple[dict[str, bytes], tuple[str, ...]]:
    """The review request, and the lines by which the HALTED entry names it."""
    current = book.state.phase(phase.id)
    gates = {
        path: gate_digest(repo, path)
        for path in sorted({item.pytest for item in (*phase.exit, *(f.gate for f in phase.features)) if item.pytest})
    }
    features = [
        {
            "id": item.id,
            "title": item.title,
            "state": item.state,
            "receipt": item.receipt if item.state == "verified" else None,
            "attempts": item.attempts,
            "coverage": list(item.coverage) if item.coverage else None,
        }
        for item in current.features
    ]
    number = 1 + sum(entry.kind == "HALTED" and entry.phase == phase.id for entry in book.ledger.entries)
    data = approval.request(
        phase.id,
        phase.name,
        number,
        lock=current.lock or "",
        gates=gates,
        features=features,
        exit_verdict=judged.verdict,
        txn=judged.txn,
        time=ledger.now(),
    )
    located = entries.Located(durable.sha256(data), request_path(opened.paths, phase.id))
    summary = ", ".join(
        f"{count} {word}"
        for word in ("verified", "waived")
        if (count := sum(item.state == word for item in current.features))
    )
    lines = (
        f"features: {summary}",
        located.line("request"),
        f"head {repo.head()}",
        f"a person decides: python -m phases approve {phase.id}",
    )
    return {**judged.files, located.path: data}, lines


def request_path(paths: Paths, phase: int) -> str:
    """The committed review request of a phase."""
    return f"{paths.phase_results(phase)}/request.json"
