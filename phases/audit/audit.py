"""audit: replays the whole record offline and lists everything that does not hold.

In order: journal and chain; every commit of the runner's against the entries it holds; every receipt and verdict in
the tree of the commit that recorded it; predictions scored again; plan locks; approvals; the order of the phases; and
what is stored on this machine. Reads only. What cannot be covered here is listed as uncovered, not passed over.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from phases.audit import locks as audit_locks
from phases.base import durable, strict_json
from phases.execution import inputs
from phases.git import checks as repo_state
from phases.record import approvals as approval, ledger, project, receipt, state
from phases.audit.findings import Finding, Report
from phases.record.ledger import Entry, Ledger
from phases.run.outcome import score
from phases.record.project import Project
from phases.git.repo import Commit, Repo

NAMED = r"(?P<word>verdict|request|attempt-record) sha256:(?P<digest>[0-9a-f]{64}) (?P<path>\S+)"
BEGINNINGS = ("GENESIS", "LOCKED", "STARTED", "INTERRUPTED", "RECOVERED", "REPAIRED")
"""Kinds of entries that are no outcome."""


@dataclass(frozen=True)
class _History:
    """The runner's commits, oldest first, and which of them recorded each entry."""

    commits: tuple[Commit, ...]
    holder: dict[int, Commit]


def audit(opened: Project) -> Report:
    """Replays everything; raises only where the repository itself cannot be read."""
    for missing in repo_state.of_the_clone(repo_state.read(opened.root, sign=False)):
        raise missing
    repo, report = opened.repo(), Report()
    if opened.probe.rewound:
        problem = project.rewound(opened.probe)
        report.findings.append(Finding(problem.code, str(problem)))
    found = project.reconcile(opened, repo)
    report.findings += [Finding(item.code, item.message, item.entry) for item in found.problems]
    book = found.ledger
    report.checked["entries"] = len(book.entries)
    if book.entries and not found.has_journal:
        report.uncovered.append(
            {
                "code": "no-journal",
                "message": "a clone has no journal: a cut at the end that was committed as such cannot be seen here",
            }
        )
    if found.restored:
        report.uncovered.append(
            {
                "code": "uncommitted-end",
                "message": f"progress.txt lacks its last {found.restored} "
                "entries; the journal has them, the next run restores them",
            }
        )
    history = _commits(repo, report, book)
    _genesis(repo, report, book)
    last = max(history.holder, default=0)
    if book.entries and book.entries[-1].seq > last:
        count = book.entries[-1].seq - last
        report.uncovered.append(
            {
                "code": "uncommitted-entries",
                "message": f"{count} entries after {last:04d} are in no commit yet; the next run commits them",
            }
        )
    _receipts(opened, repo, report, book, history)
    audit_locks.locks(opened, repo, report, book, {seq: commit.sha for seq, commit in history.holder.items()})
    _named_files(repo, report, book, history)
    _approvals(opened, repo, report, book)
    _order(opened, repo, report, book)
    return report


#### commits


def _commits(repo: Repo, report: Report, book: Ledger) -> _History:
    """Every commit's progress.txt grows by whole entries, and only commits with trailers make it grow."""
    known = {entry.seq: entry for entry in book.entries}
    ours, holder = [], {}
    previous, seen, grown = None, 0, 0
    for commit in reversed(list(repo.history(paths=["progress.txt"]))):
        data = repo.blob(commit.sha, "progress.txt")
        if data is None:
            report.findings.append(Finding("ledger-deleted", "progress.txt was deleted here", commit=commit.sha))
            continue
        entries = ledger.parse(data).entries
        if previous is not None and not data.startswith(previous) and entries:
            report.findings.append(
                Finding("ledger-rewritten", "progress.txt is not the earlier one and more after it", commit=commit.sha)
            )
        previous = data if entries else None
        if not entries:
            continue
        report.checked["commits"] += 1
        if "Phases-Entry" not in commit.trailers:
            if len(commit.parents) < 2:
                report.findings += _untrailed(commit, [entry for entry in entries if entry.seq > grown])
            grown = max(grown, entries[-1].seq)
            continue
        grown = max(grown, entries[-1].seq)
        report.findings += _commit_findings(repo, commit, entries, known)
        ours.append(commit)
        for entry in entries:
            if entry.seq > seen:
                holder[entry.seq] = commit
        seen = max(seen, entries[-1].seq)
    return _History(tuple(ours), holder)


