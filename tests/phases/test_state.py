"""The state is a pure fold over plan and ledger; what comes next follows from it. Laws, on random histories."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from hypothesis import assume, given, settings
from hypothesis import strategies as st
from story import DIGEST
from story import Story as Told

from phases.plan.load import parse_plan
from phases.record import entries, state
from phases.record.state import State, fold_state, next_step
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


def feature(name: str, *needs: str) -> dict[str, object]:
    return {"id": name, "title": f"Title of {name}", "command": "true", "outputs": ["result.json"], "needs": needs,
            "expect": {"minutes": 1, "memory_gb": 1}, "gate": {"shell": "true"}}  # fmt: skip


PLAN = parse_plan(
    json.dumps({
        "schema": 1, "project": "Toy", "defaults": {"attempts": ATTEMPTS},
        "phases": [{"id": 1, "name": "One", "features": [feature("A"), feature("B", "A"), feature("C")]},
                   {"id": 2, "name": "Two", "features": [feature("D", "A")]}]}).encode()
)  # fmt: skip
PLACES = [(1, "A"), (1, "B"), (1, "C"), (2, "D")]


class Story(Told):
    """A story about PLAN."""

    @property
    def state(self) -> State:
        return fold_state(PLAN, self.ledger.entries, self.records)

    @property
    def next(self) -> Step:
        return next_step(PLAN, self.state)


def halted() -> Story:
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
    story.records.add("12" * 32)
    story.decide("APPROVED", "12" * 32)
    assert story.next == RunFeature(2, "D")
    story.lock(2).attempt("D", phase=2).halt(2)
    assert story.next == AwaitApproval(2)
    story.records.add("34" * 32)
    story.decide("APPROVED", "34" * 32, 2)
    assert story.next == Done()


def test_approved_without_its_record_counts_for_nothing() -> None:
    story = halted()
    before = story.state
    story.decide("APPROVED", "12" * 32)
    story.add("APPROVED", 1, None, "by somebody at /dev/pts/1")
    assert story.state == before
    assert story.next == AwaitApproval(1)
    story.records.add("12" * 32)  # the control: with its record the same entry opens the next phase
    assert story.next == RunFeature(2, "D")


def test_rejected_without_its_record_counts_for_nothing() -> None:
    story = halted()
    before = story.state
    story.decide("REJECTED", "12" * 32, again=["A"])
    assert story.state == before
    story.records.add("12" * 32)
    assert story.next == RunFeature(1, "A")
    assert story.state.phase(1).lock is None


def test_a_relock_without_its_record_counts_for_nothing() -> None:
    story = Story().lock().attempt("A", "FAILED")
    before = story.state
    assert before.phase(1).feature("A").attempts == 1
    story.lock(again=["A"])
    story.lock(record="12" * 32)
    assert story.state == before
    story.records.add("12" * 32)
    assert story.state.phase(1).feature("A").attempts == 0


def test_attempts_count_since_the_last_lock() -> None:
    story = Story().lock()
    for count in range(ATTEMPTS):
        assert story.next == RunFeature(1, "A")
        assert story.state.phase(1).feature("A").attempts == count
        story.attempt("A", "ERRORED" if count % 2 else "FAILED")
    assert story.next == AttemptsSpent(1, "A", ATTEMPTS)
    story.records.add("12" * 32)
    story.lock(record="12" * 32)
    assert story.next == RunFeature(1, "A")
    assert story.state.phase(1).feature("A").started == ATTEMPTS  # the next one's number goes on


def test_an_interruption_is_no_attempt() -> None:
    story = Story().lock()
    for _ in range(ATTEMPTS + 2):
        story.attempt("A", "INTERRUPTED")
    found = story.state.phase(1).feature("A")
    assert (found.attempts, found.started, found.state) == (0, ATTEMPTS + 2, "pending")
    assert story.next == RunFeature(1, "A")


def test_exit_gates_that_say_no_count_as_attempts() -> None:
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


def test_waived_without_its_record_counts_for_nothing() -> None:
    story = Story().lock().attempt("A", "FAILED")
    before = story.state
    story.add("WAIVED", 1, "A", "reason it is good enough")
    story.add("WAIVED", 1, "A", f"record sha256:{'12' * 32} prd/approvals/phase-1.1.json")
    assert story.state == before
    story.records.add("12" * 32)
    assert story.state.phase(1).feature("A").state == "waived"
    assert story.next == RunFeature(1, "C")  # B needs A, and what was waived gives nothing
    story.attempt("C")
    assert story.next == Blocked(1, "B", "A", 1)


def test_entries_about_what_the_plan_no_longer_has_are_passed_over() -> None:
    story = Story().lock().attempt("A").attempt("Z").attempt("D", phase=7)
    assert story.next == RunFeature(1, "B")


def test_the_facts_of_an_outcome_are_read_back() -> None:
    story = Story().lock().add("STARTED", 1, "A")
    lines = (
        entries.ran("lab.x", 412.4, 1, 0, "cpu", "none"),
        *entries.gate("gates/test_x.py", 9, 0, (12, 3, 17), (6, 6), ()),
        entries.RecordedFile(DIGEST, "results/A/receipt.json").line("receipt"),
    )
    found = story.add("VERIFIED", 1, "A", *lines).state.phase(1).feature("A")
    assert (found.seconds, found.coverage, found.receipt) == (412, (12, 3, 17), DIGEST)


#### laws, over random histories

KINDS = ("STARTED", "VERIFIED", "FAILED", "ERRORED", "INTERRUPTED", "WAIVED")
RECORDS = ("12" * 32, "34" * 32)


PHASE, RECORD = st.integers(1, 2), st.sampled_from(RECORDS)
AGAIN = st.sampled_from([(), ("A",), ("B", "C"), ("D",)])
EVENTS = st.one_of(
    st.tuples(st.just("lock"), PHASE, st.one_of(st.none(), RECORD), AGAIN),
    st.tuples(st.just("halt"), PHASE),
    st.tuples(st.just("decide"), st.sampled_from(["APPROVED", "REJECTED"]), RECORD, PHASE, AGAIN),
    st.tuples(st.just("add"), st.sampled_from(["FAILED", "RECOVERED", "REPAIRED"]), PHASE),
    *[st.tuples(st.just("happen"), st.sampled_from(KINDS), st.sampled_from(PLACES))] * 3,
)


def told(events: Sequence[tuple[Any, ...]], records: set[str]) -> Story:
    story = Story()
    for verb, *facts in events:
        getattr(story, verb)(*facts)
    story.records = records
    return story


def stories() -> st.SearchStrategy[Story]:
    return st.builds(told, st.lists(EVENTS, max_size=20), st.sets(RECORD))


@given(stories())
@settings(deadline=None)
def test_no_phase_opens_without_a_recorded_approval(story: Story) -> None:
    step = story.next
    opened = 3 if isinstance(step, Done) else step.phase
    for phase in range(1, opened):
        named = [
            entry.fact(state.RECORD)
            for entry in story.ledger.entries
            if entry.kind == "APPROVED" and entry.phase == phase
        ]
        assert any(fact and fact["digest"] in story.records for fact in named)


@given(stories())
@settings(deadline=None)
def test_without_records_a_decision_changes_nothing(story: Story) -> None:
    decided = [
        entry for entry in story.ledger.entries if entry.kind in ("APPROVED", "REJECTED", "WAIVED")
    ]
    assume(decided)
    without = [entry for entry in story.ledger.entries if entry not in decided]
    assert fold_state(PLAN, story.ledger.entries, ()) == fold_state(PLAN, without, ())


@given(stories(), st.sampled_from(["VERIFIED", "FAILED", "ERRORED"]), st.sampled_from("ABC"))
@settings(deadline=None)
def test_any_new_outcome_voids_the_checkpoint(story: Story, kind: str, name: str) -> None:
    assume(not story.state.phase(1).approved)
    story.halt()
    assert story.next == AwaitApproval(1)
    story.add(kind, 1, name)
    assert story.state.phase(1).halted is None
    assert story.state.phase(1).request is None
    assert not isinstance(story.next, AwaitApproval)


@given(stories())
@settings(deadline=None)
def test_attempts_are_the_outcomes_since_the_last_counting_lock(story: Story) -> None:
    for phase, name in PLACES:
        since, locked = 0, False
        for entry in story.ledger.entries:
            if entry.phase != phase:
                continue
            fact = entry.fact(state.RECORD)
            recorded = fact is not None and fact["digest"] in story.records
            if entry.kind == "LOCKED" and (not locked or recorded):
                since, locked = entry.seq, True
            if entry.kind == "REJECTED" and recorded:
                locked = False  # the lock is released; the next one is the runner's own again
        outcomes = [entry for entry in story.ledger.entries if entry.feature == name and entry.phase == phase
                    and entry.kind in state.OUTCOMES and entry.seq > since]  # fmt: skip
        assert story.state.phase(phase).feature(name).attempts == len(outcomes)


@given(stories())
@settings(deadline=None)
def test_the_fold_is_deterministic_and_goes_on_where_it_stopped(story: Story) -> None:
    assert story.state == story.state
    if story.ledger.entries:
        last = story.ledger.entries[-1]
        others = [place for place in (1, 2) if place != last.phase]
        before = fold_state(PLAN, story.ledger.entries[:-1], story.records)
        for (
            place
        ) in others:  # an entry bears on its own phase only; a repair also voids whatever waits
            wanted = before.phase(place)
            if last.kind in ("REPAIRED", "RECOVERED"):
                wanted = replace(wanted, halted=None, request=None)
            assert story.state.phase(place) == wanted


@given(stories())
@settings(deadline=None)
def test_what_waits_has_a_halt_after_its_last_outcome(story: Story) -> None:
    for phase in story.state.phases:
        if phase.state == "awaiting_approval":
            later = [
                entry
                for entry in story.ledger.entries
                if entry.phase == phase.id and entry.seq > (phase.halted or 0)
            ]
            assert not [
                entry
                for entry in later
                if entry.feature and entry.kind in ("STARTED", *state.OUTCOMES)
            ]
