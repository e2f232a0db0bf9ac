"""Records that were not prepared by this runner: cases I-20, I-21, I-22 and their kind.

Each is refused by `run`, by every decision and by `audit`, `status` warns, and nothing is changed.
A forgery is planted twice: as it can be from the work tree, and bound, as only somebody can who
writes `.git/phases`: then the rules refuse it that every record of the runner's follows.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from converging import converges, failpoint_env
from hints import follow
from invariants import entries as blocks
from invariants import leftovers, progress, violations
from quick import Quick, feature, plan
from terminal_user import as_asked, at_terminal

from phases.base import durable
from phases.base.paths import Paths
from phases.base.text import utc_now
from phases.record import entries, transaction
from phases.record.entries import RecordedFile
from phases.record.ledger import Entry, new_header, parse_ledger, seal_entry
from phases.record.pending import has_pending_record, read_pending
from phases.record.transaction import RECORD, Transaction, new_txn, subject_trailers
from tests.soak import mark_soak

UNATTENDED = {"PHASES_UNATTENDED": "1"}


def paths_of(quick: Quick) -> Paths:
    return Paths(quick.root, quick.root / ".git", "results")


def contents(quick: Quick) -> dict[str, str]:
    """Return what a refusal must not change: every file but logs and the runner's lock, by hand."""
    files = {}
    for path in sorted(quick.root.rglob("*")):
        name = path.relative_to(quick.root).as_posix()
        if name.startswith((".phases/logs/", ".git/phases/lock")):
            continue
        if path.is_symlink():
            files[name] = f"link {path.readlink()}"
        elif path.is_file():
            files[name] = durable.sha256_file(path)
    return files


def assert_refused(quick: Quick, reason: str, *commands: Sequence[str]) -> str:
    """Check that `run` and these commands refuse and change nothing; return the hint's command."""
    before = contents(quick)
    hints = set()
    for command in (("run", "--next"), *commands):
        refused = quick.call(*command, code=3)
        message = " ".join(refused.stderr.split())
        assert re.search(reason, message), message
        hints.add(re.search(r"next: `(mv .*)` sets", message))
    found = [hint[1] for hint in hints if hint]
    assert len(found) == len(hints) and len(set(found)) == 1
    assert contents(quick) == before
    return found[0]


def assert_audit_finds(quick: Quick, code: str = "pending-foreign") -> None:
    findings = json.loads(quick.call("audit", "--json", code=3).stdout)["findings"]
    assert [finding["code"] for finding in findings] == [code]


def shell(quick: Quick, command: str) -> None:
    subprocess.run(command, shell=True, cwd=quick.root, check=True)


def plant(quick: Quick, record: Transaction, *, is_bound: bool) -> Path:
    """Lay a prepared record down as the runner would; unbound as anything else can."""
    transaction.prepare(paths_of(quick), record)
    if not is_bound:
        paths_of(quick).binding(record.txn).unlink()
    return paths_of(quick).pending / record.txn


#### forgeries


def sealed(quick: Quick, kind: str, *lines: str, phase: int = 1, number: int = 0) -> Entry:
    """Return an entry that follows the ledger, of a feature where it has a number."""
    name = {"feature": f"Q-{number:03d}", "title": f"Count {number}"} if number else {}
    ledger = parse_ledger(progress(quick.root) or new_header("Quick"))
    return seal_entry(ledger, kind, lines, time=utc_now(), phase=phase, **name)


def forged(
    entry: Entry, files: dict[str, bytes] | None = None, txn: str | None = None, **changes: Any
) -> Transaction:
    """Return a transaction with this entry and what the runner would write with it."""
    record = Transaction(
        txn=txn or new_txn(),
        entries=(entry,),
        message="a forgery",
        trailers=subject_trailers(entry.phase or 0, entry.feature),
        files=files or {},
    )
    return replace(record, **changes)


def named(kind: entries.LineFormat, path: str, data: bytes = b"{}\n") -> str:
    return RecordedFile(durable.sha256(data), path).line(kind)