def _untrailed(commit: Commit, new: list[Entry]) -> Iterator[Finding]:
    """A user's `git commit -a` may carry along what a killed run had begun; an outcome is the runner's to commit."""
    outcomes = [entry for entry in new if entry.kind not in BEGINNINGS]
    if outcomes:
        message = f"{outcomes[0].kind} came with a commit without the runner's trailers"
        yield Finding("commit-untrailed", message, entry=outcomes[0].seq, commit=commit.sha)
    elif new:
        message = "a user's commit carried along entries of a run that was not over"
        yield Finding("commit-untrailed", message, entry=new[0].seq, commit=commit.sha, severity="warning")


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
    if last.kind in state.OUTCOMES and last.feature and commit.trailers.get("Phases-Feature") != last.feature:
        yield Finding(
            "commit-trailers",
            f"trailers state feature {commit.trailers.get('Phases-Feature')}, the entry {last.feature}",
            entry=last.seq,
            commit=commit.sha,
        )


def _genesis(repo: Repo, report: Report, book: Ledger) -> None:
    """The first entry names the history it was begun in."""
    if not book.entries:
        return
    named = book.entries[0].fact(r"root (?P<commit>[0-9a-f]{40,64})")
    if named is None or named["commit"] != repo.root_commit():
        report.findings.append(
            Finding("genesis-foreign", "the first entry was begun in another history than this one", entry=1)
        )


#### receipts, verdicts, predictions, artifacts


def _receipts(opened: Project, repo: Repo, report: Report, book: Ledger, history: _History) -> None:
    newest = {entry.feature: entry for entry in book.entries if entry.kind == "VERIFIED"}
    for entry in book.entries:
        if entry.kind != "VERIFIED":
            continue
        commit = history.holder.get(entry.seq)
        if commit is None:
            continue
        read = _reader(repo, commit.sha)
        for finding in _receipt_findings(opened, repo, report, entry, commit, read):
            report.findings.append(finding)
        if newest[entry.feature] is entry:
            report.findings += _work_tree_findings(opened, entry)
            _artifacts(opened, report, entry, read)


def _reader(repo: Repo, commit: str) -> Callable[[str], bytes | None]:
    return lambda path: repo.blob(commit, path)


