"""The state is a pure fold over plan and ledger, and gives the next step. Laws, on any history."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
import story
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from story import DIGEST, evidence_of

from phases.plan.load import parse_plan
from phases.record import entries
from phases.record.approval_rule import PRESENCE, ApprovalRule
from phases.record.entries import GateSummary, RecordedFile
from phases.record.evidence import Evidence
from phases.record.ledger import OUTCOMES, Entry
from phases.record.state import State, done_counts, fold_state, next_step
from phases.record.states import FeatureState
from phases.record.steps import (
    AttemptsSpent,
    AwaitApproval,
    Blocked,
    Done,
    RunExit,
    RunFeature,
    Step,
    Stuck,
)

ATTEMPTS = 3
RECORD = "12" * 32
OTHER_RECORD = "34" * 32


def feature(name: str, *needs: str) -> dict[str, object]:
    return {
        "id": name,
        "title": f"Title of {name}",
        "command": "true",
        "outputs": ["result.json"],
        "needs": needs,
        "expect": {"minutes": 1, "memory_gb": 1},
        "gate": {"shell": "true"},
    }


DOCUMENT = {
    "schema": 1,
    "project": "Toy",
    "defaults": {"attempts": ATTEMPTS},
    "phases": [
        {"id": 1, "name": "One", "features": [feature("A"), feature("B", "A"), feature("C")]},
        {"id": 2, "name": "Two", "features": [feature("D", "A")]},
    ],
}
PLAN = parse_plan(json.dumps(DOCUMENT).encode())
FEATURES = [(1, "A"), (1, "B"), (1, "C"), (2, "D")]
"""Phase and id of every feature of the plan."""


class Story(story.Story):
    """A story about PLAN."""

    about: Mapping[str, Any] = {}
    """What decisions are about instead of the checkpoint that waited."""

    @property
    def evidence(self) -> Evidence:
        evidence = super().evidence
        decisions = {
            number: replace(decision, **self.about)
            for number, decision in evidence.decisions.items()
        }
        return replace(evidence, decisions=decisions)

    @property
    def state(self) -> State:
        return fold_state(PLAN, self.ledger.entries, self.evidence)

    @property
    def next(self) -> Step:
        return next_step(PLAN, self.state)


def halted_story() -> Story:
    return Story().lock().attempt("A").attempt("B").attempt("C").halt()


def test_the_whole_way() -> None:
    story = Story()
    assert story.next == RunFeature(1, "A")
    story.lock().attempt("A")
    assert story.next == RunFeature(1, "B")
    story.attempt("B").attempt("C")
    assert story.next == RunExit(1)
    story.halt()
    assert story.next == AwaitApproval(1)
    story.records.add(RECORD)
    story.decide("APPROVED", RECORD)
    assert story.next == RunFeature(2, "D")
    story.lock(2).attempt("D", phase=2).halt(2)
    assert story.next == AwaitApproval(2)
    story.records.add(OTHER_RECORD)
    story.decide("APPROVED", OTHER_RECORD, 2)
    assert story.next == Done()


#### decisions count only with their record


def test_approved_without_its_record_counts_for_nothing() -> None:
    story = halted_story()
    story.decide("APPROVED", RECORD)
    assert not story.state.phase(1).approved
    # It came after the checkpoint all the same, so the phase halts anew.
    assert story.next == RunExit(1)
    story.records.add(RECORD)  # the control: with its record the same entry opens the next phase
    assert story.next == RunFeature(2, "D")


def test_rejected_without_its_record_counts_for_nothing() -> None:
    story = halted_story()
    features = story.state.phase(1).features
    story.decide("REJECTED", RECORD, reset=["A"])
    assert story.state.phase(1).features == features
    assert story.next == RunExit(1)
    story.records.add(RECORD)
    assert story.next == RunFeature(1, "A")
    assert story.state.phase(1).lock is None


def test_what_comes_after_a_checkpoint_voids_it_but_for_what_was_pulled() -> None:
    assert halted_story().add("PULLED").next == AwaitApproval(1)
    for kind in ("REPAIRED", "RECOVERED"):
        assert halted_story().add(kind).next == RunExit(1)
    # A phase before it is rejected and approved again.
    story = halted_story()
    story.records.update({RECORD, OTHER_RECORD, "56" * 32})
    story.decide("APPROVED", RECORD).lock(2).attempt("D", phase=2).halt(2)
    assert story.next == AwaitApproval(2)
    story.decide("REJECTED", OTHER_RECORD).lock().halt().decide("APPROVED", "56" * 32)
    assert story.next == RunExit(2)


def test_a_relock_without_its_record_counts_for_nothing() -> None:
    story = Story().lock().attempt("A", "FAILED")
    before = story.state
    assert before.phase(1).feature("A").attempts == 1
    story.lock(reset=["A"])
    story.lock(record=RECORD)
    assert story.state.phases == before.phases
    story.records.add(RECORD)
    assert story.state.phase(1).feature("A").attempts == 0


def test_waived_without_its_record_counts_for_nothing() -> None:
    story = Story().lock().attempt("A", "FAILED")
    before = story.state
    story.add("WAIVED", 1, "A", "reason it is good enough")
    story.add("WAIVED", 1, "A", f"record sha256:{RECORD} prd/approvals/phase-1.1.json")
    assert story.state.phases == before.phases
    story.records.add(RECORD)
    assert story.state.phase(1).feature("A").state == "waived"
    assert story.next == RunFeature(1, "C")  # B needs A, and a waived feature has no results
    story.attempt("C")
    assert story.next == Blocked(1, "B", "A", 1)


def test_what_voids_a_request_leaves_nothing_of_it() -> None:
    waiting = halted_story().state.phase(1)
    assert (waiting.halted, waiting.request) == (8, DIGEST)
    relocked = halted_story()
    relocked.records.add(RECORD)
    relocked.lock(record=RECORD)
    begun = halted_story().add("STARTED", 1, "A")
    for told in (relocked, begun):
        phase = told.state.phase(1)
        assert (phase.halted, phase.request, phase.approved) == (None, None, False)
    # What was approved keeps the request that was answered.
    approved = approved_story().state.phase(1)
    assert (approved.halted, approved.request, approved.approved) == (None, DIGEST, True)


#### a phase halts when its features are done


def test_a_halt_of_features_that_are_not_done_counts_for_nothing() -> None:
    story = Story().lock().attempt("A").attempt("B")
    story.attempt("C", "FAILED").halt()
    assert story.next == RunFeature(1, "C")
    assert [problem.code for problem in story.state.problems] == ["halt-contradicts"]
    # The control: the same halt once the third one is done.
    assert story.attempt("C").halt().next == AwaitApproval(1)


def test_a_halt_says_how_many_features_are_done() -> None:
    story = Story().lock().attempt("A").attempt("B").attempt("C")
    request = f"request sha256:{DIGEST} results/phase-1/request.json"
    story.add("HALTED", 1, None, "features: 2 verified", request)
    assert story.next == RunExit(1)
    story.add("HALTED", 1, None, request)
    assert story.next == RunExit(1)


#### attempts


def test_attempts_count_since_the_last_lock() -> None:
    story = Story().lock()
    outcomes = ["FAILED", "ERRORED", "FAILED"]
    assert len(outcomes) == ATTEMPTS
    for count, outcome in enumerate(outcomes):
        assert story.next == RunFeature(1, "A")
        assert story.state.phase(1).feature("A").attempts == count
        story.attempt("A", outcome)
    assert story.next == AttemptsSpent(1, "A", ATTEMPTS)
    story.records.add(RECORD)
    story.lock(record=RECORD)
    assert story.next == RunFeature(1, "A")
    # The next attempt's number goes on.
    assert story.state.phase(1).feature("A").started == ATTEMPTS


def test_an_interruption_is_no_attempt() -> None:
    story = Story().lock()
    for _ in range(ATTEMPTS + 2):
        story.attempt("A", "INTERRUPTED")
    status = story.state.phase(1).feature("A")
    assert (status.attempts, status.started, status.state) == (0, ATTEMPTS + 2, "pending")
    assert status.interruptions == ATTEMPTS + 2
    assert story.next == RunFeature(1, "A")


def test_exit_gates_that_fail_count_as_attempts() -> None:
    story = Story().lock().attempt("A").attempt("B").attempt("C")
    for _ in range(ATTEMPTS):
        assert story.next == RunExit(1)
        story.add("FAILED", 1)
        assert story.state.phase(1).state == "failed"
    assert story.next == AttemptsSpent(1, None, ATTEMPTS)


def test_a_feature_waits_for_what_it_needs() -> None:
    story = Story().lock().attempt("A", "FAILED")
    assert next_step(PLAN, story.state, {"A"}) == RunFeature(1, "C")
    story.attempt("C")
    assert next_step(PLAN, story.state, {"A"}) == Stuck(1, ("A", "B"))
    assert story.next == RunFeature(1, "A")


def test_entries_about_what_the_plan_no_longer_has_are_passed_over() -> None:
    story = Story().lock().attempt("A").attempt("Z").attempt("D", phase=7)
    assert story.next == RunFeature(1, "B")


def test_the_fields_of_an_outcome_are_read_back() -> None:
    ran = entries.RAN.format(
        what="lab.x", seconds=412, attempt=1, seed=0, profile="cpu", sandbox="none"
    )
    summary = GateSummary(
        "gates/test_x.py", passed=9, failed=0, coverage=(12, 3, 17), killed=6, mutants=6
    )
    receipt = RecordedFile(DIGEST, "results/A/receipt.json").line(entries.RECEIPT)
    story = Story().lock().add("STARTED", 1, "A")
    story.add("VERIFIED", 1, "A", ran, *summary.lines, receipt)
    status = story.state.phase(1).feature("A")
    assert (status.seconds, status.coverage, status.receipt) == (412, (12, 3, 17), DIGEST)


#### any history

phase_ids = st.integers(1, 2)
records = st.sampled_from([RECORD, OTHER_RECORD])
resets = st.sampled_from([(), ("A",), ("B", "C"), ("D",)])
feature_kinds = st.sampled_from(
    ["STARTED", "VERIFIED", "FAILED", "ERRORED", "INTERRUPTED", "WAIVED"]
)


@st.composite
def feature_events(draw: st.DrawFn) -> tuple[Any, ...]:
    phase, name = draw(st.sampled_from(FEATURES))
    return "add_outcome", draw(feature_kinds), phase, name


decisions = st.sampled_from(["APPROVED", "REJECTED"])
phase_kinds = st.sampled_from(["FAILED", "RECOVERED", "REPAIRED"])
events = st.one_of(
    st.tuples(st.just("lock"), phase_ids, st.none() | records, resets),
    st.tuples(st.just("halt"), phase_ids),
    st.tuples(st.just("decide"), decisions, records, phase_ids, resets),
    st.tuples(st.just("add"), phase_kinds, phase_ids),
    # Half of all events are about features.
    *[feature_events()] * 3,
)
"""Name of a method of Story, and its arguments."""


def make_story(history: Sequence[tuple[Any, ...]], counted: set[str]) -> Story:
    story = Story()
    for verb, *arguments in history:
        getattr(story, verb)(*arguments)
    story.records = counted
    return story


def stories() -> st.SearchStrategy[Story]:
    return st.builds(make_story, st.lists(events, max_size=20), st.sets(records))


def is_recorded(entry: Entry, story: Story) -> bool:
    """Return whether an entry names a record that counts, and could be made then."""
    refused = {problem.entry for problem in story.state.problems}
    return entry.seq in story.evidence.decisions and entry.seq not in refused


@given(stories())
@settings(deadline=None)
def test_no_phase_opens_without_a_recorded_approval(story: Story) -> None:
    step = story.next
    open_phase = 3
    if not isinstance(step, Done):
        open_phase = step.phase
    approved = set()
    for entry in story.ledger.entries:
        if entry.kind == "APPROVED" and is_recorded(entry, story):
            approved.add(entry.phase)
    assert set(range(1, open_phase)) <= approved


def out_of_order(state: State) -> set[int | None]:
    return {problem.entry for problem in state.problems if problem.code == "entry-order"}


@given(stories())
@settings(deadline=None)
def test_without_records_a_decision_changes_nothing(story: Story) -> None:
    decided = [
        entry for entry in story.ledger.entries if entry.kind in ("APPROVED", "REJECTED", "WAIVED")
    ]
    assume(decided)
    others = [entry for entry in story.ledger.entries if entry not in decided]
    with_them = fold_state(PLAN, story.ledger.entries, evidence_of(story.ledger.entries, set()))
    without_them = fold_state(PLAN, others, evidence_of(others, set()))
    # What waits is void once anything came after it: then the runner's own entries can follow.
    assume(out_of_order(with_them) == out_of_order(without_them))
    for phase, expected in zip(with_them.phases, without_them.phases, strict=True):
        assert replace(phase, halted=None, request=None) == replace(
            expected, halted=None, request=None
        )


@given(stories(), st.sampled_from(["VERIFIED", "FAILED", "ERRORED"]), st.sampled_from("ABC"))
@settings(deadline=None)
def test_any_new_outcome_voids_the_checkpoint(story: Story, kind: str, name: str) -> None:
    assume(not story.state.phase(1).approved)
    halt_all_verified(story)
    story.attempt(name, kind)
    assert story.state.phase(1).halted is None
    assert story.state.phase(1).request is None
    assert not isinstance(story.next, AwaitApproval)


@given(stories(), st.sampled_from(["HALTED", "FAILED", "VERIFIED", "INTERRUPTED", "WAIVED"]))
@settings(deadline=None)
def test_without_a_new_start_nothing_follows_a_checkpoint_that_waits(
    story: Story, kind: str
) -> None:
    assume(not story.state.phase(1).approved)
    halt_all_verified(story)
    waiting = story.state
    if kind == "HALTED":
        story.halt()
    elif kind == "FAILED":  # the exit gates
        story.add(kind, 1)
    elif kind == "WAIVED":
        waiver = "56" * 32
        story.records.add(waiver)
        story.decide(kind, waiver)
    else:
        story.add_outcome(kind, 1, "A")
    assert story.state.phase(1) == waiting.phase(1)
    assert len(story.state.problems) == len(waiting.problems) + 1


def halt_all_verified(story: Story) -> None:
    """Let phase 1 wait for its approval, whatever was before."""
    for feature_id in "ABC":
        if story.state.phase(1).feature(feature_id).state != "running":
            story.add("STARTED", 1, feature_id)
        story.add_outcome("VERIFIED", 1, feature_id)
    story.halt()
    assert story.next == AwaitApproval(1)


@given(stories())
@settings(deadline=None)
def test_attempts_are_the_outcomes_since_the_last_counting_lock(story: Story) -> None:
    refused = {problem.entry for problem in story.state.problems}
    for phase, name in FEATURES:
        attempts, is_locked = 0, False
        for entry in story.ledger.entries:
            if entry.phase != phase or entry.seq in refused:
                continue
            is_own = entry.match(entries.RECORD) is None and not is_locked
            if entry.kind == "LOCKED" and (is_own or is_recorded(entry, story)):
                attempts, is_locked = 0, True
            if entry.kind == "REJECTED" and is_recorded(entry, story):
                is_locked = False  # the lock is released; the next one is the runner's own again
            if entry.feature == name and entry.kind in OUTCOMES:
                attempts += 1
        assert story.state.phase(phase).feature(name).attempts == attempts


@given(stories())
@settings(deadline=None)
def test_the_fold_is_deterministic_and_goes_on_where_it_stopped(story: Story) -> None:
    assert story.state == story.state
    if not story.ledger.entries:
        return
    last = story.ledger.entries[-1]
    before = fold_state(PLAN, story.ledger.entries[:-1], story.evidence)
    # An entry bears on its own phase only; but it voids whatever waits.
    for phase in {1, 2} - {last.phase}:
        expected = before.phase(phase)
        if last.kind != "PULLED" and expected.halted is not None:
            expected = replace(expected, halted=None, request=None)
        assert story.state.phase(phase) == expected


@given(stories())
@settings(deadline=None)
def test_what_waits_has_a_halt_after_its_last_outcome(story: Story) -> None:
    refused = {problem.entry for problem in story.state.problems}
    for phase in story.state.phases:
        if phase.state != "awaiting_approval":
            continue
        for entry in story.ledger.entries:
            if entry.seq in refused:
                continue
            if entry.phase == phase.id and entry.feature and entry.seq > (phase.halted or 0):
                assert entry.kind not in ("STARTED", *OUTCOMES)


#### what the state says


def test_a_phase_says_in_one_word_how_far_it_is() -> None:
    story = Story()
    words = []

    def note() -> None:
        words.append(str(story.state.phase(1).state))

    note()
    story.lock()
    note()
    story.add("STARTED", 1, "A")
    note()
    for kind in ("FAILED", "ERRORED"):
        story.add_outcome(kind, 1, "A")
        note()
        story.add("STARTED", 1, "A")
    story.add_outcome("VERIFIED", 1, "A").attempt("B").attempt("C")
    note()
    story.add("FAILED", 1)
    note()
    story.halt()
    note()
    story.records.add(RECORD)
    story.decide("APPROVED", RECORD)
    note()
    assert words == [
        "pending",
        "running",
        "running",
        "failed",
        "failed",
        "running",
        "failed",
        "awaiting_approval",
        "approved",
    ]
    # A feature that is under way makes it run, whatever became of its lock.
    assert Story().add("STARTED", 1, "A").state.phase(1).state == "running"


def test_what_the_plan_does_not_have_is_no_part_of_the_state() -> None:
    state = halted_story().state
    with pytest.raises(KeyError, match="9"):
        state.phase(9)
    with pytest.raises(KeyError, match="D"):
        state.phase(1).feature("D")
    assert [phase.name for phase in state.phases] == ["One", "Two"]
    assert {name: item.title for name, item in state.features.items()} == {
        name: f"Title of {name}" for _, name in FEATURES
    }


def test_a_lock_and_a_request_are_named_by_their_digests() -> None:
    phase = halted_story().state.phase(1)
    assert (phase.lock, phase.lock_path) == (DIGEST, "results/phase-1/lock.json")
    assert phase.lock_commit == story.COMMIT
    assert (phase.halted, phase.request) == (8, DIGEST)
    assert phase.has_outcome
    assert dict(phase.done) == dict.fromkeys("ABC", "verified")
    assert not Story().lock().state.phase(1).has_outcome


def test_a_rejection_releases_the_lock_and_resets_what_it_names() -> None:
    told = halted_story()
    told.records.add(RECORD)
    told.decide("REJECTED", RECORD, reset=["A"])
    phase = told.state.phase(1)
    assert (phase.lock, phase.lock_path, phase.lock_commit) == (None, None, None)
    assert (phase.halted, phase.request, phase.has_outcome) == (None, None, False)
    assert dict(phase.done) == dict.fromkeys("BC", "verified")
    assert [item.state for item in phase.features] == ["pending", "verified", "verified"]
    # The runner's own lock can follow, since nothing was judged since.
    assert told.lock().lock().state.problems == ()
    # An approved phase can be rejected, too.
    told = halted_story()
    told.records.update({RECORD, OTHER_RECORD})
    told.decide("APPROVED", RECORD).decide("REJECTED", OTHER_RECORD)
    assert not told.state.phase(1).approved
    assert told.next == RunExit(1)


def test_a_rejection_forgets_no_failed_exit_gate_twice() -> None:
    told = Story().lock().attempt("A").attempt("B").attempt("C").add("FAILED", 1)
    told.records.add(RECORD)
    told.decide("REJECTED", RECORD)
    assert told.state.phase(1).state == "running"  # features are verified, nothing failed
    told = Story().lock().attempt("A").attempt("B").attempt("C").add("FAILED", 1)
    assert told.state.phase(1).exit_attempts == 1
    told.records.add(RECORD)
    told.lock(record=RECORD)
    assert told.state.phase(1).exit_attempts == 0


def test_what_is_reset_says_nothing_of_its_past_attempt() -> None:
    ran = entries.RAN.format(
        what="lab.x", seconds=412, attempt=1, seed=0, profile="cpu", sandbox="none"
    )
    coverage = entries.MEASUREMENT_COVERAGE.format(recomputed=1, bounded=2, total=3)
    digest_only = entries.DIGEST_ONLY.format(text="b.csv")
    exempt = entries.EXEMPT.format(exemption="c.csv: no reason")
    told = Story().lock().add("STARTED", 1, "A")
    told.add("FAILED", 1, "A", ran, coverage, digest_only, exempt)
    feature = told.state.phase(1).feature("A")
    assert (feature.seconds, feature.coverage) == (412, (1, 2, 3))
    assert (feature.digest_only, feature.exempt) == (("b.csv",), ("c.csv: no reason",))
    told.records.add(RECORD)
    told.lock(record=RECORD, reset=["A"])
    feature = told.state.phase(1).feature("A")
    assert (feature.state, feature.attempts, feature.started) == ("pending", 0, 1)
    assert (feature.seconds, feature.coverage) == (None, None)
    assert (feature.digest_only, feature.exempt) == ((), ())


def test_only_a_verified_attempts_receipt_is_the_features() -> None:
    told = Story().lock().attempt("A", "FAILED")
    assert told.state.phase(1).feature("A").receipt is None
    assert told.attempt("A").state.phase(1).feature("A").receipt == DIGEST
    # A later failure does not take it away, and neither has numbers that were not recorded.
    feature = told.attempt("A", "FAILED").state.phase(1).feature("A")
    assert (feature.receipt, feature.seconds, feature.coverage) == (DIGEST, None, None)
    assert not feature.is_done


def test_a_halt_counts_verified_and_waived_features() -> None:
    assert done_counts([]) == "none"
    waived, verified = FeatureState.WAIVED, FeatureState.VERIFIED
    assert done_counts([waived, verified, verified]) == "2 verified, 1 waived"
    assert done_counts([waived, FeatureState.FAILED]) == "1 waived"
    assert done_counts([verified]) == "1 verified"


#### what could not follow


def why(told: Story, code: str) -> str:
    """Check that the last entry could not follow, and return why."""
    problem = told.state.problems[-1]
    assert (problem.code, problem.entry) == (code, told.ledger.entries[-1].seq)
    assert len(problem.message.split()) > 2
    before = fold_state(PLAN, told.ledger.entries[:-1], told.evidence)
    for phase, was in zip(told.state.phases, before.phases, strict=True):
        assert replace(phase, halted=None, request=None) == replace(was, halted=None, request=None)
    return problem.message


def approved_story() -> Story:
    told = halted_story()
    told.records.add(RECORD)
    return told.decide("APPROVED", RECORD)


def test_entries_of_a_phase_that_is_not_open_could_not_follow() -> None:
    for kind in ("LOCKED", "STARTED", "HALTED"):
        message = why(Story().add(kind, 2, "D" if kind == "STARTED" else None), "phase-unapproved")
        assert "phase 2" in message
        assert "phase 1" in message
    assert approved_story().lock(2).state.problems == ()


def test_a_decisions_record_opens_no_phase_for_another_entry() -> None:
    line = f"record sha256:{RECORD} prd/approvals/phase-2.1.json"
    for kind, feature_id in (("STARTED", "D"), ("HALTED", None), ("FAILED", None)):
        told = Story()
        told.records.add(RECORD)
        why(told.add(kind, 2, feature_id, line), "phase-unapproved")


def test_a_relock_is_possible_while_the_phase_before_is_open_again() -> None:
    told = approved_story().lock(2)
    told.records.update({OTHER_RECORD, "56" * 32})
    told.decide("REJECTED", OTHER_RECORD)
    assert told.lock(2, record="56" * 32).state.problems == ()


@pytest.mark.parametrize("kind", ["LOCKED", "STARTED", "HALTED", "FAILED"])
def test_entries_of_a_phase_that_was_approved_could_not_follow(kind: str) -> None:
    told = approved_story().add(kind, 1, "A" if kind == "STARTED" else None)
    message = why(told, "entry-order")
    assert "phase 1 was approved" in message
    assert kind in message


def test_a_feature_is_started_once_and_ends_once() -> None:
    told = Story().lock().add("STARTED", 1, "A").add("STARTED", 1, "A")
    assert "A was started already" in why(told, "entry-order")
    told.add_outcome("VERIFIED", 1, "A")
    assert len(told.state.problems) == 1
    for kind in ("VERIFIED", "FAILED", "ERRORED", "INTERRUPTED"):
        told.add_outcome(kind, 1, "A")
        assert "A was not started" in why(told, "entry-order")
    # What a decision resets is under way no more.
    told = Story().lock().add("STARTED", 1, "A")
    told.records.add(RECORD)
    told.lock(record=RECORD, reset=["A"]).add_outcome("VERIFIED", 1, "A")
    assert "A was not started" in why(told, "entry-order")


def test_a_phase_that_waits_does_not_wait_or_fail_again() -> None:
    for kind in ("HALTED", "FAILED"):
        told = halted_story()
        assert "entry 0008" in why(told.add(kind, 1), "entry-order")
    # A new attempt is another thing.
    assert halted_story().add("STARTED", 1, "A").state.problems == ()


def test_a_phase_halts_only_with_what_it_says() -> None:
    why(Story().lock().add("HALTED", 1, None, "features: 1 verified"), "halt-contradicts")
    why(Story().lock().add("HALTED", 1), "halt-contradicts")
    told = Story().lock().attempt("A", "FAILED")
    why(told.add("HALTED", 1, None, "features: none"), "halt-contradicts")
    # Features that were never run may have come with the plan since.
    assert Story().lock().add("HALTED", 1, None, "features: none").state.problems == ()


def decided(told: Story, kind: str, feature: str | None = None, **about: Any) -> Story:
    """Add a decision that has a valid record, about any checkpoint."""
    line = f"record sha256:{OTHER_RECORD} prd/approvals/phase-1.1.json"
    told.records.add(OTHER_RECORD)
    told.about = about
    return told.add(kind, 1, feature, line)


def test_a_decision_is_about_the_checkpoint_that_waits() -> None:
    assert decided(halted_story(), "APPROVED").state.problems == ()
    for about in ({"checkpoint": 7}, {"request": "cd" * 32}):
        for kind in ("APPROVED", "REJECTED", "LOCKED"):
            message = why(decided(halted_story(), kind, **about), "approval-invalid")
            assert "entry 0008" in message
            assert "None" not in message


def test_a_decision_needs_what_it_decides_on() -> None:
    why(decided(Story().lock(), "APPROVED"), "approval-invalid")
    why(decided(Story(), "REJECTED"), "approval-invalid")
    why(decided(Story(), "LOCKED"), "approval-invalid")
    why(decided(approved_story(), "LOCKED"), "approval-invalid")
    assert decided(Story().lock(), "REJECTED").state.problems == ()
    assert decided(Story().lock(), "LOCKED").state.problems == ()


def test_what_is_waived_failed_or_cannot_run() -> None:
    for kind, is_valid in (("FAILED", True), ("ERRORED", True), ("VERIFIED", False)):
        told = decided(Story().lock().attempt("A", kind), "WAIVED", "A")
        if is_valid:
            assert told.state.problems == ()
            assert told.state.phase(1).feature("A").is_done
        else:
            assert "A was verified" in why(told, "approval-invalid")
    assert decided(Story().lock(), "WAIVED", "B").state.problems == ()
    told = decided(Story().lock().add("STARTED", 1, "A"), "WAIVED", "A")
    assert "A was running" in why(told, "approval-invalid")
    why(decided(halted_story(), "WAIVED", "A"), "approval-invalid")


def test_after_an_outcome_only_a_decision_locks_anew() -> None:
    assert Story().lock().lock().state.problems == ()
    why(Story().lock().attempt("A").lock(), "approval-invalid")
    assert Story().lock().attempt("A", "INTERRUPTED").lock().state.problems == ()


#### what is asked of an approval


SIGNED = ApprovalRule(signed=True)
ANOTHER = ApprovalRule(by_another=True)
BOTH = ApprovalRule(signed=True, by_another=True)


@pytest.mark.parametrize("rule", [SIGNED, ANOTHER, BOTH])
def test_once_judged_no_lock_and_no_decision_asks_for_less(rule: ApprovalRule) -> None:
    # 1. Not judged yet: the next lock may ask for less.
    told = Story().lock(approval=rule)
    assert (told.state.approval, told.state.judged_approval) == (rule, PRESENCE)
    assert told.lock().state.approval == PRESENCE
    # 2. Judged: it may not, in no phase, and presence decides nothing.
    told = Story().lock(approval=rule).attempt("A")
    assert (told.state.approval, told.state.judged_approval) == (rule, rule)
    assert told.state.phase(1).judged_approval == rule
    for kind in ("APPROVED", "REJECTED", "WAIVED", "LOCKED"):
        told = Story().lock(approval=rule).attempt("A", "FAILED")
        why(decided(told, kind, "A" if kind == "WAIVED" else None), "approval-lowered")
    # 3. A lock in force asks it, too, before anything was judged.
    why(decided(Story().lock(approval=rule), "REJECTED"), "approval-lowered")


def test_a_lock_may_ask_for_more_and_for_as_much() -> None:
    judged = Story().lock(approval=SIGNED).attempt("A", "INTERRUPTED").lock(approval=BOTH)
    assert judged.state.problems == ()
    assert judged.state.phase(1).approval == BOTH
    told = Story().lock(approval=SIGNED).attempt("A")
    why(told.lock(approval=ANOTHER), "approval-lowered")


def test_a_phase_that_left_the_plan_still_asks() -> None:
    told = Story().add("LOCKED", 7, None, "approval signed")
    assert told.state.approval == PRESENCE  # phase 7 cannot begin: phase 6 was not approved
    told = halted_story()
    assert {phase.id for phase in told.state.phases} == {1, 2}


#### the next step, once more


def test_a_phase_without_a_lock_has_spent_no_attempts() -> None:
    told = Story()
    for _ in range(ATTEMPTS):
        told.attempt("A", "FAILED")
    assert told.next == RunFeature(1, "A")
    assert told.state.phase(1).feature("A").attempts == ATTEMPTS


def test_a_feature_blocked_by_a_waiver_is_named_with_its_phase() -> None:
    told = Story().lock().attempt("A", "FAILED")
    decided(told, "WAIVED", "A").attempt("C")
    assert told.next == Blocked(1, "B", "A", 1)
    # In the run where something failed, the next run tries again first.
    assert next_step(PLAN, told.state, {"C"}) == Stuck(1, ("B",))
    # A need of an earlier phase, too.
    told = Story().lock()
    for name in "AB":
        told.attempt(name, "FAILED")
        decided(told, "WAIVED", name)
    told.attempt("C").halt()
    told.records.add(RECORD)
    told.decide("APPROVED", RECORD)
    assert told.state.phase(1).approved
    assert told.next == Blocked(2, "D", "A", 1)


def test_overrides_are_kept_in_order() -> None:
    told = Story().lock().attempt("A", "FAILED")
    reason = "reason it is good enough"
    line = f"record sha256:{RECORD} prd/approvals/phase-1.1.json"
    told.records.add(RECORD)
    previous = entries.PREVIOUS_STATE.format(text="failed, 1 attempt under this lock")
    told.add("WAIVED", 1, "A", line, reason, previous)
    by = entries.RELOCKED_BY.format(who="u at tty", assurance="presence")
    told.add("LOCKED", 1, None, by, line)
    told.add("REJECTED", 1, None, line, "reason once more")
    overrides = told.state.phase(1).overrides
    assert [(item.verb, item.phase, item.feature, item.entry) for item in overrides] == [
        ("waived", 1, "A", 4),
        ("relocked", 1, None, 5),
        ("rejected", 1, None, 6),
    ]
    assert {item.time for item in overrides} == {story.TIME}
    assert [item.reason for item in overrides] == ["it is good enough", "", "once more"]
    states = [item.previous_state for item in overrides]
    assert states == ["failed, 1 attempt under this lock", "", ""]
    assert [item.sentence for item in overrides] == [
        "A waived (failed, 1 attempt under this lock): it is good enough (entry 0004)",
        "phase 1 relocked: no reason given (entry 0005)",
        "phase 1 rejected: once more (entry 0006)",
    ]
    # The first lock is the runner's own.
    assert Story().lock().state.phase(1).overrides == ()
