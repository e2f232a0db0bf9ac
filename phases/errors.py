"""Every exception of the runner on one page, each with its exit code.

The codes are part of the command line's contract (docs/cli.md); scripts and agents branch on them.
An error names the thing, the value got, the value expected and, in `hint`, the next command.
"""

from __future__ import annotations


class PhasesError(Exception):
    """Base of all errors that a user sees; printed without a traceback."""

    exit_code = 1

    def __init__(self, message: str, *, hint: str = ""):
        super().__init__(message)
        self.hint = hint


#### exit 1: the work was done and the result is negative


class GateFailedError(PhasesError):
    """An entry gate, a feature's gate or an exit gate failed, or an experiment errored."""

    exit_code = 1


#### exit 2: the request is invalid


class UsageError(PhasesError):
    """The command line is wrong: an unknown feature, a phase that is not open."""

    exit_code = 2


class InvalidPlanError(PhasesError):
    """The plan, or a config that it names, is invalid; `problems` lists all reasons."""

    exit_code = 2

    def __init__(self, path: str, problems: list[str]):
        self.problems = problems
        count = f"{len(problems)} problems"
        if len(problems) == 1:
            count = "1 problem"
        listing = "\n".join(f"  {problem}" for problem in problems)
        hint = "fix the fields named above; nothing was run"
        super().__init__(f"{path}: {count}\n{listing}", hint=hint)


#### exit 3: the record is invalid


class IntegrityError(PhasesError):
    """Chain, journal, receipt, lock, approval or history failed its check; `code` says which."""

    exit_code = 3

    def __init__(self, code: str, message: str, *, hint: str = "python -m phases audit"):
        super().__init__(message, hint=hint)
        self.code = code


#### exit 4: the approver's turn


class WaitingForHumanError(PhasesError):
    """Nothing was run: a phase awaits its approval, or there was no terminal to give it."""

    exit_code = 4


#### exit 5: a limit was reached


class LimitReachedError(PhasesError):
    """Time or attempts are spent."""

    exit_code = 5


#### exit 6: another runner is at work


class LockedError(PhasesError):
    """Another runner holds the repository's lock."""

    exit_code = 6


#### exit 7: the environment is at fault


class EnvironmentFaultError(PhasesError):
    """Disk, git identity, uncommitted inputs, a missing artifact or sandbox tier."""

    exit_code = 7


#### exit 130: interrupted


class InterruptedRunError(PhasesError):
    """Ctrl-C or SIGTERM reached the runner; the work was stopped and recorded."""

    exit_code = 130
