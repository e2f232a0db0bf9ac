"""Two machines take turns: what one recorded and pushed, the other pulls and takes over (I-50)."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from converging import run_traced
from forging import audit_codes, forge_commit, forge_entry
from hints import follow
from invariants import violations
from machines import copy_artifacts
from quick import Quick, plan
from terminal_user import as_asked, at_terminal
from test_git_faults import needs_strace
from toy import ROOT

Machines = tuple[Quick, Quick]
Pull = Callable[[Quick, Quick], Quick]
"""Pulls from the other repository; returns the one to go on in."""


def decide(quick: Quick, *words: str) -> str:
    """Decide as asked; return the screen."""
    env = {"TMPDIR": str(quick.temporary)}
    code, screen = at_terminal(quick.root, *words, answer=as_asked, env=env)
    assert code == 0, screen
    return screen


def push(quick: Quick) -> None:
    quick.git("push", "-q", "origin", "main")


def pull(quick: Quick) -> None:
    quick.git("pull", "-q", "--ff-only", "origin", "main")


def assert_whole(quick: Quick) -> None:
    """Check that nothing is invalid and that no view warns."""
    quick.assert_audit_is_clean()
    assert "warning: " not in quick.call("status").stderr
    assert violations(quick.root) == []


def make_machine(origin: Path, folder: Path) -> Quick:
    """Return another machine: a clone with a folder of its own for temporary files."""
    machine = Quick.__new__(Quick)
    machine.root = folder / "quick"
    folder.mkdir()
    machine.temporary.mkdir()
    origin_name = str(origin)
    Quick.git(_At(folder), "clone", "-q", origin_name, str(machine.root))
    machine.git("config", "user.name", "Another Person")
    machine.git("config", "user.email", "another@example.org")
    return machine


class _At(Quick):
    """A folder to run git in."""

    def __init__(self, root: Path):
        self.root = root


@pytest.fixture(scope="session")
def _origin(tmp_path_factory: pytest.TempPathFactory) -> Machines:
    """One machine has run phase 1 and pushed it; the other is a clone of that."""
    folder = tmp_path_factory.mktemp("machines")
    first = Quick(folder / "first" / "quick", plan(phases=3))
    first.git("clone", "-q", "--bare", str(first.root), str(folder / "origin.git"))
    first.git("remote", "add", "origin", str(folder / "origin.git"))
    first.run("run", "--next")
    push(first)
    second = make_machine(folder / "origin.git", folder / "second")
    shutil.copytree(first.root / ".phases/artifacts", second.root / ".phases/artifacts")
    return first, second


@pytest.fixture
def machines(_origin: Machines, tmp_path: Path) -> Machines:
    """Return copies of both machines, and of what they push to."""
    first, second = _origin
    bare = tmp_path / "origin.git"
    first.git("clone", "-q", "--bare", str(first.root.parents[1] / "origin.git"), str(bare))
    copies = []
    for name, quick in (("first", first), ("second", second)):
        (tmp_path / name).mkdir()
        copy = quick.copy(tmp_path / name / "quick")
        copy.git("remote", "set-url", "origin", str(bare))
        copies.append(copy)
    return copies[0], copies[1]


def test_two_machines_take_turns_i_50(machines: Machines) -> None:
    first, second = machines
    # 1. The second approves what the first ran, and runs on.
    screen = decide(second, "approve", "1")
    assert "recorded elsewhere:" in screen
    assert "  entries 0001 to 0005; this decision takes them over" in screen
    assert "PULLED" in second.progress
    second.run("run", "--next")
    push(second)
    assert_whole(second)

    # 2. The first pulls. Nothing is invalid; it approves at the checkpoint as it is, and goes on.
    pull(first)
    assert "note: entries 0006 to 0011 were recorded elsewhere" in first.call("status").stderr
    assert_whole(first)
    screen = decide(first, "approve", "2")
    assert "  entries 0006 to 0011; this decision takes them over" in screen
    first.run("run", "--next")
    assert first.states() == {"Q-001": "verified", "Q-002": "verified", "Q-003": "verified"}
    assert_whole(first)
    push(first)

    # 3. And back.
    pull(second)
    decide(second, "reject", "3", "--reason", "once more")
    second.run("run", "--next")
    assert_whole(second)
    assert second.progress.count("· PULLED\n") == 3


@needs_strace
def test_a_clone_is_killed_inside_each_write_until_its_journal_has_pulled(
    machines: Machines, tmp_path: Path
) -> None:
    """A journal without PULLED would look like one whose ref was deleted: exit 3 for good."""
    first, second = machines
    decide(first, "approve", "1")
    push(first)
    pull(second)
    for number in range(12, 40):  # the first dozen are probes of folders
        (tmp_path / str(number)).mkdir()
        clone = second.copy(tmp_path / str(number) / "quick")
        run_traced(clone, f"fsync:signal=SIGKILL:when={number}")
        journal = clone.root / ".git/phases/journal"
        has_pulled = journal.exists() and "PULLED" in journal.read_text()
        clone.run("run", "--next")
        assert_whole(clone)
        if has_pulled:
            return
    raise AssertionError("no run took over what was pulled")


def test_a_run_takes_over_what_was_pulled(machines: Machines) -> None:
    first, second = machines
    decide(second, "approve", "1")
    push(second)
    pull(first)
    first.run("run", "--next")
    lines = first.progress.partition("· PULLED\n")[2].partition("\n")[0]
    assert lines.startswith("- entries 0001 to 0005 were recorded elsewhere")
    assert_whole(first)

    # The approver reads it: of what came since the last approval.
    screen = decide(first, "approve", "2")
    assert re.search(r"elsewhere:\r\n  entries 0006 to 0007, up to commit [0-9a-f]{12} ", screen)
    assert "entries 0001 to 0005" not in screen
    first.run("run", "--next")
    assert "elsewhere" not in decide(first, "approve", "3")


@pytest.mark.parametrize("name", ["pulled", "journalled", "entered", "recovered", "lock_written"])
def test_a_kill_while_entries_are_taken_over_is_recovered(machines: Machines, name: str) -> None:
    first, second = machines
    decide(second, "approve", "1")
    push(second)
    pull(first)
    first.run("run", "--next", env={"PHASES_FAILPOINT": f"{name}:kill"}, code=-9)
    assert "warning: log-ref" not in first.call("status").stderr
    first.run("run", "--next")
    assert_whole(first)
    assert first.progress.count("· PULLED\n") == 2


@pytest.mark.parametrize("name", ["decided", "prepared", "journalled", "committed", "withdrawn"])
def test_a_kill_while_a_decision_takes_over_is_recovered(machines: Machines, name: str) -> None:
    _, second = machines
    env = {"TMPDIR": str(second.temporary), "PHASES_FAILPOINT": f"{name}:kill"}
    at_terminal(second.root, "approve", "1", answer=as_asked, env=env)
    second.run("run", "--next", code=4 if name == "decided" else 0)
    assert_whole(second)


def test_an_unfinished_run_of_this_machine_is_set_aside(machines: Machines) -> None:
    # 1. The first was killed after STARTED; the second goes on; the first gives its edits up.
    first, second = machines
    first.run(
        "run", "--feature", "Q-001", "--force", env={"PHASES_FAILPOINT": "started:kill"}, code=-9
    )
    decide(second, "approve", "1")
    push(second)
    first.git("checkout", "-q", "--", "progress.txt")
    pull(first)
    assert_whole(first)

    # 2. What it had begun is kept, and named.
    first.run("run", "--next")
    assert "set aside 1 entries of this machine that no commit had" in first.progress
    kept = list((first.root / ".phases/quarantine/.set-aside").iterdir())
    assert len(kept) == 1
    assert "STARTED" in kept[0].read_text()
    assert_whole(first)


@pytest.mark.parametrize(("where", "name"), [("clone", "journalled"), ("origin", "entered")])
def test_a_kill_before_the_ref_moved_and_another_pull(
    machines: Machines, where: str, name: str
) -> None:
    """The PULLED that the ref did not follow is set aside: it came to no outcome."""
    # 1. One machine is killed between PULLED and the ref; the other one goes on.
    killed, other = machines
    if where == "clone":
        other, killed = machines
    decide(other, "approve", "1")
    push(other)
    pull(killed)
    killed.run("run", "--next", env={"PHASES_FAILPOINT": f"{name}:kill"}, code=-9)
    other.run("run", "--next")
    push(other)

    # 2. The killed one gives its uncommitted entries up, and pulls.
    killed.git("stash", "-q", "-u")
    pull(killed)
    assert_whole(killed)
    shutil.copytree(other.root / ".phases", killed.root / ".phases", dirs_exist_ok=True)
    decide(killed, "approve", "2")
    assert_whole(killed)


def test_what_does_not_check_out_is_not_taken_over(machines: Machines) -> None:
    first, second = machines
    decide(second, "approve", "1")
    forge_entry(second, "STARTED", ["txn 00"], phase=2, feature="Q-002")
    forged = forge_entry(second, "VERIFIED", ["measured nothing"], phase=2, feature="Q-002")
    forge_commit(second, forged)
    push(second)
    before = first.record_contents()
    pull(first)
    refused = first.call("run", "--next", code=3)
    assert "the record was made elsewhere, and is not taken over" in refused.stderr
    assert first.record_contents()[2] == before[2]
    assert audit_codes(first)


def test_a_journal_that_was_cut_is_no_pull(waiting: Quick) -> None:
    """The control: the runner itself recorded here what the journal lacks."""
    journal = waiting.root / ".git/phases/journal"
    text = journal.read_text()
    journal.write_text(text[: text.rindex("\n### ")])
    assert "journal-lacks-commit" in audit_codes(waiting)
    waiting.call("run", "--next", code=3)


def test_a_fork_is_not_taken_over(machines: Machines) -> None:
    """Both went on: what the second pushed is not the first's history."""
    first, second = machines
    decide(first, "approve", "1")
    decide(second, "reject", "1", "--reason", "not yet")
    push(second)
    first.git("fetch", "-q", "origin")
    first.git("reset", "-q", "--hard", "origin/main")
    report = json.loads(first.call("audit", "--json", code=3).stdout)
    assert {item["code"] for item in report["findings"]} & {"history-rewound"}
    first.call("run", "--next", code=3)


