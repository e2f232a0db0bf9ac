"""One honest repository, the story of what happened in it, and what must hold after every step."""

from __future__ import annotations

import json
import random
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from honest_plan import ATTEMPTS, WORKER, random_plan
from invariants import exit_violations, git, leftovers, violations
from machines import Machines
from quick import Quick
from situation import Situation
from terminal_user import as_asked, at_terminal

KILLED = -9


class FalseAlarmError(AssertionError):
    """Something honest was refused, warned of or found invalid."""


class Life:
    """A repository on one machine or two, with what its users know of it.

    Every step says in the story what it does before it does it. What a step expects is computed
    from the files, never from the runner's answer to the step itself.
    """

    def __init__(self, folder: Path, chance: random.Random) -> None:
        self.folder = folder
        self.chance = chance
        self.story: list[str] = []
        self.number = 0
        self.machines = Machines(self._create())
        self.before = b""
        """progress.txt as it was committed after the last step."""
        self.is_unfinished = False
        """A kill here may have left something that the next run completes."""
        self._is_unfinished_there = False
        self.caused: set[str] = set()
        """Codes of the audit's warnings that the user caused."""

    def _create(self) -> Quick:
        quick = Quick(self.folder / "one", random_plan(self.chance))
        quick.write("worker.sh", WORKER)
        name = self.chance.choice(["Quick Person", "Jürgen Groß", "山田 太郎"])
        quick.git("config", "user.name", name)
        quick.commit("its worker")
        return quick

    @property
    def quick(self) -> Quick:
        """The repository on the machine that goes on."""
        return self.machines.here

    def tell(self, text: str) -> None:
        """Add a line to the story."""
        self.story.append(text)

    def next_number(self) -> int:
        """Return a number that no file or branch has yet."""
        self.number += 1
        return self.number

    #### what the files say

    def look(self) -> Situation:
        """Return the situation; a warning of `status` is a false alarm unless a kill caused it."""
        now = Situation(self.quick)
        if "warning:" in now.warnings and not self.is_unfinished:
            raise FalseAlarmError(f"status warns: {now.warnings}")
        return now

    @property
    def is_clean(self) -> bool:
        """Whether every entry is committed, and nothing is left to complete."""
        return not self.is_unfinished and not self.look().uncommitted_kinds()

    def is_failing(self, feature: str) -> bool:
        """Return whether the committed code makes a feature fail."""
        return (self.quick.root / "modes" / feature).exists()

    #### what a run may exit with

    def expected_codes(self, feature: str | None = None, *, force: bool = False) -> set[int]:
        """Return the exit codes that the situation explains, for `run --next` or one feature."""
        now = self.look()
        if self.is_unfinished:
            return {0, 1, 3, 4, 5} if now.has_changed else {0, 1, 4, 5}
        if now.action == "done":
            return {0}
        if now.action == "approve" and not force:
            return {4}
        if feature is None and now.is_spent:
            return {5}
        if now.has_changed:
            return {3}
        remaining = [feature] if feature else now.features("pending", "failed", "errored")
        is_entangled = any(
            item["state"] == "waived" or item["attempts"] >= ATTEMPTS
            for each in now.status["phases"]
            for item in each["features"]
        )
        if is_entangled:
            return {0, 1, 4, 5}
        if any(map(self.is_failing, remaining)):
            return {1}
        # The exit code is the phase's: another feature may have failed before.
        return {0, 1} if feature and now.features("failed", "errored") else {0}

    #### what a user types

    def run(self, *arguments: str, expected: set[int], failpoint: str = "") -> int:
        """Run the runner; check its exit code."""
        self.tell(f"run {' '.join(arguments)} {failpoint}".rstrip())
        env = {"PHASES_FAILPOINT": failpoint} if failpoint else {}
        if failpoint:
            expected = {*expected, KILLED}
        result = self.quick.run("run", *arguments, code=None, env=env)
        self._judge_exit(result.returncode, result.stdout + result.stderr, expected)
        if result.returncode != KILLED:
            self._fail_on("the exit", exit_violations(result))
            self._fail_on("what is left", leftovers(self.quick.root, self.quick.temporary))
        return result.returncode

    def decide(
        self,
        *arguments: str,
        expected: set[int],
        answer: Callable[[str], str | None] = as_asked,
        failpoint: str = "",
    ) -> int:
        """Decide at a terminal; check the exit code."""
        self.tell(f"{' '.join(arguments)} {failpoint}".rstrip())
        env = {"TMPDIR": str(self.quick.temporary), "COVERAGE_PROCESS_START": ""}
        if failpoint:
            env["PHASES_FAILPOINT"] = failpoint
            expected = {*expected, KILLED}
        code, screen = at_terminal(self.quick.root, *arguments, answer=answer, env=env)
        code = KILLED if code is None else code
        self._judge_exit(code, screen, expected)
        return code

    def _judge_exit(self, code: int, text: str, expected: set[int]) -> None:
        self.story[-1] += f" -> {code}"
        if code not in expected:
            message = f"exit {code}; the situation explains {sorted(expected)}: {text[-1500:]}"
            raise FalseAlarmError(message)
        self.is_unfinished = code == KILLED or (self.is_unfinished and code not in (0, 1, 4, 5))

    def git(self, *words: str) -> bool:
        """Do as a user at git; return whether git did it."""
        self.tell("git " + " ".join(words))
        process = subprocess.run(
            ["git", *words], cwd=self.quick.root, capture_output=True, check=False
        )
        if process.returncode:
            text = process.stderr.decode(errors="replace").strip()
            self.story[-1] += f" -> refused: {text[-200:]}"
        return process.returncode == 0

    def must_git(self, *words: str) -> None:
        """Do as a user at git; what git refuses here is a mistake of this generator."""
        if not self.git(*words):
            raise RuntimeError(self.story[-1])

    def change_machine(self) -> None:
        """Go on at the other machine; what a kill left stays at this one."""
        self.machines.change()
        self.is_unfinished, self._is_unfinished_there = (
            self._is_unfinished_there,
            self.is_unfinished,
        )

    @contextmanager
    def on(self, quick: Quick) -> Iterator[None]:
        """Work in another folder for a while."""
        usual, self.machines.here = self.quick, quick
        try:
            yield
        finally:
            self.machines.here = usual

    #### what must hold

    def check(self) -> None:
        """Raise FalseAlarmError where the runner says that something honest is wrong."""
        # 1. What the runner says.
        now = self.look()
        self.check_audit(self.quick, *(["uncommitted-entries"] if now.uncommitted_kinds() else []))

        # 2. The independent checker.
        root = self.quick.root
        self._fail_on("the record", violations(root))
        if not git(root, "show", "HEAD:progress.txt").startswith(self.before):
            raise FalseAlarmError("I1 HEAD's progress.txt lost entries")
        self.before = git(root, "show", "HEAD:progress.txt")

    def check_audit(self, quick: Quick, *uncovered: str) -> None:
        """Check that `audit` finds no error, and no warning or gap that the user did not cause."""
        result = quick.call("audit", "--json", code=None)
        if not result.stdout.startswith("{"):
            raise FalseAlarmError(f"audit exits {result.code}: {result.stderr}")
        report = json.loads(result.stdout)
        findings = []
        for finding in report["findings"]:
            if finding["severity"] == "error" or finding["code"] not in self.caused:
                findings.append(f"{finding['severity']} {finding['code']}: {finding['message']}")
        self._fail_on(f"audit exits {result.code}", findings)
        allowed = set(uncovered)
        if not (quick.root / ".git/phases/journal").exists():
            allowed.add("no-journal")
        if self.machines.there is not None:
            allowed.add("pulled")
        if self.is_unfinished:
            allowed |= {"uncommitted-end", "uncommitted-entries"}
        gaps = [item for item in report["uncovered"] if item["code"] not in allowed]
        self._fail_on("audit does not cover", [str(item) for item in gaps])

    def _fail_on(self, subject: str, problems: list[str]) -> None:
        if problems:
            raise FalseAlarmError(f"{subject}: " + "; ".join(problems))