def verified(quick: Quick, number: int = 1, **changes: Any) -> Transaction:
    """Return a VERIFIED with all that belongs to one."""
    documents = [f"results/Q-{number:03d}/{name}.json" for name in ("receipt", "verdict")]
    formats = (entries.RECEIPT, entries.VERDICT)
    lines = [named(kind, path) for kind, path in zip(formats, documents, strict=True)]
    entry = sealed(quick, "VERIFIED", "measured total 999", *lines, number=number)
    digest = durable.sha256(b"{}\n")
    trailers = subject_trailers(1, f"Q-{number:03d}", attempt=1, receipt=digest)
    files = dict.fromkeys(documents, b"{}\n")
    return replace(forged(entry, files, trailers=trailers), **changes)


def halted(quick: Quick, phase: int = 1) -> Transaction:
    path = f"results/phase-{phase}/request.json"
    entry = sealed(quick, "HALTED", named(entries.REQUEST, path), phase=phase)
    return forged(entry, {path: b"{}\n"})


def exit_failed(quick: Quick) -> Transaction:
    path = "results/phase-1/verdict.json"
    return forged(sealed(quick, "FAILED", named(entries.VERDICT, path)), {path: b"{}\n"})


def decided(
    quick: Quick, kind: str, *lines: str, phase: int = 1, data: bytes = b"{}\n", number: int = 0
) -> Transaction:
    """Return a decision with a record of these bytes."""
    path = f"prd/approvals/phase-{phase}.1.json"
    line = named(entries.RECORD, path, data)
    entry = sealed(quick, kind, *lines, line, phase=phase, number=number)
    return forged(entry, {path: data})


def request_line(quick: Quick) -> str:
    path = "results/phase-1/request.json"
    return named(entries.REQUEST, path, (quick.root / path).read_bytes())


def relocked(quick: Quick) -> Transaction:
    lock = (quick.root / "results/phase-1/lock.json").read_bytes()
    line = named(entries.LOCK, "results/phase-1/lock.json", lock)
    record = decided(quick, "LOCKED", line)
    return replace(record, files={**record.files, "results/phase-1/lock.json": lock})


AT_A_CHECKPOINT: dict[str, tuple[Callable[[Quick], Transaction], str]] = {
    "VERIFIED that never ran": (verified, "follows no STARTED that is open"),
    "ERRORED that never ran": (
        lambda quick: forged(sealed(quick, "ERRORED", "reason none", number=1)),
        "follows no STARTED that is open",
    ),
    "INTERRUPTED of what does not run": (
        lambda quick: forged(sealed(quick, "INTERRUPTED", "reason none", number=1)),
        "Q-001 does not run",
    ),
    "a second HALTED": (halted, "phase 1 is awaiting_approval"),
    "HALTED of a phase that is not open": (
        lambda quick: halted(quick, 2),
        "phase 2 is not open: phase 1 is awaiting_approval",
    ),
    "HALTED of a phase that the plan has not": (
        lambda quick: halted(quick, 9),
        "the plan has no phase 9",
    ),
    "FAILED exit gates": (exit_failed, "phase 1 is awaiting_approval"),
    "APPROVED without its request": (
        lambda quick: decided(quick, "APPROVED"),
        "is not a decision record",
    ),
    "APPROVED without a record": (
        lambda quick: forged(sealed(quick, "APPROVED", request_line(quick))),
        "does not name all that such an entry names",
    ),
    "APPROVED by a record that is none": (
        lambda quick: decided(quick, "APPROVED", request_line(quick)),
        "is not a decision record",
    ),
    "APPROVED of a phase that does not wait": (
        lambda quick: decided(quick, "APPROVED", phase=2),
        "is not a decision record",
    ),
    "REJECTED by a record that is none": (
        lambda quick: decided(quick, "REJECTED", request_line(quick)),
        "is not a decision record",
    ),
    "REJECTED of a phase that has not begun": (
        lambda quick: decided(quick, "REJECTED", phase=2),
        "is not a decision record",
    ),
    "WAIVED at a checkpoint": (
        lambda quick: decided(quick, "WAIVED", number=1),
        "phase 1 is awaiting_approval",
    ),
    "a relock by a record that is none": (relocked, "is not a decision record"),
    "a relock without a record": (
        lambda quick: forged(sealed(quick, "LOCKED", relocked(quick).entries[0].lines[0])),
        "does not name all that such an entry names",
    ),
    "an entry that no transaction brings": (
        lambda quick: forged(sealed(quick, "STARTED", "txn ab", number=1)),
        "STARTED is no outcome and no decision",
    ),
    "another decision's name": (
        lambda quick: replace(
            decided(quick, "APPROVED", request_line(quick)), files={"prd/approvals/x.json": b"{}\n"}
        ),
        "prd/approvals/x.json is no file of APPROVED of phase 1",
    ),
}