def documented(quick: Quick, *commands: str) -> None:
    """Type commands of the section "Two machines" as they are printed there."""
    page = (ROOT / "docs/reliability.md").read_text()
    for command in commands:
        assert command in page
        typed = command.replace("lab/results", "results")  # the toy's folder
        subprocess.run(["bash", "-ec", typed], cwd=quick.root, check=True, capture_output=True)


def test_uncommitted_entries_are_given_up_as_documented(machines: Machines) -> None:
    """LOCKED brought a lock.json too, which would stop the pull as well."""
    first, second = machines
    decide(first, "approve", "1")
    push(first)
    pull(second)
    second.run("run", "--next", env={"PHASES_FAILPOINT": "started:kill"}, code=-9)
    second.git("branch", "-q", "--set-upstream-to=origin/main")
    first.run("run", "--next")
    push(first)
    with pytest.raises(subprocess.CalledProcessError):
        pull(second)
    stash = "git stash push -u -- progress.txt lab/results && git pull --ff-only && git stash drop"
    documented(second, stash)
    assert_whole(second)
    decide(second, "approve", "2")
    assert "set aside 3 entries of this machine" in second.progress
    assert_whole(second)


def test_one_of_two_records_is_given_up_as_documented(machines: Machines) -> None:
    # 1. Both decided; the first pushed. The second goes on in a clone, with a commit of its own.
    first, second = machines
    decide(first, "approve", "1")
    push(first)
    decide(second, "reject", "1", "--reason", "no")
    second.write("note.md", "the user's\n")
    second.commit("a note")
    with pytest.raises(subprocess.CalledProcessError):
        pull(second)
    with pytest.raises(subprocess.CalledProcessError):
        second.git("pull", "-q", "--no-rebase", "origin", "main")
    follow(second.root, second.call("status").stderr)  # git merge --abort
    assert_whole(second)
    documented(
        second,
        'git clone "$(git remote get-url origin)" ../fresh && cp .git/config ../fresh/.git/config',
        "mkdir ../fresh/.phases && cp -r .phases/artifacts ../fresh/.phases/",
    )
    fresh = second.at(second.root.with_name("fresh"))
    fresh.git("fetch", "-q", str(second.root))
    fresh.git("cherry-pick", "FETCH_HEAD")
    fresh.run("run", "--next")
    assert_whole(fresh)

    # 2. Or the second keeps its record, and the first has to give up.
    documented(second, "git fetch && git push --force-with-lease")
    second.run("run", "--next")
    with pytest.raises(subprocess.CalledProcessError):
        pull(first)
    assert_whole(second)


