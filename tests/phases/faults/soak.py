"""Random kills without end: `make soak`, or SOAK_RUNS=100 SOAK_SEED=7 python tests/phases/faults/soak.py

Demo repositories of three phases are run to their end while SIGKILL hits the runner, or the runner with its gits, at
uniformly random times, recoveries included; approvals are typed at a pseudo-terminal, and killed too. After every kill
an independent checker looks at the record, and each end is compared with that of a run that nobody disturbed. The last
line tells runs, kills, repositories that came to their end, violations and the seed; the exit code is 1 if there was a
violation.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parent)]
from invariants import (  # noqa: E402
    entries,
    exit_violations,
    leftovers,
    progress,
    shape,
    untouched,
    user_violations,
    violations,
)
from quick import Quick, plan  # noqa: E402
from terminal_user import as_asked, at_terminal  # noqa: E402

from phases.base.failpoint import FAILPOINTS  # noqa: E402

WAITS = 4
IN_DECISION = ("decided", *FAILPOINTS[FAILPOINTS.index("prepared") :])


@dataclass
class Soak:
    """What was done so far, and what was found."""

    chance: random.Random
    end: dict[str, Any]
    seconds: float
    runs: int = 0
    kills: int = 0
    ends: int = 0
    found: list[str] = field(default_factory=list)
    say: Callable[[str], None] = print

    def check(self, what: str, problems: list[str]) -> None:
        """Notes violations, with what was being done."""
        for problem in problems:
            self.found.append(f"run {self.runs}: {what}: {problem}")
            self.say(self.found[-1])

    def world(self, quick: Quick, limit: int) -> None:
        """One repository to its end, to its first violation, or until `limit` runs were made."""
        mine = untouched(quick.root)
        while self.runs < limit:
            before, known = progress(quick.root), len(self.found)
            code = self.run(quick)
            self.check("the record", violations(quick.root, before))
            self.check("the user's", user_violations(quick.root, mine))
            if len(self.found) > known:  # what a broken record leads to is no further finding
                return
            if code == WAITS or (code == 0 and not self.is_done(quick)):
                self.approve(quick)
            elif code == 0:
                self.ends += 1
                self.check("the end", leftovers(quick.root, quick.temporary))
                if shape(quick.root) != self.end:
                    self.check("the end", [f"I10 {shape(quick.root)} is not {self.end}"])
                return

    def is_done(self, quick: Quick) -> bool:
        """Whether the last phase is approved: nothing is left to run."""
        return [block.phase for block in entries(quick.root) if block.kind == "APPROVED"] == [
            1,
            2,
            3,
        ]

    def run(self, quick: Quick) -> int | None:
        """One run, killed after a random time unless it ends before; its exit code, or None if it was killed.

        One in four is left alone, so that repositories come to their end also on a machine that is busy.
        """
        self.runs += 1
        errors = quick.temporary.parent / "stderr"
        with errors.open("wb") as file:
            child = subprocess.Popen(
                [sys.executable, "-m", "phases", "run", "--next"], cwd=quick.root, stdout=subprocess.DEVNULL,
                stderr=file, env=quick.environment(), start_new_session=True,
            )  # fmt: skip
        try:
            code = child.wait(
                None if self.chance.random() < 1 / 4 else self.chance.uniform(0, self.seconds)
            )
        except subprocess.TimeoutExpired:
            self.kills += 1
            if self.chance.random() < 0.5:
                os.killpg(child.pid, signal.SIGKILL)
            else:
                child.kill()
            child.wait()
            return None
        told = errors.read_text()
        self.check(f"exit {code}", exit_violations(subprocess.CompletedProcess([], code, "", told)))
        if code not in (0, WAITS, 6):
            self.check("an exit that nothing explains", [f"I10 exit {code}: {told[-500:]}"])
        return code

    def approve(self, quick: Quick) -> None:
        """A person approves what waits; one time in three the command is killed at a place of its own."""
        halted = [block.phase for block in entries(quick.root) if block.kind == "HALTED"][-1]
        env = {"TMPDIR": str(quick.temporary)}
        if self.chance.random() < 1 / 3:
            env["PHASES_FAILPOINT"] = f"{self.chance.choice(IN_DECISION)}:kill"
        self.runs += 1
        code, screen = at_terminal(quick.root, "approve", str(halted), answer=as_asked, env=env)
        self.kills += code is None
        if code not in (None, 0, 2, 7):
            self.check("approve", [f"I9 exit {code}: {screen[-300:]}"])


def undisturbed(folder: Path) -> tuple[dict[str, Any], float, Quick]:
    """The end of a run that nobody disturbs, the seconds of its first phase, and the repository before it."""
    fresh = Quick(folder / "fresh" / "quick", plan(phases=3))
    quick = fresh.copy(folder / "control")
    begin = time.monotonic()
    quick.run("run", "--next")
    seconds = time.monotonic() - begin
    for phase in ("1", "2", "3"):
        at_terminal(quick.root, "approve", phase, answer=as_asked)
        quick.run("run", "--next")
    return shape(quick.root), seconds, fresh


def main(runs: int, seed: int) -> Soak:
    """So many runs, from this seed."""
    with tempfile.TemporaryDirectory(prefix="phases-soak-") as folder:
        end, seconds, fresh = undisturbed(Path(folder))
        soak = Soak(random.Random(seed), end, 1.2 * seconds)
        number = 0
        while soak.runs < runs:
            number += 1
            place = Path(folder) / f"world-{number}"
            place.mkdir()
            soak.world(fresh.copy(place / "quick"), runs)
            shutil.rmtree(place, ignore_errors=True)
    return soak


if __name__ == "__main__":
    chosen = int(os.environ.get("SOAK_SEED") or random.SystemRandom().randrange(10**6))
    done = main(int(os.environ.get("SOAK_RUNS") or 1000), chosen)
    print(
        f"soak: runs={done.runs} kills={done.kills} ends={done.ends} violations={len(done.found)} seed={chosen}"
    )
    sys.exit(1 if done.found else 0)
