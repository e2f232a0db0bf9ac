"""The script of docs/verify-by-hand.md, and its agreement with `audit` on the same repository.

Wherever a test runs `audit`, `Toy` runs the script too. Where `audit` finds no error, the script
finds no fault. Where it finds one, so does the script, unless each error is one that the script
does not look for: of `NOT_COVERED`, of `NOT_COVERED_PARTS`, or about files of the work tree that
differ from HEAD's. A code that is in neither table must agree.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import cache
from pathlib import Path
from typing import Any

DOCUMENT = Path(__file__).resolve().parents[2] / "docs/verify-by-hand.md"
AUDITED = (0, 3)
"""Exit codes of an audit that reached its end."""


@dataclass(frozen=True)
class Gap:
    """Findings of `audit` that the script does not make."""

    codes: tuple[str, ...]
    """Their codes; `*` stands for any end."""
    reason: str
    messages: str = ".*"
    """Pattern at the beginning of their messages."""


SCHEMA = "it compares fields, and does not know the whole schema of a document"
NOT_COVERED = (
    Gap(
        ("journal-*", "log-ref-*", "history-rewound", "pending-*"),
        "they are about .git and .phases of the machine that recorded; the script reads commits",
    ),
    Gap(
        (
            "plan-*",
            "lock-contradicts",
            "sample-contradicts",
            "prediction-score",
            "published-changed",
        ),
        "it does not read the plan",
    ),
    Gap(
        ("entry-contradicts", "receipt-contradicts"),
        "it makes no entry again, and recomputes nothing of what went into a run",
    ),
    Gap(("commit-content",), "it does not look at what else a commit changed"),
    Gap(
        ("halt-contradicts", "request-contradicts", "approval-lowered"),
        "it does not know which features a phase has, and how the plan wants it approved",
    ),
    Gap(("entry-order",), "it knows which phase is open, and not which feature runs"),
    Gap(("pulled-contradicts",), "a PULLED changes no state"),
    Gap(("genesis-foreign",), "the history is the one that the reader cloned"),
    Gap(("git-object",), "git fsck checks all objects; the script reads those that it needs"),
)
"""Findings of these codes; the document lists the same."""

NOT_COVERED_PARTS = (
    Gap(
        ("verdict-contradicts",),
        "it reads the result, the failed checks and the outputs, not how they came about",
        r"(?!\S+ the verdict says FAILED).*",
    ),
    Gap(
        ("commit-trailers",),
        "it reads what identifies an outcome",
        r"(of Phases-|.*(the commit's subject|of Phases-(Attempt|Txn|Receipt)|something twice))",
    ),
    Gap(
        ("receipt-commit",),
        "it does not compare the commit that ran with the entries before",
        r"\S+ the receipt names a commit that lacks",
    ),
    Gap(
        ("approval-invalid",),
        "it does not read the plan, and no constant text",
        r"(its record |it waives [^\[]|it says .*; expected )",
    ),
    Gap(("receipt-foreign",), "it does not read STARTED", r"\S+ the receipt is not of the attempt"),
    Gap(("receipt-changed", "verdict-changed"), SCHEMA, r"\S+ the (receipt|verdict) is invalid"),
    Gap(("lock-changed",), "it does not parse locks", r"(?!.*differs from)"),
    Gap(("approval-invalid",), SCHEMA, r".*(is not a decision record|it resets|its name)"),
    Gap(
        ("approval-invalid",),
        "of decisions other than approvals it does not know when they could be made",
        r".*(not about the checkpoint|had not begun|no lock to change|was not open|Q-\d+ was )",
    ),
    Gap(("result-changed",), "it does not parse results", r"\S+ result\.json is invalid"),
)
"""Findings with these messages; others of the same code the script makes too."""


FOLLOWS = ("approval-invalid", "phase-unapproved", "entry-order")
"""Codes that follow from a decision's record that the work tree has not: it does not count."""


@dataclass(frozen=True)
class Verification:
    """What the script said of a repository."""

    code: int
    checked: Mapping[str, int]
    """Kind of check -> how many of them."""
    faults: tuple[str, ...]


@cache
def script() -> str:
    """Return the script that the document contains."""
    (text,) = re.findall(r"^```python\n(.*?)^```$", DOCUMENT.read_text("utf-8"), re.M | re.S)
    return str(text)


def verify_by_hand(root: Path) -> Verification:
    """Run the script on a repository, as a reader does: without this project and its packages."""
    process = subprocess.run(
        [sys.executable, "-I", "-S", "-c", script(), os.fspath(root)],
        capture_output=True,
        check=False,
    )
    stdout, stderr = process.stdout.decode(), process.stderr.decode(errors="replace")
    assert process.returncode in (0, 1), stdout + stderr
    assert stderr == ""
    checked, faults = {}, []
    for line in stdout.splitlines():
        count = re.fullmatch(r"(\w+): (\d+) checked", line)
        if count:
            checked[count[1]] = int(count[2])
        else:
            faults.append(line)
    return Verification(process.returncode, checked, tuple(faults))


#### agreement with audit


def assert_agreement(
    root: Path, code: int, read_errors: Callable[[], Sequence[Mapping[str, Any]]]
) -> None:
    """Run the script where `audit` ended with a code; check that both say the same.

    Args:
        root: the repository.
        code: the exit code of `audit`.
        read_errors: returns the errors that `audit` lists; asked only where the script has none.
    """
    verification = verify_by_hand(root)
    if code == 0:
        assert verification.code == 0, f"audit finds nothing, the script {verification.faults}"
    elif verification.code == 0:
        errors = read_errors()
        follows = FOLLOWS if any(_is_about_the_work_tree(root, item) for item in errors) else ()
        missed = [
            error
            for error in errors
            if error["code"] not in follows and not _is_excused(root, error)
        ]
        assert not missed, f"the script finds nothing, audit {missed}"


def _is_excused(root: Path, error: Mapping[str, Any]) -> bool:
    """Return whether the script need not make a finding of `audit`."""
    if "/attempts/" in (error["path"] or "") and error["code"] != "named-file-changed":
        return True  # a record of a failed attempt is compared by its digest alone
    for gap in (*NOT_COVERED, *NOT_COVERED_PARTS):
        is_meant = any(fnmatch(error["code"], code) for code in gap.codes)
        if is_meant and re.match(gap.messages, error["message"]):
            return True
    return _is_about_the_work_tree(root, error)


def _is_about_the_work_tree(root: Path, error: Mapping[str, Any]) -> bool:
    """Return whether a finding is about what HEAD does not have; the script reads HEAD."""
    # 1. The audited entries are the work tree's.
    head = _committed(root, "progress.txt") or b""
    if not (_in_work_tree(root, "progress.txt") or b"").startswith(head):
        return True
    if error["entry"] and error["entry"] > head.count(b"\n### "):
        return True

    # 2. A file of the work tree.
    path = error["path"]
    if not path or error["commit"]:
        return False
    return _committed(root, path) != _in_work_tree(root, path)


def _committed(root: Path, path: str) -> bytes | None:
    """Return a file of HEAD, or None."""
    command = ["git", "cat-file", "blob", f"HEAD:{path}"]
    process = subprocess.run(command, cwd=root, capture_output=True, check=False)
    return None if process.returncode else process.stdout


def _in_work_tree(root: Path, path: str) -> bytes | None:
    """Return a file of the work tree; b"" for what has no bytes, None for nothing."""
    file = root / path
    if file.is_file() and not file.is_symlink():
        return file.read_bytes()
    return b"" if os.path.lexists(file) else None
