"""Any order of runs, kills, decisions, user's commits and tampering keeps every invariant."""

from __future__ import annotations

import itertools
import random
import shutil
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from by_hand import verify_by_hand
from converging import failpoint_env
from honest_plan import MODES
from hypothesis import HealthCheck, assume, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from invariants import end, entries, exit_violations, git, leftovers, progress, violations
from machines import Machines, has_pending_record, merge_of_a_colleague
from quick import Quick
from situation import Situation, has_outcome
from terminal_user import as_asked, at_terminal
from users import change_plan, commit_file, decision_to_go_on, fix, new_repository

from phases.base.failpoint import FAILPOINTS


@cache
def undisturbed_end() -> dict[str, Any]:
    """Return the end of a repository that nothing happens to."""
    with tempfile.TemporaryDirectory(prefix="phases-machine-") as folder:
        quick = new_repository(Path(folder) / "quick", phases=2)
        for phase in ("1", "2"):
            quick.run("run", "--next")
            at_terminal(quick.root, "approve", phase, answer=as_asked)
        return end(quick.root)


class Life(RuleBasedStateMachine):
    """A repository of two phases on two machines, and everything that happens to one."""

    two_machines = True

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="phases-machine-"))
        self.machines = Machines(new_repository(self.folder / "quick", phases=2))
        self.before = b""
        self.number = itertools.count(1)

    def teardown(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def quick(self) -> Quick:
        """The repository on the machine that goes on."""
        return self.machines.here

    @property
    def now(self) -> Situation:
        return Situation(self.quick)

    @invariant()
    def the_record_is_valid(self) -> None:
        assert violations(self.quick.root, self.before) == []
        assert verify_by_hand(self.quick.root).faults == ()
        self.before = progress(self.quick.root)

    @property
    def kinds(self) -> list[str]:
        return [block.kind for block in entries(self.quick.root)]

    #### runs

    def run_checked(self, *codes: int) -> Any:
        """Run the next step; assert that it exits with one of the codes, as documented."""
        result = self.quick.run("run", "--next", code=None)
        assert exit_violations(result) == []
        assert result.returncode in codes, result.stderr
        return result

    def explained_codes(self) -> tuple[int, ...]:
        """Return the exit codes of a run that the user's commits explain."""
        broken = (1,) if (self.quick.root / "modes").exists() else ()
        changed = (3,) if self.now.has_changed else ()
        return (0, 4, *broken, *changed)

    @rule()
    def run(self) -> None:
        self.run_checked(*self.explained_codes())
        assert leftovers(self.quick.root, self.quick.temporary) == []

    @rule()
    def run_to_the_end(self) -> None:
        """Fix and decide what is due until all is verified: as if nothing had happened."""
        while self.now.action != "done":
            self.run_checked(*self.explained_codes())
            words = decision_to_go_on(self.quick, self.now)
            if words:
                self.decide(*words, codes=(0,))
        self.run_checked(0)
        assert end(self.quick.root) == undisturbed_end()
        assert self.quick.call("audit", code=None).code == 0

    @rule(
        name=st.sampled_from(FAILPOINTS),
        count=st.integers(1, 3),
        action=st.sampled_from(["kill", "kill", "enospc"]),
    )
    def fail(self, name: str, count: int, action: str) -> None:
        codes = self.explained_codes()
        result = self.quick.run("run", "--next", code=None, env=failpoint_env(name, action, count))
        assert result.returncode in (-9, 7, *codes), result.stderr

    #### decisions

    def decide(self, *arguments: str, codes: tuple[int, ...] = (0, 2, 3, 7)) -> None:
        before = self.kinds
        code, screen = at_terminal(self.quick.root, *arguments, answer=as_asked)
        assert code in codes, screen
        new = self.kinds[len(before) :]
        decided = [kind for kind in new if kind != "PULLED"]
        assert (code == 0) == (len(decided) == 1), (code, new, screen)

    @precondition(lambda self: "HALTED" in self.kinds)
    @rule(phase=st.sampled_from(["1", "1", "2"]))
    def approve(self, phase: str) -> None:
        self.decide("approve", phase)

    @precondition(lambda self: "HALTED" in self.kinds)
    @rule(words=st.sampled_from([(), ("--feature", "Q-001")]))
    def reject(self, words: tuple[str, ...]) -> None:
        if "APPROVED" not in self.kinds:  # an approved phase under a begun one is another story
            self.decide("reject", "1", *words, "--reason", "not yet")

    @precondition(lambda self: "LOCKED" in self.kinds)
    @rule()
    def relock(self) -> None:
        self.decide("relock", "1", "--reason", "anew")

    @precondition(lambda self: self.now.features("failed", "errored"))
    @rule()
    def waive(self) -> None:
        (feature,) = self.now.features("failed", "errored")
        number = str(self.now.open_phase["id"])
        self.decide("approve", number, "--waive", feature, "--reason", "no such data here")

    @precondition(lambda self: self.now.open_phase)
    @rule(chance=st.randoms(use_true_random=False))
    def change_the_plan(self, chance: random.Random) -> None:
        change_plan(self.quick, chance)

    #### what users do besides

    @rule()
    def commit_as_a_user(self) -> None:
        commit_file(self.quick, f"note-{next(self.number)}.txt", "the user's\n")

    @precondition(lambda self: self.now.open_phase)
    @rule(mode=st.sampled_from(MODES))
    def break_a_feature(self, mode: str) -> None:
        feature = self.now.open_phase["features"][0]["id"]
        commit_file(self.quick, f"modes/{feature}", mode)

    @rule()
    def fix(self) -> None:
        fix(self.quick)

    @rule()
    def merge(self) -> None:
        merge_of_a_colleague(self.quick, next(self.number))

    @precondition(lambda self: self.two_machines and self.now.action != "done")
    @rule()
    def change_machine(self) -> None:
        if not has_pending_record(self.quick) and not has_outcome(self.now.uncommitted_kinds()):
            self.machines.change()
            self.before = git(self.quick.root, "show", "HEAD:progress.txt")

    @precondition(lambda self: self.machines.there is not None)
    @rule()
    def run_where_it_is_behind(self) -> None:
        self.machines.run_where_it_is_behind()

    #### tampering

    @precondition(lambda self: len(self.kinds) > 1)
    @rule(data=st.data(), name=st.sampled_from(["progress.txt", ".git/phases/journal"]))
    def change_a_bit_of_the_record(self, data: st.DataObject, name: str) -> None:
        path = self.quick.root / name
        assume(path.exists())  # a clone has no journal before its first entry
        original = path.read_bytes()
        # The end of a file may be torn; nothing before it may differ.
        first, last = original.index(b"GENESIS"), original.rindex(b"\n### ")
        position = data.draw(st.integers(first, last))
        changed = bytearray(original)
        changed[position] ^= 1
        path.write_bytes(changed)
        self.check_tampering_is_refused()
        path.write_bytes(original)

    @precondition(lambda self: len(self.kinds) > 1)
    @rule()
    def add_an_approval_file(self) -> None:
        path = self.quick.root / "prd/approvals/phase-2.9.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text("{}\n")
        self.check_tampering_is_refused()
        path.unlink()

    def check_tampering_is_refused(self) -> None:
        result = self.run_checked(3)
        assert "next: " in result.stderr
        assert self.kinds.count("APPROVED") <= self.before.count(b"APPROVED")


IGNORED_CHECKS = [HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large]


def run_lives(examples: int, steps: int) -> None:
    run_state_machine_as_test(
        Life,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            suppress_health_check=IGNORED_CHECKS,
            print_blob=True,
        ),
    )


def test_a_few_lives() -> None:
    run_lives(examples=2, steps=8)


@pytest.mark.soak
@pytest.mark.timeout(7200)
def test_many_lives() -> None:
    run_lives(examples=60, steps=25)
