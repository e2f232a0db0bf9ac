"""HEAD moves while a feature runs, or after its runner was killed: cases I-03, I-51, I-54, I-59.

An outcome is judged by the commit that STARTED names, and recorded only where that commit is in the
history; else the next run converges, or refuses and names the way that works.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from converging import failpoint_env, run_until_free
from hints import follow
from invariants import exit_violations, reproduction_violations, shape, violations
from quick import Quick, feature, plan
from terminal_user import as_asked, at_terminal

from phases.base.failpoint import FAILPOINTS
from tests.soak import mark_soak


def kinds(quick: Quick) -> list[str]:
    """Return the kinds of all entries."""
    return re.findall(r"^### \d+ · \S+ · ([A-Z]+)", quick.progress, re.MULTILINE)


#### a killed runner


def stay(quick: Quick) -> None:
    del quick


def advance(quick: Quick) -> None:
    quick.write("notes.txt", f"written after {quick.git('rev-parse', 'HEAD')}\n")
    quick.git("add", "notes.txt")
    quick.git("commit", "-q", "-m", "notes", "notes.txt")


def switch(quick: Quick) -> None:
    quick.git("switch", "-q", "-c", "side")


def switch_back(quick: Quick) -> None:
    quick.git("switch", "-q", "-f", "-c", "older", "HEAD~1")


def amend(quick: Quick) -> None:
    quick.git("commit", "-q", "--amend", "--only", "--allow-empty", "-m", "in other words")


def rebase(quick: Quick) -> None:
    quick.git("branch", "upstream", "HEAD~1")
    tree = quick.git("rev-parse", "upstream^{tree}")
    commit = quick.git("commit-tree", tree, "-p", "upstream", "-m", "of a colleague")
    quick.git("rebase", "-q", "--autostash", commit)


UNFINISHED = ("GENESIS", "LOCKED", "STARTED", "INTERRUPTED", "RECOVERED")
MOVES = (stay, advance, switch, switch_back, amend, rebase)
CASES = [(move, name) for move in MOVES for name in FAILPOINTS if name not in ("decided", "halt")]
SHORT = [
    (advance, "judged"),
    (advance, "prepared"),
    (switch, "entered"),
    (switch_back, "started"),
    (switch_back, "entered"),
    (amend, "prepared"),
    (amend, "entered"),
    (amend, "committed"),
    (amend, "recorded"),
    (rebase, "recorded"),
]
"""Before, in and after the record."""


@pytest.mark.parametrize(("move", "name"), mark_soak(CASES, short=SHORT))
def test_killed_and_then_head_moves(move: Callable[[Quick], None], name: str, quick: Quick) -> None:
    # 1. Killed; then the user moves HEAD.
    advance(quick)  # a commit of the user's that a rebase can take away
    quick.run("run", "--next", code=None, env=failpoint_env(name))
    move(quick)

    # 2. The next run converges, or refuses by name; the hint of the refusal works.
    process = run_until_free(quick)
    if process.returncode == 3:
        assert exit_violations(process) == []
        follow(quick.root, process.stderr)
        process = run_until_free(quick)
    assert process.returncode in (0, 4), process.stderr

    # 3. The record is that of an undisturbed run, and its commit gives its outputs again.
    assert violations(quick.root) == []
    assert reproduction_violations(quick.root) == []
    assert [kind for kind in kinds(quick) if kind not in UNFINISHED] == ["VERIFIED", "HALTED"]
    quick.assert_audit_is_clean()


#### a run that is not killed: the experiment does what its user does meanwhile


@pytest.fixture
def make_meanwhile(make_quick: Callable[..., Quick], tmp_path: Path) -> Callable[..., Quick]:
    """Return a function that makes a project whose first experiment runs a script of the user's."""

    def make(script: str, **changes: Any) -> Quick:
        document = plan(phases=2, features=2)
        command = f"(cd {tmp_path}/quick && {script}) && sh worker.sh"
        document["phases"][0]["features"][0] |= {"command": command, **changes}
        quick = make_quick(document)
        advance(quick)
        return quick

    return make


COMMIT = "git add -A . && git commit -qm meanwhile"


def edit_plan(expression: str) -> str:
    """Return shell code that changes the plan in the repository and commits it."""
    program = (
        "import json, pathlib; path = pathlib.Path('prd/plan.json'); "
        f"plan = json.loads(path.read_text()); {expression}; path.write_text(json.dumps(plan))"
    )
    return f'python -c "{program}" && git commit -qm meanwhile prd/plan.json'


PREDICTION = (
    "plan['phases'][0]['features'][1]['predictions'] = [{'id': 'p', 'claim': 'c', "
    "'measurement': 'total', 'comparator': '==', 'value': 14}]"
)


