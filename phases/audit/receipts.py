"""Receipts, verdicts, predictions, artifacts: each is what its VERIFIED entry names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from phases.audit.findings import Finding, Report, Severity, Uncovered
from phases.base import durable, strict_json
from phases.base.paths import is_artifact
from phases.git.repo import Commit, Repo
from phases.judge.predictions import score_all
from phases.record import entries
from phases.record.committed_plan import committed_plan
from phases.record.ledger import Entry, EntryKind, Ledger
from phases.record.project import Project
from phases.record.receipt import Receipt
from phases.record.result import read_measurements
from phases.record.statement import DocumentError
from phases.record.verdict import Verdict, VerdictResult


@dataclass(frozen=True)
class _VerifiedEntry:
    """A VERIFIED entry and the commit that recorded it."""

    project: Project
    repo: Repo
    entry: Entry
    commit: Commit
    started: Entry | None
    """The newest STARTED of the feature before it."""

    @property
    def feature(self) -> str:
        return self.entry.feature or ""

    @property
    def results(self) -> str:
        """The folder of the feature's results, relative to the repository."""
        return self.project.paths.results(self.feature)

    def read(self, path: str) -> bytes | None:
        """Return a file of the commit."""
        return self.repo.blob(self.commit.sha, path)

    def finding(self, code: str, message: str, path: str | None = None) -> Finding:
        """Return a finding about the commit."""
        text = f"{self.feature}: {message}"
        return Finding(code, text, self.entry.seq, commit=self.commit.sha, path=path)

    def work_tree_finding(self, code: str, message: str, path: str) -> Finding:
        """Return a finding about a file on this machine."""
        return Finding(code, f"{self.feature}: {message}", self.entry.seq, path=path)


def check_receipts(
    project: Project,
    repo: Repo,
    report: Report,
    ledger: Ledger,
    recorded_by: Mapping[int, Commit],
) -> None:
    """Check every receipt and verdict in its commit; a feature's newest also on this machine.

    Args:
        project: the project.
        repo: its repository.
        report: the findings are added to it.
        ledger: the ledger.
        recorded_by: number of an entry -> the commit that recorded it.
    """
    # A new attempt replaces the results: only the newest ones are still in the work tree.
    newest: dict[str | None, Entry] = {}
    for entry in ledger.entries:
        if entry.kind == EntryKind.VERIFIED:
            newest[entry.feature] = entry
    started: dict[str | None, Entry] = {}
    for entry in ledger.entries:
        if entry.kind == EntryKind.STARTED:
            started[entry.feature] = entry
        if entry.kind != EntryKind.VERIFIED or entry.seq not in recorded_by:
            continue
        commit = recorded_by[entry.seq]
        verified = _VerifiedEntry(project, repo, entry, commit, started.get(entry.feature))
        report.findings += _receipt_findings(verified, report)
        if newest[entry.feature] is entry:
            report.findings += _work_tree_findings(verified)
            _check_artifacts(verified, report)


#### in the commit


def _receipt_findings(verified: _VerifiedEntry, report: Report) -> Iterator[Finding]:
    """Yield what is invalid in receipt, verdict, outputs and predictions of one commit."""
    # 1. Receipt and verdict are the files that the entry names.
    documents = {}
    for word, line_format in (("receipt", entries.RECEIPT), ("verdict", entries.VERDICT)):
        named = verified.entry.match(line_format) or {"path": "", "sha256": ""}
        data = verified.read(named["path"])
        path = named["path"] or None
        if data is None:
            yield verified.finding(f"{word}-missing", f"the commit has no such {word}", path)
            return
        if durable.sha256(data) != named["sha256"]:
            message = f"the commit's {word} differs from the one that the entry names"
            yield verified.finding(f"{word}-changed", message, path)
            return
        documents[word] = data
    try:
        receipt = Receipt.decode(documents["receipt"])
    except DocumentError as error:
        yield verified.finding("receipt-changed", f"the receipt is invalid: {error}")
        return
    try:
        verdict = Verdict.decode(documents["verdict"])
    except DocumentError as error:
        yield verified.finding("verdict-changed", f"the verdict is invalid: {error}")
        return
    report.checked["receipts"] += 1

    # 2. They are about this feature, and agree with each other and with git.
    yield from _receipt_contradictions(verified, receipt)
    yield from _verdict_contradictions(verified, receipt, verdict)

    # 3. The committed outputs are the ones that the receipt names.
    for name, digest in receipt.digests.items():
        if is_artifact(name):
            continue
        path = f"{verified.results}/{name}"
        data = verified.read(path)
        if data is None or durable.sha256(data) != digest:
            message = "an output in the commit differs from what the receipt names"
            yield verified.finding("result-changed", message, path)
    yield from _prediction_findings(verified, receipt, verdict)


def _receipt_contradictions(verified: _VerifiedEntry, receipt: Receipt) -> Iterator[Finding]:
    parameters = receipt.parameters
    entry = verified.entry
    if (parameters.feature, parameters.phase) != (entry.feature, entry.phase):
        message = f"the receipt is about {parameters.feature} in phase {parameters.phase}"
        yield verified.finding("receipt-foreign", message)
    if not _is_of_started(verified, receipt):
        message = "the receipt is not of the attempt that its STARTED entry names"
        yield verified.finding("receipt-foreign", message)
    trailer = verified.commit.trailers.get("Phases-Receipt")
    named = entry.match(entries.RECEIPT) or {}
    if trailer is not None and trailer != f"sha256:{named.get('sha256')}":
        message = "the trailer names another receipt than the entry"
        yield verified.finding("commit-trailers", message)
    if not verified.repo.is_ancestor(receipt.commit, verified.commit.sha):
        message = "the receipt names a commit that is not before the one that recorded it"
        yield verified.finding("receipt-commit", message)
        return
    if receipt.dependency("git").get("gitTree") != verified.repo.tree(receipt.commit):
        message = f"the receipt names another tree than commit {receipt.commit[:12]} has"
        yield verified.finding("receipt-commit", message)


