"""Any order of runs, kills, decisions, user's commits and tampering keeps every invariant."""

from __future__ import annotations

import itertools
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest
from converging import fault
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
    def the_record_holds(self) -> None:
        assert violations(self.quick.root, self.before) == []
        self.before = progress(self.quick.root)

    def checked(self, done: Any, *codes: int) -> Any:
        assert exit_violations(done) == []
        assert done.returncode in codes, done.stderr
        return done

    @property
    def kinds(self) -> list[str]:
        return [block.kind for block in entries(self.quick.root)]

    @rule()
    def run(self) -> None:
        self.checked(self.quick.run("run", "--next", code=None), 0, 4)
        assert leftovers(self.quick.root, self.quick.temporary) == []

    @rule(
        place=st.sampled_from(FAILPOINTS),
        count=st.integers(1, 3),
        how=st.sampled_from(["kill", "kill", "enospc"]),
    )
    def fail(self, place: str, count: int, how: str) -> None:
        done = self.quick.run("run", "--next", code=None, env=fault(place, how, count))
        assert done.returncode in (-9, 0, 4, 7), done.stderr

    def decide(self, *words: str) -> None:
        before = self.kinds
        code, screen = at_terminal(self.quick.root, *words, answer=as_asked)
        assert code in (0, 2, 3, 7), screen
        grown = self.kinds[len(before) :]
        assert (code == 0) == (len(grown) == 1), (code, grown, screen)

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
        self.quick.write(name, "mine\n")
        self.quick.git("add", name)
        self.quick.git("commit", "-q", "-m", f"my {name}", "--", name)

    @precondition(lambda self: len(self.kinds) > 1)
    @rule(data=st.data(), where=st.sampled_from(["progress", "journal", "approvals"]))
    def tamper(self, data: st.DataObject, where: str) -> None:
        if where == "approvals":
            path, met = self.quick.root / "prd/approvals/phase-2.9.json", None
            path.parent.mkdir(exist_ok=True)
            path.write_text("{}\n")
        else:
            path = self.quick.root / (
                "progress.txt" if where == "progress" else ".git/phases/journal"
            )
            met = path.read_bytes()
            first = met.index(
                b"GENESIS"
            )  # the end of a file may be torn; nothing before it may differ
            place = data.draw(st.integers(first, met.rindex(b"\n### ")))
            path.write_bytes(met[:place] + bytes([met[place] ^ 1]) + met[place + 1 :])
        refused = self.checked(self.quick.run("run", "--next", code=None), 3)
        assert "next: " in refused.stderr
        assert "APPROVED" not in self.kinds or self.kinds.count("APPROVED") <= self.before.count(
            b"APPROVED"
        )
        if met is None:
            path.unlink()
        else:
            path.write_bytes(met)


QUIET = [HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large]


def live(examples: int, steps: int) -> None:
    run_state_machine_as_test(
        Life,
        settings=settings(
            max_examples=examples, stateful_step_count=steps, deadline=None, suppress_health_check=QUIET,
            print_blob=True,
        ),
    )  # fmt: skip


def test_a_few_lives() -> None:
    live(examples=2, steps=8)


@pytest.mark.soak
@pytest.mark.timeout(7200)
def test_many_lives() -> None:
    live(examples=60, steps=25)
