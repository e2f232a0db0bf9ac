"""A project: its plan, its files and its repository, and how every command reads its record."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from phases.base.paths import Paths
from phases.base.regular_file import read_regular
from phases.base.text import printable
from phases.errors import IntegrityError
from phases.git.checks import clone_problems, read_repository_state
from phases.git.probe import Blob, Probe, probe_repository
from phases.git.record_history import RecordCommit, is_fetched, root_commits
from phases.git.repo import Repo
from phases.git.way_back import (
    genesis_way,
    ledger_way,
    rewound_way,
    set_aside_way,
    unfetched_way,
)
from phases.plan.load import load_plan
from phases.plan.schema import Plan
from phases.record import entries
from phases.record.anchor import anchor_problems
from phases.record.approvals import record_files, unrecorded_files
from phases.record.evidence import Evidence, bringing_commits, weigh_evidence
from phases.record.ledger import (
    Entry,
    Ledger,
    Problem,
    chain_problems,
    new_header,
    parse_ledger,
)
from phases.record.left_out import left_out_problem
from phases.record.pending import bound_folders, has_pending_record, is_there
from phases.record.reconcile import Reconciled, find_pulled, raise_first_problem, reconcile
from phases.record.sample import sample_problems
from phases.record.state import State, fold_state
from phases.record.transaction import RECORD


@dataclass(frozen=True)
class Project:
    """The plan, the names of the project's files, and what git says of its repository."""

    plan: Plan
    paths: Paths
    probe: Probe

    @property
    def root(self) -> Path:
        """The repository's top folder."""
        return self.paths.root

    def repo(self) -> Repo:
        """Return the repository through GitPython; only the commands that need it load that."""
        return Repo(self.root)

    def at_own_commit(self, commit: RecordCommit, size: int) -> Project:
        """Return the project with a commit that this run just made; its ledger has that size."""
        progress = Blob(commit.blobs["progress.txt"], size)
        probe = replace(
            self.probe, head=commit.sha, log=commit.sha, progress=progress, is_rewound=False
        )
        return replace(self, probe=probe)

    def probed_anew(self) -> Project:
        """Return the project with what git says of its repository now."""
        return replace(self, probe=probe_repository(self.root))


@dataclass(frozen=True)
class Snapshot:
    """The ledger, reconciled with journal and HEAD, and the state that it folds to."""

    reconciled: Reconciled
    state: State
    evidence: Evidence

    @property
    def ledger(self) -> Ledger:
        """The ledger that counts."""
        return self.reconciled.ledger

    @property
    def uncommitted_decisions(self) -> tuple[Entry, ...]:
        """Decisions that no commit has and that were not given up: a killed command's."""
        uncommitted = self.ledger.entries[self.evidence.committed :]
        return tuple(
            entry
            for entry in uncommitted
            if entry.match(entries.RECORD) and entry.seq not in self.evidence.lost
        )


def open_project(root: Path) -> Project:
    """Read and fully check the plan and find the repository; loads neither torch nor GitPython."""
    root = root.absolute()
    probe = probe_repository(root)
    plan = load_plan(root)
    return Project(plan, Paths(root, probe.common_dir, plan.results), probe)


def load_unverified(project: Project) -> Snapshot:
    """Read ledger and state as the work tree has them: for views, which warn and never refuse.

    Commits and decision records are judged as in `load_verified`.
    """
    progress = read_ledger_file(project.paths.progress) or new_header(project.plan.project)
    journal = read_ledger_file(project.paths.journal)
    ledger = parse_ledger(progress)
    journal_ledger = ledger if journal is None else parse_ledger(journal)
    problems = chain_problems(ledger)
    pulled, restored = None, 0
    if not problems and _is_committed(project, ledger):
        taken_over = Ledger(ledger.header, ()) if journal is None else journal_ledger
        pulled = find_pulled(taken_over, ledger)
    if not problems and pulled is None:
        problems = _differences(project, ledger, journal_ledger)
        if not problems:  # the runner writes each entry to the journal first
            restored = len(journal_ledger.entries) - len(ledger.entries)
            ledger = journal_ledger
    reconciled = Reconciled(
        ledger,
        restored=restored,
        torn_journal=b"" if journal is None else journal_ledger.rest,
        has_journal=journal is not None,
        pulled=pulled,
        problems=problems,
    )
    return take_snapshot(project, reconciled)


