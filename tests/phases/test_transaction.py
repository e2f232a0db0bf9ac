"""One outcome is recorded exactly once, wherever the runner is killed while it records."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from toy import Toy

from phases.base import durable
from phases.base.paths import Paths
from phases.base.text import utc_now
from phases.errors import IntegrityError
from phases.git.repo import Repo
from phases.record import entries, transaction
from phases.record.approval_rule import PRESENCE
from phases.record.completion import complete_pending
from phases.record.entries import RecordedFile
from phases.record.ledger import (
    Entry,
    Ledger,
    append_entry,
    new_header,
    parse_ledger,
    seal_entry,
)
from phases.record.project import open_project
from phases.record.reconcile import reconcile
from phases.record.transaction import Transaction, new_txn, subject_trailers


class SimulatedKill(BaseException):
    """Ends the recording where the process would have died; nothing may catch it."""


@dataclass
class Scene:
    """A repository with a ledger of one committed entry, and an outcome to record."""

    toy: Toy
    paths: Paths
    repo: Repo
    ledger: Ledger
    outcome: Transaction

    def read_ledger(self) -> Ledger:
        """Return the ledger as the next run reads it: journal and work tree, reconciled."""
        reconciled = reconcile(
            self.paths.progress.read_bytes(),
            self.paths.journal.read_bytes(),
            self.repo.blob("HEAD", "progress.txt"),
        )
        assert reconciled.problems == ()
        if reconciled.restored:
            durable.write(self.paths.progress, reconciled.ledger.data)
        return reconciled.ledger

    def has_prepared(self) -> bool:
        """Return whether an outcome is prepared completely."""
        return any(self.paths.pending.glob("*/record.json"))

    def complete(self, ledger: Ledger) -> tuple[Ledger, list[str]]:
        """Do what the next run does with what is prepared."""
        return complete_pending(open_project(self.toy.root), self.repo, ledger)

    def copy(self, target: Path) -> Scene:
        """Return the same scene in a folder of its own."""
        toy = self.toy.copy(target)
        return Scene(toy, toy_paths(toy), Repo(toy.root), self.ledger, self.outcome)


def toy_paths(toy: Toy) -> Paths:
    return Paths(toy.root, toy.root / ".git", "results")


COUNT = (1, "TOY-001", "Count number 1")
TRAILERS = subject_trailers(1, "TOY-001", attempt=1, receipt=durable.sha256(b"{}\n"))


def seal(ledger: Ledger, kind: str, *lines: str, subject: tuple[int, str, str] = COUNT) -> Entry:
    phase, feature, title = subject
    options = {"phase": phase, "feature": feature or None, "title": title}
    return seal_entry(ledger, kind, lines, time=utc_now(), **options)


@pytest.fixture
def scene(make_toy: Callable[..., Toy]) -> Scene:
    toy = make_toy()
    paths, repo, txn = toy_paths(toy), Repo(toy.root), new_txn()

    # 1. What is recorded already: the results of an attempt before, and a new attempt that runs.
    ledger = Ledger(new_header("Toy"), ())
    genesis = seal_entry(ledger, "GENESIS", ("project Toy",), time=utc_now())
    begun = ledger.with_entry(genesis)
    lock = RecordedFile(durable.sha256(b"lock"), paths.plan_lock(1))
    lines = entries.locked_lines(lock, repo.head(), approval=PRESENCE.lines)
    begun = begun.with_entry(seal(begun, "LOCKED", *lines, subject=(1, "", "")))
    started = entries.STARTED.format(attempt=1, what="sh", seed=0, profile="cpu", sandbox="none")
    head = entries.HEAD.format(commit=repo.head())
    running = entries.TRANSACTION.format(txn=txn)
    begun = begun.with_entry(seal(begun, "STARTED", started, head, running))
    first = Transaction(
        txn=new_txn(),
        entries=begun.entries,
        message="begun",
        files={
            lock.path: b"lock",
            "results/TOY-001/old.md": b"of the attempt before\n",
            "results/TOY-001/same.md": b"same\n",
        },
    )
    ledger = transaction.commit(paths, repo, ledger, first)

    # 2. An outcome to record: it adds files, leaves one and removes one.
    documents = [f"results/TOY-001/{name}.json" for name in ("receipt", "verdict")]
    files = [RecordedFile(durable.sha256(b"{}\n"), path) for path in documents]
    lines = (files[0].line(entries.RECEIPT), files[1].line(entries.VERDICT))
    outcome = Transaction(
        txn=txn,
        entries=(seal(ledger, "VERIFIED", "measured x 1", *lines),),
        message="TOY-001 Count number 1: verified",
        trailers=TRAILERS,
        files={
            **dict.fromkeys(documents, b"{}\n"),
            "results/TOY-001/result.json": b"{}\n",
            "results/TOY-001/same.md": b"same\n",
        },
        removed=("results/TOY-001/old.md",),
    )
    return Scene(toy, paths, repo, ledger, outcome)


def watch_effects(patch: pytest.MonkeyPatch, scene: Scene, kill_at: int | None = None) -> list[str]:
    """Count every lasting effect of a record; die before the one with this number.

    Return the list that the effects are added to, as they happen.
    """
    effects: list[str] = []

    def watch(owner: object, name: str) -> None:
        original = getattr(owner, name)

        def effect(*arguments: object, **options: object) -> object:
            effects.append(f"{name} {arguments[:1]}")
            if len(effects) - 1 == kill_at:
                raise SimulatedKill
            return original(*arguments, **options)

        patch.setattr(owner, name, effect)

    for name in ("write", "append", "remove"):
        watch(durable, name)
    for name in ("commit", "move_log_ref"):
        watch(scene.repo, name)
    watch(Repo, "_run")
    watch(os, "unlink")
    watch(os, "rmdir")
    return effects


def record_state(scene: Scene) -> dict[str, object]:
    """Return everything that one recorded outcome leaves."""
    git, progress = scene.toy.git, scene.paths.progress.read_bytes()
    txn = git("log", "-1", "--format=%(trailers:key=Phases-Txn,valueonly)").strip()
    return {
        "commits": git("log", "--format=%s").splitlines(),
        "entries": [entry.kind.value for entry in parse_ledger(progress).entries],
        "journal": scene.paths.journal.read_bytes() == progress,
        "committed": f"{git('show', 'HEAD:progress.txt')}\n".encode() == progress,
        "ref": git("rev-parse", "refs/phases/log") == git("rev-parse", "HEAD"),
        "files": sorted(git("ls-tree", "-r", "--name-only", "HEAD", "results").split()),
        "status": git("status", "--porcelain"),
        "txn": txn == scene.outcome.txn,
        "pending": sorted(path.name for path in scene.paths.pending.glob("*")),
        "bindings": sorted(path.name for path in scene.paths.bindings.glob("*")),
    }


RECORDED = {
    "commits": ["TOY-001 Count number 1: verified", "begun", "the toy project"],
    "entries": ["GENESIS", "LOCKED", "STARTED", "VERIFIED"],
    "journal": True,
    "committed": True,
    "ref": True,
    "files": [
        "results/TOY-001/receipt.json",
        "results/TOY-001/result.json",
        "results/TOY-001/same.md",
        "results/TOY-001/verdict.json",
        "results/phase-1/lock.json",
    ],
    "status": "",
    "txn": True,
    "pending": [],
    "bindings": [],
}
NOT_RECORDED = RECORDED | {
    "commits": ["begun", "the toy project"],
    "entries": ["GENESIS", "LOCKED", "STARTED"],
    "files": [
        "results/TOY-001/old.md",
        "results/TOY-001/same.md",
        "results/phase-1/lock.json",
    ],
    "txn": False,
}


def test_an_outcome_is_recorded(scene: Scene) -> None:
    assert record_state(scene) == NOT_RECORDED
    ledger = transaction.commit(scene.paths, scene.repo, scene.ledger, scene.outcome)
    assert record_state(scene) == RECORDED
    assert ledger.data == scene.paths.progress.read_bytes()
    assert scene.complete(ledger) == (ledger, [])


def test_killed_at_any_step_it_converges(
    scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # 1. The effects of a record, in their order; each kind of effect occurs.
    control = scene.copy(tmp_path / "control")
    with monkeypatch.context() as patch:
        effects = watch_effects(patch, control)
        transaction.commit(control.paths, control.repo, control.ledger, control.outcome)
    names = {effect.split()[0] for effect in effects}
    watched = {"write", "append", "remove", "commit", "move_log_ref", "_run", "unlink", "rmdir"}
    assert names == watched
    assert len(effects) >= 12

    # 2. Killed before each of them. Once it is prepared, the outcome is completed.
    prepared = False
    for number, effect in enumerate(effects):
        copy = scene.copy(tmp_path / f"kill-{number}")
        with monkeypatch.context() as patch:
            watch_effects(patch, copy, kill_at=number)
            with pytest.raises(SimulatedKill):
                transaction.commit(copy.paths, copy.repo, copy.ledger, copy.outcome)
        prepared = prepared or copy.has_prepared()
        expected = NOT_RECORDED
        if prepared:
            expected = RECORDED
        ledger, completed = copy.complete(copy.read_ledger())
        assert record_state(copy) == expected, f"killed before {effect}"
        assert completed in ([], ["TOY-001 Count number 1: verified"])

        # 3. Done once more, it changes nothing.
        assert copy.complete(ledger) == (ledger, []), effect
        assert record_state(copy) == expected, effect
    assert prepared


def test_killed_again_while_it_recovers_it_converges(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(80):
        with monkeypatch.context() as patch:
            watch_effects(patch, scene, kill_at=number)
            try:
                if number == 0 or not scene.has_prepared():
                    transaction.commit(scene.paths, scene.repo, scene.read_ledger(), scene.outcome)
                else:
                    scene.complete(scene.read_ledger())
            except SimulatedKill:
                continue
        break
    assert record_state(scene) == RECORDED


def test_what_the_user_had_staged_stays_staged(scene: Scene) -> None:
    scene.toy.write("user.txt", "text\n")
    scene.toy.git("add", "user.txt")
    transaction.commit(scene.paths, scene.repo, scene.ledger, scene.outcome)
    assert record_state(scene) == RECORDED | {"status": "A  user.txt"}


def test_i_12_other_bytes_with_the_same_size_and_time_are_committed(scene: Scene) -> None:
    # 1. The file has its new bytes already, as after a kill, and looks to git like the old one.
    for setting in ("core.trustctime=false", "core.checkStat=minimal"):
        scene.toy.git("config", *setting.split("="))
    path = "results/TOY-001/same.md"
    file = scene.paths.root / path
    os.utime(file, (1_000_000_000, 1_000_000_000))
    scene.toy.git("update-index", "--refresh")
    file.write_bytes(b"SAME\n")
    os.utime(file, (1_000_000_000, 1_000_000_000))
    assert scene.toy.git("status", "--porcelain") == ""

    # 2. It is committed all the same.
    outcome = replace(scene.outcome, files={**scene.outcome.files, path: b"SAME\n"})
    transaction.commit(scene.paths, scene.repo, scene.ledger, outcome)
    assert scene.repo.blob("HEAD", path) == b"SAME\n"
    assert record_state(scene) == RECORDED


@pytest.mark.parametrize(
    "path",
    [
        "progress.txt",
        "results/TOY-001/old.md",
        "results/TOY-001/result.json",
        "results/TOY-001/changed.md",
    ],
)
def test_i_12_a_commit_is_compared_with_the_disk(scene: Scene, path: str) -> None:
    """The file is other, removed, missing and changed since."""
    older = scene.repo.head()
    transaction.commit(scene.paths, scene.repo, scene.ledger, scene.outcome)
    paths = ["progress.txt", *scene.outcome.files, *scene.outcome.removed]
    scene.repo.check_commit("HEAD", paths)
    if path.endswith("changed.md"):
        path, older = "results/TOY-001/same.md", "HEAD"
        scene.toy.write(path, "SAME\n")
    with pytest.raises(IntegrityError, match=f"does not hold {path}") as refused:
        scene.repo.check_commit(older, [path])
    assert refused.value.code == "commit-content"


NAMES = ("[s]*.md", ":(top)x.md", "!x.md", " é 'ö' \"q\".md", "#.md")


@pytest.mark.parametrize("folder", ["results/TOY-001", '"results"', "a[b]"])
def test_i_58_names_are_no_patterns(scene: Scene, folder: str) -> None:
    scene.toy.write(f"{folder}/sx.md", "the user's\n")
    scene.toy.git("add", ".")
    files = {f"{folder}/{name}": b"text\n" for name in NAMES}
    outcome = replace(scene.outcome, files=files)
    transaction.commit(scene.paths, scene.repo, scene.ledger, outcome)
    for path in files:
        assert scene.repo.blob("HEAD", path) == b"text\n"
    assert scene.repo.blob("HEAD", f"{folder}/sx.md") is None
    assert scene.toy.git("ls-files", "-z", "--", folder).count("sx.md") == 1


def test_a_prepared_outcome_that_does_not_follow_is_refused(scene: Scene) -> None:
    folder = scene.paths.pending / scene.outcome.txn
    transaction.prepare(scene.paths, scene.outcome)
    other = seal_entry(scene.ledger, "RECOVERED", ("reason another",), time=utc_now())
    longer = append_entry(scene.paths.progress, scene.paths.journal, scene.ledger, other)
    with pytest.raises(IntegrityError, match="does not follow the ledger's last entry") as refused:
        scene.complete(longer)
    assert refused.value.code == "pending-stale"
    assert folder.exists()


@pytest.mark.parametrize("text", ["", "{}", '{"txn": "a", "txn": "b"}'])
def test_a_pending_record_that_cannot_be_read_is_refused(scene: Scene, text: str) -> None:
    folder = scene.paths.pending / scene.outcome.txn
    transaction.prepare(scene.paths, scene.outcome)
    (folder / "record.json").write_text(text)
    with pytest.raises(IntegrityError, match="not the one that was bound") as refused:
        scene.complete(scene.ledger)
    assert refused.value.code == "pending-foreign"
    left = {"pending": [scene.outcome.txn], "bindings": [scene.outcome.txn]}
    assert record_state(scene) == NOT_RECORDED | left


def test_a_half_prepared_outcome_is_thrown_away(scene: Scene) -> None:
    txn = new_txn()
    durable.write(scene.paths.pending / txn / "0", b"half")
    durable.write(scene.paths.pending / txn / ".record.json.7.tmp", b"half")
    durable.write(scene.paths.binding(txn), b"0")
    durable.write(scene.paths.bindings / f".{txn}.7.tmp", b"half")
    assert scene.complete(scene.ledger) == (scene.ledger, [])
    assert record_state(scene) == NOT_RECORDED


def test_transactions_have_names_of_their_own() -> None:
    names = [new_txn() for _ in range(100)]
    assert len(set(names)) == 100
    assert {len(name) for name in names} == {16}