@pytest.fixture(scope="session")
def _two_phases(tmp_path_factory: pytest.TempPathFactory) -> Quick:
    document = plan(phases=2)
    publish = {"result.json": "docs/total.json"}
    document["phases"][0]["features"][0] |= {"publish": publish}
    quick = Quick(tmp_path_factory.mktemp("two") / "quick", document)
    quick.write("mine.txt", "the user's\n")
    quick.commit("a file")
    return quick


@pytest.fixture(scope="session")
def _at_checkpoint(_two_phases: Quick, tmp_path_factory: pytest.TempPathFactory) -> Quick:
    quick = _two_phases.copy(tmp_path_factory.mktemp("checkpoint") / "quick")
    quick.run("run", "--next")
    return quick


@pytest.fixture
def checkpoint(_at_checkpoint: Quick, tmp_path: Path) -> Quick:
    """Return a repository whose first phase waits, and a second one that has not begun."""
    return _at_checkpoint.copy(tmp_path / "quick")


FORGERIES = [(name, is_bound) for name in AT_A_CHECKPOINT for is_bound in (False, True)]
# Without a binding nothing depends on what the forgery says.
SHORT_FORGERIES = [("VERIFIED that never ran", False), *((name, True) for name in AT_A_CHECKPOINT)]


@pytest.mark.parametrize(("name", "is_bound"), mark_soak(FORGERIES, short=SHORT_FORGERIES))
def test_a_planted_record_is_refused_i_20(checkpoint: Quick, name: str, *, is_bound: bool) -> None:
    forge, reason = AT_A_CHECKPOINT[name]
    plant(checkpoint, forge(checkpoint), is_bound=is_bound)
    if not is_bound:
        reason = "which would bind it, does not exist"
    assert_refused(checkpoint, reason)
    assert_audit_finds(checkpoint)


DECISIONS = (
    ("approve", "1"),
    ("reject", "1", "--reason", "r"),
    ("relock", "1", "--reason", "r"),
    ("approve", "1", "--waive", "Q-001", "--reason", "r"),
)


@pytest.mark.parametrize("is_bound", [False, True])
def test_a_planted_approval_opens_nothing_i_21(checkpoint: Quick, *, is_bound: bool) -> None:
    folder = plant(checkpoint, decided(checkpoint, "APPROVED"), is_bound=is_bound)
    before = contents(checkpoint)
    checkpoint.run("run", "--next", code=3, env=UNATTENDED)
    assert contents(checkpoint) == before
    assert "killed" not in checkpoint.call("approve", "1", code=3).stderr
    command = assert_refused(checkpoint, str(folder), *DECISIONS)
    assert_audit_finds(checkpoint)
    if not is_bound:
        warned = checkpoint.call("status")
        assert "warning: pending-foreign: " in warned.stderr
        assert command in warned.stderr

    # The hint's command works.
    shell(checkpoint, command)
    checkpoint.run("run", "--next", code=4)
    checkpoint.assert_audit_is_clean()
    assert "warning" not in checkpoint.call("status").stderr


#### a feature that really runs