def test_a_plan_that_changes_meanwhile_stops_before_the_next_start_i_51(
    make_meanwhile: Callable[..., Quick],
) -> None:
    quick = make_meanwhile(edit_plan(PREDICTION))
    started = quick.git("rev-parse", "HEAD")
    stopped = quick.run("run", "--next", code=3)
    assert "plan: Q-002" in stopped.stderr
    assert "python -m phases relock 1" in stopped.stderr
    assert quick.states()["Q-001"] == "verified"
    receipt = json.loads((quick.root / "results/Q-001/receipt.json").read_text())
    assert started in json.dumps(receipt)
    assert kinds(quick) == ["GENESIS", "LOCKED", "STARTED", "VERIFIED"]
    quick.assert_audit_is_clean()

    # The way on that is named works.
    quick.git("revert", "--no-edit", quick.git("log", "--format=%H", "-1", "--grep=^meanwhile$"))
    quick.run("run", "--next")
    assert quick.status()["phases"][0]["state"] == "awaiting_approval"
    quick.assert_audit_is_clean()


def test_a_later_phase_that_changes_meanwhile_does_not_matter(
    make_meanwhile: Callable[..., Quick],
) -> None:
    quick = make_meanwhile(edit_plan("plan['phases'][1]['features'][1]['seed'] = 9"))
    quick.run("run", "--next")
    assert quick.status()["phases"][0]["state"] == "awaiting_approval"
    quick.assert_audit_is_clean()


def test_a_renamed_branch_is_the_same_branch(make_meanwhile: Callable[..., Quick]) -> None:
    quick = make_meanwhile("git branch -m trunk")
    quick.run("run", "--next", code=None)
    assert "VERIFIED" in kinds(quick)
    assert "INTERRUPTED" not in kinds(quick)


def test_the_plan_is_invalid_meanwhile(make_meanwhile: Callable[..., Quick]) -> None:
    quick = make_meanwhile("echo nonsense > prd/plan.json && " + COMMIT)
    stopped = quick.run("run", "--next", code=3)
    assert "cannot be read" in stopped.stderr
    assert "· VERIFIED · Phase 1 · Q-001" in quick.progress


@pytest.mark.parametrize(
    ("script", "way_back", "reason"),
    [
        ("git switch -q -c side", "switch -q main", "the branch was switched"),
        ("git switch -q --detach", "switch -q main", "the branch was switched"),
        ("git commit -q --amend --only -m other", "", "no longer in the history"),
        ("git reset -q --soft HEAD~1", "", "no longer in the history"),
    ],
)
def test_a_commit_that_leaves_the_history_is_interrupted(
    make_meanwhile: Callable[..., Quick], script: str, way_back: str, reason: str
) -> None:
    marker = "marker=$(git rev-parse --git-dir)/once; test -e $marker || { touch $marker; %s; }"
    quick = make_meanwhile(marker % script)
    stopped = quick.run("run", "--next", code=3)
    assert reason in stopped.stderr
    assert kinds(quick) == ["GENESIS", "LOCKED", "STARTED", "INTERRUPTED"]
    assert (quick.root / ".phases/quarantine/Q-001/1/result.json").exists()
    if way_back:
        quick.git(*way_back.split())
    quick.run("run", "--next")
    assert quick.status()["phases"][0]["state"] == "awaiting_approval"
    assert violations(quick.root) == []
    quick.assert_audit_is_clean()


@pytest.mark.parametrize("script", ["git stash -q -u", "git clean -qfd && git checkout -q ."])
def test_what_a_stash_takes_away_is_restored_i_54(
    make_meanwhile: Callable[..., Quick], script: str
) -> None:
    quick = make_meanwhile(script)
    quick.run("run", "--next")
    assert "RECOVERED" in kinds(quick)
    assert violations(quick.root) == []
    quick.assert_audit_is_clean()


def test_the_runners_own_commit_is_taken_away_meanwhile(
    make_meanwhile: Callable[..., Quick],
) -> None:
    quick = make_meanwhile("true")
    document = json.loads((quick.root / "prd/plan.json").read_text())
    second = document["phases"][0]["features"][1]
    second["command"] = f"git -C {quick.root} reset -q --hard HEAD~1; sh worker.sh"
    quick.write("prd/plan.json", json.dumps(document))
    quick.commit("the second one resets")
    stopped = quick.run("run", "--next", code=3)
    assert "is not at or after the runner's last commit" in stopped.stderr
    assert (quick.root / ".phases/quarantine/Q-002/1/result.json").exists()


#### before the first outcome


