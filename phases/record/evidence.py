"""What the history says of the ledger: which entries were committed, which decisions are valid.

`status`, `run` and `audit` judge by this one function. An outcome was recorded by the runner's
commit whose trailers name it and whose progress.txt ends with it. A decision is valid if one commit
brought both its record and the entries that name it, and if the record says what they say and binds
what its commit holds. Whether it could be made in the state that the project had then, the fold
says (state.py).
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from phases.base import durable
from phases.base.paths import is_plain
from phases.base.text import is_printable
from phases.git.probe import blob_id
from phases.git.record_history import (
    GitObject,
    RecordCommit,
    is_ancestor,
    read_objects,
    read_record_history,
)
from phases.git.way_back import brought_way, untrailed_way
from phases.record import entries
from phases.record.decision_record import DecisionRecord, DecisionResult
from phases.record.ledger import UNFINISHED, Entry, EntryKind, Ledger, Problem
from phases.record.statement import DocumentError, find_descriptor, is_commit_id

APPROVALS = "prd/approvals"
"""The folder of the decision records."""
DECISIONS = (EntryKind.APPROVED, EntryKind.REJECTED, EntryKind.WAIVED)
"""Kinds of entries that must name a record; LOCKED names one only if it is a relock."""


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
class Evidence:
    """What the history says of the ledger's entries."""

    commits: Mapping[int, RecordCommit] = field(default_factory=dict)
    """Number of an entry -> the runner's commit that recorded it."""
    decisions: Mapping[int, ValidDecision] = field(default_factory=dict)
    """Number of an entry -> what its valid record is about."""
    problems: tuple[Problem, ...] = ()
    """Why other decisions are not valid."""
    committed: int = 0
    """How many entries HEAD's progress.txt has."""

    def ends_commit(self, number: int) -> bool:
        """Return whether a commit of the runner's ends with this entry, as with every outcome."""
        commit = self.commits.get(number)
        return commit is not None and commit.trailers["Phases-Entry"] == f"{number:04d}"

    @property
    def newest(self) -> RecordCommit | None:
        """The runner's newest commit in HEAD's history."""
        return self.commits[max(self.commits)] if self.commits else None

    def newest_before(self, number: int) -> RecordCommit | None:
        """Return the runner's newest commit that ends before an entry."""
        numbers = [seq for seq in self.commits if seq < number and self.ends_commit(seq)]
        return self.commits[max(numbers)] if numbers else None


def weigh_evidence(
    root: Path, ledger: Ledger, committed_bytes: int, *, is_cut: bool = False
) -> Evidence:
    """Return what HEAD's history says of the ledger.

    Args:
        root: the repository.
        ledger: the ledger.
        committed_bytes: the size of HEAD's progress.txt. Entries beyond it are in no commit: they
            are no problem, and the decisions among them do not count yet.
        is_cut: whether the history is cut, as in a shallow clone, which only views read: what is
            committed then counts as recorded.
    """
    if not ledger.entries:
        return Evidence()
    history = _read_history(root, ledger)
    commits = _recording_commits(history, ledger)
    committed = _count_entries(ledger, committed_bytes)
    if is_cut and history:
        return weigh_cut(root, ledger, history[0], committed)
    check = _DecisionCheck(root, ledger, commits, {})
    decisions, problems = check.run(ledger.entries[:committed])
    untrailed = _untrailed_outcome(root, ledger.entries[:committed], history, commits)
    if untrailed:
        problems = [untrailed, *problems]
    return Evidence(commits, decisions, tuple(problems), committed)


def weigh_cut(root: Path, ledger: Ledger, oldest: RecordCommit, committed: int) -> Evidence:
    """Return the evidence of a history that is cut: each committed entry by a commit of its own.

    Decisions count if their records say what their entries say.
    """
    commits = {}
    for entry in ledger.entries[:committed]:
        trailers = {"Phases-Entry": f"{entry.seq:04d}"}
        commits[entry.seq] = RecordCommit(oldest.sha, oldest.tree, (), trailers, {})
    check = _DecisionCheck(root, ledger, commits, {}, is_cut=True)
    decisions, problems = check.run(ledger.entries[:committed])
    return Evidence(commits, decisions, tuple(problems), committed)


