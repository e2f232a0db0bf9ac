"""Decisions: each entry that records one against its record, and both against the history.

One commit of the runner's brought both. The record says what the entry says, and binds what its
commit and the ledger held.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from phases.base import durable
from phases.base.paths import is_plain, link_above
from phases.base.text import is_printable
from phases.git.objects import GitObject
from phases.git.probe import blob_id
from phases.git.record_history import RecordCommit, is_ancestor, read_ids, read_objects
from phases.git.way_back import brought_way, left_out_way
from phases.record import entries
from phases.record.decision_record import Decision, DecisionRecord, DecisionResult
from phases.record.ledger import DECISIONS, Entry, EntryKind, Ledger, Problem
from phases.record.sample import expected_assurance
from phases.record.statement import (
    DocumentError,
    ResourceDescriptor,
    find_descriptor,
    is_commit_id,
)

APPROVALS = "prd/approvals"
"""The folder of the decision records."""


@dataclass(frozen=True)
class ValidDecision:
    """What a valid record is about."""

    checkpoint: int
    """Number of the last entry that its commit holds."""
    request: str
    """SHA-256 of the file that was decided on."""
    lock: str | None = None
    """SHA-256 of the plan lock that a relock agreed to."""


@dataclass(frozen=True)
class _Subject:
    """What a record says was decided on."""

    commit: str
    tree: str | None
    """The tree that it says the commit has."""
    request: str
    """Path of the file that was decided on."""
    entries: int
    """How many entries the ledger had."""
    progress: ResourceDescriptor
    """progress.txt with those entries."""


@dataclass(frozen=True)
class _Named:
    """An entry that names a record, and that record."""

    entry: Entry
    path: str
    record: DecisionRecord
    subject: _Subject
    commit: RecordCommit
    """The commit that brought both."""


@dataclass(frozen=True)
class DecisionCheck:
    """Checks the decisions of a ledger against their records and the history."""

    root: Path
    ledger: Ledger
    commits: Mapping[int, RecordCommit]
    files: Mapping[str, bytes]
    """What is prepared and not in the work tree yet."""
    is_cut: bool = False
    """Whether commits are missing, so that only records and entries can be compared."""

    def run(self, committed: Iterable[Entry]) -> tuple[dict[int, ValidDecision], list[Problem]]:
        """Return the valid decisions among these entries, and why the others are not valid."""
        # 1. Entry, file and commit.
        problems: list[Problem] = []
        named: list[_Named] = []
        for entry in committed:
            result = self._find(entry)
            if isinstance(result, Problem):
                problems.append(result)
            elif result is not None:
                named.append(result)

        # 2. What only git can tell of them. Only the requests are read: progress.txt is large.
        names, requests = [], []
        for item in named:
            base, request = item.subject.commit, item.subject.request
            names += [f"{base}^{{tree}}", f"{base}:progress.txt", f"HEAD:{item.path}"]
            requests.append(f"{base}:{request}")
        ids = read_ids(self.root, names)
        objects = read_objects(self.root, requests)

        # 3. Record against entry and history.
        naming = self._entries_by_record()
        decisions = {}
        for item in named:
            found = self._problems(item, naming[item.path], ids, objects)
            problems += found
            if not found:
                decisions[item.entry.seq] = _valid_decision(item)
        return decisions, sorted(problems, key=lambda problem: problem.entry or 0)

    def _entries_by_record(self) -> dict[str, list[Entry]]:
        """Return path of a record -> the entries that name it."""
        naming: dict[str, list[Entry]] = {}
        for entry in self.ledger.entries:
            line = entry.match(entries.RECORD)
            if line is not None:
                naming.setdefault(line["path"], []).append(entry)
        return naming

    def _problems(
        self,
        named: _Named,
        naming: Sequence[Entry],
        ids: Mapping[str, str | None],
        objects: Mapping[str, GitObject | None],
    ) -> list[Problem]:
        """Return why a record is not valid."""
        reasons = self._contradictions(named, naming)
        if not self.is_cut:
            problem = self._head_problem(named, ids)
            if problem:
                return [problem]
            reasons += self._base_problems(named, ids, objects)
        return [Problem("approval-invalid", named.entry.seq, reason) for reason in reasons]

    def _find(self, entry: Entry) -> _Named | Problem | None:
        """Return the record of a decision's entry, or why there is none; None for other entries."""
        line = entry.match(entries.RECORD)
        if line is not None:
            return self._read(entry, line["path"], line["sha256"])
        if entry.kind not in DECISIONS:
            return None
        message = f"this {entry.kind} entry names no record"
        return Problem("approval-missing", entry.seq, message)

    def _read(self, entry: Entry, path: str, sha256: str) -> _Named | Problem:
        """Return the record that an entry names, or why there is none that could be valid."""

        def problem(code: str, message: str, hint: str = "") -> Problem:
            return Problem(code, entry.seq, f"{path}: {message}", hint)

        # 1. One commit of the runner's brought the entry and the record.
        commit = self.commits.get(entry.seq)
        if commit is None:
            message = f"no commit of the runner's holds the {entry.kind} entry that names it"
            return problem("approval-missing", message)
        if path not in commit.blobs and not self.is_cut:
            message = f"commit {commit.sha[:12]} did not bring this record, its entry names it"
            return problem("approval-missing", message)

        # 2. These are its bytes, in that commit and in the work tree.
        data = self.files.get(path, b"")
        file = self.root / path
        is_link = file.is_symlink() or link_above(self.root, path) is not None
        if not data and file.is_file() and not is_link:
            data = file.read_bytes()
        blob = blob_id([data], len(data), commit.sha)
        if durable.sha256(data) != sha256 or commit.blobs.get(path, blob) != blob:
            message = f"not the record that the {entry.kind} entry names (sha256 {sha256[:12]}…)"
            hint = left_out_way(self.root, (APPROVALS,))
            way = brought_way(self.root, commit.sha, path)
            if way and not hint:
                hint = f"`{way}` restores it"
            return problem("approval-missing", message, hint)

        # 3. It is a decision record about a commit.
        try:
            record = DecisionRecord.decode(data)
            subject = _decided_on(record)
        except DocumentError as error:
            return problem("approval-invalid", f"it is not a decision record: {error}")
        return _Named(entry, path, record, subject, commit)

    def _head_problem(self, named: _Named, ids: Mapping[str, str | None]) -> Problem | None:
        """Return that HEAD has another record by now: every clone would see that one."""
        expected = named.commit.blobs[named.path]
        if named.path in self.files or ids[f"HEAD:{named.path}"] == expected:
            return None
        message = f"{named.path}: HEAD has not the record that the {named.entry.kind} entry names"
        commit = named.commit.sha[:12]
        hint = f"`git checkout {commit} -- {shlex.quote(named.path)}` brings it back; commit it"
        return Problem("approval-missing", named.entry.seq, message, hint)

    def _contradictions(self, named: _Named, naming: Sequence[Entry]) -> list[str]:
        """Return where a record and the entries that name it differ."""
        entry, decision = named.entry, named.record.predicate
        problems = []

        # 1. The same decision.
        if decision.result.entry_kind != entry.kind:
            problems.append(f"it says {decision.result.value!r}, its entry says {entry.kind}")
        if entry.phase != decision.phase.id:
            problems.append(f"it is about phase {decision.phase.id}, its entry about {entry.phase}")
        expected_path = f"{APPROVALS}/phase-{decision.phase.id}.{decision.decision}.json"
        if named.path != expected_path:
            problems.append(f"its name: got {named.path}; expected {expected_path}")
        reset = sorted(fields["feature"] for fields in entry.match_all(entries.RESET))
        if reset != sorted(decision.reset):
            problems.append(f"it resets {sorted(decision.reset)}, its entry resets {reset}")
        problems += _lock_contradictions(named)

        # 2. One record, one entry; a waiver has one for each feature.
        if decision.result == DecisionResult.WAIVE:
            waived = [other.feature for other in naming]
            if waived != list(decision.waived):
                problems.append(f"it waives {list(decision.waived)}, its entries waive {waived}")
        elif len(naming) > 1:
            numbers = ", ".join(f"{other.seq:04d}" for other in naming)
            problems.append(f"entries {numbers} name it; expected one entry for one record")

        # 3. The same ledger.
        return problems + _ledger_contradictions(decision, self.ledger.entries[0])

    def _base_problems(
        self,
        named: _Named,
        ids: Mapping[str, str | None],
        objects: Mapping[str, GitObject | None],
    ) -> list[str]:
        """Return where what a record binds differs from what its commit and the ledger hold."""
        record, subject = named.record, named.subject
        base = subject.commit
        request = objects[f"{base}:{subject.request}"]

        # 1. The commit is before the one that recorded the decision.
        parent = next(iter(named.commit.parents), "")
        if base != parent and not is_ancestor(self.root, base, parent):
            return [f"it names commit {base[:12]}, which is not before {named.commit.sha[:12]}"]

        # 2. Its tree, its progress.txt and the file that was decided on.
        problems = []
        if subject.tree is None or ids[f"{base}^{{tree}}"] != subject.tree:
            problems.append(f"it names another tree than commit {base[:12]} has")
        expected = record.digests.get(subject.request)
        if request is None or durable.sha256(request.data) != expected:
            problems.append(f"it names another {subject.request} than commit {base[:12]} has")
        if record.predicate.request.digest.sha256 != expected:
            problems.append("it names two digests of what was decided on")

        # 3. That progress.txt is the ledger as it was then; an approval is about a checkpoint.
        count = subject.entries
        blob = ids[f"{base}:progress.txt"]
        if not _is_bound(named, self.ledger) or blob != ledger_blob_id(self.ledger, count, base):
            problems.append(f"it binds another progress.txt than commit {base[:12]} has")
        elif record.predicate.result == DecisionResult.PASS:
            checkpoint = self.commits.get(self.ledger.entries[count - 1].seq)
            if checkpoint is None or checkpoint.sha != base:
                problems.append(f"commit {base[:12]}, which it names, is not the checkpoint")
        return problems