def _is_of_started(verified: _VerifiedEntry, receipt: Receipt) -> bool:
    """Return whether a receipt is of the attempt, commit and transaction that were started."""
    if verified.started is None:
        return False
    attempt = (verified.started.match(entries.STARTED) or {}).get("attempt")
    head = (verified.started.match(entries.HEAD) or {}).get("commit")
    txn = (verified.started.match(entries.TRANSACTION) or {}).get("txn")
    metadata = receipt.predicate.run_details.metadata
    stated = (str(receipt.parameters.attempt), receipt.commit, metadata.invocation_id)
    return stated == (attempt, head, txn)


def _verdict_contradictions(
    verified: _VerifiedEntry, receipt: Receipt, verdict: Verdict
) -> Iterator[Finding]:
    if verdict.digests != receipt.digests:
        message = "the verdict is about other outputs than the receipt"
        yield verified.finding("verdict-foreign", message)
    if verdict.predicate.result != VerdictResult.PASSED or verdict.predicate.failed_tests:
        message = "the entry says VERIFIED, the verdict does not say PASSED"
        yield verified.finding("verdict-contradicts", message)


def _prediction_findings(
    verified: _VerifiedEntry, receipt: Receipt, verdict: Verdict
) -> Iterator[Finding]:
    """Yield where published copies or predictions differ, by the plan that the run had."""
    commit = receipt.commit or verified.commit.sha
    try:
        _, feature = committed_plan(verified.repo, commit).feature(verified.feature)
    except (ValueError, KeyError) as error:
        message = f"the plan in commit {commit[:12]} cannot be read: {error}"
        yield verified.finding("plan-missing", message)
        return

    # 1. Published copies are committed with the results.
    for output, path in feature.publish.items():
        data = verified.read(path)
        if data is None or durable.sha256(data) != receipt.digests.get(output):
            message = f"the published copy of {output} differs from what the receipt names"
            yield verified.finding("published-changed", message, path)

    # 2. The same numbers give the same scores.
    result = verified.read(f"{verified.results}/result.json")
    try:
        measurements = read_measurements(result) if result else {}
    except strict_json.StrictJsonError as error:
        yield verified.finding("result-changed", f"result.json is invalid: {error}")
        return
    recomputed = [(item.id, str(item.outcome)) for item in score_all(feature, measurements)]
    stated = [(item.id, item.outcome) for item in verdict.predicate.predictions]
    if recomputed != stated:
        message = f"the recomputed predictions are {recomputed}, the verdict states {stated}"
        yield verified.finding("prediction-score", message)


#### on this machine


def _work_tree_findings(verified: _VerifiedEntry) -> Iterator[Finding]:
    """Yield where the newest results in the work tree differ from what their receipt names."""
    receipt_path = f"{verified.results}/receipt.json"
    named = verified.entry.match(entries.RECEIPT)
    if named is None or not _has_digest(verified.project, receipt_path, named["sha256"]):
        message = "the work tree's receipt differs from the one that the entry names"
        yield verified.work_tree_finding("receipt-changed", message, receipt_path)
        return
    try:
        receipt = Receipt.decode((verified.project.root / receipt_path).read_bytes())
    except DocumentError:
        return  # the commit has the same bytes, and a finding
    yield from _published_findings(verified, receipt)
    for name, digest in receipt.digests.items():
        path = f"{verified.results}/{name}"
        if not is_artifact(name) and not _has_digest(verified.project, path, digest):
            message = "an output in the work tree differs from what the receipt names"
            yield verified.work_tree_finding("result-changed", message, path)


def _published_findings(verified: _VerifiedEntry, receipt: Receipt) -> Iterator[Finding]:
    """Yield the published copies that are no longer the result: the user may edit them."""
    try:
        _, feature = verified.project.plan.feature(verified.feature)
    except KeyError:
        return
    for output, path in feature.publish.items():
        digest = receipt.digests.get(output)
        if digest is not None and not _has_digest(verified.project, path, digest):
            message = f"the published copy of {output} was changed since it was recorded"
            finding = verified.work_tree_finding("published-changed", message, path)
            yield replace(finding, severity=Severity.WARNING)


def _check_artifacts(verified: _VerifiedEntry, report: Report) -> None:
    """Check the stored bytes of every artifact that the committed receipt names."""
    data = verified.read(f"{verified.results}/receipt.json")
    if data is None:
        return
    try:
        receipt = Receipt.decode(data)
    except DocumentError:
        return  # a finding already
    for name, digest in receipt.digests.items():
        if not is_artifact(name):
            continue
        path = verified.project.paths.artifact(digest)
        if not path.is_file():
            absent = f"{verified.feature} {name}: sha256 {digest[:12]}… is not on this machine"
            report.uncovered.append(Uncovered("artifact-absent", absent))
            continue
        report.checked["artifacts"] += 1
        if durable.sha256_file(path) != digest:
            message = f"{name} in the store differs from what the receipt names"
            finding = verified.work_tree_finding("artifact-changed", message, str(path))
            report.findings.append(finding)


def _has_digest(project: Project, path: str, digest: str) -> bool:
    """Return whether a file of the work tree exists and has this SHA-256."""
    file = project.root / path
    return file.is_file() and durable.sha256_file(file) == digest