def weigh_prepared(root: Path, ledger: Ledger, files: Mapping[str, bytes], head: str) -> Evidence:
    """Return what the history would say if HEAD's next commit brought the ledger's end.

    Args:
        root: the repository.
        ledger: the ledger with its new entries.
        files: path -> bytes of what comes with them.
        head: HEAD's commit.
    """
    commits = _recording_commits(_read_history(root, ledger), ledger)
    nothing = "0" * len(head)
    blobs = {path: blob_id([data], len(data), head) for path, data in files.items()}
    trailers = {"Phases-Entry": f"{len(ledger.entries):04d}"}
    coming = RecordCommit(nothing, nothing, (head,), trailers, blobs)
    for entry in ledger.entries:
        commits.setdefault(entry.seq, coming)
    decisions, problems = _DecisionCheck(root, ledger, commits, files).run(ledger.entries)
    return Evidence(commits, decisions, tuple(problems))


def _read_history(root: Path, ledger: Ledger) -> tuple[RecordCommit, ...]:
    # The commit that the first lock names was HEAD before the runner's first commit.
    heads = (entry.match(entries.HEAD) for entry in ledger.entries)
    first = next((head["commit"] for head in heads if head), None)
    return read_record_history(root, ("progress.txt", APPROVALS), first)


def _recording_commits(history: Sequence[RecordCommit], ledger: Ledger) -> dict[int, RecordCommit]:
    """Return number of an entry -> the runner's commit that recorded it.

    A commit records the entries since the one before, and ends with the entry that it names.
    """
    # 1. The runner's commits, by the entry that each ends with.
    named = {f"{entry.seq:04d}": entry for entry in ledger.entries}
    ends: dict[int, RecordCommit] = {}
    for commit in history:
        entry = named.get(commit.trailers.get("Phases-Entry", ""))
        if entry is None or "progress.txt" not in commit.blobs:
            continue
        if commit.trailers.get("Phases-Head") == entry.self_hash:
            ends.setdefault(entry.seq, commit)

    # 2. Those whose progress.txt is the ledger up to that entry, to the byte.
    commits: dict[int, RecordCommit] = {}
    data = ledger.header
    recorded = 0
    for entry in ledger.entries:
        data += entry.block
        end = ends.get(entry.seq)
        if end is None or end.blobs["progress.txt"] != blob_id([data], len(data), end.sha):
            continue
        for seq in range(recorded + 1, entry.seq + 1):
            commits[seq] = end
        recorded = entry.seq
    return commits


def _untrailed_outcome(
    root: Path,
    committed: Iterable[Entry],
    history: Sequence[RecordCommit],
    commits: Mapping[int, RecordCommit],
) -> Problem | None:
    """Return that an outcome came with a commit that is not the runner's; None if none did."""
    for entry in committed:
        if entry.seq in commits or entry.kind in UNFINISHED:
            continue
        runners = {commit.sha for commit in commits.values()}
        others = [commit for commit in history if commit.sha not in runners]
        bringing = [commit for commit in others if "progress.txt" in commit.blobs]
        message = f"{entry.kind} came with a commit without the runner's trailers"
        hint = ""
        if bringing:
            sha = bringing[-1].sha
            message += f": commit {sha[:12]} was made, amended or rebased by a user"
            hint = f"`{untrailed_way(root, sha)}`, then python -m phases run --next commits it anew"
        return Problem("commit-untrailed", entry.seq, message, hint)
    return None