def _receipt_findings(
    opened: Project, repo: Repo, report: Report, entry: Entry, commit: Commit, read: Callable[[str], bytes | None]
) -> Iterator[Finding]:
    def bad(code: str, message: str, path: str | None = None) -> Finding:
        return Finding(code, f"{entry.feature}: {message}", entry.seq, commit.sha, path)

    documents = {}
    for word, pattern in (("receipt", state.RECEIPT), ("verdict", state.VERDICT)):
        named = entry.fact(pattern)
        data = read(named["path"]) if named else None
        if named is None or data is None or durable.sha256(data) != named["digest"]:
            yield bad(
                f"{word}-missing" if data is None else f"{word}-changed",
                f"the commit does not hold the {word} that the entry names",
                named["path"] if named else None,
            )
            return
        documents[word] = strict_json.loads(data)
    report.checked["receipts"] += 1
    made, judged = documents["receipt"], documents["verdict"]
    parameters = made["predicate"]["buildDefinition"]["externalParameters"]
    if (parameters["feature"], parameters["phase"]) != (entry.feature, entry.phase):
        yield bad("receipt-foreign", f"the receipt is of {parameters['feature']}")
    if commit.trailers.get("Phases-Receipt") not in (None, f"sha256:{(entry.fact(state.RECEIPT) or [''])[1]}"):
        yield bad("commit-trailers", "the trailer names another receipt than the entry")
    if receipt.subjects(made) != receipt.subjects(judged):
        yield bad("verdict-foreign", "the verdict is about other outputs than the receipt")
    if judged["predicate"]["result"] != "PASSED" or judged["predicate"]["failedTests"]:
        yield bad("verdict-contradicts", "the entry says VERIFIED, the verdict does not say PASSED")
    commits = receipt.dependency(made, "git") or {}
    if not repo.is_ancestor(commits.get("gitCommit", ""), commit.sha):
        yield bad("receipt-commit", "the receipt names a commit that is not before the one that recorded it")
    home = f"{opened.prd.results}/{entry.feature}"
    for name, digest in receipt.subjects(made).items():
        data = None if inputs.is_artifact(name) else read(f"{home}/{name}")
        if not inputs.is_artifact(name) and (data is None or durable.sha256(data) != digest):
            yield bad("result-changed", "an output in the commit is not what the receipt names", f"{home}/{name}")
    yield from _prediction_findings(repo, entry, commit, judged, read(f"{home}/result.json"), made, bad)


def _prediction_findings(
    repo: Repo, entry: Entry, commit: Commit, judged: Any, result: bytes | None, made: Any, bad: Callable[..., Finding]
) -> Iterator[Finding]:
    """Predictions are scored again from the committed numbers and the plan of that time."""
    ran_on = (receipt.dependency(made, "git") or {}).get("gitCommit", commit.sha)
    try:
        _, feature = audit_locks.plan_at(repo, ran_on).feature(entry.feature or "")
    except (ValueError, KeyError) as error:
        yield bad("plan-missing", f"the plan in commit {ran_on[:12]} cannot be read: {error}")
        return
    for output, target in feature.publish.items():
        data = repo.blob(commit.sha, target)
        if data is None or durable.sha256(data) != receipt.subjects(made).get(output):
            yield bad("published-changed", f"the published copy of {output} is not what the receipt names", target)
    measured = strict_json.loads(result)["measurements"] if result else {}
    again = [(item["id"], item["outcome"]) for item in score(feature, measured)]
    stated = [(item["id"], item["outcome"]) for item in judged["predicate"].get("phases/predictions/v1", [])]
    if again != stated:
        yield bad("prediction-score", f"predictions scored again give {again}, the verdict states {stated}")


def _published_since(opened: Project, entry: Entry, outputs: Mapping[str, str]) -> Iterator[Finding]:
    """A published copy that a person edited later is theirs to edit; that it is no longer the result is said."""
    try:
        publish = opened.prd.feature(entry.feature or "")[1].publish
    except KeyError:
        return
    for output, target in publish.items():
        path = opened.root / target
        if output in outputs and (not path.is_file() or durable.sha256_file(path) != outputs[output]):
            message = f"{entry.feature}: the published copy of {output} was changed since it was recorded"
            yield Finding("published-changed", message, entry.seq, path=target, severity="warning")


def _work_tree_findings(opened: Project, entry: Entry) -> Iterator[Finding]:
    """The newest results in the work tree are still what the receipt names."""
    home = opened.root / opened.prd.results / str(entry.feature)
    named = entry.fact(state.RECEIPT)
    path = home / "receipt.json"
    if named is None or not path.is_file() or durable.sha256_file(path) != named["digest"]:
        yield Finding(
            "receipt-changed",
            f"{entry.feature}: the work tree's receipt is not the one that the entry names",
            entry.seq,
            path=path.relative_to(opened.root).as_posix(),
        )
        return
    outputs = receipt.subjects(strict_json.loads(path.read_bytes()))
    yield from _published_since(opened, entry, outputs)
    for name, digest in outputs.items():
        file = home / name
        if not inputs.is_artifact(name) and (not file.is_file() or durable.sha256_file(file) != digest):
            yield Finding(
                "result-changed",
                f"{entry.feature}: an output in the work tree is not what the receipt names",
                entry.seq,
                path=file.relative_to(opened.root).as_posix(),
            )


