"""A merge that has a recorded commit in its history, and the progress.txt of before it.

git's simplified history follows the parent that has the same file, and hides the other one.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from forging import audit_codes
from hints import follow
from machines import copy_artifacts
from quick import GATE, Quick, plan
from terminal_user import as_asked, at_terminal

from phases.record.ledger import parse_ledger

REJECT = ("reject", "1", "--reason", "not convincing")


def decide(quick: Quick, *words: str, code: int = 0) -> str:
    actual, screen = at_terminal(quick.root, *words, answer=as_asked)
    assert actual == code, screen
    return screen


def kinds(quick: Quick) -> list[str]:
    return [entry.kind for entry in parse_ledger(quick.progress.encode()).entries]


def clone(quick: Quick, folder: Path, source: str | None = None) -> Quick:
    """Return another machine with what the first one pushed, and its artifacts."""
    quick.git("clone", "-q", source or str(quick.root), str(folder))
    other = quick.at(folder)
    other.git("config", "user.name", "Another Person")
    other.git("config", "user.email", "another@example.org")
    copy_artifacts(quick, other)
    return other


def merge_without(quick: Quick, commit: str) -> None:
    """Put HEAD to a merge of this commit with HEAD's history, with the files of the commit."""
    tree = quick.git("rev-parse", f"{commit}^{{tree}}")
    merge = quick.git("commit-tree", "-m", "merge", "-p", commit, "-p", "HEAD", tree)
    quick.git("reset", "-q", "--hard", merge)


def assert_refused(quick: Quick) -> str:
    """Check that no command goes on; return the refusal of a run."""
    assert "ledger-lacks-commit" in audit_codes(quick)
    before = quick.git("for-each-ref")
    stderr = quick.run("run", "--next", code=3).stderr
    assert "left it out" in stderr
    assert quick.git("for-each-ref") == before
    return stderr


@pytest.fixture
def two_machines(make_quick: Callable[..., Quick], tmp_path: Path) -> tuple[Quick, Quick]:
    """Return one machine that approved phase 1 of 2, and one that cloned it."""
    first = make_quick(plan(phases=2))
    first.run("run", "--next")
    decide(first, "approve", "1")
    return first, clone(first, tmp_path / "second")


@pytest.mark.parametrize("is_clone", [False, True])
def test_a_rejection_is_not_undone_by_a_merge(
    two_machines: tuple[Quick, Quick], *, is_clone: bool
) -> None:
    """In the clone a PULLED names the commit before: the ref was taken for one to be moved."""
    quick = two_machines[1 if is_clone else 0]
    decide(quick, *REJECT)
    merge_without(quick, "HEAD~1")
    stderr = assert_refused(quick)
    follow(quick.root, stderr)
    assert kinds(quick)[-1] == "REJECTED"
    quick.run("run", "--next")
    assert "LOST" not in kinds(quick)
    assert quick.status()["phases"][0]["state"] == "awaiting_approval"
    assert audit_codes(quick, code=0) == set()


def test_a_failed_attempt_is_not_forgotten_by_a_merge(
    make_quick: Callable[..., Quick], tmp_path: Path
) -> None:
    """The gate is softened without the relock that is asked for else."""
    document = plan(phases=2)
    document["phases"][1]["features"][0]["gate"] = {"shell": "test ! -s result.json"}
    first = make_quick(document)
    first.run("run", "--next")
    decide(first, "approve", "1")
    quick = clone(first, tmp_path / "second")
    quick.run("run", "--next", code=1)
    merge_without(quick, "HEAD~1")
    document["phases"][1]["features"][0]["gate"] = {"shell": GATE}
    quick.write("prd/plan.json", json.dumps(document, indent=1))
    quick.commit("soften the gate")
    assert_refused(quick)


def test_a_rejection_of_another_machine_is_not_merged_away(waiting: Quick, tmp_path: Path) -> None:
    """`-s ours`, with and without a journal; nothing was pushed by force."""
    origin = tmp_path / "origin.git"
    waiting.git("clone", "-q", "--bare", ".", str(origin))
    waiting.git("remote", "add", "origin", str(origin))
    other = clone(waiting, tmp_path / "other", str(origin))
    decide(waiting, *REJECT)
    waiting.git("push", "-q", "origin", "main")

    # 1. On the machine that made the merge, which may approve nothing.
    other.git("fetch", "-q")
    other.git("merge", "-q", "-s", "ours", "--no-edit", "origin/main")
    stderr = assert_refused(other)
    decide(other, "approve", "1", code=3)
    other.git("push", "-q", "origin", "main")

    # 2. In a clone, and on the machine that recorded the rejection.
    third = clone(waiting, tmp_path / "third", str(origin))
    assert_refused(third)
    waiting.git("pull", "-q", "--ff-only", "origin", "main")
    assert_refused(waiting)

    # 3. The hint leads back to before the merge, and what was recorded is pulled.
    follow(other.root, stderr)
    assert audit_codes(other, code=0) == set()
    other.git("pull", "-q", "--ff-only", str(waiting.root), "refs/phases/log")
    assert kinds(other)[-1] == "REJECTED"
    other.run("run", "--next")
    assert audit_codes(other, code=0) == set()


