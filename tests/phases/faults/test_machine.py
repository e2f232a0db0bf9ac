"""Any order of runs, kills, decisions, user's commits and tampering keeps every invariant."""

from __future__ import annotations

import itertools
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest
from converging import failpoint_env
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from invariants import entries, exit_violations, leftovers, progress, violations
from quick import Quick, plan
from terminal_user import as_asked, at_terminal

from phases.base.failpoint import FAILPOINTS


class Life(RuleBasedStateMachine):
    """A repository of two phases, and everything that happens to one."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="phases-machine-"))
        self.quick = Quick(self.folder / "quick", plan(phases=2, attempts=50))
        self.before = b""
        self.number = itertools.count()

    def teardown(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)

    @invariant()
    def the_record_is_valid(self) -> None:
        assert violations(self.quick.root, self.before) == []
        self.before = progress(self.quick.root)

    def run_checked(self, *codes: int) -> Any:
        """Run the next step; assert that it exits with one of the codes, as documented."""
        result = self.quick.run("run", "--next", code=None)
        assert exit_violations(result) == []
        assert result.returncode in codes, result.stderr
        return result

    @property
    def kinds(self) -> list[str]:
        return [block.kind for block in entries(self.quick.root)]

    @rule()
    def run(self) -> None:
        self.run_checked(0, 4)
        assert leftovers(self.quick.root, self.quick.temporary) == []

    @rule(
        name=st.sampled_from(FAILPOINTS),
        count=st.integers(1, 3),
        action=st.sampled_from(["kill", "kill", "enospc"]),
    )
    def fail(self, name: str, count: int, action: str) -> None:
        result = self.quick.run("run", "--next", code=None, env=failpoint_env(name, action, count))
        assert result.returncode in (-9, 0, 4, 7), result.stderr

    def decide(self, *arguments: str) -> None:
        before = self.kinds
        code, screen = at_terminal(self.quick.root, *arguments, answer=as_asked)
        assert code in (0, 2, 3, 7), screen
        new = self.kinds[len(before) :]
        assert (code == 0) == (len(new) == 1), (code, new, screen)

    @precondition(lambda self: "HALTED" in self.kinds)
    @rule(phase=st.sampled_from(["1", "1", "2"]))
    def approve(self, phase: str) -> None:
        self.decide("approve", phase)

    @precondition(lambda self: "HALTED" in self.kinds)
    @rule()
    def reject(self) -> None:
        if "APPROVED" not in self.kinds:  # an approved phase under a begun one is another story
            self.decide("reject", "1", "--reason", "not yet")

    @precondition(lambda self: "LOCKED" in self.kinds)
    @rule()
    def relock(self) -> None:
        self.decide("relock", "1", "--reason", "anew")

    @rule()
    def commit_as_a_user(self) -> None:
        name = f"note-{next(self.number)}.txt"
        self.quick.write(name, "the user's\n")
        self.quick.git("add", name)
        self.quick.git("commit", "-q", "-m", f"my {name}", "--", name)

    @precondition(lambda self: len(self.kinds) > 1)
    @rule(data=st.data(), name=st.sampled_from(["progress.txt", ".git/phases/journal"]))
    def change_a_bit_of_the_record(self, data: st.DataObject, name: str) -> None:
        path = self.quick.root / name
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
