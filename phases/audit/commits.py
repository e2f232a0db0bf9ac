"""The runner's commits: each one's progress.txt grows by whole entries, and its trailers say what it holds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from phases.audit.findings import Finding, Report
from phases.git.repo import Commit, Repo
from phases.record import state
from phases.record.ledger import Entry, Ledger, parse_ledger

BEGINNINGS = ("GENESIS", "LOCKED", "STARTED", "INTERRUPTED", "RECOVERED", "REPAIRED")
"""Kinds of entries that are no outcome."""


@dataclass(frozen=True)
class History:
    """The runner's commits, oldest first, and which of them recorded each entry."""

    commits: tuple[Commit, ...]
    holder: dict[int, Commit]


def check_commits(repo: Repo, report: Report, ledger: Ledger) -> History:
    """Every commit's progress.txt grows by whole entries, and only commits with trailers make it grow."""
    known = {entry.seq: entry for entry in ledger.entries}
    ours, holder = [], {}
    previous, seen, grown = None, 0, 0
    for commit in reversed(list(repo.history(paths=["progress.txt"]))):
        data = repo.blob(commit.sha, "progress.txt")
        if data is None:
            report.findings.append(
                Finding("ledger-deleted", "progress.txt was deleted here", commit=commit.sha)
            )
            continue
        entries = parse_ledger(data).entries
        if previous is not None and not data.startswith(previous) and entries:
            report.findings.append(
                Finding(
                    "ledger-rewritten",
                    "progress.txt is not the earlier one and more after it",
                    commit=commit.sha,
                )
            )
        previous = data if entries else None
        if not entries:
            continue
        report.checked["commits"] += 1
        if "Phases-Entry" not in commit.trailers:
            if len(commit.parents) < 2:
                report.findings += _untrailed(
                    commit, [entry for entry in entries if entry.seq > grown]
                )
            grown = max(grown, entries[-1].seq)
            continue
        grown = max(grown, entries[-1].seq)
        report.findings += _commit_findings(repo, commit, entries, known)
        ours.append(commit)
        for entry in entries:
            if entry.seq > seen:
                holder[entry.seq] = commit
        seen = max(seen, entries[-1].seq)
    return History(tuple(ours), holder)


def _untrailed(commit: Commit, new: list[Entry]) -> Iterator[Finding]:
    """A user's `git commit -a` may carry along what a killed run had begun; an outcome is the runner's to commit."""
    outcomes = [entry for entry in new if entry.kind not in BEGINNINGS]
    if outcomes:
        message = f"{outcomes[0].kind} came with a commit without the runner's trailers"
        yield Finding("commit-untrailed", message, entry=outcomes[0].seq, commit=commit.sha)
    elif new:
        message = "a user's commit carried along entries of a run that was not over"
        yield Finding(
            "commit-untrailed", message, entry=new[0].seq, commit=commit.sha, severity="warning"
        )


def _commit_findings(
    repo: Repo, commit: Commit, entries: tuple[Entry, ...], known: dict[int, Entry]
) -> Iterator[Finding]:
    last = entries[-1]
    stated = (commit.trailers.get("Phases-Entry"), commit.trailers.get("Phases-Head"))
    if stated != (f"{last.seq:04d}", last.self_hash):
        yield Finding(
            "commit-trailers",
            f"trailers state entry {stated[0]}, the commit holds {last.seq:04d} with {last.self_hash[:12]}…",
            entry=last.seq,
            commit=commit.sha,
        )
    if known.get(last.seq) != last:
        yield Finding(
            "commit-entry",
            f"entry {last.seq:04d} of this commit is not the ledger's",
            entry=last.seq,
            commit=commit.sha,
        )
    if (
        last.kind in state.OUTCOMES
        and last.feature
        and commit.trailers.get("Phases-Feature") != last.feature
    ):
        yield Finding(
            "commit-trailers",
            f"trailers state feature {commit.trailers.get('Phases-Feature')}, the entry {last.feature}",
            entry=last.seq,
            commit=commit.sha,
        )


def check_genesis(repo: Repo, report: Report, ledger: Ledger) -> None:
    """The first entry names the history it was begun in."""
    if not ledger.entries:
        return
    named = ledger.entries[0].fact(r"root (?P<commit>[0-9a-f]{40,64})")
    if named is None or named["commit"] != repo.root_commit():
        report.findings.append(
            Finding(
                "genesis-foreign",
                "the first entry was begun in another history than this one",
                entry=1,
            )
        )