def _decided_on(record: DecisionRecord) -> _Subject:
    """Return what a record is about; DocumentError if it does not say."""
    commit = find_descriptor(record.subject, "commit")
    progress = find_descriptor(record.subject, "progress.txt")
    requests = [item.name for item in record.subject if item not in (commit, progress)]
    if commit is None or progress is None or len(requests) != 1 or requests[0] is None:
        raise DocumentError("subject: expected commit, progress.txt and one request")
    digest = commit.digest or {}
    sha = digest.get("gitCommit", "")
    count = (progress.annotations or {}).get("entry")
    if not is_commit_id(sha) or not isinstance(count, int):
        raise DocumentError("subject: expected a gitCommit and the number of an entry")
    if not is_plain(requests[0]) or not is_printable(requests[0]):
        raise DocumentError("subject: expected a request inside the repository")
    return _Subject(sha, digest.get("gitTree"), requests[0], count, progress)


def _valid_decision(named: _Named) -> ValidDecision:
    decision = named.record.predicate
    return ValidDecision(
        checkpoint=named.subject.entries,
        request=decision.request.digest.sha256,
        lock=decision.lock.sha256 if decision.lock else None,
    )


def _lock_contradictions(named: _Named) -> list[str]:
    """Return where a relock's record and its entry name different locks."""
    lock = named.record.predicate.lock
    if named.entry.kind != EntryKind.LOCKED:
        return [] if lock is None else ["it names a lock, and its entry is no relock"]
    expected = (named.entry.match(entries.LOCK) or {}).get("sha256")
    if lock is None or lock.sha256 != expected:
        return ["it names another lock than its entry"]
    return []