def test_a_new_clone_says_where_the_record_was_made(machines: Machines) -> None:
    _, second = machines
    assert_whole(second)
    second.run("run", "--feature", "Q-001", "--force")
    assert "entries 0001 to 0005 were recorded elsewhere" in second.progress
    assert_whole(second)


def test_a_run_that_only_halts_takes_over_what_was_pulled(machines: Machines) -> None:
    """Its first entry is HALTED: no LOCKED and no STARTED took anything over before."""
    # 1. Where the machine has a journal.
    first, second = machines
    decide(second, "relock", "1", "--reason", "look again")
    push(second)
    pull(first)
    first.run("run", "--next")
    assert first.progress.count("· PULLED\n") == 2
    assert_whole(first)

    # 2. In a clone, which has none.
    decide(first, "relock", "1", "--reason", "and again")
    push(first)
    third = make_machine(first.root.parents[1] / "origin.git", first.root.parents[1] / "third")
    shutil.copytree(first.root / ".phases/artifacts", third.root / ".phases/artifacts")
    third.run("run", "--next")
    assert_whole(third)


def test_entries_that_come_during_the_exit_gates_stop_the_run(tmp_path: Path) -> None:
    """The control: the exit gates judged by a record that is no longer the newest."""
    # 1. The first machine's exit gate fails; the second rejects the phase.
    during = tmp_path / "during.sh"
    during.write_text("exit 1\n")
    document = plan()
    gate = f"sh {during} && grep -q '14[,}}]' Q-001/result.json"
    document["phases"][0]["exit"] = [{"shell": gate}]
    (tmp_path / "first").mkdir()
    first = Quick(tmp_path / "first/quick", document)
    first.run("run", "--next", code=1)
    first.git("clone", "-q", "--bare", ".", str(tmp_path / "origin.git"))
    second = make_machine(tmp_path / "origin.git", tmp_path / "second")
    decide(second, "reject", "1", "--reason", "not so")
    push(second)

    # 2. The first pulls that while its exit gate works.
    once = f"mkdir {tmp_path}/pulled 2> /dev/null || exit 0"  # mutants are judged side by side
    git_pull = f"git -C {first.root} pull -q --ff-only {tmp_path}/origin.git main"
    during.write_text(f"{once}\n{git_pull}\n")
    before = first.git("rev-parse", "HEAD")
    refused = first.run("run", "--next", code=3)
    assert first.git("rev-parse", "HEAD~1") == before
    assert "another machine's entries came while this run was at work" in refused.stderr

    # 3. The hint works.
    first.run("run", "--next")
    assert "reset: Q-001" in first.progress
    assert_whole(first)


