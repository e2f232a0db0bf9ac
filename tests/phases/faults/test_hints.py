"""Each hint that is printed is one that works: cases I-54 and I-55.

A test does what the hint says, as a user would: it copies the command into a shell. Then the run
goes on, the audit is clean, and nothing of the user's is lost.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from hints import command_of, follow, go_on
from quick import Quick, plan

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
    squash_merge,
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


MOVED_SHORT = [reset_hard_and_edit, reset_mixed, reset_and_add, switch_to_an_older_branch_and_add]


@pytest.mark.parametrize("move", mark_soak(MOVED, short=MOVED_SHORT))
def test_a_history_that_was_moved_i_55(move: Callable[[Quick], None], worked: Quick) -> None:
    move(worked)
    before = work_of(worked)
    go_on(worked, hints=2)
    after = kept_anywhere(worked)
    assert before.files <= after.files
    assert before.commits <= after.commits
