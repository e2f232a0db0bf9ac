"""How a project is approved is not lowered: presence replaces no signature, whatever changed."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from story import Story
from terminal_user import as_asked, at_terminal
from toy import toy_plan

sys.path.insert(0, str(Path(__file__).parent / "faults"))
from hints import follow
from quick import Quick, plan

from phases.audit.decisions import check_decisions
from phases.audit.findings import Severity
from phases.audit.locks import check_plan_locks
from phases.audit.record import Record
from phases.errors import IntegrityError
from phases.git.objects import open_objects
from phases.git.tree import CommitTree
from phases.plan.load import parse_plan
from phases.plan.schema import Plan
from phases.record.approval_rule import (
    ApprovalRule,
    committed_rule,
    stated_rule,
    work_tree_rule,
)
from phases.record.ledger import EntryKind, Ledger, new_header, seal_entry
from phases.record.pending import read_pending
from phases.record.project import Snapshot, load_verified, open_project, take_snapshot
from phases.record.reconcile import Reconciled
from phases.record.state import PhaseStatus, State, fold_state
from phases.record.states import PhaseState
from phases.run.plan_locks import require_lock_unchanged

SIGNERS = "prd/allowed_signers"
SIGNED = ApprovalRule(signed=True)
OTHER = ApprovalRule(by_another=True)
DECISIONS = (
    ("approve", "1"),
    ("reject", "1", "--reason", "count again"),
    ("relock", "1", "--reason", "the keys are gone"),
    ("approve", "1", "--waive", "Q-001", "--reason", "no data"),
)
"""Every command that asks for presence."""


def signed_plan(**approval: Any) -> dict[str, Any]:
    return {**plan(), "approval": {"mode": "signed", **approval}}


def set_approval(quick: Quick, **approval: Any) -> None:
    """Write another approval into the plan of the work tree."""
    path = quick.root / "prd/plan.json"
    document = json.loads(path.read_text())
    document["approval"] = approval
    path.write_text(json.dumps(document, indent=1))


def wait_with_signers(root: Path) -> Quick:
    """Return a project whose phase waits, and whose keys are committed."""
    quick = Quick(root)
    quick.write(SIGNERS, "user@example.org ssh-ed25519 AAAA\n")
    quick.commit("the keys of the approvers")
    quick.run("run", "--next")
    assert "- approval signed\n" in quick.progress
    return quick


@pytest.fixture(scope="module")
def _signed(tmp_path_factory: pytest.TempPathFactory) -> Quick:
    return wait_with_signers(tmp_path_factory.mktemp("signed") / "quick")


@pytest.fixture
def signed(_signed: Quick, tmp_path: Path) -> Quick:
    """Return a project that waits and wants signatures, by the keys in its `prd` folder."""
    return _signed.copy(tmp_path / "quick")


def assert_presence_is_refused(quick: Quick, *, asked: str = "requires signed approvals") -> str:
    """Check that every decision is refused before it asks; return what the last one said."""
    before = quick.record_contents()
    refusal = ""
    for words in DECISIONS:
        # There is no terminal here: a command that asks exits 4.
        refusal = quick.call(*words, code=7).stderr
        assert asked in refusal
    assert quick.record_contents() == before
    return refusal


def remove_hidden(quick: Quick) -> None:
    quick.git("update-index", "--assume-unchanged", "--skip-worktree", SIGNERS)
    (quick.root / SIGNERS).unlink()


def remove_by_commit(quick: Quick) -> None:
    (quick.root / SIGNERS).unlink()
    quick.commit("no keys any more")


def lower_the_plan(quick: Quick) -> None:
    set_approval(quick, mode="presence")
    quick.commit("presence is enough")


def lower_everything(quick: Quick) -> None:
    set_approval(quick, mode="presence")
    remove_by_commit(quick)


LOWERED: dict[str, Callable[[Quick], None]] = {
    "removed under flags of the index": remove_hidden,
    "removed by a commit": remove_by_commit,
    "presence in the plan": lower_the_plan,
    "both": lower_everything,
}


@pytest.mark.parametrize("name", LOWERED)
def test_presence_after_signed_is_refused_everywhere_i_29(signed: Quick, name: str) -> None:
    LOWERED[name](signed)
    assert "the plan lock says `approval signed`" in assert_presence_is_refused(signed)


def test_the_hint_of_a_refusal_leads_to_a_project_that_can_be_approved(signed: Quick) -> None:
    # 1. What the hint says: a clone without the record.
    lower_everything(signed)
    refusal = signed.call("approve", "1", code=7).stderr
    hint = re.search(r"git clone \. \.\./anew && git -C \.\./anew reset --hard (\w+)", refusal)
    assert hint, refusal
    anew = signed.root.with_name("anew")
    signed.git("clone", "-q", ".", str(anew))
    quick = Quick.__new__(Quick)
    quick.root = anew
    quick.temporary.mkdir()
    quick.git("reset", "-q", "--hard", hint[1])
    quick.git("config", "user.name", "Quick Person")
    quick.git("config", "user.email", "quick@example.org")

    # 2. There the plan may ask for less.
    lower_everything(quick)
    quick.run("run", "--next")
    code, screen = at_terminal(quick.root, "approve", "1", answer=as_asked)
    assert code == 0, screen
    quick.assert_audit_is_clean()


def test_a_link_or_a_folder_in_place_of_the_keys_asks_for_signatures(tmp_path: Path) -> None:
    quick = Quick(tmp_path / "quick")
    quick.run("run", "--next")
    (quick.root / SIGNERS).symlink_to("nowhere")
    assert_presence_is_refused(quick)
    (quick.root / SIGNERS).unlink()
    quick.write(f"{SIGNERS}/one", "a key\n")
    assert_presence_is_refused(quick)


def test_either_the_work_tree_or_head_is_enough_and_the_way_back_works(tmp_path: Path) -> None:
    quick = Quick(tmp_path / "quick")
    quick.run("run", "--next")

    # 1. Only in the work tree, behind the index's back.
    quick.git("update-index", "--assume-unchanged", "prd/plan.json")
    locked = (quick.root / "prd/plan.json").read_text()
    set_approval(quick, mode="signed")
    assert "bring approval and" in assert_presence_is_refused(quick)
    quick.write("prd/plan.json", locked)
    quick.git("update-index", "--no-assume-unchanged", "prd/plan.json")

    # 2. Only in HEAD.
    set_approval(quick, mode="signed")
    quick.commit("sign from now on")
    quick.write("prd/plan.json", locked)
    assert_presence_is_refused(quick)

    # 3. The way back: the plan as it was locked.
    quick.commit("as it was locked")
    code, screen = at_terminal(quick.root, "approve", "1", answer=as_asked)
    assert code == 0, screen
    quick.assert_audit_is_clean()


def test_the_plan_may_ask_for_less_while_nothing_was_judged_i_29(tmp_path: Path) -> None:
    quick = Quick(tmp_path / "quick", signed_plan())
    failpoint = {"PHASES_FAILPOINT": "started:kill:1"}
    quick.run("run", "--next", code=None, env=failpoint)
    assert "- approval signed\n" in quick.progress
    lower_the_plan(quick)
    quick.run("run", "--next")
    assert "- approval presence\n" in quick.progress
    code, screen = at_terminal(quick.root, "approve", "1", answer=as_asked)
    assert code == 0, screen
    quick.assert_audit_is_clean()


def test_allow_self_false_is_not_raised_by_presence(tmp_path: Path) -> None:
    quick = Quick(tmp_path / "quick", {**plan(), "approval": {"allow_self": False}})
    quick.run("run", "--next")
    assert "- approver another-user\n" in quick.progress
    set_approval(quick, allow_self=True)
    quick.commit("I may approve my own")
    assert_presence_is_refused(quick, asked="requires another approver than the user who runs")


def test_a_phase_is_not_locked_with_less_than_was_judged_i_29(signed: Quick) -> None:
    # The ledger's phase as if it had left the plan: nothing is locked, and the rule remains.
    lower_everything(signed)
    project = open_project(signed.root)
    repo = project.repo()
    phase = project.plan.phase(1)
    snapshot = load_verified(project, repo)
    status = PhaseStatus(1, phase.name, ())
    freed = replace(snapshot, state=replace(snapshot.state, phases=(status,)))
    tree = CommitTree(repo, repo.head())
    with pytest.raises(IntegrityError, match="would be locked with `approval presence`") as error:
        require_lock_unchanged(project, tree, freed, phase)
    assert error.value.code == "approval-lowered"


#### the fold


PLAN = parse_plan(json.dumps(toy_plan(phases=2, features=1)).encode())
SHORTENED = parse_plan(json.dumps(toy_plan(phases=1, features=1)).encode())


def fold(story: Story) -> State:
    return fold_state(PLAN, story.ledger.entries, story.evidence)


def lowered(state: State) -> list[int | None]:
    """Return the numbers of decisions and locks that ask for less than a lock before them."""
    return [problem.entry for problem in state.problems if problem.code == "approval-lowered"]


def approve(story: Story, phase: int = 1) -> Story:
    record = f"{phase}" * 64
    story.records.add(record)
    return story.decide("APPROVED", record, phase)


@pytest.mark.parametrize("rule", [SIGNED, OTHER], ids=str)
def test_a_decision_by_presence_after_a_signed_lock_does_not_count_i_29(rule: ApprovalRule) -> None:
    state = fold(approve(Story().lock(approval=rule).attempt("TOY-001").halt()))
    assert state.phase(1).state == PhaseState.AWAITING_APPROVAL
    assert lowered(state) == [5]
    assert state.judged_approval == rule


def test_control_a_decision_by_presence_counts_after_a_lock_that_asks_for_no_more() -> None:
    state = fold(approve(Story().lock().attempt("TOY-001").halt()))
    assert state.phase(1).state == PhaseState.APPROVED
    assert lowered(state) == []


def test_a_relock_by_presence_lowers_nothing_i_29() -> None:
    story = Story().lock(approval=SIGNED).attempt("TOY-001").halt()
    story.records.add("c" * 64)
    state = fold(approve(story.lock(record="c" * 64)))
    assert state.phase(1).state == PhaseState.AWAITING_APPROVAL
    assert state.approval == SIGNED
    assert lowered(state) == [5, 6]


def test_the_runners_own_lock_of_a_later_phase_lowers_nothing() -> None:
    story = approve(Story().lock().attempt("TOY-001").halt())
    story = story.lock(2, approval=SIGNED).attempt("TOY-002", phase=2).halt(2)
    state = fold(approve(story.lock(2), 2))
    assert state.phase(2).state == PhaseState.AWAITING_APPROVAL
    assert len(lowered(state)) == 2


def test_a_lock_that_was_replaced_before_anything_was_judged_binds_nothing() -> None:
    story = Story().lock(approval=SIGNED).add("STARTED", 1, "TOY-001").add("INTERRUPTED", 1)
    state = fold(approve(story.lock().attempt("TOY-001").halt()))
    assert state.phase(1).state == PhaseState.APPROVED
    assert state.approval.allows_presence


def test_a_phase_that_left_the_plan_still_asks_for_signatures() -> None:
    story = approve(Story().lock().attempt("TOY-001").halt())
    story = story.lock(2, approval=SIGNED).attempt("TOY-002", "FAILED", phase=2)
    story.records.add("ab" * 32)
    story.decide("REJECTED", "ab" * 32)
    state = fold_state(SHORTENED, story.ledger.entries, story.evidence)
    assert state.judged_approval == SIGNED
    assert lowered(state) == [story.ledger.entries[-1].seq]
    assert state.phase(1).state == PhaseState.APPROVED


#### the audit


def test_the_audit_names_decisions_and_locks_that_ask_for_less_i_29(tmp_path: Path) -> None:
    project = open_project(Quick(tmp_path / "quick").root)
    story = Story().lock(approval=SIGNED).attempt("Q-001").halt()
    approve(story.lock(2), 1)
    snapshot = Snapshot(Reconciled(story.ledger), fold(story), story.evidence)
    with open_objects(project.root) as objects:
        record = Record(project, project.repo(), snapshot, objects, read_pending(project.paths))
        findings = list(check_decisions(record))
    assert [(finding.code, finding.entry) for finding in findings] == [
        ("approval-lowered", 5),
        ("approval-lowered", 6),
    ]
    assert {finding.severity for finding in findings} == {Severity.ERROR}


@pytest.mark.parametrize("lines", [(), ("approval presence",)], ids=["nothing", "presence"])
def test_the_audit_compares_a_lock_with_its_commits_plan_i_29(
    signed: Quick, lines: tuple[str, ...]
) -> None:
    # 1. The same ledger, whose lock states less than the commit's plan asks.
    project = open_project(signed.root)
    repo = project.repo()
    ledger = Ledger(new_header("Quick"), ())
    for entry in load_verified(project, repo).ledger.entries:
        stated = entry.lines
        if entry.kind == EntryKind.LOCKED:
            kept = tuple(line for line in stated if not line.startswith("approv"))
            stated = (*kept, *lines)
        forged = seal_entry(
            ledger, entry.kind, stated, time=entry.time, phase=entry.phase, feature=entry.feature,
            title=entry.title,
        )  # fmt: skip
        ledger = ledger.with_entry(forged)

    # 2. The commit of the lock asks for signatures.
    snapshot = take_snapshot(project, Reconciled(ledger))
    newest = load_verified(project, repo).evidence.newest
    assert newest is not None
    with open_objects(project.root) as objects:
        record = Record(project, repo, snapshot, objects, read_pending(project.paths))
        record.commits = dict.fromkeys(range(1, len(ledger.entries) + 1), newest)
        [finding] = check_plan_locks(record)
    assert finding.code == "lock-contradicts"
    assert "asks `approval signed`" in finding.message
    signed.assert_audit_is_clean()


def commit_keys(quick: Quick) -> None:
    quick.write(SIGNERS, "user@example.org ssh-ed25519 AAAA\n")
    quick.commit("the keys of the approvers")


def ask_for_signatures(quick: Quick) -> None:
    set_approval(quick, mode="signed")
    quick.commit("signatures")


@pytest.mark.parametrize("change", [commit_keys, ask_for_signatures])
def test_no_relock_is_named_where_nobody_could_confirm_it(
    change: Callable[[Quick], None], tmp_path: Path
) -> None:
    quick = Quick(tmp_path / "quick", plan(features=2))
    quick.run("run", "--feature", "Q-001")
    change(quick)
    refused = quick.call("run", "--next", code=3)
    assert "differs from what was locked" in refused.stderr
    assert "relock" not in refused.stderr
    follow(quick.root, refused.stderr)
    if change is ask_for_signatures:  # the command shows what to restore
        quick.git("revert", "--no-edit", "HEAD")
    quick.run("run", "--next")
    quick.assert_audit_is_clean()


#### what a plan and a lock ask

RULES = [ApprovalRule(signed=a, by_another=b) for a in (False, True) for b in (False, True)]


def approval_plan(**approval: Any) -> Plan:
    return parse_plan(json.dumps({**plan(), "approval": approval}).encode())


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_a_lock_states_what_its_plan_asks(rule: ApprovalRule) -> None:
    story = Story().lock(approval=rule)
    assert stated_rule(story.ledger.entries[-1]) == rule
    assert str(rule) == "; ".join(rule.lines)
    assert rule.lines[0] == ("approval signed" if rule.signed else "approval presence")
    assert rule.allows_presence is (rule == ApprovalRule())
    for other in RULES:
        both = rule | other
        assert both.signed is (rule.signed or other.signed)
        assert both.by_another is (rule.by_another or other.by_another)
        assert rule.covers(other) is (rule == both)


@pytest.mark.parametrize("allow_self", [False, True])
@pytest.mark.parametrize(
    ("mode", "has_signers", "is_signed"),
    [
        ("presence", False, False),
        ("presence", True, False),
        ("signed", False, True),
        ("signed", True, True),
        ("auto", False, False),
        ("auto", True, True),
    ],
)
def test_a_plan_asks_for_signatures_by_its_mode_and_the_keys(
    tmp_path: Path, mode: str, *, has_signers: bool, is_signed: bool, allow_self: bool
) -> None:
    asked = approval_plan(mode=mode, allow_self=allow_self)
    expected = ApprovalRule(signed=is_signed, by_another=not allow_self)
    paths = ["prd/plan.json", "prd/allowed_signers.bak", "allowed_signers"]
    (tmp_path / "prd").mkdir()
    if has_signers:
        paths.append(SIGNERS)
        (tmp_path / SIGNERS).write_text("a key")
    assert committed_rule(asked, paths) == expected
    assert work_tree_rule(asked, tmp_path) == expected


def test_whatever_stands_in_the_place_of_the_keys_asks_for_signatures(tmp_path: Path) -> None:
    asked = approval_plan(mode="auto")
    assert committed_rule(asked, [f"{SIGNERS}/a key"]).signed
    (tmp_path / "prd").mkdir()
    for make in (Path.mkdir, Path.touch, lambda path: path.symlink_to("nowhere")):
        path = tmp_path / SIGNERS
        make(path)
        assert work_tree_rule(asked, tmp_path).signed
        path.rename(tmp_path / f"old-{len(list(tmp_path.iterdir()))}")
    assert not work_tree_rule(asked, tmp_path).signed
