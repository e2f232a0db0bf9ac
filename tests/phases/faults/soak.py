"""Random kills without end: `make soak`, or SOAK_RUNS=100 SOAK_SEED=7 python …/soak.py.

Quick repositories of three phases are run to their end while SIGKILL hits the runner, or the runner
with its git processes, at uniformly random times, recoveries included. Approvals are typed at a
pseudo-terminal, and killed too. After every kill an independent checker looks at the record, and
each end is compared with that of an undisturbed run. The last line gives runs, kills, repositories
that came to their end, violations and the seed; the exit code is 1 if there was a violation.
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
    reproduction_violations,
    shape,
    untouched,
    user_violations,
    violations,
)
from quick import Quick, plan  # noqa: E402
from terminal_user import as_asked, at_terminal  # noqa: E402

from phases.base.failpoint import FAILPOINTS  # noqa: E402

WAITING = 4
"""Exit code of a run at a checkpoint."""
BUSY = 6
"""Exit code of a run while a git process of a killed runner holds the lock."""
PHASES = (1, 2, 3)
IN_DECISION = ("decided", *FAILPOINTS[FAILPOINTS.index("prepared") :])


@dataclass
class Soak:
    """What was done so far, and the problems."""

    chance: random.Random
    end: dict[str, Any]
    """The shape of an undisturbed run."""
    seconds: float
    """A run is killed within this time, if it is killed."""
    runs: int = 0
    kills: int = 0
    ends: int = 0
    problems: list[str] = field(default_factory=list)
    report: Callable[[str], None] = print

    def run_to_end(self, quick: Quick, limit: int) -> None:
        """Run one repository to its end, its first violation, or until `limit` runs were made."""
        users = untouched(quick.root)
        while self.runs < limit:
            # 1. One run, and the record after it.
            before, count = progress(quick.root), len(self.problems)
            code = self.run(quick)
            self._check("the record", violations(quick.root, before))
            self._check("the user's", user_violations(quick.root, users))
            if len(self.problems) > count:
                return  # what an invalid record leads to is no further problem

            # 2. A decision, or the end. A decision is a run too, and the limit holds for it.
            if code == WAITING or (code == 0 and not is_finished(quick)):
                if self.runs < limit:
                    self.approve(quick)
            elif code == 0:
                self.ends += 1
                self._check("the end", leftovers(quick.root, quick.temporary))
                verified = [
                    block.feature for block in entries(quick.root) if block.kind == "VERIFIED"
                ]
                sample = self.chance.choice(verified)
                self._check("a receipt's commit", reproduction_violations(quick.root, sample))
                actual = shape(quick.root)
                if actual != self.end:
                    self._check("the end", [f"I10 got {actual}; expected {self.end}"])
                return

    def run(self, quick: Quick) -> int | None:
        """Do one run; return its exit code, or None if it was killed at a random time.

        One in four is not killed, so that repositories come to their end also on a busy machine.
        """
        self.runs += 1
        stderr = quick.temporary.parent / "stderr"
        with stderr.open("wb") as file:
            runner = subprocess.Popen(
                [sys.executable, "-m", "phases", "run", "--next"],
                cwd=quick.root,
                stdout=subprocess.DEVNULL,
                stderr=file,
                env=quick.environment(),
                start_new_session=True,
            )
        timeout = None
        if self.chance.random() >= 1 / 4:
            timeout = self.chance.uniform(0, self.seconds)
        try:
            code = runner.wait(timeout)
        except subprocess.TimeoutExpired:
            self._kill(runner)
            return None

        # It ended by itself: with a documented exit code that the repository explains.
        text = stderr.read_text()
        result = subprocess.CompletedProcess([], code, "", text)
        self._check(f"exit {code}", exit_violations(result))
        if code not in (0, WAITING, BUSY):
            self._check("an unexplained exit", [f"I10 exit {code}: {text[-500:]}"])
        return code

    def approve(self, quick: Quick) -> None:
        """Approve what waits; one time in three the command is killed at a failpoint."""
        halted = [block.phase for block in entries(quick.root) if block.kind == "HALTED"]
        env = {"TMPDIR": str(quick.temporary)}
        if self.chance.random() < 1 / 3:
            env["PHASES_FAILPOINT"] = f"{self.chance.choice(IN_DECISION)}:kill"
        self.runs += 1
        code, screen = at_terminal(quick.root, "approve", str(halted[-1]), answer=as_asked, env=env)
        if code is None:
            self.kills += 1
        elif code not in (0, 2, 7):
            self._check("approve", [f"I9 exit {code}: {screen[-300:]}"])

    def _kill(self, runner: subprocess.Popen[bytes]) -> None:
        """Kill the runner alone, or with the git processes that it started."""
        self.kills += 1
        if self.chance.random() < 1 / 2:
            os.killpg(runner.pid, signal.SIGKILL)
        else:
            runner.kill()
        runner.wait()

    def _check(self, subject: str, problems: list[str]) -> None:
        """Note violations, with what was being done."""
        for problem in problems:
            self.problems.append(f"run {self.runs}: {subject}: {problem}")
            self.report(self.problems[-1])


def is_finished(quick: Quick) -> bool:
    """Return whether the last phase is approved: nothing is left to run."""
    approved = [block.phase for block in entries(quick.root) if block.kind == "APPROVED"]
    return approved == list(PHASES)


def run_undisturbed(folder: Path) -> tuple[dict[str, Any], float, Quick]:
    """Return the end of an undisturbed run, its first phase's seconds, the repository before it."""
    fresh = Quick(folder / "fresh" / "quick", plan(phases=len(PHASES)))
    quick = fresh.copy(folder / "control")
    begin = time.monotonic()
    quick.run("run", "--next")
    seconds = time.monotonic() - begin
    for phase in PHASES:
        at_terminal(quick.root, "approve", str(phase), answer=as_asked)
        quick.run("run", "--next")
    return shape(quick.root), seconds, fresh


def run_soak(runs: int, seed: int) -> Soak:
    """Make so many runs, from this seed."""
    with tempfile.TemporaryDirectory(prefix="phases-soak-") as folder:
        end, seconds, fresh = run_undisturbed(Path(folder))
        soak = Soak(random.Random(seed), end, 1.2 * seconds)
        number = 0
        while soak.runs < runs:
            number += 1
            parent = Path(folder) / f"repository-{number}"
            parent.mkdir()
            soak.run_to_end(fresh.copy(parent / "quick"), runs)
            shutil.rmtree(parent, ignore_errors=True)
    return soak


def main() -> int:
    """Run the soak that the environment asks for; return the exit code."""
    runs = int(os.environ.get("SOAK_RUNS") or 1000)
    seed = int(os.environ.get("SOAK_SEED") or random.SystemRandom().randrange(10**6))
    soak = run_soak(runs, seed)
    counts = f"runs={soak.runs} kills={soak.kills} ends={soak.ends}"
    print(f"soak: {counts} violations={len(soak.problems)} seed={seed}")
    return min(1, len(soak.problems))


if __name__ == "__main__":
    sys.exit(main())
