"""Every exception of the runner on one page, each with its exit code.

The codes are part of the command line's contract (docs/cli.md); scripts and agents branch on them.
An error names the thing, the value met, the value wanted and, in `hint`, the next command to type.
"""

from __future__ import annotations


class PhasesError(Exception):
    """Base of all errors that a user meets; printed without a traceback."""

    exit_code = 1

    def __init__(self, message: str, *, hint: str = ""):
        super().__init__(message)
        self.hint = hint


#### exit 1: the work was done and the answer is no


class GateFailedError(PhasesError):
    """An entry gate, a feature's gate or an exit gate said no, or an experiment errored."""

    exit_code = 1


#### exit 2: what was asked for cannot be asked for


class UsageError(PhasesError):
    """The command line is wrong: an unknown feature, a phase that is not open."""

    exit_code = 2


class InvalidPlanError(PhasesError):
    """The PRD, or a config that it names, is invalid; `problems` holds all of them."""

    exit_code = 2

    def __init__(self, path: str, problems: list[str]):
        self.problems = problems
        listing = "\n".join(f"  {problem}" for problem in problems)
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        super().__init__(
            f"{path}: {count}\n{listing}", hint="mend the places named above; nothing was run"
        )


#### exit 3: the record does not hold


class IntegrityError(PhasesError):
    """Chain, journal, receipt, lock, approval or history does not hold; `code` is the finding's name."""

    exit_code = 3

    def __init__(self, code: str, message: str, *, hint: str = "python -m phases audit"):
        super().__init__(message, hint=hint)
        self.code = code


#### exit 4: a human's turn


class WaitingForHumanError(PhasesError):
    """Nothing was run: a phase awaits its approval, or nobody was there to give it."""

    exit_code = 4


#### exit 5: a limit was reached


class LimitReachedError(PhasesError):
    """Time or attempts are spent."""

    exit_code = 5


#### exit 6: somebody else is at work


class LockedError(PhasesError):
    """Another runner holds the repository's lock."""

    exit_code = 6


#### exit 7: the environment is at fault


class EnvironmentFaultError(PhasesError):
    """Disk, git identity, uncommitted inputs, a missing artifact, a sandbox tier that is not there."""

    exit_code = 7


#### exit 130: interrupted


class InterruptedRunError(PhasesError):
    """Ctrl-C or SIGTERM reached the runner; the work was stopped and recorded."""

    exit_code = 130
