"""Refuse a record that the audit calls invalid, and name the command that restores it."""

from __future__ import annotations

from collections.abc import Iterable

from phases.audit.audit import audit
from phases.audit.findings import Finding, Severity
from phases.base.text import format_count
from phases.errors import IntegrityError
from phases.git.way_back import brought_way, left_out_way
from phases.record.decision_check import APPROVALS
from phases.record.project import Project, load_unverified

SHOWN_ERRORS = 3


def require_clean_audit(project: Project, consequence: str) -> None:
    """Raise IntegrityError where the audit finds an error, whatever part of the record it is in.

    Args:
        project: the project.
        consequence: what is not done then, for the message.
    """
    report = audit(project)
    if report.ok:
        return
    errors = [finding for finding in report.findings if finding.severity == Severity.ERROR]
    listing = "".join(f"\n  {finding.text}" for finding in errors[:SHOWN_ERRORS])
    raise IntegrityError(
        errors[0].code,
        f"the audit finds {format_count(len(errors), 'error')}; {consequence}:{listing}",
        hint=f"{_restoring_hint(project, errors)}python -m phases audit lists all of it",
    )


def _restoring_hint(project: Project, errors: Iterable[Finding]) -> str:
    """Return how the files that errors are about are as recorded again; empty if they are."""
    left_out = left_out_way(project.root, (APPROVALS, project.paths.results_name))
    if left_out:
        return f"{left_out}; "
    commits = load_unverified(project).evidence.commits
    ways: dict[str, None] = {}  # each once, in their order
    for error in errors:
        commit = commits.get(error.entry or 0)
        way = None
        if commit is not None and error.path:
            way = brought_way(project.root, commit.sha, error.path)
        if way:
            ways[way] = None
    return f"`{' && '.join(ways)}` restores what was recorded; " if ways else ""