def take_snapshot(project: Project, reconciled: Reconciled) -> Snapshot:
    """Return the state that a ledger folds to, by what HEAD's history says of it."""
    committed_bytes = project.probe.progress.size if project.probe.progress else 0
    is_cut = project.probe.is_shallow
    evidence = weigh_evidence(project.root, reconciled.ledger, committed_bytes, is_cut=is_cut)
    state = fold_state(project.plan, reconciled.ledger.entries, evidence)
    return Snapshot(reconciled, state, evidence)


def _is_committed(project: Project, ledger: Ledger) -> bool:
    """Return whether the ledger is HEAD's progress.txt."""
    committed = project.probe.progress
    return (
        committed is not None
        and committed.size == len(ledger.data)
        and committed.begins(ledger.data)
    )


def _differences(project: Project, ledger: Ledger, journal: Ledger) -> tuple[Problem, ...]:
    """Return where progress.txt differs from HEAD's progress.txt or from the journal.

    It may lack the journal's last entry.
    """
    count = len(ledger.entries)
    committed = project.probe.progress
    if committed is not None and not committed.begins(ledger.data):
        message = "progress.txt does not begin with HEAD's progress.txt"
        return (Problem("ledger-differs", None, message),)
    if journal.header == ledger.header and journal.entries[:count] == ledger.entries:
        missing = len(journal.entries) - count
        if missing <= 1 and not chain_problems(journal):
            return ()
        message = f"progress.txt lacks its last {missing} entries, which the journal has"
        if not project.probe.is_rewound:
            message += "; the next run restores them"
        return (Problem("ledger-differs", count + 1, message),)
    return (Problem("ledger-differs", None, "progress.txt differs from the journal"),)


def load_verified(project: Project, repo: Repo) -> Snapshot:
    """Read ledger and state as they can be proved: chain, journal, HEAD, history, decision records.

    The project's probe must be new, for HEAD may have moved.

    Raises:
        IntegrityError: naming the first thing that is invalid.
        EnvironmentFaultError: the clone is shallow or partial, and lacks what the record needs.
    """
    if project.probe.is_rewound:
        raise rewound_error(project)
    reconciled = reconcile_project(project, repo)
    if reconciled.problems:
        way = ledger_way(project.root, reconciled.problems[0].code, project.plan.results)
        raise_first_problem(reconciled.problems, way)
    snapshot = take_snapshot(project, reconciled)
    for problem in snapshot_problems(project, snapshot):
        # What a shallow or partial clone lacks is no fault of the record.
        for clone_problem in clone_problems(read_repository_state(project.root, sign=False)):
            raise clone_problem
        entry = f"entry {problem.entry:04d}: " if problem.entry else ""
        hint = problem.hint or "python -m phases audit lists all of it"
        if not problem.hint and problem.code.startswith(("journal-", "ledger-")):
            hint = ledger_way(project.root, problem.code, project.plan.results)
        raise IntegrityError(problem.code, f"{entry}{problem.message}", hint=hint)
    return snapshot


def is_unmoved(
    project: Project, repo: Repo, snapshot: Snapshot, approvals: Mapping[str, str]
) -> bool:
    """Return whether all that `load_verified` reads is as it was when it gave this snapshot.

    Args:
        project: the project, with the probe of that time.
        repo: its repository.
        snapshot: what was read then, and what this runner has recorded since.
        approvals: the files of decisions then (`record_files`).
    """
    paths, data = project.paths, snapshot.ledger.data
    return (
        repo.head() == project.probe.head
        and repo.log_ref() == project.probe.log
        and read_ledger_file(paths.progress) == data
        and read_ledger_file(paths.journal) == data
        and record_files(project.root) == approvals
        and not has_pending_record(paths)
        and not any(paths.bindings.glob("*"))
    )


def snapshot_problems(project: Project, snapshot: Snapshot) -> tuple[Problem, ...]:
    """Return what is invalid in the anchors of a ledger, in its decisions and beside them."""
    return (
        *find_anchor_problems(project, snapshot),
        *snapshot.evidence.problems,
        *snapshot.state.problems,
        *_genesis_problems(project, snapshot),
        *sample_problems(project.plan, snapshot.ledger),
        *_unrecorded_problems(project, snapshot.ledger),
    )


