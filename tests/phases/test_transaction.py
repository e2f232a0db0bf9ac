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
from phases.record import transaction
from phases.record.ledger import Ledger, append_entry, new_header, parse_ledger, seal_entry
from phases.record.reconcile import reconcile
from phases.record.transaction import Transaction, complete_pending, new_txn


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

    def copy(self, target: Path) -> Scene:
        """Return the same scene in a folder of its own."""
        toy = self.toy.copy(target)
        return Scene(toy, toy_paths(toy), Repo(toy.root), self.ledger, self.outcome)


def toy_paths(toy: Toy) -> Paths:
    return Paths(toy.root, toy.root / ".git", "results")


@pytest.fixture
def scene(make_toy: Callable[..., Toy]) -> Scene:
    toy = make_toy()
    paths, repo = toy_paths(toy), Repo(toy.root)

    # 1. An outcome that is recorded already.
    ledger = Ledger(new_header("Toy"), ())
    genesis = seal_entry(ledger, "GENESIS", ("project Toy",), time=utc_now())
    first = Transaction(
        txn=new_txn(),
        entries=(genesis,),
        message="begun",
        files={"results/A/old.md": b"of the attempt before\n", "results/A/same.md": b"same\n"},
    )
    ledger = transaction.commit(paths, repo, ledger, first)

    # 2. An outcome to record: it adds a file, leaves one and removes one.
    entry = seal_entry(
        ledger,
        "VERIFIED",
        ("measured x 1",),
        time=utc_now(),
        phase=1,
        feature="A",
        title="Count",
    )
    outcome = Transaction(
        txn=new_txn(),
        entries=(entry,),
        message="A Count: verified",
        trailers={"Phases-Phase": "1", "Phases-Feature": "A"},
        files={"results/A/result.json": b"{}\n", "results/A/same.md": b"same\n"},
        removed=("results/A/old.md",),
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
    }


RECORDED = {
    "commits": ["A Count: verified", "begun", "the toy project"],
    "entries": ["GENESIS", "VERIFIED"],
    "journal": True,
    "committed": True,
    "ref": True,
    "files": ["results/A/result.json", "results/A/same.md"],
    "status": "",
    "txn": True,
    "pending": [],
}
NOT_RECORDED = RECORDED | {
    "commits": ["begun", "the toy project"],
    "entries": ["GENESIS"],
    "files": ["results/A/old.md", "results/A/same.md"],
    "txn": False,
}


def test_an_outcome_is_recorded(scene: Scene) -> None:
    assert record_state(scene) == NOT_RECORDED
    ledger = transaction.commit(scene.paths, scene.repo, scene.ledger, scene.outcome)
    assert record_state(scene) == RECORDED
    assert ledger.data == scene.paths.progress.read_bytes()
    assert complete_pending(scene.paths, scene.repo, ledger) == (ledger, [])


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
        ledger, completed = complete_pending(copy.paths, copy.repo, copy.read_ledger())
        assert record_state(copy) == expected, f"killed before {effect}"
        assert completed in ([], ["A Count: verified"])

        # 3. Done once more, it changes nothing.
        assert complete_pending(copy.paths, copy.repo, ledger) == (ledger, []), effect
        assert record_state(copy) == expected, effect
    assert prepared


def test_killed_again_while_it_recovers_it_converges(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(40):
        with monkeypatch.context() as patch:
            watch_effects(patch, scene, kill_at=number)
            try:
                if number == 0 or not scene.has_prepared():
                    transaction.commit(scene.paths, scene.repo, scene.read_ledger(), scene.outcome)
                else:
                    complete_pending(scene.paths, scene.repo, scene.read_ledger())
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
    path = "results/A/same.md"
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
    "path", ["progress.txt", "results/A/old.md", "results/A/result.json", "results/A/changed.md"]
)
def test_i_12_a_commit_is_compared_with_the_disk(scene: Scene, path: str) -> None:
    """The file is other, removed, missing and changed since."""
    older = scene.repo.head()
    transaction.commit(scene.paths, scene.repo, scene.ledger, scene.outcome)
    paths = ["progress.txt", *scene.outcome.files, *scene.outcome.removed]
    scene.repo.check_commit("HEAD", paths)
    if path.endswith("changed.md"):
        path, older = "results/A/same.md", "HEAD"
        scene.toy.write(path, "SAME\n")
    with pytest.raises(IntegrityError, match=f"does not hold {path}") as refused:
        scene.repo.check_commit(older, [path])
    assert refused.value.code == "commit-content"


NAMES = ("[s]*.md", ":(top)x.md", "!x.md", " é 'ö' \"q\".md", "#.md")


@pytest.mark.parametrize("folder", ["results/A", '"results"', "a[b]"])
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
    transaction._prepare(folder, scene.outcome)
    other = seal_entry(scene.ledger, "RECOVERED", ("reason another",), time=utc_now())
    longer = append_entry(scene.paths.progress, scene.paths.journal, scene.ledger, other)
    with pytest.raises(IntegrityError, match="does not follow the ledger's last entry") as refused:
        complete_pending(scene.paths, scene.repo, longer)
    assert refused.value.code == "pending-stale"
    assert folder.exists()


@pytest.mark.parametrize("text", ["", "{}", '{"txn": "a", "txn": "b"}'])
def test_a_pending_record_that_cannot_be_read_is_refused(scene: Scene, text: str) -> None:
    folder = scene.paths.pending / scene.outcome.txn
    transaction._prepare(folder, scene.outcome)
    (folder / "record.json").write_text(text)
    with pytest.raises(IntegrityError, match="cannot be completed") as refused:
        complete_pending(scene.paths, scene.repo, scene.ledger)
    assert refused.value.code == "pending-stale"
    assert record_state(scene) == NOT_RECORDED | {"pending": [scene.outcome.txn]}


def test_a_half_prepared_outcome_is_thrown_away(scene: Scene) -> None:
    durable.write(scene.paths.pending / "abc" / "0", b"half")
    assert complete_pending(scene.paths, scene.repo, scene.ledger) == (scene.ledger, [])
    assert record_state(scene) == NOT_RECORDED


def test_transactions_have_names_of_their_own() -> None:
    names = [new_txn() for _ in range(100)]
    assert len(set(names)) == 100
    assert {len(name) for name in names} == {16}