@pytest.fixture(scope="session")
def _running(_two_phases: Quick, tmp_path_factory: pytest.TempPathFactory) -> Quick:
    quick = _two_phases.copy(tmp_path_factory.mktemp("running") / "quick")
    quick.run("run", "--next", code=None, env=failpoint_env("record"))
    return quick


@pytest.fixture
def running(_running: Quick, tmp_path: Path) -> Quick:
    """Return a repository whose runner was killed between STARTED and its outcome."""
    return _running.copy(tmp_path / "quick")


def open_txn(quick: Quick) -> str:
    return re.findall(r"^- txn (\w+)$", quick.progress, re.MULTILINE)[-1]


def own(quick: Quick, files: Sequence[str] = (), **changes: Any) -> Transaction:
    """Return a VERIFIED of what runs, and further files of it."""
    record = verified(quick, txn=open_txn(quick))
    return replace(record, files={**record.files, **dict.fromkeys(files, b"x\n")}, **changes)


def test_control_the_forgery_of_the_next_tests_has_no_other_fault(running: Quick) -> None:
    """Bound and with only its own files it is completed: what refuses the others is their fault."""
    record = own(running, ["results/Q-001/result.json", "docs/total.json"])
    plant(running, record, is_bound=True)
    running.call("run", "--next", code=None)
    assert "VERIFIED · Phase 1 · Q-001" in running.progress
    assert running.git("show", "HEAD:docs/total.json") == "x"


FOREIGN_FILES = (
    "../x", "/tmp/x", "results/Q-001/../../mine.txt", "results/Q-001//x", "./mine.txt", "~/x",
    "results/Q-001/a\\b", ".git/config", "results/Q-001/.git/config", "results/Q-001/.GIT/hooks/x",
    "", "mine.txt", "progress.txt", "prd/plan.json", "prd/approvals/phase-1.1.json", "worker.sh",
    "docs/other.md", "results/Q-002/result.json", "results/Q-0010/x",
    "results/phase-1/request.json", "results/phase-2/lock.json", ".phases/artifacts/x",
    "results/Q-001",
)  # fmt: skip
SHORT_FILES = ("../x", "/tmp/x", ".git/config", "mine.txt", "docs/other.md", "results/Q-0010/x")


@pytest.mark.parametrize("path", mark_soak(FOREIGN_FILES, short=SHORT_FILES))
def test_a_record_writes_only_its_own_files_i_22(running: Quick, path: str) -> None:
    plant(running, own(running, [path]), is_bound=True)
    assert_refused(running, "no plain path|is no file of VERIFIED of Q-001")


@pytest.mark.parametrize(
    "path", ["mine.txt", "results/Q-002/x", "results/Q-001/../x", "docs/total.json", "progress.txt"]
)
def test_a_record_removes_only_its_own_files_i_22(running: Quick, path: str) -> None:
    plant(running, own(running, removed=(path,)), is_bound=True)
    assert_refused(running, "no plain path|is not removed by VERIFIED of Q-001")


@pytest.mark.parametrize("folder", ["results", "results/Q-001", "docs"])
def test_no_link_leads_a_record_elsewhere_i_22(running: Quick, folder: str, tmp_path: Path) -> None:
    link = running.root / folder
    if link.is_dir():
        shutil.copytree(link, tmp_path / "elsewhere")
        shutil.rmtree(link)
    (tmp_path / "elsewhere").mkdir(exist_ok=True)
    link.parent.mkdir(exist_ok=True)
    link.symlink_to(tmp_path / "elsewhere")
    plant(running, own(running, ["docs/total.json"]), is_bound=True)
    assert_refused(running, f"{folder} on the way to .* is a link")


def _edited(record: Transaction) -> Transaction:
    entry = replace(record.entries[0], lines=("measured total 1", *record.entries[0].lines[1:]))
    return replace(record, entries=(entry,))


def _followed(quick: Quick) -> Transaction:
    record = own(quick)
    ledger = parse_ledger(progress(quick.root)).with_entry(record.entries[0])
    second = seal_entry(ledger, "HALTED", ("next: x",), time=utc_now(), phase=1)
    return replace(record, entries=(*record.entries, second))


