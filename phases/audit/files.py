"""Every file that an entry names, or a receipt: in its commit, in HEAD, in the work tree."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from phases.audit.attempts import Attempt
from phases.audit.findings import Finding, Severity, Uncovered
from phases.audit.receipts import committed_outputs
from phases.audit.record import PROGRESS, Record
from phases.base import durable
from phases.base.paths import is_artifact
from phases.git.record_history import read_record_history
from phases.record import entries
from phases.record.ledger import Entry, EntryKind

PHASE_FILE = "named-file-changed"
NAMING = {
    entries.RECEIPT: "receipt-changed",
    entries.VERDICT: "verdict-changed",
    entries.LOCK: "lock-changed",
    entries.REQUEST: PHASE_FILE,
    entries.ATTEMPT_RECORD: PHASE_FILE,
}
"""Lines by which an entry names a file of the results -> the code where it is another one. Records
of decisions are compared where decisions are."""


def check_outputs(record: Record, attempt: Attempt) -> Iterator[Finding]:
    """Yield the outputs and published copies that the commit has not as the receipt names them."""
    if not attempt.is_verified:
        return
    outcome, commit = attempt.outcome, attempt.outcome.commit.sha
    for path, digest in committed_outputs(attempt).items():
        if _digest(record.read(commit, path)) != digest:
            message = "an output in the commit differs from what the receipt names"
            yield outcome.finding("result-changed", message, path)
    for output, path in attempt.feature.publish.items():
        if _digest(record.read(commit, path)) != attempt.receipt.digests.get(output):
            message = f"the published copy of {output} differs from what the receipt names"
            yield outcome.finding("published-changed", message, path)


def check_named_files(record: Record) -> Iterator[Finding]:
    """Yield the files that an entry names and its commit has not so.

    Receipts, verdicts of features, records of attempts and locks are read, and compared, elsewhere.
    """
    for entry in record.ledger.entries:
        commit = record.commits.get(entry.seq)
        if commit is None or entry.kind not in (EntryKind.HALTED, EntryKind.FAILED):
            continue
        if entry.feature is not None:
            continue
        for line_format in (entries.REQUEST, entries.VERDICT):
            for named in entry.match_all(line_format):
                if _digest(record.read(commit.sha, named["path"])) != named["sha256"]:
                    yield Finding(
                        PHASE_FILE,
                        f"a file in the commit differs from what this {entry.kind} entry names",
                        entry.seq,
                        commit=commit.sha,
                        path=named["path"],
                    )


@dataclass(frozen=True)
class NamedFile:
    """A file by its newest entry."""

    path: str
    sha256: str
    entry: Entry
    code: str

    def difference(self, where: str) -> Finding:
        """Return that it is another one in HEAD, or in the work tree."""
        feature = f"{self.entry.feature}: " if self.entry.feature else ""
        message = f"{feature}it is not in {where} as this {self.entry.kind} entry names it"
        return Finding(self.code, message, self.entry.seq, path=self.path)


def check_newest_files(record: Record) -> Iterator[Finding]:
    """Yield the files that HEAD or the work tree has not as their newest entry names them."""
    head = record.head.entries
    newer = _uncommitted_digests(record)
    for file in (*_newest_named(record), *_newest_outputs(record)):
        item = head.get(file.path)
        if item is None or not item.is_file or record.digest(item.id) != file.sha256:
            yield file.difference("HEAD")
        actual = record.work_tree_digest(file.path)
        if actual != file.sha256 and (actual is None or actual not in newer.get(file.path, ())):
            yield file.difference("the work tree")


def _newest_named(record: Record) -> Iterator[NamedFile]:
    """Yield the newest file of each path that committed entries name."""
    files: dict[str, NamedFile] = {}
    for entry in record.ledger.entries:
        if entry.seq not in record.commits or entry.seq in record.evidence.lost:
            continue
        if entry.kind in (EntryKind.APPROVED, EntryKind.REJECTED):
            continue  # they name the request that HALTED names
        for line_format, code in NAMING.items():
            is_of_phase = line_format == entries.VERDICT and entry.feature is None
            for named in entry.match_all(line_format):
                file = NamedFile(named["path"], named["sha256"], entry, code)
                files[file.path] = replace(file, code=PHASE_FILE) if is_of_phase else file
    yield from files.values()


def _newest_outputs(record: Record) -> Iterator[NamedFile]:
    """Yield the outputs that the newest receipt of each feature names."""
    for entry, outputs in _newest_verified(record):
        named = entry.match(entries.RECEIPT) or {"path": ""}
        folder = named["path"].rpartition("/")[0]
        for name, digest in outputs.items():
            if not is_artifact(name):
                yield NamedFile(f"{folder}/{name}", digest, entry, "result-changed")


def _newest_verified(record: Record) -> Iterator[tuple[Entry, dict[str, str]]]:
    """Yield the newest VERIFIED of each feature, with the outputs that its receipt names."""
    newest: dict[str | None, Entry] = {}
    for entry in record.ledger.entries:
        if entry.kind == EntryKind.VERIFIED and entry.seq in record.commits:
            newest[entry.feature] = entry
    for entry in newest.values():
        named = entry.match(entries.RECEIPT) or {"sha256": ""}
        yield entry, record.outputs.get(named["sha256"], {})


def _uncommitted_digests(record: Record) -> dict[str, set[str]]:
    """Return path -> digests that entries name which a killed run has not committed yet."""
    digests: dict[str, set[str]] = {}
    for entry in record.ledger.entries:
        if entry.seq in record.commits:
            continue
        for line_format in NAMING:
            for named in entry.match_all(line_format):
                digests.setdefault(named["path"], set()).add(named["sha256"])
    return digests


def check_contents(record: Record) -> Iterator[Finding]:
    """Yield what a commit of the runner's changed besides its entries and what they name."""
    entries_of: dict[str, list[Entry]] = {}
    for entry in record.ledger.entries:
        commit = record.commits.get(entry.seq)
        if commit is not None:
            entries_of.setdefault(commit.sha, []).append(entry)
    changes = read_record_history(record.project.root, (PROGRESS,), with_others=True)
    for commit in changes:
        own = entries_of.get(commit.sha, [])
        if not own or _has_unread_receipt(record, own):
            continue
        last = own[-1]
        allowed, folders = _own_paths(record, own)
        for path, blob in commit.blobs.items():
            is_removal = set(blob) == {"0"} and path.startswith(folders)
            if path not in allowed and not is_removal:
                message = f"commit {commit.sha[:12]} changed a file that its entries do not name"
                yield Finding("commit-content", message, last.seq, commit=commit.sha, path=path)


