"""The runner's commits: progress.txt grows by whole entries, and the trailers state its end."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
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
    recorded_by: dict[int, Commit] = {}
    ledger_entries = {entry.seq: entry for entry in ledger.entries}
    previous = b""
    last_recorded = 0  # by the runner
    last_committed = 0  # by anyone
    broken: Finding | None = None  # an error until a later commit brings the same text back
    for commit in reversed(list(repo.history(paths=["progress.txt"]))):
        # 1. progress.txt exists, and begins with the version before.
        data = repo.blob(commit.sha, "progress.txt")
        if data is None:
            deletion = Finding("ledger-deleted", "progress.txt was deleted here", commit=commit.sha)
            broken = broken or deletion
            continue
        committed = parse_ledger(data).entries
        if not committed and not previous:
            continue
        if not data.startswith(previous):
            message = "progress.txt does not begin with the version before"
            broken = broken or Finding("ledger-rewritten", message, commit=commit.sha)
        elif broken is not None:
            report.findings.append(replace(broken, severity=Severity.WARNING))
            broken = None
        if not committed:
            continue
        if broken is None:
            previous = data
        report.checked["commits"] += 1

        # 2. Its last entries came with this commit. The runner makes no merges: one that is listed
        #    holds what none of its parents has.
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
    if broken is not None:
        report.findings.append(broken)
    return recorded_by


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
    """Check that the first entry names this history's first commit."""
    if not ledger.entries:
        return
    root = ledger.entries[0].match(entries.ROOT)
    if root is None or root["commit"] != repo.root_commit():
        message = "the first entry names the first commit of another history"
        report.findings.append(Finding("genesis-foreign", message, entry=1))
