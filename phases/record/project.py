"""A project project for work: plan, paths, repository, ledger; and the reading that every command shares."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from phases.base.paths import Paths
from phases.errors import IntegrityError
from phases.git.probe import Probe, probe_repository
from phases.git.repo import Repo
from phases.plan import outline
from phases.plan.load import load_plan
from phases.plan.outline import PlanLike
from phases.record import approvals
from phases.record.ledger import Ledger, Problem, chain_problems, new_header, parse_ledger
from phases.record.reconcile import Reconciled, raise_first_problem
from phases.record.reconcile import reconcile as reconcile
from phases.record.state import State, fold_state

if TYPE_CHECKING:
    from phases.plan.schema import Plan


@dataclass(frozen=True)
class Project:
    """The plan and where its files lie."""

    outline: PlanLike
    """What views need of the plan; the plan itself where it was loaded."""
    paths: Paths
    probe: Probe

    @cached_property
    def plan(self) -> Plan:
        """The plan, fully checked: loaded at the first use where the project was project for a view."""

        return load_plan(self.root)

    @property
    def root(self) -> Path:
        """The repository's top folder."""
        return self.paths.root

    def repo(self) -> Repo:
        """The repository through GitPython; loaded by the commands that need it."""
        return Repo(self.root)


@dataclass(frozen=True)
class Snapshot:
    """The ledger, reconciled with journal and HEAD, and the state that it folds to."""

    reconciled: Reconciled
    state: State

    @property
    def ledger(self) -> Ledger:
        """The ledger that counts."""
        return self.reconciled.ledger


def open_project(root: Path) -> Project:
    """Loads and fully checks the plan and finds the repository; touches neither torch nor GitPython."""

    root = root.absolute()
    found = probe_repository(root)
    plan = load_plan(root)
    outline.remember(root, found.common_dir)
    project = Project(plan, Paths(root, found.common_dir, plan.results), found)
    vars(project)["plan"] = plan  # the cached property's place: it is loaded already
    return project


def open_view(root: Path) -> Project:
    """Opens the project for a view, without pydantic where this very plan was fully checked before."""
    root = root.absolute()
    found = probe_repository(root)
    plan = outline.known(root, found.common_dir)
    return (
        open_project(root)
        if plan is None
        else Project(plan, Paths(root, found.common_dir, plan.results), found)
    )


def load_unverified(project: Project) -> Snapshot:
    """The ledger and state as the work tree has them: for views, which warn and never refuse.

    Approval records count by their digest and by what they say; `read` also asks git for their commits.
    """
    progress, journal = _bytes(project.paths.progress), _bytes(project.paths.journal)
    parsed = parse_ledger(progress or new_header(project.outline.project))
    found = chain_problems(parsed) or _apart(
        project, parsed, parse_ledger(journal) if journal is not None else parsed
    )
    records = approvals.standing_records(project.root, parsed)
    return Snapshot(
        Reconciled(parsed, has_journal=journal is not None, problems=found),
        fold_state(project.outline, parsed.entries, records),
    )


def _apart(project: Project, mine: Ledger, kept: Ledger) -> tuple[Problem, ...]:
    """Where progress.txt, the journal and HEAD's progress.txt tell different things."""
    count = len(mine.entries)
    if project.probe.progress is not None and not project.probe.progress.begins(mine.data):
        return (
            Problem("ledger-differs", None, "progress.txt does not begin with HEAD's progress.txt"),
        )
    if kept.entries == mine.entries:
        return ()
    if kept.entries[:count] == mine.entries:
        missing = len(kept.entries) - count
        restores = "" if project.probe.rewound else "; the next run restores them"
        message = f"progress.txt lacks its last {missing} entries, which the journal has{restores}"
        return (Problem("ledger-differs", count + 1, message),)
    return (Problem("ledger-differs", None, "progress.txt differs from the journal"),)


def load_verified(project: Project, repo: Repo) -> Snapshot:
    """The ledger and state as they can be proved: chain, journal, HEAD, history and approval records must hold.

    Raises:
        IntegrityError: naming the first thing that does not hold.
    """
    if project.probe.rewound:
        raise rewound_error(project.probe)
    found = reconcile_project(project, repo)
    raise_first_problem(found.problems)
    loose = approvals.unrecorded(project.root, found.ledger)
    if loose:
        raise IntegrityError(
            "approval-unrecorded",
            f"{loose[0]} is not named by any APPROVED or REJECTED entry with its digest: nobody's decision",
            hint=f"move {loose[0]} out of the repository",
        )
    return Snapshot(
        found, fold_project(project, found.ledger, approvals.committed_records(repo, found.ledger))
    )


def reconcile_project(project: Project, repo: Repo) -> Reconciled:
    """progress.txt, journal and HEAD's version, compared."""
    committed = repo.blob("HEAD", "progress.txt")
    progress = _bytes(project.paths.progress)
    if progress is None:
        progress = committed if committed is not None else new_header(project.outline.project)
    return reconcile(progress, _bytes(project.paths.journal), committed)


def fold_project(project: Project, ledger: Ledger, records: Collection[str]) -> State:
    """The state that a ledger folds to."""
    return fold_state(project.outline, ledger.entries, records)


def rewound_error(found: Probe) -> IntegrityError:
    """HEAD is not at or after the runner's last commit: a reset, amend, rebase or another branch."""
    log, head = (found.log or "")[:12], (found.head or "no commit")[:12]
    return IntegrityError(
        "history-rewound",
        f"HEAD ({head}) is not at or after the runner's last commit ({log})",
        hint=f"git log refs/phases/log shows what is missing; `git merge {log}` or `git reset "
        f"{log}` brings it back; to begin anew, clone anew",
    )


def _bytes(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
