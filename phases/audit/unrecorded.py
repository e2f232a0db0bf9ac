"""Files in the folder of the results that no entry names: only runs make results."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from types import MappingProxyType

from phases.audit.findings import Finding, Severity
from phases.audit.record import Record
from phases.base import durable
from phases.base.paths import is_plain
from phases.base.text import printable
from phases.git.tree import CommitTree
from phases.record import entries
from phases.record.entries import RecordedFile
from phases.record.ledger import EntryKind, Ledger
from phases.record.project import Project
from phases.record.receipt import Receipt
from phases.record.statement import DocumentError

NAMING = (
    entries.RECEIPT,
    entries.VERDICT,
    entries.LOCK,
    entries.REQUEST,
    entries.ATTEMPT_RECORD,
)
"""Lines by which an entry names a file of the results."""


@dataclass(frozen=True)
class UnrecordedFile:
    """A file, link or special file below the results that nothing recorded."""

    path: str
    is_committed: bool
    """Whether HEAD has it."""

    def __str__(self) -> str:
        location = "committed" if self.is_committed else "not committed"
        return f"{printable(self.path)} ({location})"


def check_unrecorded(record: Record) -> Iterator[Finding]:
    """Yield what is below the results and in no record; a warning, as it changes no state."""
    files = unrecorded_results(record.project, record.head, record.ledger, record.outputs)
    for file in files:
        location = "HEAD has" if file.is_committed else "the work tree has"
        message = f"no entry names this file, which {location} among the results"
        path = printable(file.path, 1000)
        yield Finding("results-unrecorded", message, path=path, severity=Severity.WARNING)


def unrecorded_results(
    project: Project,
    tree: CommitTree,
    ledger: Ledger,
    known: Mapping[str, Iterable[str]] = MappingProxyType({}),
) -> list[UnrecordedFile]:
    """Return every file below the results that no entry names, in HEAD or in the work tree.

    Files that git ignores, links and special files are among them; links are not followed.

    Args:
        project: the project.
        tree: HEAD.
        ledger: the ledger.
        known: SHA-256 of a receipt -> the outputs that it names, of receipts that were read.
    """
    folder = project.paths.results_name
    named = _named_paths(project.root, tree, ledger, known)
    committed = {path for path in tree.entries if path.startswith(f"{folder}/")}
    existing = set(_work_tree_files(project.root, folder))
    return [
        UnrecordedFile(path, path in committed) for path in sorted((committed | existing) - named)
    ]


def _named_paths(
    root: Path, tree: CommitTree, ledger: Ledger, known: Mapping[str, Iterable[str]]
) -> set[str]:
    """Return what the entries name, and the outputs that each feature's newest receipt names."""
    # 1. The files that the entries name themselves.
    paths: set[str] = set()
    receipts: dict[str | None, list[RecordedFile]] = {}
    for entry in ledger.entries:
        for line_format in NAMING:
            paths.update(fields["path"] for fields in entry.match_all(line_format))
        receipt = entry.match(entries.RECEIPT)
        if receipt and entry.kind == EntryKind.VERIFIED:
            receipts.setdefault(entry.feature, []).append(RecordedFile(**receipt))

    # 2. The outputs. The newest receipt is nowhere yet where its run was killed.
    tree.read_files(sorted({path for path in paths if _is_file(tree, path)}))  # at once
    for recorded in receipts.values():
        for receipt_file in reversed(recorded):
            names = known.get(receipt_file.sha256) or _output_names(root, tree, receipt_file)
            if names is not None:
                results = PurePosixPath(receipt_file.path).parent
                paths.update(f"{results}/{name}" for name in names)
                break
    return paths


def _output_names(root: Path, tree: CommitTree, receipt_file: RecordedFile) -> list[str] | None:
    """Return the outputs that a receipt names; None where no commit and no file is the receipt."""
    for data in _candidates(root, tree, receipt_file.path):
        if durable.sha256(data) != receipt_file.sha256:
            continue
        try:
            return list(Receipt.decode(data).digests)
        except DocumentError:
            return None  # the audit of the receipts says so
    return None


def _candidates(root: Path, tree: CommitTree, path: str) -> Iterator[bytes]:
    """Yield the versions of a file: HEAD's, the work tree's, then those of the history."""
    if not is_plain(path):
        return  # git refuses to look for it
    if _is_file(tree, path):
        yield tree.read_files([path])[path]
    with suppress(OSError):  # a name that no file can have
        if (root / path).is_file():
            yield (root / path).read_bytes()
    for commit in tree.repo.history(paths=[path]):
        data = tree.repo.blob(commit.sha, path)
        if data is not None:
            yield data


def _is_file(tree: CommitTree, path: str) -> bool:
    entry = tree.entries.get(path)
    return entry is not None and entry.is_file


def _work_tree_files(root: Path, folder: str) -> Iterator[str]:
    """Yield the path of everything below a folder that is no folder itself.

    Bytes of names are read as git's are: as UTF-8, whatever the locale.
    """
    top = os.fsencode(root)
    for directory, folders, files in os.walk(os.path.join(top, folder.encode())):  # noqa: PTH118
        names = [*files, *_not_entered(directory, folders)]
        for name in names:
            path = os.path.relpath(os.path.join(directory, name), top)  # noqa: PTH118
            yield path.decode("utf-8", "surrogateescape")


def _not_entered(directory: bytes, folders: list[bytes]) -> Iterable[bytes]:
    """Return the links among folders, and a repository's own folder, which is then not entered."""
    names = []
    for name in list(folders):
        if name == b".git":
            folders.remove(name)
            names.append(name)
        elif os.path.islink(os.path.join(directory, name)):  # noqa: PTH114, PTH118
            names.append(name)
    return names
