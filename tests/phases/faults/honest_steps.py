"""What honest people do in a repository, one function each.

A step returns False where it makes no sense now; then nothing was done.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from typing import Any

from honest_life import FalseAlarmError, Life
from honest_plan import MODES, add_prediction, random_feature, random_name, random_phase
from invariants import git
from machines import adopt, copy_artifacts, has_pending_record, merge_of_a_colleague
from situation import PLAN, has_outcome

from phases.base.failpoint import FAILPOINTS

IN_DECISION = ("decided", *FAILPOINTS[FAILPOINTS.index("prepared") :])

#### work


def run_next(life: Life) -> bool:
    """Run the next phase, now and then on after a failure."""
    words = ["--next"] if life.chance.random() < 3 / 4 else ["--next", "-k"]
    life.run(*words, expected=life.expected_codes())
    return True


def run_feature(life: Life) -> bool:
    """Run one feature of the open phase that can run."""
    ids = _runnable(life, "pending", "failed", "errored")
    if not ids or life.look().action != "run":
        return False
    feature = life.chance.choice(ids)
    life.run("--feature", feature, expected=life.expected_codes(feature))
    return True


def force_feature(life: Life) -> bool:
    """Run a verified feature again."""
    ids = _runnable(life, "verified")
    if not ids:
        return False
    feature = life.chance.choice(ids)
    codes = life.expected_codes(feature, force=True)
    life.run("--feature", feature, "--force", expected=codes)
    return True


def _runnable(life: Life, *states: str) -> list[str]:
    """Return the features of the open phase in these states whose needs are verified."""
    now = life.look()
    if life.is_unfinished:
        return []
    verified, needs = set(), {}
    for each in now.status["phases"]:
        verified |= {item["id"] for item in each["features"] if item["state"] == "verified"}
    for each in now.plan["phases"]:
        needs |= {item["id"]: set(item["needs"]) for item in each["features"]}
    return [name for name in now.features(*states) if needs[name] <= verified]


def run_and_kill(life: Life) -> bool:
    """Run, and have the runner killed somewhere."""
    place = f"{life.chance.choice(FAILPOINTS)}:kill:{life.chance.randint(1, 2)}"
    life.run("--next", expected=life.expected_codes(), failpoint=place)
    return True


def interrupt_run(life: Life) -> bool:
    """Interrupt a run while its experiment works."""
    now = life.look()
    is_run = now.action == "run" and now.status["next"]["feature"] and not now.is_spent
    if life.is_unfinished or now.has_changed or not is_run:
        return False
    life.tell("run --next, interrupted")
    mode = life.quick.root.with_name(life.quick.root.name + ".mode")
    mode.write_text("hang")
    runner = subprocess.Popen(
        [sys.executable, "-m", "phases", "run", "--next"],
        cwd=life.quick.root,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=life.quick.environment(),
        start_new_session=True,
    )
    life.quick.wait_for_worker()
    os.kill(runner.pid, signal.SIGINT)
    code = runner.wait(30)
    mode.unlink()
    if code != 130:
        raise FalseAlarmError(f"exit {code} of an interrupted run; expected 130")
    return True


def make_fail(life: Life) -> bool:
    """Commit code with which a feature fails."""
    phase = life.look().open_phase
    if phase is None:
        return False
    feature = life.chance.choice(phase["features"])["id"]
    mode = life.chance.choice(MODES)
    life.quick.write(f"modes/{feature}", mode)
    life.must_git("add", f"modes/{feature}")
    return life.git("commit", "-q", "-m", f"{feature}: {mode}", "--", f"modes/{feature}")


def mend(life: Life) -> bool:
    """Commit the fix of everything that fails."""
    if not (life.quick.root / "modes").exists():
        return False
    life.must_git("rm", "-r", "-q", "modes")
    life.must_git("commit", "-q", "-m", "mended", "--", "modes")
    return True


#### decisions


def _decline(phrase: str) -> str | None:
    return None if len(phrase) % 2 else "no"


def _decide(life: Life, *words: str, expected: set[int]) -> bool:
    """Decide; now and then with another answer, or killed."""
    number = life.chance.random()
    if life.is_unfinished:
        # What the kill left is completed first, or the phase is another by now.
        expected = {0, 2, 3, 7}
    if number < 1 / 6:
        life.decide(*words, expected=(expected - {0}) | {4}, answer=_decline)
    elif number < 1 / 3:
        place = f"{life.chance.choice(IN_DECISION)}:kill"
        life.decide(*words, expected=expected, failpoint=place)
    else:
        life.decide(*words, expected=expected)
    return True


def approve(life: Life) -> bool:
    """Approve the phase that waits."""
    now = life.look()
    if not now.waits:
        return False
    # A plan that differs is no longer what was to be reviewed.
    expected = {3} if now.has_changed else {0}
    return _decide(life, "approve", str(now.open_phase["id"]), expected=expected)


def reject(life: Life) -> bool:
    """Reject the open phase, or the one approved before it; whole or one feature."""
    phases = [each for each in life.look().status["phases"] if each["state"] != "pending"]
    if not phases:
        return False
    phase = phases[-1]
    if life.chance.random() < 1 / 6:
        phase = life.chance.choice(phases)
    words = ["reject", str(phase["id"]), "--reason", random_name(life.chance)]
    if life.chance.random() < 1 / 2:
        words += ["--feature", life.chance.choice(phase["features"])["id"]]
    return _decide(life, *words, expected={0})


def waive(life: Life) -> bool:
    """Waive a feature that failed."""
    now = life.look()
    failed = now.features("failed", "errored")
    if now.waits or not failed:
        return False
    words = ("--waive", life.chance.choice(failed), "--reason", "no such data here")
    expected = {3} if now.has_changed else {0}
    return _decide(life, "approve", str(now.open_phase["id"]), *words, expected=expected)


def relock(life: Life) -> bool:
    """Lock the open phase anew."""
    now = life.look()
    if not now.is_locked:
        return False
    words = ("relock", str(now.open_phase["id"]), "--reason", random_name(life.chance))
    return _decide(life, *words, expected={0})


#### the plan


def _commit_plan(life: Life, plan: Any, text: str) -> bool:
    life.tell(f"change the plan: {text}")
    life.quick.write(PLAN, json.dumps(plan, indent=1))
    life.must_git("commit", "-q", "-m", f"the plan: {text}", "--", PLAN)
    return True


def change_open_phase(life: Life) -> bool:
    """Change the plan of the open phase: freely before its first outcome, else by a relock."""
    now = life.look()
    if now.open_phase is None or life.is_unfinished:
        return False
    plan = now.plan
    planned = plan["phases"][now.open_phase["id"] - 1]
    text = add_prediction(life.chance, life.chance.choice(planned["features"]))
    return _commit_plan(life, plan, text)


def change_later_phase(life: Life) -> bool:
    """Change a phase that has not begun: its gate, its title, or append one."""
    plan = life.look().plan
    pending = [each["id"] for each in life.look().status["phases"] if each["state"] == "pending"]
    if life.is_unfinished:
        return False
    number = life.next_number() + 100
    if not pending or life.chance.random() < 1 / 2:
        phase_id = len(plan["phases"]) + 1
        if phase_id > 4:
            return False
        feature = random_feature(life.chance, number) | {"needs": []}
        plan["phases"].append(random_phase(life.chance, phase_id, [feature]))
        return _commit_plan(life, plan, f"phase {phase_id} is new")
    planned = plan["phases"][life.chance.choice(pending) - 1]
    planned["features"][0]["title"] = f"{random_name(life.chance)} {number}"
    return _commit_plan(life, plan, f"a title of phase {planned['id']}")


#### git


ODD_MESSAGES = (
    b"a note\x1fwith U+001F",
    b"\x1e\x1frecord separators \x1e\n\nPhases are great.\n",
    b"Z\xe4hlen, in ISO-8859-1",
    "数える\n\nPhases-Like: a trailer of the user's\n".encode(),
    b"",
)


def commit_note(life: Life) -> bool:
    """Commit a file of the user's."""
    life.must_git("commit", "-q", "-m", "a note", "--", _write_note(life))
    return True


