"""Tiers of isolation for experiments and gates.

A tier claims only what was probed: `probes` names each property that was tried inside it and held.
Every receipt and view names the tier. There is no silent fallback: the machine has what the plan
requires, or nothing is run. This version builds the tier `none` only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType
from typing import Protocol

from phases.errors import EnvironmentFaultError


class Tier(StrEnum):
    """How strong an isolation is; the strongest first."""

    BWRAP = "bwrap"
    UNSHARE = "unshare"
    """Root without bubblewrap."""
    NONE = "none"


TIERS = tuple(Tier)
"""All tiers, strongest first."""

BEST = "best"
"""The plan's word for "the strongest tier that this machine has"."""


class Sandbox(Protocol):
    """A way to start a command with less than the user's rights."""

    @property
    def tier(self) -> Tier:
        """How strong it is."""

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
        """Return the command that runs `argv` inside.

        Args:
            argv: the command.
            writable: the only paths that it can write.
            read_only: paths that it can at least read.
            network: whether it can reach the network.
        """


class NoSandbox:
    """Tier `none`: the command as it is; nothing enforces its writable paths or its network."""

    tier = Tier.NONE
    statement: str = (
        "no isolation: the process can write, read and reach the network wherever this user can; "
        "only its time, its log and its descendants are limited"
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
        """Return `argv`, unchanged."""
        del writable, read_only, network
        return list(argv)


def available_sandboxes() -> tuple[Sandbox, ...]:
    """Return the sandboxes that this machine has, strongest first; never empty."""
    return (NoSandbox(),)


def choose_sandbox(required: str) -> Sandbox:
    """Return the strongest sandbox there is, if it is at least as strong as required.

    Args:
        required: a tier, or `best` for whatever the machine has.

    Raises:
        EnvironmentFaultError: the machine has less.
        ValueError: `required` is no such word.
    """
    if required not in (BEST, *TIERS):
        message = f"sandbox: got {required!r}; expected {BEST} or one of {', '.join(TIERS)}"
        raise ValueError(message)
    strongest = available_sandboxes()[0]
    if required == BEST or TIERS.index(strongest.tier) <= TIERS.index(Tier(required)):
        return strongest
    message = (
        f"sandbox: the plan requires at least tier {required}; the strongest here is "
        f"{strongest.tier} ({strongest.statement})"
    )
    raise EnvironmentFaultError(
        message,
        hint='set "sandbox": "none" in the plan\'s defaults if you trust this code with your '
        "account; this version builds no stronger tier",
    )
