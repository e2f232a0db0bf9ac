"""The runner's commits: progress.txt grows by whole entries, and the trailers state its end."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from phases.audit.findings import Finding, Report, Severity
from phases.git.repo import Commit, Repo
from phases.record import entries
from phases.record.ledger import OUTCOMES, UNFINISHED, Entry, Ledger, parse_ledger


def check_commits(repo: Repo, report: Report, ledger: Ledger) -> dict[int, Commit]:
    """Check that progress.txt only grows, and that the runner committed every outcome.

    Returns:
        Number of each entry -> the commit of the runner's that recorded it.
    """
    versions = [
        (commit, repo.blob(commit.sha, "progress.txt"))
        for commit in reversed(list(repo.history(paths=["progress.txt"])))
    ]
    report.findings += _growth_findings(versions)

    # The last entries of each version came with its commit. The runner makes no merges: one that is
    # listed holds what none of its parents has.
    recorded_by: dict[int, Commit] = {}
    ledger_entries = {entry.seq: entry for entry in ledger.entries}
    last_recorded = 0  # by the runner
    last_committed = 0  # by anyone
    for commit, data in versions:
        committed = parse_ledger(data or b"").entries
        if not committed:
            continue
        report.checked["commits"] += 1
        if "Phases-Entry" in commit.trailers and len(commit.parents) < 2:
            report.findings += _trailer_findings(commit, committed, ledger_entries)
            for entry in committed:
                if entry.seq > last_recorded:
                    recorded_by[entry.seq] = commit
            last_recorded = max(last_recorded, committed[-1].seq)
        else:
            new = [entry for entry in committed if entry.seq > last_committed]
            report.findings += _untrailed_findings(commit, new)
        last_committed = max(last_committed, committed[-1].seq)
    return recorded_by


def _growth_findings(versions: Iterable[tuple[Commit, bytes | None]]) -> Iterator[Finding]:
    """Yield where progress.txt was deleted, or does not begin with the version before.

    It is an error until a later commit brings the same text back, then a warning.
    """
    previous = b""
    broken: Finding | None = None
    for commit, data in versions:
        if data is None:
            deletion = Finding("ledger-deleted", "progress.txt was deleted here", commit=commit.sha)
            broken = broken or deletion
            continue
        if not parse_ledger(data).entries and not previous:
            continue
        if not data.startswith(previous):
            message = "progress.txt does not begin with the version before"
            broken = broken or Finding("ledger-rewritten", message, commit=commit.sha)
            continue
        if broken is not None:
            yield replace(broken, severity=Severity.WARNING)
            broken = None
        previous = data
    if broken is not None:
        yield broken


def _untrailed_findings(commit: Commit, new: Sequence[Entry]) -> Iterator[Finding]:
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


def _trailer_findings(
    commit: Commit, committed: Sequence[Entry], ledger_entries: Mapping[int, Entry]
) -> Iterator[Finding]:
    """Yield where a commit's trailers, its last entry and the ledger differ."""
    last = committed[-1]
    entry = commit.trailers.get("Phases-Entry")
    head = commit.trailers.get("Phases-Head")
    if (entry, head) != (f"{last.seq:04d}", last.self_hash):
        actual = f"the commit holds {last.seq:04d} with {last.self_hash[:12]}…"
        message = f"the trailers state entry {entry}, {actual}"
        yield Finding("commit-trailers", message, entry=last.seq, commit=commit.sha)
    if ledger_entries.get(last.seq) != last:
        message = f"entry {last.seq:04d} of this commit differs from the ledger's"
        yield Finding("commit-entry", message, entry=last.seq, commit=commit.sha)
    feature = commit.trailers.get("Phases-Feature")
    if last.kind in OUTCOMES and last.feature and feature != last.feature:
        message = f"the trailers state feature {feature}, the entry {last.feature}"
        yield Finding("commit-trailers", message, entry=last.seq, commit=commit.sha)


def check_genesis(repo: Repo, report: Report, ledger: Ledger) -> None:
    """Check that the first entry names a first commit of this history."""
    if not ledger.entries:
        return
    root = ledger.entries[0].match(entries.ROOT)
    if root is None or root["commit"] not in repo.root_commits():
        message = "the first entry names the first commit of another history"
        report.findings.append(Finding("genesis-foreign", message, entry=1))
