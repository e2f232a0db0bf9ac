"""What a plan asks of an approval, as each LOCKED entry states it.

Presence at a terminal is the weaker assurance: once something was judged under a lock that asked
for more, no later plan may ask for less.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from phases.plan.schema import ApprovalMode, Plan
from phases.record import entries
from phases.record.ledger import Entry

SIGNERS = "prd/allowed_signers"


@dataclass(frozen=True)
class ApprovalRule:
    """What an approval must show beyond presence at a terminal."""

    signed: bool = False
    """A signature."""
    by_another: bool = False
    """That someone else than the user who runs approves."""
    scripted: bool = False
    """That this is a sample run: a script answers, and nothing that is recorded says otherwise."""

    @property
    def allows_presence(self) -> bool:
        """Whether presence at a terminal is enough."""
        return not (self.signed or self.by_another)

    @property
    def lines(self) -> tuple[str, ...]:
        """The lines of a LOCKED entry."""
        return entries.approval_lines(
            signed=self.signed, by_another=self.by_another, scripted=self.scripted
        )

    def covers(self, other: ApprovalRule) -> bool:
        """Return whether this asks for everything that the other asks for."""
        return self | other == self

    def __or__(self, other: ApprovalRule) -> ApprovalRule:
        return ApprovalRule(
            signed=self.signed or other.signed,
            by_another=self.by_another or other.by_another,
            scripted=self.scripted or other.scripted,
        )

    def __str__(self) -> str:
        return "; ".join(self.lines)


PRESENCE = ApprovalRule()


def plan_rule(plan: Plan, *, has_signers: bool) -> ApprovalRule:
    """Return what a plan asks for; `has_signers`: whether there is a `prd/allowed_signers`."""
    mode = plan.approval.mode
    signed = mode == ApprovalMode.SIGNED or (mode == ApprovalMode.AUTO and has_signers)
    return ApprovalRule(
        signed=signed, by_another=not plan.approval.allow_self, scripted=plan.sample
    )


def committed_rule(plan: Plan, paths: Iterable[str]) -> ApprovalRule:
    """Return what a commit with this plan and these paths asks for.

    A link or a folder in the place of `prd/allowed_signers` asks for signatures too.
    """
    has_signers = any(f"{path}/".startswith(f"{SIGNERS}/") for path in paths)
    return plan_rule(plan, has_signers=has_signers)


def work_tree_rule(plan: Plan, root: Path) -> ApprovalRule:
    """Return what the work tree asks for, whatever git's index says of its files."""
    signers = root / SIGNERS
    return plan_rule(plan, has_signers=signers.is_symlink() or signers.exists())


def stated_rule(entry: Entry) -> ApprovalRule:
    """Return what a LOCKED entry states."""
    assurances = [fields["assurance"] for fields in entry.match_all(entries.APPROVAL)]
    by_another = entry.match(entries.APPROVER) is not None
    return ApprovalRule(
        signed="signed" in assurances,
        by_another=by_another,
        scripted="scripted" in assurances,
    )
