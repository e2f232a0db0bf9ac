"""Each hint that is printed is one that works: cases I-54 and I-55.

A test does what the hint says, as a user would: it copies the command into a shell. Then the run
goes on, the audit is clean, and nothing of the user's is lost.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from converging import failpoint_env
from hints import command_of, follow, go_on
from invariants import violations
from machines import copy_artifacts
from quick import Quick, plan
from terminal_user import as_asked, at_terminal
from toy import ROOT as SOURCE
from users import commit_file

from tests.soak import mark_soak

#### a history that was moved


@pytest.fixture(scope="session")
def _worked(tmp_path_factory: pytest.TempPathFactory) -> Quick:
    folder = tmp_path_factory.mktemp("worked")
    quick = Quick(folder / "quick", plan(features=3))
    quick.git("clone", "-q", "--bare", ".", "../origin.git")
    add(quick, "before")
    quick.run("run", "--feature", "Q-001")
    add(quick, "between")
    quick.run("run", "--feature", "Q-002")
    return quick


@pytest.fixture
def worked(_worked: Quick, tmp_path: Path) -> Quick:
    """Return a repository with two outcomes and own commits before and between them.

    One feature is still to run. `../origin.git` is at its first commit.
    """
    quick = _worked.copy(tmp_path / "quick")
    quick.git("clone", "-q", "--bare", str(_worked.root.parent / "origin.git"), "../origin.git")
    quick.git("remote", "add", "origin", "../origin.git")
    quick.git("fetch", "-q")
    quick.git("branch", "-q", "-u", "origin/main")
    return quick


def add(quick: Quick, name: str, text: str = "") -> None:
    """Commit a file of the user's."""
    quick.write(f"{name}.txt", text or f"{name}\n")
    quick.git("add", f"{name}.txt")
    quick.git("commit", "-q", "-m", f"add {name}")


def push_of_a_colleague(quick: Quick, name: str = "upstream", text: str = "") -> None:
    """Let a colleague push a file."""
    colleague = quick.root.with_name("colleague")
    if not colleague.exists():
        quick.git("clone", "-q", "../origin.git", str(colleague))
    (colleague / f"{name}.txt").write_text(text or f"{name}\n")
    git = ("-C", str(colleague), "-c", "user.name=C", "-c", "user.email=c@example.org")
    quick.git(*git, "add", "-A")
    quick.git(*git, "commit", "-q", "-m", f"add {name} upstream")
    quick.git(*git, "push", "-q")


def has_upstream(quick: Quick) -> bool:
    """Return whether HEAD is after what was fetched."""
    return quick.git("merge-base", "HEAD", "origin/main") == quick.git("rev-parse", "origin/main")


def pull_rebase(quick: Quick) -> None:
    push_of_a_colleague(quick)
    quick.git("pull", "-q", "--rebase", "--autostash")


def pull_rebase_and_add(quick: Quick) -> None:
    pull_rebase(quick)
    add(quick, "after")
    add(quick, "after2")


def add_and_pull_rebase(quick: Quick) -> None:
    add(quick, "after")
    add(quick, "after2")
    pull_rebase(quick)


def pull_rebase_twice(quick: Quick) -> None:
    pull_rebase(quick)
    add(quick, "after")
    add(quick, "after2")
    push_of_a_colleague(quick, "second")
    quick.git("pull", "-q", "--rebase")


def pull_rebase_with_changes(quick: Quick) -> None:
    add(quick, "after")
    add(quick, "after2", "one\n")
    quick.write("after.txt", "uncommitted\n")
    quick.write("new.txt", "untracked\n")
    pull_rebase(quick)
    quick.write("after2.txt", "two\n")
    quick.git("commit", "-q", "-m", "edit after2", "after2.txt")
    quick.write("after2.txt", "three\n")


def pull_rebase_with_a_conflict(quick: Quick) -> None:
    push_of_a_colleague(quick, "between", "of a colleague\n")
    with pytest.raises(subprocess.CalledProcessError):
        quick.git("pull", "-q", "--rebase")
    quick.write("between.txt", "between, and of a colleague\n")
    quick.git("add", "between.txt")
    quick.git("-c", "core.editor=true", "rebase", "--continue")
    add(quick, "after")
    add(quick, "after2")


def pull_rebase_and_merge(quick: Quick) -> None:
    quick.git("branch", "side")
    pull_rebase_and_add(quick)
    quick.git("switch", "-q", "-c", "side2", "HEAD~1")
    add(quick, "side2")
    quick.git("switch", "-q", "main")
    quick.git("merge", "-q", "--no-edit", "side2")


def rebase_with_the_own_commit_below(quick: Quick) -> None:
    add(quick, "after")
    rebase_in_order(quick, (0, 4, 1, 2, 3))


def rebase_with_the_own_commit_between(quick: Quick) -> None:
    push_of_a_colleague(quick)
    quick.git("pull", "-q", "--rebase")
    add(quick, "after")
    rebase_in_order(quick, (0, 1, 4, 2, 3))