def commit_with_odd_message(life: Life) -> bool:
    """Commit a file with a message that few programs expect."""
    name, message = _write_note(life), life.folder / "message"
    message.write_bytes(life.chance.choice(ODD_MESSAGES))
    life.tell(f"the message is {message.read_bytes()!r}")
    life.must_git("commit", "-q", "--allow-empty-message", "-F", str(message), "--", name)
    return True


def _write_note(life: Life) -> str:
    folder = life.chance.choice(["", "docs/", "notes/"])
    name = f"{folder}note-{life.next_number()}.md"
    life.quick.write(name, "the user's\n")
    life.must_git("add", name)
    return name


def commit_all(life: Life) -> bool:
    """Edit the code and `git commit -a`, which may take along what a killed run had begun."""
    kinds = life.look().uncommitted_kinds()
    if has_outcome(kinds):
        return False  # only the runner commits an outcome
    life.quick.write("README.md", f"number {life.next_number()}\n")
    life.must_git("add", "README.md")
    life.must_git("commit", "-q", "-a", "-m", f"with all that differs: {kinds}")
    if kinds:
        life.caused.add("commit-untrailed")
    return True


def edit_published(life: Life) -> bool:
    """Edit a published copy and commit it."""
    copies = sorted((life.quick.root / "docs").glob("Q-*.json"))
    if not copies or life.is_unfinished:
        return False
    name = life.chance.choice(copies).relative_to(life.quick.root).as_posix()
    life.tell(f"edit {name}")
    (life.quick.root / name).write_text("edited\n")
    life.caused.add("published-changed")
    life.must_git("add", name)
    return life.git("commit", "-q", "-m", f"edit {name}", "--", name)