def _with_trailers(quick: Quick, **trailers: str) -> Transaction:
    record = own(quick)
    changes = {name.replace("_", "-"): value for name, value in trailers.items()}
    return replace(record, trailers={**record.trailers, **changes})


OF_WHAT_RUNS: dict[str, tuple[Callable[[Quick], Transaction], str]] = {
    "of another transaction": (verified, "was started as transaction"),
    "of another feature": (
        lambda quick: verified(quick, 2, txn=open_txn(quick)),
        "Q-002 does not run",
    ),
    "an edited block": (lambda quick: _edited(own(quick)), "was edited"),
    "two entries": (_followed, "it has 2 entries and ends in HALTED"),
    "a further trailer": (
        lambda quick: _with_trailers(quick, Signed_off_by="Somebody"),
        "its trailers are",
    ),
    "another attempt": (
        lambda quick: _with_trailers(quick, Phases_Attempt="2"),
        "its trailers are",
    ),
    "another head": (
        lambda quick: _with_trailers(quick, Phases_Head="0"),
        "its trailers are",
    ),
    "a message of two lines": (
        lambda quick: own(quick, message="a\n\nPhases-Entry: 0009"),
        "not one printable line",
    ),
    "no message": (lambda quick: own(quick, message=""), "not one printable line"),
    "another receipt": (
        lambda quick: replace(
            own(quick), files={**own(quick).files, "results/Q-001/receipt.json": b"[]"}
        ),
        "does not bring results/Q-001/receipt.json as its entry names it",
    ),
    "another lock": (
        lambda quick: own(quick, ["results/phase-1/lock.json"]),
        "does not bring results/phase-1/lock.json as its entry names it",
    ),
    "HALTED while it runs": (halted, "Q-001 of phase 1 is running"),
}


@pytest.mark.parametrize("name", OF_WHAT_RUNS)
def test_an_outcome_belongs_to_the_attempt_that_is_open_i_20(running: Quick, name: str) -> None:
    forge, reason = OF_WHAT_RUNS[name]
    plant(running, forge(running), is_bound=True)
    assert_refused(running, reason)
    assert_audit_finds(running)


#### a record that the runner did prepare, changed afterwards


@pytest.fixture(scope="session")
def _prepared(_fresh: Quick, tmp_path_factory: pytest.TempPathFactory) -> Quick:
    quick = _fresh.copy(tmp_path_factory.mktemp("prepared") / "quick")
    quick.run("run", "--next", code=None, env=failpoint_env("prepared"))
    return quick


@pytest.fixture
def prepared(_prepared: Quick, tmp_path: Path) -> Quick:
    """Return a repository whose runner was killed when its VERIFIED was prepared."""
    return _prepared.copy(tmp_path / "quick")


def folder_of(quick: Quick) -> Path:
    (folder,) = paths_of(quick).pending.iterdir()
    return folder


def exchange(folder: Path) -> None:
    (folder / "0").write_bytes(b"{}\n")


def edit_record(folder: Path) -> None:
    text = (folder / RECORD).read_text()
    (folder / RECORD).write_text(text.replace("verified", "VERIFIED", 1))


def add_file(folder: Path) -> None:
    (folder / "99").write_text("x")


def add_folder(folder: Path) -> None:
    (folder / "sub").mkdir()


def link_file(folder: Path) -> None:
    target = folder.parents[1] / "same"
    (folder / "0").rename(target)
    (folder / "0").symlink_to(target)


def link_record(folder: Path) -> None:
    (folder / RECORD).rename(folder.parents[1] / "same")
    (folder / RECORD).symlink_to(folder.parents[1] / "nowhere")


def link_folder(folder: Path) -> None:
    target = folder.parents[1] / "same"
    folder.rename(target)
    folder.symlink_to(target)


def link_root(folder: Path) -> None:
    target = folder.parents[1] / "same"
    folder.parent.rename(target)
    folder.parent.symlink_to(target)