def rebase_in_order(quick: Quick, places: Sequence[int]) -> None:
    """Make the newest five commits anew in another order, as `rebase -i` does."""
    commits = quick.git("rev-list", "--reverse", "-5", "HEAD").split()
    quick.git("reset", "-q", "--hard", f"{commits[0]}~1")
    quick.git("cherry-pick", "--allow-empty", *(commits[place] for place in places))


def squash_own_commits(quick: Quick) -> None:
    """Make the own commit before the record anew, with other words and another file."""
    commits = quick.git("rev-list", "--reverse", "-4", "HEAD").split()
    quick.git("reset", "-q", "--hard", commits[0])
    quick.write("more.txt", "more\n")
    quick.git("add", "more.txt")
    quick.git("commit", "-q", "--amend", "-m", "add before")
    quick.git("cherry-pick", *commits[1:])


def amend(quick: Quick) -> None:
    quick.git("commit", "-q", "--amend", "-m", "in other words")


def amend_with_files(quick: Quick) -> None:
    quick.write("amended.txt", "amended\n")
    quick.write("before.txt", "amended too\n")
    quick.git("add", "-A")
    quick.git("commit", "-q", "--amend", "--no-edit")


def amend_with_files_and_add(quick: Quick) -> None:
    amend_with_files(quick)
    add(quick, "after")
    add(quick, "after2")
    quick.git("commit", "-q", "--allow-empty", "-m", "add nothing")


def amend_the_record(quick: Quick) -> None:
    quick.write("results/Q-002/report.md", "edited\n")
    quick.write("progress.txt", quick.progress + "by hand\n")
    amend_with_files_and_add(quick)


def squash_everything(quick: Quick) -> None:
    quick.git("reset", "-q", "--soft", "HEAD~4")
    quick.git("commit", "-q", "-m", "squashed")


def squash_merge(quick: Quick) -> None:
    quick.git("branch", "-q", "-m", "work")
    quick.git("switch", "-q", "-c", "main", "origin/main")
    add(quick, "of main")
    quick.git("merge", "-q", "--squash", "work")
    quick.git("commit", "-q", "-m", "squashed")


def squash_merge_without_the_branch(quick: Quick) -> None:
    squash_merge(quick)
    quick.git("branch", "-q", "-D", "work")
    add(quick, "after")


def reset_hard(quick: Quick) -> None:
    quick.git("reset", "-q", "--hard", "HEAD~1")


def reset_hard_far(quick: Quick) -> None:
    add(quick, "after")
    quick.git("reset", "-q", "--hard", "HEAD~4")
    quick.write("new.txt", "untracked\n")


def reset_hard_and_edit(quick: Quick) -> None:
    quick.git("reset", "-q", "--hard", "HEAD~4")
    quick.write("before.txt", "written again\n")


def reset_soft(quick: Quick) -> None:
    quick.git("reset", "-q", "--soft", "HEAD~1")
    quick.write("before.txt", "edited\n")


def reset_mixed(quick: Quick) -> None:
    quick.write("before.txt", "edited\n")
    quick.git("reset", "-q", "HEAD~1")


def reset_before_the_record(quick: Quick) -> None:
    quick.git("reset", "-q", "origin/main")


def reset_and_add(quick: Quick) -> None:
    quick.git("reset", "-q", "--hard", "HEAD~1")
    add(quick, "after")
    quick.write("new.txt", "untracked\n")


def reset_and_add_where_merges_go_forward_only(quick: Quick) -> None:
    quick.git("config", "merge.ff", "only")
    reset_and_add(quick)


def reset_and_add_the_same(quick: Quick) -> None:
    quick.git("reset", "-q", "--hard", "HEAD~4")
    add(quick, "between", "otherwise\n")
    quick.write("before.txt", "otherwise\n")


def switch_to_an_older_branch(quick: Quick) -> None:
    quick.git("switch", "-q", "-c", "older", "HEAD~2")


def switch_to_an_older_branch_and_add(quick: Quick) -> None:
    quick.git("branch", "-m", "it's/mine")
    switch_to_an_older_branch(quick)
    add(quick, "older")
    quick.write("older.txt", "edited\n")


def switch_to_another_work_tree(quick: Quick) -> None:
    quick.git("switch", "-q", "-c", "older", "HEAD~2")
    add(quick, "older")
    quick.git("worktree", "add", "-q", "../tree", "main")


def detach(quick: Quick) -> None:
    quick.git("checkout", "-q", "--detach", "HEAD~2")


def detach_and_add(quick: Quick) -> None:
    detach(quick)
    add(quick, "detached")
    quick.git("branch", "mine")


def begin_a_branch_without_commits(quick: Quick) -> None:
    quick.git("checkout", "-q", "--orphan", "empty")


