"""Random kills without end: `make soak`, or SOAK_RUNS=100 SOAK_SEED=7 python …/soak.py.

Quick repositories of three phases are run to their end while SIGKILL hits the runner, or the runner
with its git processes, at uniformly random times, recoveries included. Between the runs the users
go on: they commit, merge, break a feature and fix it, change the plan, decide every kind of
decision at a pseudo-terminal (killed too), and go to a second machine by push and pull. After every
kill an independent checker looks at the record, and each end is compared with that of an
undisturbed run. The last line gives runs, kills, repositories that came to their end, violations
and the seed; the exit code is 1 if there was a violation.
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
from by_hand import verify_by_hand  # noqa: E402
from honest_plan import MODES  # noqa: E402
from invariants import (  # noqa: E402
    end,
    entries,
    exit_violations,
    leftovers,
    progress,
    reproduction_violations,
    untouched,
    user_violations,
    violations,
)
from machines import Machines, has_pending_record, merge_of_a_colleague  # noqa: E402
from quick import Quick  # noqa: E402
from situation import Situation, has_outcome  # noqa: E402
from terminal_user import as_asked, at_terminal  # noqa: E402
from users import change_plan, commit_file, decision_to_go_on, new_repository  # noqa: E402

from phases.base.failpoint import FAILPOINTS  # noqa: E402

FAILED = 1
"""Exit code of a run in which a feature failed."""
WAITING = 4
"""Exit code of a run at a checkpoint."""
SPENT = 5
"""Exit code of a run where attempts are spent."""
BUSY = 6
"""Exit code of a run while a git process of a killed runner holds the lock."""
PHASES = (1, 2, 3)
IN_DECISION = ("decided", *FAILPOINTS[FAILPOINTS.index("prepared") :])


@dataclass
class Soak:
    """What was done so far, and the problems."""

    chance: random.Random
    end: dict[str, Any]
    """The end of an undisturbed run."""
    seconds: float
    """A run is killed within this time, if it is killed."""
    runs: int = 0
    kills: int = 0
    ends: int = 0
    changes: int = 0
    """How often a repository went on at the other machine."""
    problems: list[str] = field(default_factory=list)
    report: Callable[[str], None] = print
    two_machines: bool = True

    #### one repository

    def run_to_end(self, quick: Quick, limit: int) -> None:
        """Run one repository to its end, its first violation, or until `limit` runs were made."""
        machines = Machines(quick)
        while self.runs < limit:
            # 1. One run, and the record after it.
            quick = machines.here
            before, count, users = progress(quick.root), len(self.problems), untouched(quick.root)
            code = self.run(quick)
            self._check("the record", violations(quick.root, before))
            self._check("the user's", user_violations(quick.root, users))
            if len(self.problems) > count:
                return  # what an invalid record leads to is no further problem

            # 2. What its users do then. A decision is a run too, and the limit holds for it.
            if code is not None and is_finished(quick):
                self._check_end(quick)
                return
            self.do_as_users(machines, code, limit)
            self._check("the record", violations(machines.here.root))
            self._check("by hand", list(verify_by_hand(machines.here.root).faults))
            if len(self.problems) > count:
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
        is_broken = (quick.root / "modes").exists()
        explained = {0, WAITING, BUSY, *((FAILED, SPENT) if is_broken else ())}
        if code not in explained:
            self._check("an unexplained exit", [f"I10 exit {code}: {text[-500:]}"])
        return code

    #### what its users do

    def do_as_users(self, machines: Machines, code: int | None, limit: int) -> None:
        """Do what users do after a run that ended so: nothing, or something and a decision."""
        if self.chance.random() < 1 / 3:
            self.commit(machines.here)
        if code in (0, FAILED, WAITING, SPENT) and self.runs < limit:
            self.decide(machines.here, Situation(machines.here))
        now = Situation(machines.here)
        stays = has_pending_record(machines.here) or has_outcome(now.uncommitted_kinds())
        stays |= now.action == "done"  # nothing would commit what is taken over
        if self.two_machines and not stays and self.chance.random() < 1 / 4:
            machines.change()
            self.changes += 1

    def commit(self, quick: Quick) -> None:
        """Commit a note, merge a colleague's, or break the feature that comes next."""
        if not is_free(quick):
            return  # git refuses what a killed run was amid; its next run makes it free
        kind = self.chance.choice(["note", "merge", "break"])
        if kind == "note":
            commit_file(quick, f"note-{self.runs}.md", "a note\n")
        elif kind == "merge":
            merge_of_a_colleague(quick, self.runs)
        elif names := Situation(quick).features("pending", "running"):
            commit_file(quick, f"modes/{names[0]}", self.chance.choice(MODES))

    def decide(self, quick: Quick, now: Situation) -> None:
        """Decide what leads on, mostly the shortest way to the end."""
        number, reason = str(now.open_phase["id"]), ("--reason", f"run {self.runs}")
        failed = now.features("failed", "errored")
        is_usual = self.chance.random() < 2 / 3
        if failed and not now.has_changed and not is_usual:
            self.answer(quick, "approve", number, "--waive", failed[0], *reason)
        elif now.waits and not is_usual:
            kind = self.chance.choice(["reject", "change"])
            if kind == "reject":
                self.answer(quick, "reject", number, *reason)
            else:
                change_plan(quick, self.chance)
        elif words := decision_to_go_on(quick, now):
            self.answer(quick, *words)

    def answer(self, quick: Quick, *words: str) -> None:
        """Decide at a terminal; one time in three the command is killed at a failpoint."""
        env = {"TMPDIR": str(quick.temporary)}
        if self.chance.random() < 1 / 3:
            env["PHASES_FAILPOINT"] = f"{self.chance.choice(IN_DECISION)}:kill"
        self.runs += 1
        count = len(entries(quick.root))
        code, screen = at_terminal(quick.root, *words, answer=as_asked, env=env)
        if code is None:
            self.kills += 1
        elif code not in (0, BUSY):
            self._check(words[0], [f"I9 exit {code}: {screen[-300:]}"])
        elif code == 0 and len(entries(quick.root)) == count:
            self._check(words[0], ["I1 exit 0, and no entry"])

    def _kill(self, runner: subprocess.Popen[bytes]) -> None:
        """Kill the runner alone, or with the git processes that it started."""
        self.kills += 1
        if self.chance.random() < 1 / 2:
            os.killpg(runner.pid, signal.SIGKILL)
        else:
            runner.kill()
        runner.wait()

    #### what must hold

    def _check_end(self, quick: Quick) -> None:
        self.ends += 1
        self._check("the end", leftovers(quick.root, quick.temporary))
        verified = [block.feature for block in entries(quick.root) if block.kind == "VERIFIED"]
        sample = self.chance.choice(verified)
        self._check("a receipt's commit", reproduction_violations(quick.root, sample))
        audit = quick.call("audit", code=None)
        if audit.code:
            self._check("the end", [f"I10 audit exits {audit.code}: {audit.stdout}"])
        actual = end(quick.root)
        if actual != self.end:
            self._check("the end", [f"I10 got {actual}; expected {self.end}"])

    def _check(self, subject: str, problems: list[str]) -> None:
        """Note violations, with what was being done."""
        for problem in problems:
            self.problems.append(f"run {self.runs}: {subject}: {problem}")
            self.report(self.problems[-1])


