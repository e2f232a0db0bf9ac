"""The human's word: review requests, approval records, and whether a record still says what it said.

At a checkpoint the runner writes the review request and commits it (commit C). Approving binds that commit: C itself,
its tree, progress.txt's size, digest and head at C, and the request. One file per decision stands in `prd/approvals/`,
named with its digest by an APPROVED or REJECTED entry. Documents are in-toto Statements.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from phases.base import durable, strict_json
from phases.base.paths import Paths
from phases.git.repo import Repo
from phases.record.ledger import Entry, Ledger, parse_ledger
from phases.record.receipt import STATEMENT, encode

FOLDER = "prd/approvals"
REQUEST_TYPE = "phases/review-request/v1"
DECISION_TYPE = "phases/decision/v1"
FROZEN = ("prd", "gates", "phases", "constraints.txt")
"""What must not differ from C when a phase is approved, besides the phase's own results."""

KINDS = {"pass": "APPROVED", "fail": "REJECTED", "relock": "LOCKED", "waive": "WAIVED"}
"""A record's result -> the kind of the entry that may name it."""

NOT_PROVED = (
    "A person's presence at the terminal is what this record states, not who the person was: a process of the "
    "same user with a pseudo-terminal of its own can answer too."
)


@dataclass(frozen=True)
class Checkpoint:
    """Commit C of a phase that waits, with the facts that a decision binds."""

    phase: int
    entry: int
    commit: str
    tree: str
    progress_size: int
    progress_sha256: str
    progress_head: str
    request_path: str
    request_sha256: str

    @property
    def subject(self) -> list[dict[str, Any]]:
        """What the decision is about, as in-toto subjects."""
        return [
            {"name": "commit", "digest": {"gitCommit": self.commit, "gitTree": self.tree}},
            {
                "name": "progress.txt",
                "digest": {"sha256": self.progress_sha256},
                "annotations": {
                    "size": self.progress_size,
                    "head": self.progress_head,
                    "entry": self.entry,
                },
            },
            {"name": self.request_path, "digest": {"sha256": self.request_sha256}},
        ]


def request(
    phase: int,
    name: str,
    number: int,
    *,
    lock: str,
    gates: Mapping[str, str],
    features: Sequence[Mapping[str, Any]],
    exit_verdict: str | None,
    txn: str,
    time: str,
) -> bytes:
    """The review request: what stands at this checkpoint, everything by digest."""
    return encode(
        {
            "_type": STATEMENT,
            "subject": [
                {"name": item["id"], "digest": {"sha256": item["receipt"]}}
                for item in features
                if item["receipt"]
            ],
            "predicateType": REQUEST_TYPE,
            "predicate": {
                "phase": {"id": phase, "name": name},
                "attempt": number,
                "lock": {"sha256": lock},
                "gates": [
                    {"name": path, "digest": {"sha256": digest}}
                    for path, digest in sorted(gates.items())
                ],
                "features": [dict(item) for item in features],
                "exitVerdict": {"sha256": exit_verdict} if exit_verdict else None,
                "requestedOn": time,
                "txn": txn,
            },
        }
    )


def find_checkpoint(repo: Repo, phase: int, entry: int, request_path: str) -> Checkpoint | None:
    """Commit C of the HALTED entry with this number, found by its `Phases-Entry` trailer; None if there is none."""
    for commit in repo.history():
        if commit.trailers.get("Phases-Entry") == f"{entry:04d}" and commit.trailers.get(
            "Phases-Phase"
        ) == str(phase):
            return checkpoint_at(repo, commit.sha, phase, entry, request_path)
    return None


def checkpoint_at(
    repo: Repo, commit: str, phase: int, entry: int, request_path: str
) -> Checkpoint | None:
    """The facts of a commit as a checkpoint; None if it lacks progress.txt or the request."""
    progress, asked = repo.blob(commit, "progress.txt"), repo.blob(commit, request_path)
    if progress is None or asked is None:
        return None
    return Checkpoint(
        phase,
        entry,
        commit,
        repo.tree(commit),
        len(progress),
        durable.sha256(progress),
        parse_ledger(progress).head,
        request_path,
        durable.sha256(asked),
    )


def record(
    checkpoint: Checkpoint,
    *,
    result: str,
    number: int,
    phase_name: str,
    root_commit: str,
    genesis: str,
    reason: str,
    presence: Mapping[str, Any],
    features: Sequence[str],
    waived: Sequence[str] = (),
    time: str,
) -> bytes:
    """The record of one decision.

    Args:
        checkpoint: what is decided on.
        result: `pass`, `fail`, `relock` or `waive`.
        number: of this decision within the phase.
        phase_name: as the PRD has it.
        root_commit: the history's first commit, so that the record means nothing in another repository.
        genesis: the first entry's hash, so that it means nothing in another run.
        reason: the person's words; may be empty for `pass`.
        presence: user, uid, tty and host.
        features: the features that run again after a rejection or relock.
        waived: the features that the phase goes on without.
        time: when.
    """
    return encode(
        {
            "_type": STATEMENT,
            "subject": checkpoint.subject,
            "predicateType": DECISION_TYPE,
            "predicate": {
                "result": result,
                "phase": {"id": checkpoint.phase, "name": phase_name},
                "decision": number,
                "repository": {"rootCommit": root_commit, "genesis": genesis},
                "request": {"digest": {"sha256": checkpoint.request_sha256}},
                "reason": reason,
                "runsAgain": list(features),
                **({"waived": list(waived)} if waived else {}),
                "decidedOn": time,
                "by": dict(presence),
                "assurance": "presence",
                "notProved": NOT_PROVED,
            },
        }
    )