def stop_amid_a_rebase(quick: Quick) -> None:
    push_of_a_colleague(quick, "between", "of a colleague\n")
    with pytest.raises(subprocess.CalledProcessError):
        quick.git("pull", "-q", "--rebase")


def drop_the_last_outcome(quick: Quick) -> None:
    add(quick, "after")
    quick.git("rebase", "-q", "--onto", "HEAD~2", "HEAD~1")


REWRITTEN = [
    pull_rebase,
    pull_rebase_and_add,
    add_and_pull_rebase,
    pull_rebase_twice,
    pull_rebase_with_changes,
    pull_rebase_with_a_conflict,
    pull_rebase_and_merge,
    rebase_with_the_own_commit_below,
    rebase_with_the_own_commit_between,
    squash_own_commits,
    amend,
    amend_with_files,
    amend_with_files_and_add,
    amend_the_record,
    squash_everything,
    squash_merge,
    squash_merge_without_the_branch,
]
MOVED = [
    reset_hard,
    reset_hard_far,
    reset_hard_and_edit,
    reset_soft,
    reset_mixed,
    reset_before_the_record,
    reset_and_add,
    reset_and_add_where_merges_go_forward_only,
    reset_and_add_the_same,
    switch_to_an_older_branch,
    switch_to_an_older_branch_and_add,
    switch_to_another_work_tree,
    detach,
    detach_and_add,
    begin_a_branch_without_commits,
    stop_amid_a_rebase,
    drop_the_last_outcome,
]


@dataclass(frozen=True)
class Work:
    """What a user has: the texts of own files, and the subjects of own commits."""

    files: set[tuple[str, str]]
    commits: set[str]


def work_of(quick: Quick) -> Work:
    """Return the user's work in the work tree and in HEAD's history."""
    files = set()
    for path in quick.root.glob("*.txt"):
        if path.name != "progress.txt" and "<<<<<<<" not in path.read_text():
            files.add((path.name, path.read_text()))
    commits = set()
    if quick.git("for-each-ref", "refs/heads"):
        commits = {line for line in subjects(quick) if line.startswith("add ")}
    return Work(files, commits)


def subjects(quick: Quick) -> list[str]:
    """Return the subjects of HEAD's commits; none on a branch without commits."""
    try:
        return quick.git("log", "--format=%s", "HEAD").splitlines()
    except subprocess.CalledProcessError:
        return []


def kept_anywhere(quick: Quick) -> Work:
    """Return the user's work in the work tree and in every branch and stash."""
    work = work_of(quick)
    files, commits = set(work.files), set()
    for line in quick.git("log", "--all", "--format=%H %s").splitlines():
        commit, _, subject = line.partition(" ")
        commits.add(subject)
        for name in quick.git("ls-tree", "--name-only", commit).splitlines():
            if name.endswith(".txt"):
                files.add((name, quick.git("show", f"{commit}:{name}") + "\n"))
    return Work(files, commits)


REWRITTEN_SHORT = [
    pull_rebase_with_changes,
    pull_rebase_with_a_conflict,
    amend_with_files_and_add,
]


@pytest.mark.parametrize("move", mark_soak(REWRITTEN, short=REWRITTEN_SHORT))
def test_a_history_that_was_rewritten_i_55(move: Callable[[Quick], None], worked: Quick) -> None:
    move(worked)
    before = work_of(worked)
    is_merged = has_upstream(worked)
    go_on(worked)
    after = work_of(worked)
    assert after.files == before.files
    assert before.commits <= kept_anywhere(worked).commits
    assert has_upstream(worked) == is_merged
    if move not in (amend_the_record, rebase_with_the_own_commit_between, pull_rebase_and_merge):
        assert before.commits <= after.commits  # else the former line is kept as a branch
    recorded = [line for line in subjects(worked) if line.startswith(("Q-", "Phase "))]
    assert len(recorded) == 4
    assert len(set(recorded)) == 4  # no commit of the runner's is there twice


def test_a_history_that_was_moved_under_a_touched_file(worked: Quick) -> None:
    """git takes progress.txt for changed by its times, as in a copy, and `--keep` stops there."""
    worked.git("reset", "-q", "--hard", "HEAD~1")
    os.utime(worked.root / "progress.txt", (1, 1))
    go_on(worked)


MOVED_SHORT = [
    reset_hard_and_edit,
    reset_mixed,
    reset_and_add_where_merges_go_forward_only,
    switch_to_an_older_branch_and_add,
]


@pytest.mark.parametrize("move", mark_soak(MOVED, short=MOVED_SHORT))
def test_a_history_that_was_moved_i_55(move: Callable[[Quick], None], worked: Quick) -> None:
    move(worked)
    before = work_of(worked)
    go_on(worked)
    after = kept_anywhere(worked)
    assert before.files <= after.files
    assert before.commits <= after.commits


