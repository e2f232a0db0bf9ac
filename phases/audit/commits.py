"""The runner's commits: progress.txt grows by whole entries, and the trailers state its end."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from phases.audit.findings import Finding, Severity
from phases.audit.record import PROGRESS, Record, Version, head_of
from phases.base.text import printable
from phases.git.record_history import (
    RecordCommit,
    read_ids,
    read_record_history,
    root_commits,
)
from phases.record import entries
from phases.record.ledger import OUTCOMES, UNFINISHED, Entry, EntryKind, Ledger, parse_ledger
from phases.record.sample import sample_problems
from phases.record.statement import is_commit_id


def read_versions(record: Record) -> list[Version]:
    """Return every version of progress.txt in HEAD's history, oldest first.

    Most of them are the ledger up to some entry: `Evidence` has hashed these, and they are not read
    again.
    """
    root = record.project.root
    history = read_record_history(root, (PROGRESS,))
    merges = [f"{commit.sha}:{PROGRESS}" for commit in history if len(commit.parents) > 1]
    merged = read_ids(root, merges)
    counts = {}
    for number in record.evidence.ends:
        counts[record.evidence.commits[number].sha] = number
    versions = []
    for commit in history:
        blob = commit.blobs.get(PROGRESS) or merged.get(f"{commit.sha}:{PROGRESS}")
        count = counts.get(commit.sha)
        if count is None:
            versions.append(_read_version(record, commit, blob))
        else:
            ledger = record.ledger
            versions.append(Version(commit, ledger.prefix(count), ledger.entries[:count]))
    return versions


def _read_version(record: Record, commit: RecordCommit, blob: str | None) -> Version:
    found = record.objects.find(blob) if blob and set(blob) != {"0"} else None
    if found is None:
        return Version(commit, None, ())
    ledger = record.ledger
    count = ledger.ends.index(len(found.data)) if len(found.data) in ledger.ends else None
    if count is not None and ledger.prefix(count) == found.data:
        return Version(commit, ledger.prefix(count), ledger.entries[:count])
    return Version(commit, memoryview(found.data), parse_ledger(found.data).entries)


def recording_commits(versions: Iterable[Version]) -> dict[int, RecordCommit]:
    """Return number of an entry -> the commit of the runner's that recorded it."""
    recorded_by: dict[int, RecordCommit] = {}
    last_recorded = 0
    for version in versions:
        if not version.entries or not version.is_runners:
            continue
        for entry in version.entries[last_recorded:]:
            if entry.seq > last_recorded:
                recorded_by[entry.seq] = version.commit
        last_recorded = max(last_recorded, version.entries[-1].seq)
    return recorded_by


def check_commits(record: Record) -> Iterator[Finding]:
    """Yield where progress.txt did not only grow, or the runner did not commit an outcome."""
    yield from _growth_findings(record.versions)
    last_committed = 0  # by anyone
    for version in record.versions:
        if not version.entries:
            continue
        record.checked["commits"] += 1
        if version.is_runners:
            yield from _trailer_findings(version.commit, version.entries[-1], record.ledger)
        else:
            new = [
                entry for entry in version.entries[last_committed:] if entry.seq > last_committed
            ]
            yield from _untrailed_findings(version.commit, new)
        last_committed = max(last_committed, version.entries[-1].seq)


def _growth_findings(versions: Iterable[Version]) -> Iterator[Finding]:
    """Yield where progress.txt was deleted, or does not begin with the version before.

    It is an error until a later commit brings the same text back, then a warning.
    """
    previous = memoryview(b"")
    broken: Finding | None = None
    for version in versions:
        data, sha = version.data, version.commit.sha
        if data is None:
            deletion = Finding("ledger-deleted", "progress.txt was deleted here", commit=sha)
            broken = broken or deletion
            continue
        if not version.entries and not previous:
            continue
        if not _begins(data, previous):
            message = "progress.txt does not begin with the version before"
            broken = broken or Finding("ledger-rewritten", message, commit=sha)
            continue
        if broken is not None:
            yield replace(broken, severity=Severity.WARNING)
            broken = None
        previous = data
    if broken is not None:
        yield broken


def _begins(data: memoryview, start: memoryview) -> bool:
    """Return whether a text begins with another one; two prefixes of one ledger need no look."""
    return len(data) >= len(start) and (data.obj is start.obj or data[: len(start)] == start)


