"""Tiers of isolation for experiments and gates.

A tier says what it gives, and only what was probed: `probes` names each property that was tried inside it and held.
The tier stands in every receipt and view. There is no silent fallback: what the PRD requires is there, or nothing
is run. Strongest first: `bwrap`, `unshare` (root without bubblewrap), `none`. This version builds `none` only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Protocol

from phases.errors import EnvironmentFaultError

TIERS = ("bwrap", "unshare", "none")
"""All tiers, strongest first."""

BEST = "best"
"""The PRD's word for "the strongest tier that this machine has"."""


class Sandbox(Protocol):
    """A way to start a command with less than the user's rights."""

    @property
    def tier(self) -> str:
        """Its name: one of TIERS."""

    @property
    def statement(self) -> str:
        """One plain sentence for views: what it keeps out and what not."""

    @property
    def probes(self) -> Mapping[str, str]:
        """What was tried inside it and held: property -> how it was seen."""

    def command(
        self,
        argv: Sequence[str],
        *,
        writable: Sequence[Path],
        read_only: Sequence[Path],
        network: bool,
    ) -> list[str]:
        """The command that runs `argv` inside; only `writable` can be written, `read_only` is at least readable."""


class Unconfined:
    """Tier `none`: the command as it is. Writable, read-only and network are wishes that nothing enforces."""

    tier: str = "none"
    statement: str = (
        "no isolation: the process can write, read and reach the network wherever this user can; "
        "only its time, its log and its descendants are kept in hand"
    )
    probes: Mapping[str, str] = MappingProxyType({})

    def command(
        self,
        argv: Sequence[str],
        *,
        writable: Sequence[Path],
        read_only: Sequence[Path],
        network: bool,
    ) -> list[str]:
        """`argv`, unchanged."""
        del writable, read_only, network
        return list(argv)


def available() -> tuple[Sandbox, ...]:
    """The tiers that this machine has, strongest first; never empty."""
    return (Unconfined(),)


def choose_sandbox(required: str) -> Sandbox:
    """The strongest tier there is, if it is `best` or at least as strong as `required`.

    Raises EnvironmentFaultError where the machine has less, and ValueError for a word that is not a tier.
    """
    if required not in (BEST, *TIERS):
        message = f"sandbox {required!r}: wanted {BEST} or one of {', '.join(TIERS)}"
        raise ValueError(message)
    strongest = available()[0]
    if required == BEST or TIERS.index(strongest.tier) <= TIERS.index(required):
        return strongest
    message = (
        f"sandbox: the PRD requires at least tier {required}; the strongest here is {strongest.tier} "
        f"({strongest.statement})"
    )
    raise EnvironmentFaultError(
        message,
        hint='set "sandbox": "none" in the PRD\'s defaults if you trust this code with your account; '
        "this version builds no stronger tier",
    )