@pytest.mark.parametrize("own", mark_soak(["another", ""], short=["another"]))
def test_a_prepared_outcome_of_a_commit_that_left_the_history(own: str, worked: Quick) -> None:
    worked.git("config", "merge.ff", "only")
    add(worked, "ran")
    worked.run("run", "--next", code=None, env=failpoint_env("files"))
    worked.git("reset", "-q", "--keep", "HEAD~1")
    if own:
        add(worked, own)
    go_on(worked)
    assert "add ran" in subjects(worked)


#### a ledger that was changed


def edit(quick: Quick) -> None:
    quick.write("progress.txt", quick.progress.replace("attempt 1", "attempt 7"))


def cut_in_an_entry(quick: Quick) -> None:
    quick.write("progress.txt", quick.progress[: len(quick.progress) // 2])


def cut_everything(quick: Quick) -> None:
    quick.write("progress.txt", "")


def add_an_entry(quick: Quick) -> None:
    quick.write("progress.txt", quick.progress + quick.progress[quick.progress.rindex("\n###") :])


def get_crlf(quick: Quick) -> None:
    quick.git("config", "core.autocrlf", "true")
    (quick.root / "progress.txt").unlink()
    quick.git("checkout", "progress.txt")
    assert b"\r\n" in (quick.root / "progress.txt").read_bytes()


def in_a_clone(change: Callable[[Quick], None]) -> Callable[[Quick], None]:
    """Return the same change in a repository without a journal."""

    def change_a_clone(quick: Quick) -> None:
        for path in (".git/phases", ".phases"):
            shutil.rmtree(quick.root / path)
        quick.git("update-ref", "-d", "refs/phases/log")
        change(quick)

    change_a_clone.__name__ = f"{change.__name__}_in_a_clone"
    return change_a_clone


def commit_an_edit(quick: Quick) -> None:
    edit(quick)
    quick.git("commit", "-q", "-m", "add an edit", "progress.txt")


def commit_an_edit_and_more(quick: Quick) -> None:
    edit(quick)
    quick.write("before.txt", "edited\n")
    quick.git("commit", "-q", "-a", "-m", "add an edit")
    add(quick, "after")
    quick.write("after.txt", "uncommitted\n")


def stash_pop(quick: Quick) -> None:
    quick.run("run", "--next", code=None, env=failpoint_env("started"))
    quick.write("before.txt", "edited\n")
    quick.git("stash", "-q")
    quick.run("run", "--next")
    with pytest.raises(subprocess.CalledProcessError):
        quick.git("stash", "pop")
    assert "<<<<<<<" in quick.progress


def remove_what_was_never_committed(quick: Quick) -> None:
    quick.git("reset", "-q", "--hard", "origin/main")
    for path in (".git/phases", ".phases"):
        shutil.rmtree(quick.root / path)
    quick.git("update-ref", "-d", "refs/phases/log")
    quick.run("run", "--next", code=None, env=failpoint_env("started"))
    edit(quick)


LEDGERS = [
    edit,
    cut_in_an_entry,
    cut_everything,
    add_an_entry,
    get_crlf,
    in_a_clone(edit),
    in_a_clone(commit_an_edit),
    commit_an_edit,
    commit_an_edit_and_more,
    stash_pop,
    remove_what_was_never_committed,
]
LEDGERS_SHORT = [get_crlf, commit_an_edit_and_more]


@pytest.mark.parametrize("change", mark_soak(LEDGERS, short=LEDGERS_SHORT))
def test_a_ledger_that_was_changed(change: Callable[[Quick], None], worked: Quick) -> None:
    change(worked)
    before = work_of(worked)
    go_on(worked)
    assert work_of(worked).files == before.files
    assert before.commits <= kept_anywhere(worked).commits


#### two clones that both went on


def both_went_on(quick: Quick) -> Quick:
    """Return another clone that recorded the last feature and pushed; it is fetched here.

    Here it is recorded too.
    """
    quick.git("push", "-q")
    quick.git("clone", "-q", "../origin.git", "../other")
    other = quick.at(quick.root.with_name("other"))
    shutil.copy(quick.root / ".git/config", other.root / ".git/config")
    other.run("run", "--next")
    other.git("push", "-q")
    quick.run("run", "--next")
    add(quick, "after")
    quick.git("fetch", "-q")
    return other


@pytest.mark.parametrize("command", mark_soak(["merge", "rebase"], short=["merge"]))
def test_conflict_markers_in_the_ledger(command: str, worked: Quick) -> None:
    both_went_on(worked)
    with pytest.raises(subprocess.CalledProcessError):
        worked.git(command, "origin/main")
    assert "<<<<<<<" in worked.progress
    go_on(worked)
    assert ("after.txt", "after\n") in work_of(worked).files


@pytest.mark.soak
def test_a_merge_that_took_the_other_record(worked: Quick) -> None:
    both_went_on(worked)
    worked.git("merge", "-q", "--no-edit", "-X", "theirs", "origin/main")
    process = worked.run("run", "--next", code=3)
    follow(worked.root, process.stderr)
    worked.run("run", "--next", code=4)
    worked.assert_audit_is_clean()
    assert "add after" in kept_anywhere(worked).commits


#### a journal that is damaged


def damage_the_journal(quick: Quick) -> None:
    journal = quick.root / ".git/phases/journal"
    journal.write_text(journal.read_text().replace("attempt 1", "attempt 7"))


def cut_the_journal(quick: Quick) -> None:
    journal = quick.root / ".git/phases/journal"
    text = journal.read_text()
    journal.write_text(text[: text.rindex("\n###")])


@pytest.mark.parametrize("damage", [damage_the_journal, cut_the_journal])
def test_a_damaged_journal_goes_on_in_a_clone(
    damage: Callable[[Quick], None], worked: Quick
) -> None:
    damage(worked)
    clone = go_on(worked)
    assert clone.root != worked.root
    report = json.loads(clone.call("audit", "--json").stdout)
    assert {item["code"] for item in report["uncovered"]} <= {"no-journal"}  # artifacts are there
    assert clone.git("remote", "get-url", "origin") == worked.git("remote", "get-url", "origin")


@pytest.mark.soak
def test_a_history_that_was_rewritten_whole_begins_anew(worked: Quick) -> None:
    worked.write("before.txt", "secret\n")
    worked.git("commit", "-q", "-a", "-m", "add secret")
    command = "git rm -q --cached --ignore-unmatch before.txt"
    worked.git("-c", "core.editor=true", "filter-branch", "-f", "--prune-empty", "--index-filter",
               f"{command} && echo x > x.txt && git add x.txt", "main")  # fmt: skip
    clone = go_on(worked)
    assert clone.root != worked.root
    assert "add between" in subjects(clone)
    assert "before.txt" not in clone.git("log", "--all", "--name-only")


#### a lock, or all that is not committed, is lost


def clean(quick: Quick) -> None:
    quick.git("clean", "-qfd")


def clean_ignored_too(quick: Quick) -> None:
    quick.git("clean", "-qfdx")


def stash(quick: Quick) -> None:
    quick.git("stash", "-q", "-u")


def check_out(quick: Quick) -> None:
    quick.git("checkout", "-q", "--", ".")


def reset_the_work_tree(quick: Quick) -> None:
    quick.git("reset", "-q", "--hard")


def stage_everything(quick: Quick) -> None:
    quick.git("add", "-A")


def stage_and_reset(quick: Quick) -> None:
    quick.git("add", "-A")
    quick.git("reset", "-q", "--hard")


def remove_from_the_index(quick: Quick) -> None:
    quick.git("add", "-A")
    quick.git("rm", "-rq", "--cached", ".")


def remove_progress(quick: Quick) -> None:
    (quick.root / "progress.txt").unlink(missing_ok=True)


def remove_progress_and_results(quick: Quick) -> None:
    remove_progress(quick)
    shutil.rmtree(quick.root / "results", ignore_errors=True)


def commit_all(quick: Quick) -> None:
    quick.git("add", "-A")
    quick.git("commit", "-q", "--allow-empty", "-m", "all")


def commit_all_and_revert(quick: Quick) -> None:
    commit_all(quick)
    quick.git("revert", "--no-edit", "HEAD")


LOSSES = [
    clean,
    clean_ignored_too,
    stash,
    check_out,
    reset_the_work_tree,
    stage_everything,
    stage_and_reset,
    remove_from_the_index,
    remove_progress,
    remove_progress_and_results,
    commit_all,
]
KILLS = ["locked", "started", "lock_written", "judged", "prepared", "entered", "committed"]
LOSSES_SHORT = [
    (clean_ignored_too, "lock_written"),
    (stash, "started"),
]


@pytest.mark.parametrize(
    ("loss", "name"),
    mark_soak([(loss, name) for loss in LOSSES for name in KILLS], short=LOSSES_SHORT),
)
def test_what_a_killed_run_left_is_lost_i_54(
    loss: Callable[[Quick], None], name: str, quick: Quick
) -> None:
    quick.run("run", "--next", code=None, env=failpoint_env(name))
    loss(quick)
    go_on(quick, hints=None, without_artifacts=loss is clean_ignored_too)
    if loss is stash and quick.git("stash", "list"):
        # What comes back is older than what there is: git keeps the stash, and a hint helps.
        subprocess.run(["git", "stash", "pop"], cwd=quick.root, capture_output=True, check=False)
        go_on(quick, hints=None)


def approve(quick: Quick) -> None:
    """Approve phase 1; after a refusal do what its hint says, and approve again."""
    code, screen = at_terminal(quick.root, "approve", "1", answer=as_asked)
    if code == 3:
        follow(quick.root, screen.replace("\r\n", "\n"))
        code, screen = at_terminal(quick.root, "approve", "1", answer=as_asked)
    assert code == 0, screen
    quick.assert_audit_is_clean()


def edit_a_result(quick: Quick) -> None:
    quick.write("results/Q-001/result.json", "{}")


def edit_a_result_that_git_does_not_see(quick: Quick) -> None:
    quick.git("update-index", "--assume-unchanged", "results/Q-001/result.json")
    edit_a_result(quick)


def commit_results(quick: Quick) -> None:
    edit_a_result(quick)
    quick.write("results/Q-001/more results.md", "more\n")
    (quick.root / "results/phase-1/request.json").unlink()
    quick.git("add", "results")
    quick.git("commit", "-q", "-m", "add results")


REVIEWED = [
    *LOSSES,
    edit_a_result,
    edit_a_result_that_git_does_not_see,
    commit_results,
]
REVIEWED_SHORT = [remove_progress, commit_results, edit_a_result_that_git_does_not_see]


@pytest.mark.parametrize("loss", mark_soak(REVIEWED, short=REVIEWED_SHORT))
def test_what_a_phase_that_waits_has_is_lost_i_54(
    loss: Callable[[Quick], None], waiting: Quick
) -> None:
    loss(waiting)
    waiting.run("run", "--next", code=4)
    if loss is remove_progress_and_results:
        follow_twice(waiting)
    approve(waiting)
    if loss is not clean_ignored_too:  # artifacts are in no commit
        assert violations(waiting.root) == []


def follow_twice(quick: Quick) -> None:
    """Do what the first refusal of an approval says; the second one is about other files."""
    code, screen = at_terminal(quick.root, "approve", "1", answer=as_asked)
    assert code == 3, screen
    follow(quick.root, screen.replace("\r\n", "\n"))


#### the record of an earlier phase


@pytest.fixture(scope="session")
def _approved(tmp_path_factory: pytest.TempPathFactory) -> Quick:
    quick = Quick(tmp_path_factory.mktemp("approved") / "quick", plan(phases=2))
    quick.run("run", "--next")
    assert at_terminal(quick.root, "approve", "1", answer=as_asked)[0] == 0
    quick.run("run", "--next")
    return quick


DECISION = "prd/approvals/phase-1.1.json"


def remove_earlier_results(quick: Quick) -> None:
    shutil.rmtree(quick.root / "results/Q-001")


def commit_the_removal(quick: Quick) -> None:
    remove_earlier_results(quick)
    quick.git("commit", "-q", "-a", "-m", "tidy")


def remove_an_earlier_lock(quick: Quick) -> None:
    (quick.root / "results/phase-1/lock.json").unlink()


def remove_decisions(quick: Quick) -> None:
    shutil.rmtree(quick.root / "prd/approvals")


def edit_a_decision(quick: Quick) -> None:
    quick.write(DECISION, "{}\n")


def commit_an_edited_decision(quick: Quick) -> None:
    edit_a_decision(quick)
    quick.git("commit", "-q", "-a", "-m", "shorter")


def commit_a_page_beside_decisions(quick: Quick) -> None:
    quick.write("prd/approvals/README.md", "What is here\n")
    quick.commit("explain")


EARLIER = [
    commit_the_removal,
    commit_an_edited_decision,
    commit_a_page_beside_decisions,
    remove_decisions,
    remove_earlier_results,
    remove_an_earlier_lock,
    edit_a_decision,
]


@pytest.mark.parametrize("loss", mark_soak(EARLIER, short=EARLIER[:4]))
def test_files_of_an_earlier_phase_are_restored(
    loss: Callable[[Quick], None], _approved: Quick, tmp_path: Path
) -> None:
    quick = _approved.copy(tmp_path / "quick")
    loss(quick)
    code, screen = at_terminal(quick.root, "approve", "2", answer=as_asked)
    for _ in range(2):
        if code == 3:
            follow(quick.root, screen.replace("\r\n", "\n"))
            code, screen = at_terminal(quick.root, "approve", "2", answer=as_asked)
    assert code == 0, screen
    quick.assert_audit_is_clean()
    assert violations(quick.root) == []
    assert quick.git("status", "--porcelain") == ""


#### a checkout that lacks files of the record, or has others


SPARSE = {
    "decisions": ("--no-cone", "/*", "!/prd/approvals/"),
    "results": ("--no-cone", "/*", "!/results/"),
    "both": ("--no-cone", "/*", "!/prd/approvals/", "!/results/"),
    "results, by folders": ("--cone", "prd"),
}


@pytest.mark.parametrize("left_out", mark_soak(SPARSE, short=["both", "results, by folders"]))
def test_what_a_sparse_checkout_leaves_out_comes_back_at_once(
    left_out: str, _approved: Quick, tmp_path: Path
) -> None:
    quick = _approved.copy(tmp_path / "quick")
    quick.git("status")  # the copied files are those of the index
    quick.git("sparse-checkout", "set", *SPARSE[left_out])
    missing = quick.git("ls-files", "-t").count("S ")
    assert missing

    # 1. A run needs the decisions, an approval the results too. One hint for each is enough.
    has_decisions = (quick.root / DECISION).exists()
    process = quick.run("run", "--next", code=4 if has_decisions else 3)
    if not has_decisions:
        follow(quick.root, process.stderr)
        quick.run("run", "--next", code=4)
    code, screen = at_terminal(quick.root, "approve", "2", answer=as_asked)
    if left_out != "decisions":
        assert code == 3, screen
        follow(quick.root, screen.replace("\r\n", "\n"))
        code, screen = at_terminal(quick.root, "approve", "2", answer=as_asked)
    assert code == 0, screen

    # 2. The user's sparse checkout is one still, and nothing is changed.
    assert quick.git("config", "core.sparseCheckout") == "true"
    assert quick.git("status", "--porcelain") == ""
    quick.assert_audit_is_clean()
    assert violations(quick.root) == []


def leave_results_out(quick: Quick) -> None:
    quick.git("status")
    quick.git("sparse-checkout", "set", *SPARSE["results"])


def remove_a_receipt(quick: Quick) -> None:
    (quick.root / "results/Q-001/receipt.json").unlink()


def remove_a_result(quick: Quick) -> None:
    (quick.root / "results/Q-001/result.json").unlink()


def commit_other_results(quick: Quick) -> None:
    edit_a_result(quick)
    quick.git("commit", "-q", "-a", "-m", "edit a result")


NEEDED = [leave_results_out, remove_a_receipt, remove_a_result, edit_a_result, commit_other_results]


@pytest.fixture(scope="session")
def _needed(tmp_path_factory: pytest.TempPathFactory) -> Quick:
    document = plan(features=2)
    document["phases"][0]["features"][1]["needs"] = ["Q-001"]
    quick = Quick(tmp_path_factory.mktemp("needed") / "quick", document)
    quick.run("run", "--feature", "Q-001")
    return quick


@pytest.mark.parametrize("loss", mark_soak(NEEDED, short=[leave_results_out, remove_a_result]))
def test_results_that_a_feature_needs_are_restored(
    loss: Callable[[Quick], None], _needed: Quick, tmp_path: Path
) -> None:
    quick = _needed.copy(tmp_path / "quick")
    loss(quick)
    go_on(quick)


@pytest.fixture(scope="session")
def _opened(tmp_path_factory: pytest.TempPathFactory) -> Quick:
    """Return a repository whose first phase is approved and whose second one did not begin."""
    quick = Quick(tmp_path_factory.mktemp("opened") / "quick", plan(phases=2, features=2))
    quick.run("run", "--next")
    assert at_terminal(quick.root, "approve", "1", answer=as_asked)[0] == 0
    return quick


def clone_sparsely(*patterns: str) -> Callable[[Quick], None]:
    def check_out(clone: Quick) -> None:
        clone.git("sparse-checkout", "set", *patterns)
        clone.git("checkout", "-q", "main")

    return check_out


def clone_with_other_line_ends(clone: Quick) -> None:
    clone.git("config", "core.autocrlf", "true")
    clone.git("checkout", "-q", "main")


def clone_and_remove_results(clone: Quick) -> None:
    clone.git("checkout", "-q", "main")
    shutil.rmtree(clone.root / "results")


CLONES = {
    "no decisions": (clone_sparsely(*SPARSE["decisions"]), 1),
    "no results": (clone_sparsely(*SPARSE["results"]), 1),
    "neither": (clone_sparsely(*SPARSE["both"]), 2),
    "no results, by folders": (clone_sparsely(*SPARSE["results, by folders"]), 1),
    # progress.txt, the decision, all results
    "CRLF": (clone_with_other_line_ends, 3),
    "removed": (clone_and_remove_results, 1),
}


@pytest.mark.parametrize("name", mark_soak(CLONES, short=["neither", "CRLF", "removed"]))
def test_a_clone_that_lacks_the_record_in_its_files_goes_on(
    name: str, _opened: Quick, tmp_path: Path
) -> None:
    (tmp_path / "clone").mkdir()
    clone = _opened.at(tmp_path / "clone")
    clone.git("clone", "-q", "--no-checkout", str(_opened.root), ".")
    clone.git("config", "user.name", "Another Person")
    clone.git("config", "user.email", "another@example.org")
    copy_artifacts(_opened, clone)
    check_out, hints = CLONES[name]
    check_out(clone)
    go_on(clone, hints=hints)


#### a lock that was edited


@pytest.mark.parametrize("name", ["started", "halt"])
def test_a_lock_that_was_edited_i_54(name: str, quick: Quick) -> None:
    quick.run("run", "--next", code=None, env=failpoint_env(name))
    quick.write("results/phase-1/lock.json", "{}\n")
    go_on(quick)


def test_a_newer_lock_is_stashed_away_and_the_older_one_is_back(quick: Quick) -> None:
    # 1. The first lock is committed with an interruption, a second one is not.
    quick.run("run", "--next", code=None, env=failpoint_env("started"))
    quick.run("run", "--next", code=None, env=failpoint_env("recovered"))
    document = plan()
    document["phases"][0]["features"][0]["expect"]["minutes"] = 0.2
    commit_file(quick, "prd/plan.json", json.dumps(document))
    quick.run("run", "--next", code=None, env=failpoint_env("started"))
    changed = quick.git("diff", "--name-only").split()
    assert changed == ["progress.txt", "results/phase-1/lock.json"]

    # 2. The file is the first lock again, and the journal has the second one.
    quick.git("stash", "-q")
    go_on(quick, hints=0)
    assert quick.progress.count("· LOCKED ·") == 2


def test_a_lock_is_lost_and_the_runner_is_a_newer_one_i_54(quick: Quick) -> None:
    quick.run("run", "--next", code=None, env=failpoint_env("started"))
    quick.git("clean", "-qfd", "--", "results")
    newer = quick.root.with_name("newer")
    shutil.copytree(SOURCE / "phases", newer / "phases")
    (newer / "phases/newer.py").write_text("")
    quick.run("run", "--next", env={"PYTHONPATH": str(newer)})
    assert quick.progress.count("· LOCKED ·") == 2
    assert violations(quick.root) == []
    quick.assert_audit_is_clean()


#### other hints


def test_a_commit_without_trailers_is_taken_back_and_later_ones_are_kept(quick: Quick) -> None:
    quick.run("run", "--next", code=None, env=failpoint_env("committed"))
    quick.git("commit", "-q", "--amend", "-m", "in other words")
    add(quick, "after")
    go_on(quick)
    assert (quick.root / "after.txt").exists()
    assert "add after" in kept_anywhere(quick).commits


def test_uncommitted_work_is_stashed(quick: Quick) -> None:
    quick.write("worker.sh", "exit 3\n")
    go_on(quick)
    assert quick.git("stash", "list")


def test_a_detached_head_gets_a_branch(worked: Quick) -> None:
    worked.git("branch", "my-branch", "HEAD~1")
    worked.git("checkout", "-q", "--detach")
    add(worked, "after")
    go_on(worked)
    assert worked.git("symbolic-ref", "--short", "HEAD") == "my-branch-2"


@pytest.mark.soak
def test_a_detached_head_at_a_branch_goes_to_it(worked: Quick) -> None:
    worked.git("checkout", "-q", "--detach")
    go_on(worked)
    assert worked.git("symbolic-ref", "--short", "HEAD") == "main"


@pytest.mark.soak
@pytest.mark.parametrize(
    "attributes", ["results/** text", "progress.txt text eol=crlf", "* filter=x", "prd/* ident"]
)
def test_attributes_that_change_bytes(attributes: str, quick: Quick) -> None:
    quick.git("config", "filter.x.clean", "rev")
    quick.write("worker.sh", (quick.root / "worker.sh").read_text() + CRLF_RESULT)
    document = json.loads((quick.root / "prd/plan.json").read_text())
    document["phases"][0]["features"][0]["gate"] = {"shell": CRLF_GATE}
    quick.write("prd/plan.json", json.dumps(document))
    quick.commit("results with other line ends")
    quick.write(".gitattributes", f"{attributes}\n")
    quick.git("add", ".gitattributes")
    quick.git("commit", "-q", "-m", "attributes", ".gitattributes")
    process = quick.run("run", "--next", code=None)
    for _ in range(4):
        if process.returncode != 7:
            break
        with (quick.root / ".gitattributes").open("a") as file:
            file.write(command_of(process.stderr) + "\n")
        quick.git("commit", "-q", "-m", "bytes", ".gitattributes")
        process = quick.run("run", "--next", code=None)
    assert process.returncode in (0, 1, 4), process.stderr
    quick.assert_audit_is_clean()


CRLF_RESULT = "printf 'a\\r\\nb\\r\\n' >> \"$PHASES_OUT/artifacts/numbers.json\"\n"
CRLF_GATE = "test \"$(head -n 1 artifacts/numbers.json)\" = '[14]' && cat result.json | grep -q 14"


@pytest.mark.soak
def test_a_damaged_object_is_taken_from_another_clone(quick: Quick) -> None:
    quick.git("clone", "-q", "--no-hardlinks", ".", "../another")
    blob = quick.git("rev-parse", "HEAD:worker.sh")
    damaged = quick.root / ".git/objects" / blob[:2] / blob[2:]
    damaged.chmod(0o644)
    damaged.write_bytes(b"damaged")
    process = quick.run("run", "--next", code=3)
    quoted = re.findall("`([^`]+)`", process.stderr)
    assert quoted[0] == "git fsck --full"
    subprocess.run(quoted[1].replace("OTHER", "../another").split(), cwd=quick.root, check=True)
    quick.run("run", "--next")
    quick.assert_audit_is_clean()
