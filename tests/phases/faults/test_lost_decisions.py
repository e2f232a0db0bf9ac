"""A decision is killed before its commit, and what it prepared is gone, or in another work tree.

`git clean`, `git stash` and `rm` reach `.phases`, and never the journal.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from forging import audit_codes, forge_commit, forge_entry
from hints import follow
from machines import copy_artifacts
from quick import Quick, plan
from terminal_user import as_asked, at_terminal

from phases.record.ledger import parse_ledger

APPROVE = ("approve", "1")
REJECT = ("reject", "1", "--reason", "look again")
RELOCK = ("relock", "1", "--reason", "a new plan")
WAIVE = ("approve", "1", "--waive", "Q-001", "--reason", "no such data")
CLEAN = "git clean -fdxq"

POWERS = "-dac_override,-dac_read_search"
WITHOUT_POWERS = ("setpriv", f"--bounding-set={POWERS}", f"--inh-caps={POWERS}")
"""Begins a command that reads only what its user may read, though that is root."""


def kill(quick: Quick, decision: tuple[str, ...], point: str) -> None:
    """Decide, and kill the command at a failpoint."""
    env = {"PHASES_FAILPOINT": f"{point}:kill"}
    code, screen = at_terminal(quick.root, *decision, answer=as_asked, env=env)
    assert code is None, screen


def remove(quick: Quick, command: str) -> None:
    subprocess.run(["sh", "-c", command], cwd=quick.root, check=True)


def kinds(quick: Quick) -> list[str]:
    return [entry.kind for entry in parse_ledger(quick.progress.encode()).entries]


def assert_decided_anew(quick: Quick) -> None:
    """Check that the record is whole, that audit names what was lost, and that phase 1 goes on."""
    assert audit_codes(quick, code=0) == set()
    assert "decision-lost" in quick.run("audit").stdout
    code, screen = at_terminal(quick.root, *APPROVE, answer=as_asked)
    assert code == 0, screen
    assert quick.status()["phases"][0]["state"] == "approved"
    assert audit_codes(quick, code=0) == set()


@pytest.mark.parametrize(
    ("decision", "point", "removal"),
    [
        (APPROVE, "entered", CLEAN),
        (APPROVE, "entered", "git stash -q -u -a"),
        (APPROVE, "entered", "rm -rf .phases"),
        (APPROVE, "files", CLEAN),
        (APPROVE, "files", "rm -rf .phases"),
        (REJECT, "entered", CLEAN),
        (REJECT, "files", CLEAN),
        (RELOCK, "entered", CLEAN),
        (RELOCK, "files", CLEAN),
    ],
)
def test_a_lost_decision_counts_for_nothing_and_is_asked_for_again(
    waiting: Quick, decision: tuple[str, ...], point: str, removal: str
) -> None:
    kill(waiting, decision, point)
    remove(waiting, removal)
    process = waiting.run("run", "--next")
    assert "was lost" in process.stderr
    assert kinds(waiting)[-2:] == ["LOST", "HALTED"]
    assert_decided_anew(waiting)


def test_a_lost_waiver_waives_nothing(make_quick: Callable[..., Quick]) -> None:
    document = plan()
    document["phases"][0]["features"][0]["gate"] = {"shell": "test ! -s result.json"}
    quick = make_quick(document)
    quick.run("run", "--next", code=1)
    kill(quick, WAIVE, "entered")
    remove(quick, CLEAN)
    quick.run("run", "--next", code=1)
    assert quick.states() == {"Q-001": "failed"}
    assert audit_codes(quick, code=0) == set()
    code, screen = at_terminal(quick.root, *WAIVE, answer=as_asked)
    assert code == 0, screen
    assert quick.states() == {"Q-001": "waived"}
    assert audit_codes(quick, code=0) == set()


def test_a_run_that_is_killed_while_it_gives_a_decision_up_goes_on(waiting: Quick) -> None:
    kill(waiting, APPROVE, "entered")
    remove(waiting, CLEAN)
    waiting.run("run", "--next", code=-9, env={"PHASES_FAILPOINT": "recovered:kill"})
    waiting.run("run", "--next")
    assert kinds(waiting).count("LOST") == 1
    assert_decided_anew(waiting)


@pytest.mark.parametrize("point", ["entered", "files", "committed"])
def test_what_waits_in_another_work_tree_is_completed_there(
    waiting: Quick, tmp_path: Path, point: str
) -> None:
    kill(waiting, APPROVE, point)
    waiting.git("worktree", "add", "-q", "-b", "second", str(tmp_path / "second work tree"))
    second = waiting.at(tmp_path / "second work tree")
    stderr = second.run("run", "--next", code=3).stderr
    assert "in another work tree" in stderr
    assert follow(second.root, stderr) == waiting.root
    waiting.run("run", "--next")
    assert waiting.status()["phases"][0]["state"] == "approved"
    assert audit_codes(waiting, code=0) == set()


def with_separate_git_dir(quick: Quick, tmp_path: Path) -> Quick:
    quick.git("init", "-q", f"--separate-git-dir={tmp_path / 'store'}")
    return quick


def in_submodule(quick: Quick, tmp_path: Path) -> Quick:
    outer = tmp_path / "outer"
    quick.git("init", "-q", str(outer))
    allow = ("-C", str(outer), "-c", "protocol.file.allow=always")
    quick.git(*allow, "submodule", "add", "-q", str(quick.root), "inner")
    inner = quick.at(outer / "inner")
    inner.git("config", "user.name", "Quick Person")
    inner.git("config", "user.email", "quick@example.org")
    copy_artifacts(quick, inner)
    return inner


@pytest.mark.parametrize("layout", [with_separate_git_dir, in_submodule])
def test_a_main_work_tree_that_git_does_not_list_is_found(
    waiting: Quick, tmp_path: Path, layout: Callable[[Quick, Path], Quick]
) -> None:
    main = layout(waiting, tmp_path)
    kill(main, REJECT, "entered")
    main.git("worktree", "add", "-q", "-b", "second", str(tmp_path / "linked"))
    linked = main.at(tmp_path / "linked")
    stderr = linked.run("run", "--next", code=3).stderr
    assert follow(linked.root, stderr) == main.root
    main.run("run", "--next")
    assert "REJECTED" in kinds(main)
    assert "LOST" not in kinds(main)
    assert audit_codes(main, code=0) == set()


def test_a_main_work_tree_where_this_user_may_not_look(waiting: Quick, tmp_path: Path) -> None:
    """Views go on; a run does not take for lost what it cannot see."""
    main = with_separate_git_dir(waiting, tmp_path)
    main.git("worktree", "add", "-q", "-b", "second", str(tmp_path / "linked"))
    linked = main.at(tmp_path / "linked")
    kill(main, REJECT, "entered")
    private = tmp_path / "private"
    private.mkdir()
    main.root.rename(private / "quick")
    binding = next((tmp_path / "store/phases/prepared").iterdir())
    binding.write_text(binding.read_text().replace(str(main.root), str(private / "quick")))
    private.chmod(0)
    if os.geteuid() == 0:
        os.chown(private, 65534, 65534)
    for words, code in ((("status",), 0), (("audit",), 0), (("run", "--next"), 3)):
        process = subprocess.run(
            [*WITHOUT_POWERS, sys.executable, "-m", "phases", *words],
            cwd=linked.root,
            env=linked.environment(),
            capture_output=True,
            text=True,
            check=False,
        )
        assert process.returncode == code, process.stdout + process.stderr
    assert f"{private}/quick" in process.stderr
    private.chmod(0o700)


@pytest.mark.parametrize("point", ["prepared", "entered"])
def test_no_decision_is_made_while_one_waits_in_another_work_tree(
    waiting: Quick, tmp_path: Path, point: str
) -> None:
    waiting.git("worktree", "add", "-q", "-b", "second", str(tmp_path / "second"))
    second = waiting.at(tmp_path / "second")
    copy_artifacts(waiting, second)
    kill(waiting, REJECT, point)
    for decision in (APPROVE, RELOCK):
        code, screen = at_terminal(second.root, *decision, answer=as_asked)
        assert code == 3, screen
        assert "in another work tree" in screen
    assert "in another work tree" in second.run("run", "--next", code=3).stderr
    waiting.run("run", "--next")
    assert "REJECTED" in kinds(waiting)


def test_a_copy_of_the_repository_does_not_wait_for_the_original(waiting: Quick) -> None:
    """Its bindings name the folders of the original."""
    kill(waiting, APPROVE, "entered")
    copy = waiting.copy(waiting.root.with_name("copy"))
    remove(copy, CLEAN)
    copy.run("run", "--next")
    assert kinds(copy)[-2:] == ["LOST", "HALTED"]


@pytest.mark.parametrize("second", [REJECT, RELOCK])
def test_a_decision_waits_until_a_run_gave_a_lost_one_up(
    waiting: Quick, second: tuple[str, ...]
) -> None:
    """Its commit would hold the entry of the lost one, whose record no commit has."""
    kill(waiting, APPROVE, "entered")
    remove(waiting, CLEAN)
    code, screen = at_terminal(waiting.root, *second, answer=as_asked)
    assert code == 7, screen
    assert "APPROVED of entry 0006 has no commit" in screen
    waiting.run("run", "--next")
    code, screen = at_terminal(waiting.root, *second, answer=as_asked)
    assert code == 0, screen
    assert audit_codes(waiting, code=0) == set()


#### LOST, slipped in


def test_what_was_given_up_does_not_come_back_by_a_merge(make_quick: Callable[..., Quick]) -> None:
    """The human was told that it counts for nothing, and decided otherwise."""
    document = plan()
    document["phases"][0]["features"][0]["gate"] = {"shell": "test ! -s result.json"}
    quick = make_quick(document)
    quick.run("run", "--next", code=1)
    kill(quick, WAIVE, "committed")
    commit = quick.git("rev-parse", "HEAD")
    remove(quick, f"git reset -q --hard HEAD~1 && {CLEAN}")
    quick.run("run", "--next", code=1)
    code, screen = at_terminal(quick.root, *RELOCK, answer=as_asked)
    assert code == 0, screen
    remove(quick, f"git merge -q -s ours --no-edit {commit}")
    assert audit_codes(quick, code=0) == set()
    remove(quick, f"git reset -q --hard HEAD~1; git merge -q {commit} || true")
    quick.git("checkout", "--ours", "progress.txt")
    quick.git("add", "-A")
    quick.git("commit", "-q", "-m", "merge")
    assert quick.states() == {"Q-001": "failed"}
    assert "decision-lost" in quick.run("audit").stdout
    quick.run("run", "--next", code=1)


def test_what_a_commit_of_its_own_brought_is_not_lost(waiting: Quick) -> None:
    """Neither a decision that counts, nor one that never had a record."""
    code, screen = at_terminal(waiting.root, *APPROVE, answer=as_asked)
    assert code == 0, screen
    number = len(kinds(waiting))
    lost = f"lost: APPROVED of entry {number:04d}; it counts for nothing"
    forge_commit(waiting, forge_entry(waiting, "LOST", [lost, "reason it was removed"], phase=None))
    assert waiting.status()["phases"][0]["state"] == "approved"
    assert audit_codes(waiting, code=0) == set()


def test_a_forged_approval_is_found_although_it_is_called_lost(waiting: Quick) -> None:
    forge_commit(waiting, forge_entry(waiting, "APPROVED", ["by nobody, assurance presence"]))
    number = len(kinds(waiting))
    lost = f"lost: APPROVED of entry {number:04d}; it counts for nothing"
    forge_commit(waiting, forge_entry(waiting, "LOST", [lost], phase=None))
    assert "approval-missing" in audit_codes(waiting)


def test_what_names_no_record_is_no_lost_decision(waiting: Quick) -> None:
    """One commit brings an approval without a record, and LOST that names it."""
    forge_entry(waiting, "APPROVED", ["by nobody, assurance presence"])
    lost = f"lost: APPROVED of entry {len(kinds(waiting)):04d}; it counts for nothing"
    forge_commit(waiting, forge_entry(waiting, "LOST", [lost], phase=None))
    assert "approval-missing" in audit_codes(waiting)


#### a decision after a reset


def test_a_decision_after_a_reset_names_the_way_back(waiting: Quick) -> None:
    """The journal is ahead of HEAD as after a kill, but no run could complete anything."""
    waiting.git("reset", "-q", "--hard", "HEAD~1")
    code, screen = at_terminal(waiting.root, *APPROVE, answer=as_asked)
    assert code == 3, screen
    follow(waiting.root, screen.replace("\r\n", "\n"))
    code, screen = at_terminal(waiting.root, *APPROVE, answer=as_asked)
    assert code == 0, screen


def test_a_reset_past_a_decision_behind_a_deleted_ref_is_named(waiting: Quick) -> None:
    code, screen = at_terminal(waiting.root, *REJECT, answer=as_asked)
    assert code == 0, screen
    waiting.git("update-ref", "-d", "refs/phases/log")
    waiting.git("reset", "-q", "--hard", "HEAD~1")
    follow(waiting.root, waiting.run("run", "--next", code=3).stderr)
    waiting.run("run", "--next")
    assert kinds(waiting)[-4:] == ["REJECTED", "RECOVERED", "LOST", "HALTED"]
    assert "decision-lost" in waiting.run("audit").stdout
