"""Take over what another machine recorded and this one pulled: its entries extend the journal.

A clone has no journal; a machine that has one pulls a history that goes on. Both are the same here:
HEAD's progress.txt has entries that the journal lacks. They are taken over if the whole record
passes the audit, by an entry of its own (PULLED), so that a reader sees where the record was made.
It comes with the next entry of this machine's: a run that records nothing leaves nothing to commit.
"""

from __future__ import annotations

from phases.audit.clean import require_clean_audit
from phases.base import durable
from phases.base.paths import Paths
from phases.errors import IntegrityError
from phases.record.project import Project, Snapshot
from phases.record.reconcile import Pulled


def require_pullable(project: Project, snapshot: Snapshot) -> str:
    """Return the newest commit of a record that may be taken over.

    Raises:
        IntegrityError: the record does not pass the audit.
    """
    require_clean_audit(project, "the record was made elsewhere, and is not taken over")
    newest = snapshot.evidence.newest
    if newest is None:
        message = "progress.txt has entries, and no commit of the runner's holds them"
        raise IntegrityError("entry-unknown", message)
    return newest.sha


def keep_set_aside(paths: Paths, pulled: Pulled) -> None:
    """Keep the entries of this machine that another one's replace."""
    if pulled.set_aside:
        name = f"{durable.sha256(pulled.set_aside)}.txt"
        durable.write(paths.private / "quarantine" / ".set-aside" / name, pulled.set_aside)