#### the whole soak


def is_free(quick: Quick) -> bool:
    """Return whether a user can commit: no lock of git's, and nothing staged by a killed run."""
    locks = list((quick.root / ".git").rglob("*.lock"))
    return not locks and not quick.git("diff", "--cached", "--name-only")


def is_finished(quick: Quick) -> bool:
    """Return whether every phase is approved: nothing is left to run."""
    return Situation(quick).action == "done"


def run_undisturbed(folder: Path) -> tuple[dict[str, Any], float, Quick]:
    """Return the end of an undisturbed run, its first phase's seconds, the repository before it."""
    fresh = new_repository(folder / "fresh" / "quick", phases=len(PHASES))
    quick = fresh.copy(folder / "control")
    begin = time.monotonic()
    quick.run("run", "--next")
    seconds = time.monotonic() - begin
    for phase in PHASES:
        at_terminal(quick.root, "approve", str(phase), answer=as_asked)
        quick.run("run", "--next")
    return end(quick.root), seconds, fresh


def run_soak(runs: int, seed: int, *, two_machines: bool = True) -> Soak:
    """Make so many runs, from this seed."""
    with tempfile.TemporaryDirectory(prefix="phases-soak-") as folder:
        expected, seconds, fresh = run_undisturbed(Path(folder))
        soak = Soak(random.Random(seed), expected, 1.2 * seconds, two_machines=two_machines)
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
    soak = run_soak(runs, seed, two_machines="--one-machine" not in sys.argv)
    counts = f"runs={soak.runs} kills={soak.kills} ends={soak.ends} changes={soak.changes}"
    print(f"soak: {counts} violations={len(soak.problems)} seed={seed}")
    return min(1, len(soak.problems))


if __name__ == "__main__":
    sys.exit(main())