def _untrailed_findings(commit: RecordCommit, new: Sequence[Entry]) -> Iterator[Finding]:
    """Yield what is wrong with entries in a commit without trailers.

    A user's `git commit -a` may include what a killed run had begun; only the runner commits an
    outcome.
    """
    outcomes = [entry for entry in new if entry.kind not in UNFINISHED]
    if outcomes:
        message = f"{outcomes[0].kind} came with a commit without the runner's trailers"
        yield Finding("commit-untrailed", message, entry=outcomes[0].seq, commit=commit.sha)
    elif new:
        yield Finding(
            "commit-untrailed",
            "a user's commit includes entries of an unfinished run",
            entry=new[0].seq,
            commit=commit.sha,
            severity=Severity.WARNING,
        )


def _trailer_findings(commit: RecordCommit, last: Entry, ledger: Ledger) -> Iterator[Finding]:
    """Yield where a commit's trailers, its last entry and the ledger differ."""
    entry = commit.trailers.get("Phases-Entry")
    head = commit.trailers.get("Phases-Head")
    if (entry, head) != (f"{last.seq:04d}", last.self_hash):
        actual = f"the commit holds {last.seq:04d} with {last.self_hash[:12]}…"
        message = f"the trailers state entry {printable(entry or 'none')}, {actual}"
        yield Finding("commit-trailers", message, entry=last.seq, commit=commit.sha)
    if ledger.entries[last.seq - 1 : last.seq] != (last,):
        message = f"entry {last.seq:04d} of this commit differs from the ledger's"
        yield Finding("commit-entry", message, entry=last.seq, commit=commit.sha)
    feature = commit.trailers.get("Phases-Feature")
    if last.kind in OUTCOMES and last.feature and feature != last.feature:
        message = f"the trailers state feature {feature or 'none'}, the entry {last.feature}"
        yield Finding("commit-trailers", message, entry=last.seq, commit=commit.sha)


def check_genesis(record: Record) -> Iterator[Finding]:
    """Yield that the first entry is about another history, or another project."""
    if not record.ledger.entries:
        return
    genesis = record.ledger.entries[0]
    root = genesis.match(entries.ROOT)
    if root is None or root["commit"] not in root_commits(record.project.root):
        message = "the first entry names the first commit of another history"
        yield Finding("genesis-foreign", message, entry=1)
    project = (genesis.match(entries.PROJECT) or {}).get("name")
    locked = [entry for entry in record.ledger.entries if entry.kind == EntryKind.LOCKED]
    head = head_of(locked[0]) if locked else ""
    try:
        expected = printable(record.plan(head).project) if is_commit_id(head) else project
    except ValueError:
        return  # a finding of the lock, unless another one replaced it
    if project != expected:
        message = f"the first entry is about project {project}; the plan's is {expected}"
        yield Finding("entry-contradicts", message, entry=1)


def check_sample(record: Record) -> Iterator[Finding]:
    """Yield where plan, first entry and locks differ on whether this is a sample run."""
    for problem in sample_problems(record.project.plan, record.ledger):
        yield Finding(problem.code, problem.message, problem.entry)


def check_uncommitted_outcomes(record: Record) -> Iterator[Finding]:
    """Yield the outcomes that came into the history otherwise than by their own commit.

    They count for nothing. It is an error unless the runner went on as if there was none: the
    feature was interrupted afterwards.
    """
    newest: dict[tuple[int | None, str | None], int] = {}
    for entry in record.ledger.entries:
        newest[entry.phase, entry.feature] = entry.seq
    for number, commit in record.set_aside.items():
        entry = record.ledger.entries[number - 1]
        message = f"no commit was made for this {entry.kind} entry; it counts for nothing"
        is_newest = newest[entry.phase, entry.feature] == number
        severity = Severity.ERROR if is_newest else Severity.WARNING
        yield Finding("outcome-uncommitted", message, number, commit=commit.sha, severity=severity)


def set_outcomes_aside(
    record: Record, recorded_by: Mapping[int, RecordCommit]
) -> tuple[dict[int, RecordCommit], dict[int, RecordCommit]]:
    """Return the commits of the entries that count, and those of outcomes that do not."""
    counted, set_aside = dict(recorded_by), {}
    for entry in record.ledger.entries:
        is_outcome = entry.kind in (*OUTCOMES, EntryKind.HALTED)
        if is_outcome and entry.seq in counted and not record.evidence.ends_commit(entry.seq):
            set_aside[entry.seq] = counted.pop(entry.seq)
    return counted, set_aside