def _genesis_problems(project: Project, snapshot: Snapshot) -> Iterator[Problem]:
    """Yield that the record was begun on another history, as after an amend of its first commit.

    Once a commit has entries, `refs/phases/log` holds the history; until then nothing else does.
    """
    root, head = project.root, project.probe.head
    genesis = next(iter(snapshot.ledger.entries), None)
    named = genesis.match(entries.ROOT) if genesis else None
    if named is None or head is None or snapshot.evidence.newest or project.probe.is_shallow:
        return
    first = named["commit"]
    if first in root_commits(root):
        return
    locked = (entry.match(entries.HEAD) for entry in snapshot.ledger.entries)
    commit = next((fields["commit"] for fields in locked if fields), first)
    hint = genesis_way(root, head, commit, project.plan.results)
    message = f"the record began on commit {first[:12]}; HEAD ({head[:12]}) has another first one"
    yield Problem("genesis-foreign", 1, message, hint)


def _unrecorded_problems(project: Project, ledger: Ledger) -> Iterator[Problem]:
    is_committed = project.probe.has_approvals
    unrecorded = unrecorded_files(project.root, ledger, is_committed=is_committed)
    for path, reason in unrecorded.items():
        message = f"unrecorded approval file {printable(path)}: {reason}"
        hint = f"`{set_aside_way(project.root, path)}` sets it aside"
        yield Problem("approval-unrecorded", None, message, hint)


def find_anchor_problems(project: Project, snapshot: Snapshot) -> tuple[Problem, ...]:
    """Return what is wrong with the journal and `refs/phases/log` of this machine."""
    probe, evidence = project.probe, snapshot.evidence
    left_out = None
    if not probe.is_shallow:
        results = project.plan.results
        left_out = left_out_problem(project.root, snapshot.ledger, evidence.committed, results)
    prepared = set()
    for txn, folders in bound_folders(project.paths).items():
        if any(is_there(folder / RECORD) for folder in folders):
            prepared.add(txn)
    return anchor_problems(
        probe,
        snapshot.reconciled,
        evidence,
        prepared,
        left_out=left_out,
        unfetched=_unfetched_problem(project, snapshot),
    )


def _unfetched_problem(project: Project, snapshot: Snapshot) -> Problem | None:
    """Return that what the journal lacks came from no other repository; None if it did."""
    probe, pulled = project.probe, snapshot.reconciled.pulled
    if pulled is None or probe.head is None:
        return None
    committed = snapshot.evidence.committed
    brought_by = bringing_commits(project.root, snapshot.ledger, committed) or [probe.head]
    if any(is_fetched(project.root, probe.common_dir, commit) for commit in brought_by):
        return None
    message = (
        f"HEAD has entries from {pulled.first:04d} on that this machine did not record, and commit "
        f"{brought_by[0][:12]}, which brought them, was fetched from no other repository"
    )
    way = unfetched_way(project.root, probe.head, probe.log)
    return Problem("journal-lacks-commit", pulled.first, message, way)


def reconcile_project(project: Project, repo: Repo) -> Reconciled:
    """Compare progress.txt with the journal and with HEAD's version."""
    committed = repo.blob("HEAD", "progress.txt")
    progress = read_ledger_file(project.paths.progress)
    if progress is None:
        progress = committed
    if progress is None:
        progress = new_header(project.plan.project)
    return reconcile(progress, read_ledger_file(project.paths.journal), committed)


def rewound_error(project: Project) -> IntegrityError:
    """Return the error for a HEAD that is not at or after the runner's last commit.

    A reset, an amend, a rebase or another branch does that.
    """
    probe = project.probe
    log, head = probe.log or "", probe.head
    way = rewound_way(project.root, head, log, project.plan.results)
    return IntegrityError(
        "history-rewound",
        f"HEAD ({(head or 'no commit')[:12]}) is not at or after the runner's last commit "
        f"({log[:12]})",
        hint=f"{way}; `git log HEAD..refs/phases/log` shows what is missing",
    )


def read_ledger_file(path: Path) -> bytes | None:
    """Return the bytes of progress.txt or of its journal; None where there is none.

    Raises:
        EnvironmentFaultError: it is no regular file.
    """
    try:
        return read_regular(path)
    except FileNotFoundError:
        return None
