"""Published copies of results, and plan locks, are what the record says they are: the run, the audit, a forger."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from test_audit import journal, progress, rechain, run_audit
from toy import Toy, feature, toy_plan

from phases.base import durable
from phases.record.ledger import parse_ledger

TARGET = "docs/found/note.md"


@pytest.fixture
def published(make_toy: Callable[..., Toy]) -> Toy:
    """A toy whose only feature publishes its note, run to the checkpoint."""
    plan = toy_plan(features=1)
    plan["phases"][0]["features"] = [feature(1, publish={"note.md": TARGET})]
    toy = make_toy(plan)
    assert not (toy.root / TARGET).exists()
    toy.run("run", "--next")
    return toy


def commit_all_as_the_runner(toy: Toy, text: str) -> None:
    """What only somebody can do who may write .git: one commit from the first on, with all entries and the trailers."""
    for file in (progress(toy), journal(toy)):
        file.write_text(text)
    toy.git("reset", "-q", "--soft", toy.git("rev-list", "--max-parents=0", "HEAD"))
    last = parse_ledger(text.encode()).entries[-1]
    toy.commit(
        f"all of it\n\nPhases-Phase: 1\nPhases-Entry: {last.seq:04d}\nPhases-Head: {last.self_hash}"
    )
    toy.git("update-ref", "refs/phases/log", "HEAD")


def codes(toy: Toy) -> set[tuple[str, str]]:
    return {(item["code"], item["severity"]) for item in run_audit(toy)[1]["findings"]}


def test_a_copy_is_published_in_the_commit_of_the_result(published: Toy) -> None:
    assert published.git("show", f"HEAD~1:{TARGET}") == published.git(
        "show", "HEAD~1:results/TOY-001/note.md"
    )
    assert run_audit(published)[0] == 0
    assert codes(published) == set()


def test_a_person_may_edit_a_published_copy_and_the_audit_says_so(published: Toy) -> None:
    published.write(TARGET, "# Mine now\n")
    published.commit("my words")
    assert run_audit(published)[0] == 0
    assert codes(published) == {("published-changed", "warning")}


def test_a_published_copy_that_was_recorded_otherwise_is_named(published: Toy) -> None:
    published.write(TARGET, "# Numbers\n\nsix of them\n")
    published.git(
        "commit", "-q", "--amend", "--no-edit", "--", TARGET
    )  # of the halt: the copy differs since then
    published.git("update-ref", "refs/phases/log", "HEAD")
    assert codes(published) == {("published-changed", "warning")}
    commit_all_as_the_runner(published, published.progress)
    assert ("published-changed", "error") in codes(published)
    assert run_audit(published)[0] == 3


def test_a_published_copy_with_changes_of_the_users_stops_the_next_run(published: Toy) -> None:
    published.write(TARGET, "# Mine, not committed\n")
    refused = published.run("run", "--feature", "TOY-001", "--force", code=7)
    assert TARGET in refused.stderr
    assert (published.root / TARGET).read_text() == "# Mine, not committed\n"


def test_a_lock_that_says_other_than_its_commit_is_named(published: Toy) -> None:
    """The digest of a gate exchanged in the lock, and every hash after it made right again."""
    commit_all_as_the_runner(published, published.progress)
    assert "lock-contradicts" not in {code for code, _ in codes(published)}  # the control
    place = published.root / "results/phase-1/lock.json"
    lock = json.loads(place.read_text())
    gate = next(name for name in lock["components"] if "test_count" in name)
    met = place.read_text()
    forged = met.replace(lock["components"][gate], "0" * len(lock["components"][gate]))
    assert forged != met
    place.write_text(forged)
    digests = (durable.sha256(text.encode()) for text in (met, forged))
    commit_all_as_the_runner(published, rechain(published.progress, *digests))
    assert ("lock-contradicts", "error") in codes(published)