@pytest.fixture
def elsewhere(waiting: Quick, tmp_path: Path) -> Quick:
    """Return another copy of the repository that waits, in which phase 1 was approved."""
    (tmp_path / "other").mkdir()
    other = waiting.copy(tmp_path / "other" / "quick")
    decide(other, "approve", "1")
    return other


def assert_taken_over(quick: Quick) -> None:
    quick.assert_audit_is_clean()
    quick.call("run", "--next")
    assert_whole(quick)


def pull_in_another_work_tree(quick: Quick, other: Quick) -> Quick:
    quick.git("worktree", "add", "-q", "-b", "work", "../tree")
    tree = quick.at(quick.root.with_name("tree"))
    copy_artifacts(quick, tree)
    tree.git("pull", "-q", "--ff-only", str(other.root), "main")
    return tree


def pull_in_another_work_tree_without_reflogs(quick: Quick, other: Quick) -> Quick:
    quick.git("config", "core.logAllRefUpdates", "false")
    return pull_in_another_work_tree(quick, other)


def pull_and_fetch_something_else(quick: Quick, other: Quick) -> Quick:
    quick.git("clone", "-q", "--bare", ".", "../origin.git")
    quick.git("remote", "add", "origin", "../origin.git")
    quick.git("pull", "-q", "--ff-only", str(other.root), "main")
    quick.git("fetch", "-q", "origin")
    return quick


