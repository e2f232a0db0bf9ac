"""Prepared records in `.phases/pending/`: which of them this runner prepared.

The folder is in the work tree, where anything can write. So a record counts only with its binding:
the digest of its `record.json` in the git common directory, under the transaction's id. The record
names the digest of every file beside it. A folder without `record.json` never happened; anything
else is foreign, and nothing is done while it is there.

A runner may be at work while this is read. It removes `record.json` first and the binding last, so
a record that is still there without its binding has none.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from stat import S_ISDIR, S_ISREG

from phases.base import durable
from phases.base.paths import Paths
from phases.base.regular_file import read_regular
from phases.base.text import printable
from phases.errors import IntegrityError
from phases.git.probe import common_dir_of, work_trees
from phases.record.ledger import parse_ledger
from phases.record.statement import DocumentError
from phases.record.transaction import RECORD, PendingRecord, Transaction, move_command

TXN = re.compile(r"[0-9a-f]{16}")
_LAID_DOWN = re.compile(r"\d+|\.(\d+|record\.json)\.\d+\.tmp")
"""Names in a folder whose record was not written yet: files, and what a killed write leaves."""


class _ForeignError(ValueError):
    """What was read is nothing that this runner prepared; the message says why."""


@dataclass(frozen=True)
class Pending:
    """What the pending folder holds."""

    prepared: tuple[Transaction, ...] = ()
    """What this runner had prepared completely."""
    unfinished: tuple[Path, ...] = ()
    """Folders without a record: what was in them never happened."""
    errors: tuple[IntegrityError, ...] = ()
    """One `pending-foreign` for everything else."""


def has_pending_record(paths: Paths) -> bool:
    """Return whether something is prepared that only a run can complete, or refuses."""
    return any(_contents(paths))


def read_pending(paths: Paths) -> Pending:
    """Return what the pending folder holds, each folder of it judged by its binding."""
    prepared, unfinished, errors = [], [], []
    for path in _contents(paths):
        try:
            transaction = _read_folder(paths, path)
        except _ForeignError as error:
            errors.append(foreign_error(paths, path, str(error)))
            continue
        if transaction is None:
            unfinished.append(path)
        else:
            prepared.append(transaction)
    return Pending(tuple(prepared), tuple(unfinished), tuple(errors))


def bound_folders(paths: Paths) -> dict[str, list[Path]]:
    """Return id -> folder in this work tree, then elsewhere, of each transaction that is bound.

    The work trees share the bindings; a folder may be gone, or not be there yet. git does not list
    the main work tree of a submodule or of a separate git directory, so a binding names its folder.
    """
    if not paths.bindings.is_dir():
        return {}
    bound = [path.name for path in paths.bindings.iterdir() if TXN.fullmatch(path.name)]
    if not bound:
        return {}
    name = paths.pending.relative_to(paths.root)
    trees = work_trees(paths.root)
    folders = {}
    for txn in bound:
        folders[txn] = [tree / name / txn for tree in trees]
        for named in _read_binding(paths, txn)[1:]:
            folder = Path(os.fsdecode(named))
            # A copy of the repository has bindings that name the folders of the original.
            is_readable = os.access(folder, os.R_OK | os.X_OK)
            is_foreign = is_readable and common_dir_of(folder) != paths.common_dir
            if is_there(folder) and not is_foreign:
                folders[txn].append(folder)
    return folders


def is_there(path: Path) -> bool:
    """Return whether a path exists, or may: in a folder where this user must not look."""
    try:
        return path.exists()
    except PermissionError:
        return True


def folders_elsewhere(paths: Paths) -> list[Path]:
    """Return the folders in other work trees in which a record waits that a runner prepared."""
    waiting = []
    for own_folder, *others in bound_folders(paths).values():
        if not own_folder.exists():
            waiting += [folder for folder in others if is_there(folder / RECORD)]
    return waiting


def foreign_error(paths: Paths, path: Path, reason: str) -> IntegrityError:
    """Return the error for a path in the pending folder that this runner did not prepare."""
    return IntegrityError(
        "pending-foreign",
        f"{printable(str(path))} is no record that this runner prepared: {reason}; "
        "nothing was changed",
        hint=f"`{move_command(paths, path)}` sets it aside; then type the command again",
    )


def raise_first(errors: tuple[IntegrityError, ...]) -> None:
    """Raise the first error, if there is one."""
    if errors:
        raise errors[0]


#### reading


def _contents(paths: Paths) -> Iterator[Path]:
    """Yield what the pending folder holds; the folder itself where it is none."""
    if _is_foreign_root(paths):
        yield paths.pending
    elif paths.pending.is_dir():
        yield from sorted(paths.pending.iterdir())


def _is_foreign_root(paths: Paths) -> bool:
    return paths.pending.is_symlink() or (paths.pending.exists() and not paths.pending.is_dir())


def _read_folder(paths: Paths, folder: Path) -> Transaction | None:
    """Return the transaction in a folder; None where it was not prepared completely."""
    # 1. It is a folder, it is called as a transaction, and it holds files and nothing else.
    if not TXN.fullmatch(folder.name):
        raise _ForeignError("got another name; expected a folder called by 16 hexadecimal digits")
    names = _file_names(folder)
    if RECORD not in names:
        _require_only(name for name in names if not _LAID_DOWN.fullmatch(name))
        return None

    # 2. It holds what its record names; a runner at work may have withdrawn the record meanwhile.
    try:
        return _read_record(paths, folder, names)
    except (_ForeignError, FileNotFoundError) as error:
        if not os.path.lexists(folder / RECORD):
            return None
        raise _ForeignError(str(error)) from None


def _file_names(folder: Path) -> set[str]:
    try:
        if not S_ISDIR(folder.lstat().st_mode):
            raise _ForeignError("it is no folder")
        names = set()
        for path in folder.iterdir():
            if not S_ISREG(path.lstat().st_mode):
                raise _ForeignError(f"{printable(path.name)} in it is no regular file")
            names.add(path.name)
    except FileNotFoundError:  # a runner at work removes it
        return set()
    return names


def _require_only(others: Iterator[str]) -> None:
    for name in others:
        raise _ForeignError(f"it holds {printable(name)}, which belongs to no record")


def _read_record(paths: Paths, folder: Path, names: set[str]) -> Transaction:
    # 1. The record is the one that was bound.
    data = read_regular(folder / RECORD)
    bound = _bound_digest(paths, folder.name)
    if bound is None:
        raise _ForeignError(f"{paths.binding(folder.name)}, which would bind it, does not exist")
    if bound != durable.sha256(data):
        raise _ForeignError(f"its {RECORD} is not the one that was bound")
    try:
        record = PendingRecord.decode(data)
    except DocumentError as error:
        raise _ForeignError(f"its {RECORD} cannot be read: {error}") from None
    if record.txn != folder.name:
        raise _ForeignError(f"its {RECORD} is of transaction {printable(record.txn)}")

    # 2. The files beside it are those that it names.
    expected = {RECORD, *map(str, range(len(record.files)))}
    _require_only(name for name in names - expected if os.path.lexists(folder / name))
    files = {}
    for number, (path, digest) in enumerate(record.files.items()):
        if str(number) not in names:
            raise _ForeignError(f"file {number} ({printable(path)}) is missing")
        files[path] = read_regular(folder / str(number))
        if durable.sha256(files[path]) != digest:
            raise _ForeignError(f"file {number} ({printable(path)}) has not the bytes it names")

    # 3. Its blocks are entries.
    blocks = parse_ledger("".join(record.blocks).encode())
    if blocks.header or blocks.rest or not 0 < len(blocks.entries) == len(record.blocks):
        raise _ForeignError("its blocks are no entries")
    return Transaction(
        txn=record.txn,
        entries=blocks.entries,
        message=record.message,
        trailers=record.trailers,
        files=files,
        removed=record.removed,
    )


def _bound_digest(paths: Paths, txn: str) -> str | None:
    """Return the digest of the record that this runner prepared under this id, or None."""
    for line in _read_binding(paths, txn)[:1]:
        return line.decode("ascii", "replace")
    return None


def _read_binding(paths: Paths, txn: str) -> list[bytes]:
    """Return what a binding holds: the digest and the folder; nothing where there is none."""
    try:
        return read_regular(paths.binding(txn)).removesuffix(b"\n").split(b"\n", 1)
    except FileNotFoundError:
        return []