def failing_plan() -> dict[str, Any]:
    document = plan()
    document["phases"][0]["features"][0]["gate"] = {"shell": "test ! -s result.json"}
    return document


def merge_from_before(quick: Quick) -> None:
    quick.git("switch", "-q", "-c", "before", "HEAD~1")
    quick.git("merge", "-q", "-s", "ours", "--no-edit", "main")


def merge_into_an_orphan(quick: Quick) -> None:
    quick.git("switch", "-q", "--orphan", "before")
    quick.git("checkout", "main~1", "--", ".")
    quick.commit("a first commit")
    options = ("-s", "ours", "--no-edit", "--allow-unrelated-histories")
    quick.git("merge", "-q", *options, "main")


def remove_it(quick: Quick) -> None:
    quick.git("rm", "-rq", "progress.txt", "results")
    quick.git("commit", "-q", "-m", "clean up")


@pytest.mark.parametrize("hide", [merge_from_before, merge_into_an_orphan, remove_it])
def test_a_whole_record_is_not_left_out(
    make_quick: Callable[..., Quick], tmp_path: Path, hide: Callable[[Quick], None]
) -> None:
    """A clone has no journal: it would begin a new record, and push it without force."""
    first = make_quick(failing_plan())
    first.run("run", "--next", code=1)
    quick = clone(first, tmp_path / "second")
    hide(quick)
    assert "ledger-lacks-commit" in audit_codes(quick)
    quick.write("prd/plan.json", json.dumps(plan(), indent=1))
    quick.commit("soften the gate")
    stderr = assert_refused(quick)
    follow(quick.root, stderr)
    quick.call("run", "--next", code=None)
    assert audit_codes(quick, code=0) == set()


def test_an_object_that_is_missing_hides_nothing(waiting: Quick, tmp_path: Path) -> None:
    quick = clone(waiting, tmp_path / "second")
    decide(quick, *REJECT)
    name = quick.git("rev-parse", "HEAD:progress.txt")
    merge_without(quick, "HEAD~1")
    blob = quick.root / f".git/objects/{name[:2]}/{name[2:]}"
    blob.rename(quick.root.with_name("blob"))
    assert "git-object" in audit_codes(quick)
    assert "is missing or damaged" in quick.run("run", "--next", code=3).stderr
    quick.root.with_name("blob").rename(blob)
    assert_refused(quick)


def test_the_hint_leads_to_the_own_record_of_two(waiting: Quick, tmp_path: Path) -> None:
    """The merge's first parent is the other record, which this machine never had."""
    other = clone(waiting, tmp_path / "other")
    decide(other, *REJECT)
    waiting.git("fetch", "-q", str(other.root), "main:theirs")
    decide(waiting, "approve", "1")
    own = waiting.git("rev-parse", "HEAD")
    waiting.git("switch", "-q", "theirs")
    waiting.git("merge", "-q", "-s", "ours", "--no-commit", "main")
    waiting.git("checkout", "main", "--", "progress.txt", "prd/approvals", "results")
    waiting.git("commit", "-q", "-m", "merge")
    follow(waiting.root, assert_refused(waiting))
    assert waiting.git("rev-parse", "HEAD") == own
    waiting.run("run", "--next")
    assert audit_codes(waiting, code=0) == set()


def test_a_merge_of_what_was_recorded_leaves_nothing_out(waiting: Quick, tmp_path: Path) -> None:
    """A branch of before, and another project with a record of its own."""
    stranger = Quick(tmp_path / "stranger", plan() | {"project": "Another"})
    stranger.run("run", "--next")
    waiting.git("branch", "old", "HEAD~1")
    decide(waiting, *REJECT)
    waiting.git("merge", "-q", "-s", "ours", "--no-edit", "old")
    waiting.git("fetch", "-q", str(stranger.root), "main")
    options = ("-s", "ours", "--no-edit", "--allow-unrelated-histories")
    waiting.git("merge", "-q", *options, "FETCH_HEAD")
    waiting.run("run", "--next")
    assert audit_codes(waiting, code=0) == set()