def pull_a_branch_that_is_pruned(quick: Quick, other: Quick) -> Quick:
    quick.git("clone", "-q", "--bare", ".", "../origin.git")
    quick.git("remote", "add", "origin", "../origin.git")
    other.git("push", "-q", str(quick.root.with_name("origin.git")), "main:work")
    quick.git("pull", "-q", "--ff-only", "origin", "work")
    quick.git("push", "-q", str(quick.root.with_name("origin.git")), "--delete", "work")
    quick.git("fetch", "-q", "--prune", "origin")
    return quick


def pull_onto_an_own_commit(option: str) -> Pull:
    def pull(quick: Quick, other: Quick) -> Quick:
        quick.write("note.md", "the user's\n")
        quick.commit("a note")
        quick.git("pull", "-q", option, "--no-edit", str(other.root), "main")
        quick.git("fetch", "-q", ".", "refs/phases/log")
        return quick

    return pull


def fetch_a_branch_and_merge_it(quick: Quick, other: Quick) -> Quick:
    quick.git("fetch", "-q", str(other.root), "main:theirs")
    quick.git("merge", "-q", "theirs")
    quick.git("fetch", "-q", ".", "refs/phases/log")
    return quick


def pull_after_a_subject_of_any_bytes(quick: Quick, other: Quick) -> Quick:
    """Its line in the reflog holds what Python takes for the end of a line."""
    quick.git("commit", "-q", "--allow-empty", "-m", "\x1e\x1frecords\x1e\u2028 \x85")
    quick.git("pull", "-q", "--no-rebase", "--no-edit", str(other.root), "main")
    quick.git("fetch", "-q", ".", "refs/phases/log")
    return quick


PULLS = {
    "after a subject of any bytes": pull_after_a_subject_of_any_bytes,
    "in a linked work tree": pull_in_another_work_tree,
    "in a linked work tree, no reflogs": pull_in_another_work_tree_without_reflogs,
    "by path, then another fetch": pull_and_fetch_something_else,
    "of a branch that was deleted": pull_a_branch_that_is_pruned,
    "by a merge": pull_onto_an_own_commit("--no-rebase"),
    "by a rebase": pull_onto_an_own_commit("--rebase"),
    "by fetch of a branch": fetch_a_branch_and_merge_it,
}


@pytest.mark.parametrize("name", PULLS)
def test_a_pull_is_one_after_other_fetches_too(name: str, waiting: Quick, elsewhere: Quick) -> None:
    assert_taken_over(PULLS[name](waiting, elsewhere))


def test_the_hint_of_a_merge_of_what_was_fetched_works(waiting: Quick, elsewhere: Quick) -> None:
    """Its line in the reflog is that of a branch of here."""
    waiting.git("fetch", "-q", str(elsewhere.root), "main")
    waiting.git("merge", "-q", "FETCH_HEAD")
    waiting.git("fetch", "-q", ".", "refs/phases/log")
    refused = waiting.call("run", "--next", code=3)
    assert "was fetched from no other repository" in refused.stderr
    follow(waiting.root, refused.stderr.replace("FROM BRANCH", f"{elsewhere.root} main"))
    assert_taken_over(waiting)


def apply_as_a_patch(quick: Quick, other: Quick) -> None:
    patch = quick.root.with_name("patch")
    patch.write_text(other.git("format-patch", "-1", "--stdout", "--binary") + "\n")
    quick.git("am", "-q", "--committer-date-is-author-date", str(patch))


def bring_from_a_branch_of_here(*command: str) -> Callable[[Quick, Quick], None]:
    def bring(quick: Quick, other: Quick) -> None:
        quick.git("switch", "-q", "-c", "side")
        apply_as_a_patch(quick, other)
        quick.git("switch", "-q", "main")
        quick.git(*command)
        quick.git("reset", "-q", "--hard")

    return bring


def pull_under_it(quick: Quick, other: Quick) -> None:
    """Let `git pull --rebase` pick it onto a colleague's commit."""
    quick.git("clone", "-q", ".", "../colleague")
    colleague = quick.at(quick.root.with_name("colleague"))
    colleague.git("config", "user.name", "A Colleague")
    colleague.git("config", "user.email", "colleague@example.org")
    colleague.write("theirs.md", "a colleague's\n")
    colleague.commit("theirs")
    apply_as_a_patch(quick, other)
    quick.git("pull", "-q", "--rebase", str(colleague.root), "main")


