"""Take over what another machine recorded and this one pulled: its entries extend the journal.

A clone has no journal; a machine that has one pulls a history that goes on. Both are the same here:
HEAD's progress.txt has entries that the journal lacks. They are taken over if the whole record
passes the audit, by an entry of its own (PULLED), so that a reader sees where the record was made.
"""

from __future__ import annotations

from phases.audit.audit import audit
from phases.audit.findings import Severity
from phases.base import durable
from phases.base.failpoint import failpoint
from phases.base.paths import Paths
from phases.errors import IntegrityError
from phases.record.anchor import pulled_commit
from phases.record.ledger import EntryKind
from phases.record.pending import read_pending
from phases.record.project import Project, Snapshot
from phases.record.reconcile import Pulled
from phases.run.session import Session


def take_over(session: Session) -> None:
    """Append PULLED where HEAD has entries that the journal lacks, and move the ref to them.

    A decision that a killed command had prepared takes them over itself.

    Raises:
        IntegrityError: the record does not pass the audit; nothing was changed.
    """
    pulled = session.snapshot.reconciled.pulled
    prepared = read_pending(session.project.paths).prepared
    if any(each.entries[0].kind == EntryKind.PULLED for each in prepared):
        return
    if pulled is not None:
        commit = require_pullable(session.project, session.snapshot)
        keep_set_aside(session.project.paths, pulled)
        session.pull(pulled, commit)
        session.view.message(f"took over entries {pulled.first:04d} to {pulled.last:04d}")
        failpoint("pulled")

    # A run that was killed here had not moved the ref yet.
    newest = session.snapshot.evidence.newest
    if newest and pulled_commit(session.snapshot.ledger) == newest.sha:
        session.anchor(newest.sha)


def require_pullable(project: Project, snapshot: Snapshot) -> str:
    """Return the newest commit of a record that may be taken over.

    Raises:
        IntegrityError: the record does not pass the audit.
    """
    errors = [item for item in audit(project).findings if item.severity == Severity.ERROR]
    newest = snapshot.evidence.newest
    if errors:
        raise IntegrityError(
            errors[0].code,
            "the record was made elsewhere and does not pass the audit, so it is not taken over: "
            f"{errors[0].message}",
        )
    if newest is None:
        message = "progress.txt has entries, and no commit of the runner's holds them"
        raise IntegrityError("entry-unknown", message)
    return newest.sha


def keep_set_aside(paths: Paths, pulled: Pulled) -> None:
    """Keep the entries of this machine that another one's replace."""
    if pulled.set_aside:
        name = f"{durable.sha256(pulled.set_aside)}.txt"
        durable.write(paths.private / "quarantine" / ".set-aside" / name, pulled.set_aside)