def _count_entries(ledger: Ledger, size: int) -> int:
    """Return how many entries the first `size` bytes hold."""
    position = len(ledger.header)
    for count, entry in enumerate(ledger.entries):
        position += len(entry.block)
        if position > size:
            return count
    return len(ledger.entries)


#### decisions


@dataclass(frozen=True)
class _Named:
    """An entry that names a record, and that record."""

    entry: Entry
    path: str
    record: DecisionRecord
    commit: RecordCommit
    """The commit that brought both."""
    base: str
    """The commit that was decided on."""
    request: str
    """Path of the file that was decided on."""


@dataclass(frozen=True)
class _DecisionCheck:
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
        problems = []
        named = []
        for entry in committed:
            line = entry.match(entries.RECORD)
            if line is None:
                if entry.kind in DECISIONS:
                    message = f"this {entry.kind} entry names no record"
                    problems.append(Problem("approval-missing", entry.seq, message))
                continue
            result = self._read(entry, line["path"], line["sha256"])
            if isinstance(result, Problem):
                problems.append(result)
            else:
                named.append(result)

        # 2. What only git can tell of them, in one call.
        names = []
        for item in named:
            names += [f"{item.base}^{{tree}}", f"{item.base}:{item.request}"]
            names += [f"{item.base}:progress.txt", f"HEAD:{item.path}"]
        objects = read_objects(self.root, names)

        # 3. Record against entry and history.
        decisions = {}
        for item in named:
            problem = None if self.is_cut else self._head_problem(item, objects)
            if problem:
                problems.append(problem)
                continue
            reasons = self._contradictions(item)
            if not self.is_cut:
                reasons += self._base_problems(item, objects)
            for reason in reasons:
                problems.append(Problem("approval-invalid", item.entry.seq, reason))
            if not reasons:
                decisions[item.entry.seq] = _valid_decision(item)
        return decisions, sorted(problems, key=lambda problem: problem.entry or 0)

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
        if not data and file.is_file():
            data = file.read_bytes()
        blob = blob_id([data], len(data), commit.sha)
        if durable.sha256(data) != sha256 or commit.blobs.get(path, blob) != blob:
            message = f"not the record that the {entry.kind} entry names (sha256 {sha256[:12]}…)"
            way = brought_way(self.root, commit.sha, path)
            hint = f"`{way}` restores it" if way else ""
            return problem("approval-missing", message, hint)

        # 3. It is a decision record about a commit.
        try:
            record = DecisionRecord.decode(data)
            base, request = decided_on(record)
        except DocumentError as error:
            return problem("approval-invalid", f"it is not a decision record: {error}")
        return _Named(entry, path, record, commit, base, request)

    def _head_problem(
        self, named: _Named, objects: Mapping[str, GitObject | None]
    ) -> Problem | None:
        """Return that HEAD has another record by now: every clone would see that one."""
        current = objects[f"HEAD:{named.path}"]
        expected = named.commit.blobs[named.path]
        if named.path in self.files or (current and current.id == expected):
            return None
        message = f"{named.path}: HEAD has not the record that the {named.entry.kind} entry names"
        commit = named.commit.sha[:12]
        hint = f"`git checkout {commit} -- {shlex.quote(named.path)}` brings it back; commit it"
        return Problem("approval-missing", named.entry.seq, message, hint)

    def _contradictions(self, named: _Named) -> list[str]:
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
        naming = [other for other in self.ledger.entries if _names(other, named.path)]
        if decision.result == DecisionResult.WAIVE:
            waived = [other.feature for other in naming]
            if waived != list(decision.waived):
                problems.append(f"it waives {list(decision.waived)}, its entries waive {waived}")
        elif len(naming) > 1:
            numbers = ", ".join(f"{other.seq:04d}" for other in naming)
            problems.append(f"entries {numbers} name it; expected one entry for one record")

        # 3. The same ledger.
        genesis = self.ledger.entries[0]
        root = genesis.match(entries.ROOT) or {}
        repository = decision.repository
        if (repository.genesis, repository.root_commit) != (genesis.self_hash, root.get("commit")):
            problems.append("it was made for another repository or another run")
        return problems

    def _base_problems(self, named: _Named, objects: Mapping[str, GitObject | None]) -> list[str]:
        """Return where what a record binds differs from what its commit and the ledger hold."""
        base, record = named.base, named.record
        tree, request = objects[f"{base}^{{tree}}"], objects[f"{base}:{named.request}"]

        # 1. The commit is before the one that recorded the decision.
        parent = next(iter(named.commit.parents), "")
        if base != parent and not is_ancestor(self.root, base, parent):
            return [f"it names commit {base[:12]}, which is not before {named.commit.sha[:12]}"]

        # 2. Its tree, its progress.txt and the file that was decided on.
        problems = []
        commit = find_descriptor(record.subject, "commit")
        digest = (commit.digest if commit else None) or {}
        if tree is None or digest.get("gitTree") != tree.id:
            problems.append(f"it names another tree than commit {base[:12]} has")
        expected = record.digests.get(named.request)
        if request is None or durable.sha256(request.data) != expected:
            problems.append(f"it names another {named.request} than commit {base[:12]} has")
        if record.predicate.request.digest.sha256 != expected:
            problems.append("it names two digests of what was decided on")

        # 3. That progress.txt is the ledger as it was then; an approval is about a checkpoint.
        progress = objects[f"{base}:progress.txt"]
        then = _bound_ledger(record, self.ledger, named.entry.seq)
        if then is None or progress is None or progress.data != then.data:
            problems.append(f"it binds another progress.txt than commit {base[:12]} has")
        elif record.predicate.result == DecisionResult.PASS:
            checkpoint = self.commits.get(then.entries[-1].seq)
            if checkpoint is None or checkpoint.sha != base:
                problems.append(f"commit {base[:12]}, which it names, is not the checkpoint")
        return problems


