"""One outcome is recorded exactly once, wherever the runner is killed while it records."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from toy import Toy

from phases.base import durable
from phases.base.paths import Paths
from phases.base.text import utc_now
from phases.errors import IntegrityError
from phases.git import repo
from phases.git.repo import Repo
from phases.record import transaction
from phases.record.ledger import Ledger, append_entry, new_header, parse_ledger, seal_entry
from phases.record.reconcile import reconcile
from phases.record.transaction import Transaction


class Killed(BaseException):
    """Ends the recording where the process would have died; nothing may catch it."""


@dataclass
class Scene:
    """A repository with a ledger of two committed entries, and an outcome to record."""

    toy: Toy
    paths: Paths
    repo: Repo
    ledger: Ledger
    outcome: Transaction

    def reopened(self) -> Ledger:
        """The ledger as the next run finds it: journal and work tree, reconciled."""
        found = reconcile(
            self.paths.progress.read_bytes(),
            self.paths.journal.read_bytes(),
            self.repo.blob("HEAD", "progress.txt"),
        )
        assert found.problems == ()
        if found.restored:
            durable.write(self.paths.progress, found.ledger.data)
        return found.ledger


@pytest.fixture
def scene(make_toy: Callable[..., Toy]) -> Scene:
    toy = make_toy()
    paths = Paths(toy.root, toy.root / ".git", "results")
    ledger = Ledger(new_header("Toy"), ())
    opened = Repo(toy.root)
    first = seal_entry(ledger, "GENESIS", ("project Toy",), time=utc_now())
    files = {"results/A/old.md": b"of the attempt before\n", "results/A/same.md": b"same\n"}
    ledger = transaction.commit(
        paths, opened, ledger, Transaction(transaction.new_txn(), (first,), "begun", {}, files)
    )
    entry = seal_entry(
        ledger, "VERIFIED", ("found x 1",), time=utc_now(), phase=1, feature="A", title="Count"
    )
    files = {"results/A/result.json": b"{}\n", "results/A/same.md": b"same\n"}
    trailers = {"Phases-Phase": "1", "Phases-Feature": "A"}
    outcome = Transaction(
        transaction.new_txn(), (entry,), "A Count: verified", trailers, files, ("results/A/old.md",)
    )
    return Scene(toy, paths, opened, ledger, outcome)


def effects(patch: pytest.MonkeyPatch, scene: Scene, die_at: int | None) -> list[str]:
    """Lets every lasting effect of a record be counted, and kills at the one with this number, before it happens."""
    seen: list[str] = []

    def watch(owner: object, name: str) -> None:
        original = getattr(owner, name)

        def step(*arguments: object, **more: object) -> object:
            seen.append(f"{name} {arguments[0] if arguments else ''}")
            if len(seen) - 1 == die_at:
                raise Killed
            return original(*arguments, **more)

        patch.setattr(owner, name, step)

    for owner, name in ((durable, "write"), (durable, "append"), (durable, "remove"), (scene.repo, "commit"),
                        (scene.repo, "move_log_ref"), (repo.Repo, "_run"), (os, "unlink"), (os, "rmdir")):  # fmt: skip
        watch(owner, name)
    return seen


def facts(scene: Scene) -> dict[str, object]:
    """Everything that one recorded outcome leaves."""
    git = scene.toy.git
    return {
        "commits": git("log", "--format=%s").splitlines(),
        "entries": [
            entry.kind for entry in parse_ledger(scene.paths.progress.read_bytes()).entries
        ],
        "journal": scene.paths.journal.read_bytes() == scene.paths.progress.read_bytes(),
        "committed": (git("show", "HEAD:progress.txt") + "\n").encode()
        == scene.paths.progress.read_bytes(),
        "ref": git("rev-parse", "refs/phases/log") == git("rev-parse", "HEAD"),
        "files": sorted(git("ls-tree", "-r", "--name-only", "HEAD", "results").split()),
        "status": git("status", "--porcelain"),
        "txn": git("log", "-1", "--format=%(trailers:key=Phases-Txn,valueonly)").strip()
        == scene.outcome.txn,
        "pending": sorted(path.name for path in scene.paths.pending.glob("*")),
    }


WHOLE = {
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
NOTHING = WHOLE | {
    "commits": ["begun", "the toy project"],
    "entries": ["GENESIS"],
    "files": ["results/A/old.md", "results/A/same.md"],
    "txn": False,
}


def test_an_outcome_is_recorded(scene: Scene) -> None:
    assert facts(scene) == NOTHING
    ledger = transaction.commit(scene.paths, scene.repo, scene.ledger, scene.outcome)
    assert facts(scene) == WHOLE
    assert ledger.data == scene.paths.progress.read_bytes()
    assert transaction.complete_pending(scene.paths, scene.repo, ledger) == (ledger, [])


def test_killed_at_any_step_it_converges(
    scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        control = clone_of(scene, tmp_path / "control")
        steps = effects(patch, control, None)
        transaction.commit(control.paths, control.repo, control.ledger, control.outcome)
    names = {step.split()[0] for step in steps}
    assert names == {
        "write",
        "append",
        "remove",
        "commit",
        "move_log_ref",
        "_run",
        "unlink",
        "rmdir",
    }
    assert len(steps) >= 12
    prepared = False
    for number, step in enumerate(steps):
        other = clone_of(scene, tmp_path / f"kill-{number}")
        with monkeypatch.context() as patch:
            effects(patch, other, number)
            with pytest.raises(Killed):
                transaction.commit(other.paths, other.repo, other.ledger, other.outcome)
        prepared = prepared or any(other.paths.pending.glob("*/record.json"))
        ledger, completed = transaction.complete_pending(other.paths, other.repo, other.reopened())
        met = facts(other)
        assert met == (WHOLE if prepared else NOTHING), f"killed before {step}"
        assert completed in ([], ["A Count: verified"])
        assert transaction.complete_pending(other.paths, other.repo, ledger) == (ledger, []), step
        assert facts(other) == met, step
    assert prepared


def clone_of(scene: Scene, target: Path) -> Scene:
    """The same scene in a folder of its own."""
    toy = scene.toy.copy(target)
    return Scene(
        toy,
        Paths(toy.root, toy.root / ".git", "results"),
        Repo(toy.root),
        scene.ledger,
        scene.outcome,
    )


def test_killed_again_while_it_recovers_it_converges(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(40):
        with monkeypatch.context() as patch:
            effects(patch, scene, number)
            try:
                if number == 0 or not any(scene.paths.pending.glob("*/record.json")):
                    transaction.commit(scene.paths, scene.repo, scene.reopened(), scene.outcome)
                else:
                    transaction.complete_pending(scene.paths, scene.repo, scene.reopened())
            except Killed:
                continue
        break
    assert facts(scene) == WHOLE


def test_what_the_user_had_staged_stays_staged(scene: Scene) -> None:
    scene.toy.write("mine.txt", "mine\n")
    scene.toy.git("add", "mine.txt")
    transaction.commit(scene.paths, scene.repo, scene.ledger, scene.outcome)
    assert facts(scene) == WHOLE | {"status": "A  mine.txt"}


def test_a_prepared_outcome_that_does_not_follow_is_refused(scene: Scene) -> None:
    folder = scene.paths.pending / scene.outcome.txn
    transaction._prepare(folder, scene.outcome)
    other = seal_entry(scene.ledger, "RECOVERED", ("reason another",), time=utc_now())
    grown = append_entry(scene.paths.progress, scene.paths.journal, scene.ledger, other)
    with pytest.raises(IntegrityError, match="does not follow the ledger's last entry") as refused:
        transaction.complete_pending(scene.paths, scene.repo, grown)
    assert refused.value.code == "pending-stale"
    assert folder.exists()


def test_a_half_prepared_outcome_is_thrown_away(scene: Scene) -> None:
    durable.write(scene.paths.pending / "abc" / "0", b"half")
    assert transaction.complete_pending(scene.paths, scene.repo, scene.ledger) == (scene.ledger, [])
    assert facts(scene) == NOTHING


def test_transactions_have_names_of_their_own() -> None:
    def names() -> Iterator[str]:
        while True:
            yield transaction.new_txn()

    drawn = [name for name, _ in zip(names(), range(100), strict=False)]
    assert len(set(drawn)) == 100
    assert {len(name) for name in drawn} == {16}