def record_files(root: Path) -> dict[str, str]:
    """Every file under `prd/approvals/` in the work tree -> SHA-256."""
    folder = root / FOLDER
    found = sorted(path for path in folder.rglob("*") if path.is_file()) if folder.is_dir() else []
    return {path.relative_to(root).as_posix(): durable.sha256_file(path) for path in found}


def recorded(ledger: Ledger) -> dict[str, str]:
    """Record path -> SHA-256 as the APPROVED, REJECTED, WAIVED and LOCKED entries name them."""
    from phases.record.state import RECORD

    facts = (entry.fact(RECORD) for entry in ledger.entries)
    return {fact["path"]: fact["digest"] for fact in facts if fact}


def named_kinds(ledger: Ledger) -> dict[str, set[str]]:
    """Digest of a record -> the kinds of the entries that name it: one decision cannot count as another."""
    from phases.record.state import RECORD

    found: dict[str, set[str]] = {}
    for entry in ledger.entries:
        if fact := entry.fact(RECORD):
            found.setdefault(fact["digest"], set()).add(entry.kind)
    return found


def _kind(data: bytes) -> str:
    """The kind of entry that a record is for; empty where it is no record."""
    try:
        return KINDS.get(strict_json.loads(data)["predicate"]["result"], "")
    except (strict_json.StrictJsonError, KeyError, TypeError):
        return ""


def standing_records(root: Path, ledger: Ledger) -> set[str]:
    """Digests of the record files that say what their entry says; whether they were committed so, only git can tell."""
    kinds = named_kinds(ledger)
    return {
        digest
        for path, digest in record_files(root).items()
        if kinds.get(digest) == {_kind((root / path).read_bytes())}
    }


def unrecorded(root: Path, ledger: Ledger) -> list[str]:
    """Files under `prd/approvals/` that no entry names with the digest they have."""
    named = recorded(ledger)
    return [path for path, digest in record_files(root).items() if named.get(path) != digest]


def committed_records(repo: Repo, ledger: Ledger) -> set[str]:
    """Digests of the decisions that count: file and entry both in a commit of the runner's, with its trailers.

    The commit must itself have brought the record, and its progress.txt must hold the entry that names it.
    """
    counted: set[str] = set()
    kinds = named_kinds(ledger)
    for path, digest in recorded(ledger).items():
        data = repo.blob("HEAD", path)
        if data is None or durable.sha256(data) != digest or kinds[digest] != {_kind(data)}:
            continue
        for commit in repo.history(paths=[path]):
            progress = repo.blob(commit.sha, "progress.txt") or b""
            if (
                commit.trailers.get("Phases-Head") == parse_ledger(progress).head
                and digest.encode() in progress
            ):
                counted.add(digest)
    return counted


def check_record(repo: Repo, data: bytes, named_by: Entry, ledger: Ledger) -> list[str]:
    """Why a decision's record does not hold: what it binds is computed anew from the commit it names."""
    try:
        document = strict_json.loads(data)
        predicate = document["predicate"]
        phase = predicate["phase"]["id"]
        names = {item["name"]: item for item in document["subject"]}
        request_path = next(name for name in names if name not in ("commit", "progress.txt"))
        commit = names["commit"]["digest"]["gitCommit"]
        entry = names["progress.txt"]["annotations"]["entry"]
        repository = predicate["repository"]
    except (strict_json.StrictJsonError, KeyError, TypeError, StopIteration) as error:
        return [f"it is not a decision record: {type(error).__name__} {error}"]
    found = []
    if not repo.is_ancestor(commit, "HEAD"):
        return [f"it names commit {commit[:12]}, which is not in HEAD's history"]
    now = checkpoint_at(repo, commit, phase, entry, request_path)
    if now is None or now.subject != document["subject"]:
        found.append(f"what it binds is not what commit {commit[:12]} holds")
    if named_by.phase != phase:
        found.append(f"it is about phase {phase}, its entry about phase {named_by.phase}")
    if KINDS.get(predicate.get("result")) != named_by.kind:
        found.append(f"it says {predicate.get('result')!r}, its entry says {named_by.kind}")
    stated = sorted(
        line.removeprefix("runs again: ")
        for line in named_by.lines
        if line.startswith("runs again: ")
    )
    if stated != sorted(predicate.get("runsAgain", [])):
        found.append(f"it lets {predicate.get('runsAgain')} run again, its entry {stated}")
    if named_by.kind == "WAIVED" and named_by.feature not in predicate.get("waived", []):
        found.append(f"it waives {predicate.get('waived', [])}, its entry {named_by.feature}")
    if repository != {"rootCommit": repo.root_commit(), "genesis": ledger.entries[0].self_hash}:
        found.append("it was made for another repository or another run")
    return found


def next_path(paths: Paths, phase: int, number: int) -> str:
    """Where the record of a phase's next decision goes: a number that is not taken."""
    while (paths.root / FOLDER / f"phase-{phase}.{number}.json").exists():
        number += 1
    return f"{FOLDER}/phase-{phase}.{number}.json"