def decided_on(record: DecisionRecord) -> tuple[str, str]:
    """Return commit and path of the file that a record is about; DocumentError if it names none."""
    commit = find_descriptor(record.subject, "commit")
    progress = find_descriptor(record.subject, "progress.txt")
    requests = [item.name for item in record.subject if item not in (commit, progress)]
    if commit is None or progress is None or len(requests) != 1 or requests[0] is None:
        raise DocumentError("subject: expected commit, progress.txt and one request")
    sha = (commit.digest or {}).get("gitCommit", "")
    entry = (progress.annotations or {}).get("entry")
    if not is_commit_id(sha) or not isinstance(entry, int):
        raise DocumentError("subject: expected a gitCommit and the number of an entry")
    if not is_plain(requests[0]) or not is_printable(requests[0]):
        raise DocumentError("subject: expected a request inside the repository")
    return sha, requests[0]


def _valid_decision(named: _Named) -> ValidDecision:
    decision = named.record.predicate
    progress = find_descriptor(named.record.subject, "progress.txt")
    annotations = (progress.annotations if progress else None) or {}
    return ValidDecision(
        checkpoint=int(annotations["entry"]),
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


def _bound_ledger(record: DecisionRecord, ledger: Ledger, before: int) -> Ledger | None:
    """Return the ledger as a record binds it; None where it never was so before an entry."""
    progress = find_descriptor(record.subject, "progress.txt")
    if progress is None:
        return None
    annotations = progress.annotations or {}
    count = annotations.get("entry")
    if not isinstance(count, int) or not 0 < count < before:
        return None
    then = Ledger(ledger.header, ledger.entries[:count])
    expected = {"size": len(then.data), "head": then.head, "entry": count}
    digest = (progress.digest or {}).get("sha256")
    if annotations != expected or digest != durable.sha256(then.data):
        return None
    return then


def _names(entry: Entry, path: str) -> bool:
    line = entry.match(entries.RECORD)
    return line is not None and line["path"] == path