def _has_unread_receipt(record: Record, own: Iterable[Entry]) -> bool:
    """Return whether it is not known what a commit had to bring: a finding of its own."""
    receipts = [entry.match(entries.RECEIPT) for entry in own]
    return any(receipt and receipt["sha256"] not in record.outputs for receipt in receipts)


def _own_paths(record: Record, own: Sequence[Entry]) -> tuple[set[str], tuple[str, ...]]:
    """Return what the commit of some entries may change, and below which folders it may remove.

    The plan lock of a phase comes with any outcome, where HEAD does not have it.
    """
    allowed, folders = {PROGRESS}, []
    for entry in own:
        for line_format in (*NAMING, entries.RECORD):
            allowed.update(named["path"] for named in entry.match_all(line_format))
        if entry.phase is not None:
            allowed.update(record.lock_paths(entry.phase))
        receipt = entry.match(entries.RECEIPT)
        if receipt is None:
            continue
        folder = receipt["path"].rpartition("/")[0]
        folders.append(f"{folder}/")
        allowed.update(f"{folder}/{name}" for name in record.outputs.get(receipt["sha256"], {}))
        allowed.update(record.published.get(receipt["sha256"], ()))
    return allowed, tuple(folders)


#### what git does not have, or the user may change


def check_artifacts(record: Record) -> Iterator[Finding | Uncovered]:
    """Yield the artifacts of each feature's newest receipt that are missing here, or changed."""
    for entry, outputs in _newest_verified(record):
        for name, digest in outputs.items():
            if not is_artifact(name):
                continue
            path = record.project.paths.artifact(digest)
            if not path.is_file():
                absent = f"{entry.feature} {name}: sha256 {digest[:12]}… is not on this machine"
                yield Uncovered("artifact-absent", absent)
                continue
            record.checked["artifacts"] += 1
            if durable.sha256_file(path) != digest:
                message = f"{name} in the store differs from what the receipt names"
                text = f"{entry.feature}: {message}"
                yield Finding("artifact-changed", text, entry.seq, path=str(path))


def check_published(record: Record) -> Iterator[Finding]:
    """Yield the published copies that are no longer the result: the user may edit them."""
    for entry, outputs in _newest_verified(record):
        try:
            _, feature = record.project.plan.feature(entry.feature or "")
        except KeyError:
            continue
        for output, path in feature.publish.items():
            digest = outputs.get(output)
            if digest is not None and record.work_tree_digest(path) != digest:
                message = f"the published copy of {output} was changed since it was recorded"
                finding = Finding("published-changed", f"{entry.feature}: {message}", entry.seq)
                yield replace(finding, path=path, severity=Severity.WARNING)


def _digest(data: bytes | None) -> str | None:
    return None if data is None else durable.sha256(data)
