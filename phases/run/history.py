"""HEAD while a feature runs: an outcome is recorded only where its commit is in the history.

HEAD may advance: the attempt is judged by the commit that STARTED names, and recorded on top.
"""

from __future__ import annotations

from contextlib import suppress

from phases.errors import EnvironmentFaultError, IntegrityError, UsageError
from phases.run.attempt import AttemptSpec
from phases.run.quarantine import quarantine
from phases.run.recovery import recover, restore_progress
from phases.run.session import Session


def require_recordable(session: Session, spec: AttemptSpec) -> None:
    """Return if the outcome of an attempt can be recorded on top of HEAD.

    Else its outputs are kept in quarantine. INTERRUPTED is appended and not committed: no branch
    gets a commit that the user does not expect, and the user can go back to the first one.

    Raises:
        IntegrityError: HEAD was moved, or the record was changed, while the attempt ran.
    """
    try:
        require_same_history(session, spec.commit, spec.branch)
    except IntegrityError as error:
        quarantine(spec)
        if error.code == "head-moved":
            session.give_up(spec, str(error))
        raise


def require_same_history(session: Session, commit: str, branch: str | None) -> None:
    """Read the record again; require that HEAD is still on its branch, at or after a commit.

    Raises:
        IntegrityError: it is not, or the record is invalid.
    """
    if not session.is_unmoved:
        _read_again(session)
    repo = session.repo
    is_renamed = repo.branch() != branch and branch is not None and not repo.has_ref(branch)
    if repo.branch() != branch and not is_renamed:
        raise IntegrityError(
            "head-moved",
            f"the branch was switched while commit {commit[:12]} ran: from {_name(branch)} to "
            f"{_name(repo.branch())}",
            hint="switch back, or stay: python -m phases run --next runs the feature again",
        )
    if repo.head() != commit and not repo.is_ancestor(commit, "HEAD"):
        raise IntegrityError(
            "head-moved",
            f"commit {commit[:12]} ran, and it is no longer in the history of HEAD "
            f"({repo.head()[:12]})",
            hint="python -m phases run --next runs the feature again, on the new HEAD",
        )


def _read_again(session: Session) -> None:
    """Read the record again, and restore what progress.txt lost."""
    # A run that only halts has written nothing yet, nor taken over what was pulled before it.
    pulled = session.snapshot.reconciled.pulled
    session.read_again()
    if session.snapshot.reconciled.pulled != pulled:
        raise IntegrityError(
            "ledger-moved",
            "another machine's entries came while this run was at work",
            hint="python -m phases run --next takes them over and goes on from there",
        )
    restore_progress(session)


def interrupt(session: Session, reason: str) -> None:
    """Record INTERRUPTED of what runs, where the repository allows a commit; else a later run does.

    Raises:
        IntegrityError: the record was changed, or HEAD is before the runner's last commit.
    """
    session.read_again()
    with suppress(EnvironmentFaultError, UsageError):
        recover(session, reason)


def _name(branch: str | None) -> str:
    if branch is None:
        return "a detached HEAD"
    return branch.removeprefix("refs/heads/")