def test_a_plan_that_nothing_was_judged_by_is_locked_anew_i_59(quick: Quick) -> None:
    quick.run("run", "--next", code=None, env=failpoint_env("started"))
    quick.change_plan(title="Count with another title", seed=7)
    quick.run("run", "--next")
    assert kinds(quick)[:6] == [
        "GENESIS", "LOCKED", "STARTED", "INTERRUPTED", "LOCKED", "STARTED",
    ]  # fmt: skip
    assert "seed 7" in quick.progress
    quick.assert_audit_is_clean()


def begin_another_history(quick: Quick) -> None:
    quick.git("checkout", "-q", "--orphan", "other")
    quick.git("commit", "-q", "-m", "another first commit")


FOREIGN_GENESIS = re.compile(
    r"the record began on commit \w{12}; HEAD \(\w{12}\) has another first one"
)


@pytest.mark.parametrize("name", ["lock_written", "judged", "prepared", "entered"])
@pytest.mark.parametrize("move", [amend, begin_another_history])
def test_a_record_goes_on_only_after_the_first_commit_that_it_names(
    move: Callable[[Quick], None], name: str, quick: Quick
) -> None:
    quick.run("run", "--next", code=None, env=failpoint_env(name))
    move(quick)
    amended = quick.git("rev-parse", "HEAD")
    status = quick.run("status")
    assert FOREIGN_GENESIS.search(status.stdout + status.stderr)
    stopped = quick.run("run", "--next", code=3)
    assert FOREIGN_GENESIS.search(stopped.stderr)
    follow(quick.root, stopped.stderr)
    assert amended in quick.git("branch", "--format=%(objectname)").splitlines()
    assert run_until_free(quick).returncode in (0, 4)
    assert [kind for kind in kinds(quick) if kind not in UNFINISHED] == ["VERIFIED", "HALTED"]
    quick.assert_audit_is_clean()


def test_a_record_whose_first_commit_is_gone_begins_anew_in_a_clone(quick: Quick) -> None:
    quick.run("run", "--next", code=None, env=failpoint_env("judged"))
    amend(quick)
    quick.git("reflog", "expire", "--expire=now", "--all")
    quick.git("gc", "-q", "--prune=now")
    stopped = quick.run("run", "--next", code=3)
    assert FOREIGN_GENESIS.search(stopped.stderr)
    clone = quick.at(follow(quick.root, stopped.stderr))
    clone.run("run", "--next")
    assert [kind for kind in kinds(clone) if kind not in UNFINISHED] == ["VERIFIED", "HALTED"]
    clone.assert_audit_is_clean()


def test_after_an_outcome_only_a_human_changes_the_plan(quick: Quick) -> None:
    quick.set_mode("hang")
    quick.change_plan(timeout_s=1)
    quick.run("run", "--next", code=5)
    quick.change_plan(seed=7)
    assert "relock 1" in quick.run("run", "--next", code=3).stderr


@pytest.mark.parametrize("command", [("clean", "-qfd"), ("stash", "-q", "-u")])
def test_a_lock_that_was_cleaned_away_is_composed_again_i_54(
    quick: Quick, command: tuple[str, ...], undisturbed: dict[str, Any]
) -> None:
    quick.run("run", "--next", code=None, env=failpoint_env("started"))
    quick.git(*command)
    quick.run("run", "--next")
    assert violations(quick.root) == []
    assert shape(quick.root) == undisturbed
    quick.assert_audit_is_clean()


#### a phase that waits


def test_a_later_phase_is_added_while_one_waits_i_56(waiting: Quick) -> None:
    document = json.loads((waiting.root / "prd/plan.json").read_text())
    added = feature(9, gate={"pytest": "gates/test_third.py"})
    document["phases"].append({"id": 2, "name": "Phase 2", "features": [added]})
    waiting.write("prd/plan.json", json.dumps(document))
    waiting.write("gates/test_third.py", "def test_it(): pass\n")
    waiting.commit("a second phase")
    code, screen = at_terminal(waiting.root, "approve", "1", answer=as_asked)
    assert code == 0, screen
    waiting.assert_audit_is_clean()


@pytest.mark.parametrize(
    "change",
    [
        lambda document: document["phases"][0]["features"][0].update(seed=3),
        lambda document: document["defaults"].update(attempts=9),
        lambda document: document.update(results="elsewhere"),
    ],
    ids=["its own feature", "the defaults", "the folder of results"],
)
@pytest.mark.parametrize("is_committed", [True, False])
def test_a_change_of_the_phase_that_waits_is_refused(
    waiting: Quick, change: Callable[[Any], None], *, is_committed: bool
) -> None:
    document = json.loads((waiting.root / "prd/plan.json").read_text())
    change(document)
    waiting.write("prd/plan.json", json.dumps(document))
    if is_committed:
        waiting.commit("a change")
    code, screen = at_terminal(waiting.root, "approve", "1", answer=as_asked)
    assert code == 3, screen