def rename(folder: Path) -> None:
    folder.rename(folder.with_name("0123456789abcdef"))


def copy(folder: Path) -> None:
    shutil.copytree(folder, folder.with_name("0123456789abcdef"))


def rename_oddly(folder: Path) -> None:
    folder.rename(folder.with_name("-x 'y'\n\x1b[2J"))


def replace_by_file(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.write_text("x")


def remove_file(folder: Path) -> None:
    (folder / "0").unlink()


CHANGES = (
    exchange, edit_record, add_file, add_folder, link_file, link_record, link_folder, link_root,
    rename, copy, rename_oddly, replace_by_file, remove_file,
)  # fmt: skip
SHORT_CHANGES = (exchange, link_file, link_root, copy, rename_oddly, replace_by_file)


@pytest.mark.parametrize("change", mark_soak(CHANGES, short=SHORT_CHANGES))
def test_a_prepared_record_that_was_changed_is_refused_i_20(
    prepared: Quick, change: Callable[[Path], None]
) -> None:
    change(folder_of(prepared))
    command = assert_refused(prepared, "is no record that this runner prepared", DECISIONS[0])
    assert_audit_finds(prepared)
    assert "warning: pending-foreign" in prepared.call("status").stderr

    # Set aside, it is as if the outcome had not been prepared.
    shell(prepared, command)
    prepared.run("run", "--next", code=None)
    prepared.assert_audit_is_clean()
    assert prepared.states() == {"Q-001": "verified"}
    assert list(paths_of(prepared).bindings.iterdir()) == []
    assert not has_pending_record(paths_of(prepared))


def test_what_was_changed_back_is_completed(prepared: Quick, undisturbed: dict[str, Any]) -> None:
    file = folder_of(prepared) / "0"
    data = file.read_bytes()
    exchange(folder_of(prepared))
    assert_refused(prepared, "has not the bytes it names")
    file.write_bytes(data)
    converges(prepared, undisturbed)


def test_a_record_of_an_earlier_transaction_is_not_completed_again_i_20(prepared: Quick) -> None:
    # 1. The record as it was prepared once, planted after it was recorded.
    folder = folder_of(prepared)
    binding = paths_of(prepared).binding(folder.name)
    kept = prepared.root.with_name("kept")
    shutil.copytree(folder, kept)
    digest = binding.read_bytes()
    prepared.run("run", "--next")
    shutil.copytree(kept, folder)
    assert_refused(prepared, "which would bind it, does not exist", DECISIONS[0])

    # 2. With its binding it no longer follows.
    binding.write_bytes(digest)
    command = assert_refused(prepared, "does not follow the ledger's last entry", DECISIONS[0])
    assert_audit_finds(prepared, "pending-stale")
    shell(prepared, command)
    prepared.run("run", "--next", code=4)
    prepared.assert_audit_is_clean()


def test_an_experiment_that_plants_a_record_gets_nothing_i_20(
    make_quick: Callable[..., Quick], tmp_path: Path
) -> None:
    planted = tmp_path / "quick/.phases/pending/0123456789abcdef"
    script = f"if mkdir -p {planted.parent} && mkdir {planted}; then echo {{}} > {planted}/{RECORD}"
    document = plan()
    document["phases"][0]["features"] = [feature(1, command=f"{script}; fi; sh worker.sh")]
    quick = make_quick(document)
    stopped = quick.run("run", "--next", code=3)
    assert "does not exist; nothing was changed" in stopped.stderr
    assert "VERIFIED" not in quick.progress
    assert_refused(quick, "which would bind it")
    assert quick.git("log", "--format=%s") == "the quick project"


@pytest.mark.parametrize("make", [os.mkfifo, Path.touch, lambda path: path.symlink_to(path.name)])
def test_a_pending_folder_that_is_none_is_refused_before_any_work_i_20(
    quick: Quick, make: Callable[[Path], None]
) -> None:
    (quick.root / ".phases").mkdir()
    make(quick.root / ".phases/pending")
    assert "pending-foreign" in quick.run("status").stderr
    assert "pending-foreign" in quick.run("audit", code=3).stdout
    refused = quick.run("run", "--next", code=3)
    assert "Q-001" not in refused.stderr
    assert not (quick.root / "progress.txt").exists()
    follow(quick.root, refused.stderr)
    quick.run("run", "--next")


def test_a_reader_sees_nothing_foreign_while_a_runner_is_at_work(running: Quick) -> None:
    """`status` may look at any moment of a record that is prepared and withdrawn."""
    paths, record, is_over = paths_of(running), own(running), threading.Event()
    folder = paths.pending / record.txn

    def work() -> None:
        for _ in range(60):
            transaction.prepare(paths, record)
            for path in (folder / RECORD, folder, paths.binding(record.txn)):
                durable.remove(path)
        is_over.set()

    thread = threading.Thread(target=work)
    thread.start()
    seen = set()
    while not is_over.is_set():
        pending = read_pending(paths)
        assert pending.errors == ()
        seen.add((len(pending.prepared), len(pending.unfinished)))
    thread.join()
    assert {(1, 0), (0, 1), (0, 0)} <= seen


def test_a_binding_of_another_work_tree_is_kept(prepared: Quick, tmp_path: Path) -> None:
    folder = folder_of(prepared)
    other = tmp_path / "other"
    prepared.git("worktree", "add", "-q", "-b", "other", str(other))
    (other / ".phases/pending").mkdir(parents=True)
    shutil.move(folder, other / ".phases/pending")
    binding = paths_of(prepared).binding(folder.name)
    prepared.run("run", "--next", code=None)
    assert binding.exists()
    shutil.rmtree(other / ".phases/pending" / folder.name)
    prepared.run("run", "--feature", "Q-001", "--force", code=None)
    assert not binding.exists()


#### no false alarm: every kind of record is completed after a kill

FAILING = "false"
WRONG = "test $(cat artifacts/numbers.json) = 15"


def in_plan(*features: dict[str, Any], exit_gate: str = "") -> dict[str, Any]:
    """Return a plan of one phase with these changes of its features."""
    document = plan(features=len(features))
    phase = document["phases"][0]
    for item, changes in zip(phase["features"], features, strict=True):
        item.update(changes)
    if exit_gate:
        phase["exit"] = [{"shell": exit_gate}]
    return document


RUNS: dict[str, tuple[dict[str, Any], tuple[str, ...], list[str]]] = {
    "VERIFIED that publishes": (
        in_plan({"publish": {"result.json": "docs/deep/total.json"}}),
        (),
        ["VERIFIED"],
    ),
    "FAILED": (in_plan({"gate": {"shell": WRONG}}), (), ["FAILED"]),
    "ERRORED": (in_plan({"command": FAILING}), (), ["ERRORED"]),
    "FAILED exit gates": (
        in_plan({}, exit_gate="grep -q 15 */result.json"),
        ("halt",),
        ["VERIFIED", "FAILED"],
    ),
    "HALTED with exit gates": (
        in_plan({}, exit_gate="grep -Eq '\"value\": ?14[,}]' */result.json"),
        ("halt",),
        ["VERIFIED", "HALTED"],
    ),
}


def outcomes(quick: Quick) -> list[str]:
    """Return the kinds of all entries that a transaction brought, but interruptions."""
    kinds = [block.kind for block in blocks(quick.root)]
    return [kind for kind in kinds if kind not in ("GENESIS", "LOCKED", "STARTED", "INTERRUPTED")]


@pytest.mark.parametrize("name", RUNS)
def test_every_outcome_is_completed_after_a_kill(
    name: str, make_quick: Callable[..., Quick]
) -> None:
    document, before, expected = RUNS[name]
    quick = make_quick(document)
    for failpoint in before:
        quick.run("run", "--next", code=None, env=failpoint_env(failpoint))
    quick.run("run", "--next", code=None, env=failpoint_env("prepared"))
    completed = quick.run("run", "--next", code=None)
    assert "completed what a killed run had prepared" in completed.stderr
    assert outcomes(quick)[: len(expected)] == expected
    assert violations(quick.root) == []
    assert leftovers(quick.root, quick.temporary) == []
    assert list(paths_of(quick).bindings.iterdir()) == []
    quick.assert_audit_is_clean()


def test_an_interruption_is_completed_after_a_relock_and_a_kill(
    make_quick: Callable[..., Quick],
) -> None:
    quick = make_quick(plan(features=2))
    quick.run("run", "--next", code=None, env=failpoint_env("started", count=2))
    assert at_terminal(quick.root, "relock", "1", *REASON, answer=as_asked)[0] == 0
    quick.run("run", "--next", code=None, env=failpoint_env("prepared"))
    completed = quick.run("run", "--next", code=None)
    assert "Q-002 Count 2: interrupted" in completed.stderr
    kinds = [block.kind for block in blocks(quick.root)]
    assert kinds[4:7] == ["STARTED", "LOCKED", "INTERRUPTED"]
    quick.assert_audit_is_clean()


def test_a_waiver_before_anything_was_recorded_is_refused_i_20(quick: Quick) -> None:
    plant(quick, decided(quick, "WAIVED", number=1), is_bound=True)
    assert_refused(quick, "the first entry, and no other, is GENESIS")


REASON = ("--reason", "r")
TWO = in_plan({}, {"command": FAILING})
DECIDED: dict[str, tuple[dict[str, Any], tuple[tuple[str, ...], ...], str]] = {
    "APPROVED": (in_plan({}), (("approve", "1"),), "APPROVED"),
    "REJECTED at a checkpoint": (in_plan({}), (("reject", "1", *REASON),), "REJECTED"),
    "REJECTED in the phase": (TWO, (("reject", "1", *REASON),), "REJECTED"),
    "a relock at a checkpoint": (in_plan({}), (("relock", "1", *REASON),), "LOCKED"),
    "a relock in the phase": (TWO, (("relock", "1", *REASON),), "LOCKED"),
    "WAIVED": (TWO, (("approve", "1", "--waive", "Q-002", *REASON),), "WAIVED"),
    "WAIVED with what needs it": (
        in_plan({"command": FAILING}, {"needs": ["Q-001"]}),
        (("approve", "1", "--waive", "Q-001", *REASON),),
        "WAIVED",
    ),
    "WAIVED without a lock": (
        TWO,
        (
            ("reject", "1", "--feature", "Q-001", *REASON),
            ("approve", "1", "--waive", "Q-002", *REASON),
        ),
        "WAIVED",
    ),
    "REJECTED after its approval": (
        in_plan({}),
        (("approve", "1"), ("reject", "1", *REASON)),
        "REJECTED",
    ),
}


@pytest.mark.parametrize("name", DECIDED)
def test_every_decision_is_completed_after_a_kill(
    name: str, make_quick: Callable[..., Quick]
) -> None:
    # 1. The last of the decisions is killed when it was prepared.
    document, commands, expected = DECIDED[name]
    quick = make_quick(document)
    quick.run("run", "--next", code=None)
    *before, last = commands
    for command in before:
        code, screen = at_terminal(quick.root, *command, answer=as_asked)
        assert code == 0, screen
    env = failpoint_env("prepared")
    code, _ = at_terminal(quick.root, *last, answer=as_asked, env=env)
    assert code is None
    count = len(blocks(quick.root))

    # 2. The next run completes it.
    assert "run --next completes it" in quick.call("relock", "1", *REASON, code=7).stderr
    completed = quick.run("run", "--next", code=None)
    assert "completed what a killed run had prepared" in completed.stderr, completed.stderr
    brought = [block.kind for block in blocks(quick.root)[count:]]
    assert expected in brought[:2]
    assert violations(quick.root) == []
    assert leftovers(quick.root, quick.temporary) == []
    quick.assert_audit_is_clean()
