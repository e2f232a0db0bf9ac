"""Sample runs: a script answers where a human approves elsewhere, and everything says so.

The plan's `sample` decides it before the first entry, GENESIS records it, and nothing changes it
afterwards: a sample cannot become a record that counts, nor the other way round.
"""

from __future__ import annotations

from collections.abc import Iterator

from phases.plan.schema import Plan
from phases.record import entries
from phases.record.approval_rule import stated_rule
from phases.record.decision_record import Assurance
from phases.record.ledger import Entry, EntryKind, Ledger, Problem

SAMPLE_ASSURANCE = f"assurance: {entries.SAMPLE_RUN}"
"""What every view of a sample run says first."""


def is_sample(plan: Plan, ledger: Ledger) -> bool:
    """Return whether a record is that of a sample run: GENESIS decides, before it the plan."""
    if not ledger.entries:
        return plan.sample
    return expected_assurance(ledger.entries[0]) == Assurance.SCRIPTED


def expected_assurance(genesis: Entry) -> Assurance:
    """Return the assurance of every decision in the ledger that begins with this entry."""
    if genesis.match(entries.SAMPLE):
        return Assurance.SCRIPTED
    return Assurance.PRESENCE


def sample_problems(plan: Plan, ledger: Ledger) -> Iterator[Problem]:
    """Yield where plan, GENESIS and locks differ on whether this is a sample run."""
    if not ledger.entries:
        return
    recorded = is_sample(plan, ledger)
    if plan.sample != recorded:
        message = (
            f"the plan says sample: {_json(plan.sample)}; expected {_json(recorded)}, "
            "as the record began"
        )
        hint = "take the plan's `sample` back and commit; a record of another kind begins anew, "
        hint += "in a fresh clone of a commit before the runner's first one"
        yield Problem("sample-contradicts", 1, message, hint)
    for entry in ledger.entries:
        if entry.kind == EntryKind.LOCKED and stated_rule(entry).scripted != recorded:
            message = "this lock asks for another approval than GENESIS says"
            yield Problem("sample-contradicts", entry.seq, message)


def _json(value: bool) -> str:  # noqa: FBT001 - one value, as JSON writes it
    return "true" if value else "false"