def _ledger_contradictions(decision: Decision, genesis: Entry) -> list[str]:
    """Return where a record is not one of the ledger that begins with this entry."""
    problems = []
    root = genesis.match(entries.ROOT) or {}
    repository = decision.repository
    if (repository.genesis, repository.root_commit) != (genesis.self_hash, root.get("commit")):
        problems.append("it was made for another repository or another run")
    expected = expected_assurance(genesis)
    if decision.assurance != expected:
        problems.append(f"its assurance: got {decision.assurance}; expected {expected}")
    return problems


def _is_bound(named: _Named, ledger: Ledger) -> bool:
    """Return whether the ledger once was as a record binds it, before the record's entry."""
    count, progress = named.subject.entries, named.subject.progress
    if not 0 < count < named.entry.seq or count > len(ledger.entries):
        return False
    then = ledger.prefix(count)
    head = ledger.entries[count - 1].self_hash
    expected = {"size": len(then), "head": head, "entry": count}
    digest = (progress.digest or {}).get("sha256")
    return progress.annotations == expected and digest == durable.sha256(then)


def ledger_blob_id(ledger: Ledger, count: int, like: str) -> str:
    """Return git's id of progress.txt up to an entry; `like` is any id of the repository."""
    return blob_id([ledger.prefix(count)], ledger.ends[count], like)