def merge_upstream(life: Life) -> bool:
    """Merge what a colleague committed in a clone, on an older commit or on this one."""
    commits = git(life.quick.root, "rev-list", "--first-parent", "HEAD").decode().split()
    commit = life.chance.choice(commits)
    number = life.next_number()
    life.tell(f"merge a colleague's commit {number} on {commit[:12]}")
    merge_of_a_colleague(life.quick, number, commit)
    return True


def run_on_branch(life: Life) -> bool:
    """Run on a branch of its own and merge it, with a commit of its own between."""
    if not life.is_clean:
        return False
    branch = f"topic-{life.next_number()}"
    life.must_git("switch", "-q", "-c", branch)
    life.run("--next", expected=life.expected_codes())
    commit_note(life)
    if life.is_clean:
        life.must_git("switch", "-q", "main")
        life.must_git("merge", "-q", "--no-ff", "-m", f"merge {branch}", branch)
        life.must_git("branch", "-q", "-d", branch)
    return True


def stash(life: Life) -> bool:
    """Stash everything and pop it again."""
    life.quick.write("draft.md", "untracked\n")
    life.must_git("stash", "-q", "-u")
    if life.chance.random() < 1 / 2 or life.is_unfinished:
        life.must_git("stash", "drop", "-q")
    else:
        life.must_git("stash", "pop", "-q")
        life.must_git("clean", "-q", "-f", "draft.md")
    return True


def tidy(life: Life) -> bool:
    """Do what leaves every commit as it is."""
    words = life.chance.choice(
        [
            ("clean", "-q", "-f", "-d"),
            ("gc", "-q"),
            ("pack-refs", "--all"),
            ("tag", f"v{life.next_number()}"),
            ("tag", "-a", "-m", "a tag", f"v{life.next_number()}"),
            ("reflog", "expire", "--expire=now", "--all"),
        ]
    )
    return life.git(*words)


def use_worktree(life: Life) -> bool:
    """Run in a linked worktree and merge what came of it."""
    if not life.is_clean:
        return False
    branch = f"side-{life.next_number()}"
    folder = life.folder / branch
    life.must_git("worktree", "add", "-q", "-b", branch, str(folder))
    worktree = adopt(folder)
    copy_artifacts(life.quick, worktree)
    with life.on(worktree):
        life.run("--next", expected=life.expected_codes())
    copy_artifacts(worktree, life.quick)
    life.must_git("merge", "-q", life.chance.choice(["--ff-only", "--no-ff"]), branch)
    life.must_git("worktree", "remove", "--force", str(folder))
    return True


#### other folders and machines


def clone(life: Life) -> bool:
    """Look at a plain clone, or at a clone of a mirror."""
    source, folder = life.quick.root, life.folder / f"clone-{life.next_number()}"
    if life.chance.random() < 1 / 2:
        source = life.folder / f"mirror-{life.number}.git"
        life.must_git("clone", "-q", "--mirror", ".", str(source))
    life.must_git("clone", "-q", str(source), str(folder))
    copy = adopt(folder)
    result = copy.call("status")
    if "warning:" in result.stderr:
        raise FalseAlarmError(f"status of a clone warns: {result.stderr}")
    life.check_audit(copy, "artifact-absent")
    shutil.rmtree(folder)
    return True


def move(life: Life) -> bool:
    """Move the repository to another folder."""
    target = life.folder / f"moved {life.next_number()}"
    life.tell(f"move the repository to {target.name!r}")
    life.quick.root.rename(target)
    life.machines.here = adopt(target)
    return True


def change_machine(life: Life) -> bool:
    """Push from this machine, clone or pull on the other one, and go on there."""
    kinds = life.look().uncommitted_kinds()
    if has_pending_record(life.quick) or has_outcome(kinds):
        return False  # a run completes it first
    life.tell(f"push, clone or pull on the other machine, and go on there; here stays {kinds}")
    life.change_machine()
    return True


Step = Callable[[Life], bool]
STEPS: dict[Step, int] = {
    run_next: 14,
    run_feature: 4,
    force_feature: 2,
    run_and_kill: 6,
    interrupt_run: 1,
    make_fail: 3,
    mend: 3,
    approve: 10,
    reject: 2,
    waive: 4,
    relock: 2,
    change_open_phase: 2,
    change_later_phase: 2,
    commit_note: 2,
    commit_with_odd_message: 2,
    commit_all: 3,
    edit_published: 1,
    merge_upstream: 2,
    run_on_branch: 2,
    stash: 2,
    tidy: 3,
    use_worktree: 2,
    clone: 2,
    move: 1,
    change_machine: 5,
}
"""What people do, and how often."""