MADE_HERE = {
    "git am": apply_as_a_patch,
    "git merge": bring_from_a_branch_of_here("merge", "-q", "side"),
    "git reset": bring_from_a_branch_of_here("reset", "-q", "--hard", "side"),
    "git update-ref": bring_from_a_branch_of_here("update-ref", "HEAD", "side"),
    "git rebase": bring_from_a_branch_of_here("rebase", "-q", "side"),
    "git pull --rebase": pull_under_it,
}


@pytest.mark.parametrize("name", MADE_HERE)
def test_a_commit_that_was_made_here_is_no_pull(
    name: str, waiting: Quick, elsewhere: Quick
) -> None:
    """A whole forged record passes the audit; on the machine that has the journal it stays out."""
    # 1. A commit of another copy of the repository is applied here as a patch is.
    before = waiting.git("rev-parse", "HEAD")
    MADE_HERE[name](waiting, elsewhere)
    assert "journal-lacks-commit" in audit_codes(waiting)
    refused = waiting.call("run", "--next", code=3)
    assert "was fetched from no other repository" in refused.stderr
    assert waiting.status()["phases"][0]["state"] == "approved"

    # 2. The control: the same commit, fetched.
    waiting.git("reset", "-q", "--hard", before)
    waiting.git("pull", "-q", "--ff-only", str(elsewhere.root), "main")
    assert_taken_over(waiting)


@pytest.mark.parametrize(
    "line",
    [
        "entries 0001 to 9999 were recorded elsewhere, up to commit {commit}",
        "entries 0003 to 0002 were recorded elsewhere, up to commit {commit}",
        "entries 0001 to 0005 were recorded elsewhere, up to commit " + "ab" * 20,
        "reason none",
    ],
)
def test_a_forged_pulled_is_a_finding(waiting: Quick, line: str) -> None:
    commit = waiting.git("rev-parse", "HEAD")
    entry = forge_entry(waiting, "PULLED", [line.format(commit=commit)], phase=None)
    forge_commit(waiting, entry)
    assert "pulled-contradicts" in audit_codes(waiting)


@pytest.mark.parametrize("option", ["commit", "merge", "cherry-pick"])
def test_entries_that_came_with_no_fetch_are_not_pulled(
    waiting: Quick, elsewhere: Quick, option: str
) -> None:
    """The runner's newest commit was fetched; what was committed or picked on top was not."""
    waiting.git("clone", "-q", "--bare", ".", "../origin.git")
    waiting.git("remote", "add", "origin", "../origin.git")
    waiting.git("fetch", "-q", "origin")
    if option == "merge":
        waiting.git("switch", "-q", "-c", "side")
        waiting.write("side.md", "the user's\n")
        waiting.commit("a note on a branch")
        waiting.git("switch", "-q", "main")
        waiting.git("merge", "-q", "--no-ff", "--no-commit", "side")
    if option in ("commit", "merge"):
        journal = waiting.root / ".git/phases/journal"
        before = journal.read_bytes()
        forge_entry(waiting, "REPAIRED", ["reason whatever one likes to have in the record"], None)
        journal.write_bytes(before)
        waiting.git("commit", "-q", "-a", "-m", "work in progress")
        waiting.write("later.md", "later\n")
        waiting.commit("a later commit")
        waiting.write("later.md", "edited\n")
    else:
        waiting.write("note.md", "the user's\n")
        waiting.commit("a note")
        waiting.git("fetch", "-q", str(elsewhere.root), "main:refs/tags/theirs")
        waiting.git("cherry-pick", "refs/tags/theirs")
    assert "journal-lacks-commit" in audit_codes(waiting)
    os.utime(waiting.root / "progress.txt", (1, 1))
    refused = waiting.call("run", "--next", code=3)
    assert "was fetched from no other repository" in refused.stderr
    _, _, way = refused.stderr.partition("; if they were made or picked here: ")
    follow(waiting.root, f"next: {way}")
    waiting.git("pull", "-q", "--ff-only", str(elsewhere.root), "main")
    assert_taken_over(waiting)