def _artifacts(opened: Project, report: Report, entry: Entry, read: Callable[[str], bytes | None]) -> None:
    data = read(f"{opened.prd.results}/{entry.feature}/receipt.json")
    for name, digest in receipt.subjects(strict_json.loads(data)).items() if data else ():
        if not inputs.is_artifact(name):
            continue
        path = opened.paths.artifact(digest)
        if not path.is_file():
            report.uncovered.append(
                {
                    "code": "artifact-absent",
                    "message": f"{entry.feature} {name}: sha256 {digest[:12]}… is not on this machine",
                }
            )
            continue
        report.checked["artifacts"] += 1
        if durable.sha256_file(path) != digest:
            report.findings.append(
                Finding(
                    "artifact-changed",
                    f"{entry.feature}: {name} in the store is not what the receipt names",
                    entry.seq,
                    path=str(path),
                )
            )


#### exit verdicts, requests, failed attempts; locks, approvals, order


def _named_files(repo: Repo, report: Report, book: Ledger, history: _History) -> None:
    """What a halt or a failure names by digest is in the commit that recorded it."""
    for entry in book.entries:
        commit = history.holder.get(entry.seq)
        if commit is None or entry.kind not in ("HALTED", "FAILED", "ERRORED"):
            continue
        for named in filter(None, (re.fullmatch(NAMED, line) for line in entry.lines)):
            data = repo.blob(commit.sha, named["path"])
            if data is None or durable.sha256(data) != named["digest"]:
                message = f"the commit does not hold the {named['word']} that this {entry.kind} entry names"
                report.findings.append(Finding("named-file-changed", message, entry.seq, commit.sha, named["path"]))


def _approvals(opened: Project, repo: Repo, report: Report, book: Ledger) -> None:
    for path in approval.unrecorded(opened.root, book):
        report.findings.append(
            Finding("approval-unrecorded", "no entry names this file with its digest: nobody's decision", path=path)
        )
    for path in repo.files("HEAD", approval.FOLDER):
        if path not in approval.recorded(book):
            report.findings.append(Finding("approval-unrecorded", "committed, but no entry names this file", path=path))
    counted = approval.committed_records(repo, book)
    for entry in book.entries:
        named = entry.fact(state.RECORD)
        if named is None:
            if entry.kind in ("APPROVED", "REJECTED", "WAIVED"):
                report.findings.append(Finding("approval-missing", f"{entry.kind} without a record", entry.seq))
            continue
        if named["digest"] not in counted:
            report.findings.append(
                Finding(
                    "approval-missing",
                    f"the record that this {entry.kind} entry names is in no commit of the runner's",
                    entry.seq,
                    path=named["path"],
                )
            )
            continue
        report.checked["approvals"] += 1
        data = repo.blob("HEAD", named["path"]) or b""
        for reason in approval.check_record(repo, data, entry, book):
            report.findings.append(Finding("approval-invalid", reason, entry.seq, path=named["path"]))


def _order(opened: Project, repo: Repo, report: Report, book: Ledger) -> None:
    """Nothing of a phase stands before the approval of the phase before it."""
    counted = approval.committed_records(repo, book)
    approved: set[int] = set()
    for entry in book.entries:
        named = entry.fact(state.RECORD)
        if entry.kind == "APPROVED" and entry.phase and named and named["digest"] in counted:
            approved.add(entry.phase)
        if (
            entry.kind in ("LOCKED", "STARTED", "WAIVED")
            and entry.phase
            and entry.phase > 1
            and entry.phase - 1 not in approved
        ):
            report.findings.append(
                Finding(
                    "phase-unapproved",
                    f"phase {entry.phase} began without an approval of phase {entry.phase - 1}",
                    entry.seq,
                )
            )
