"""What the reproduction observes: the draw, the replays, and each of their rows compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from lab.replay import Part


class Outcome(StrEnum):
    """What a comparison came to; what did not reproduce comes first."""

    DIFFERENT = "not reproduced"
    WITHIN = "within tolerance"
    EQUAL = "bit-equal"


class Way(StrEnum):
    """How a feature is computed again."""

    REPLAY = "replay"  # its topic has a module `replay` in the receipt's commit
    WHOLE = "whole run"  # it takes seconds, so all of it runs again


@dataclass(frozen=True)
class Candidate:
    """A feature in the order of the draw.

    way: how it can be computed again; None: not at all, for the reason given.
    """

    feature: str
    way: Way | None
    reason: str = ""


@dataclass(frozen=True)
class Draw:
    """Which features are computed again: the first of `candidates` for which there is a way."""

    started: str
    is_of_an_attempt: bool
    candidates: tuple[Candidate, ...]
    drawn: tuple[Candidate, ...]


@dataclass(frozen=True)
class ComparedRow:
    """One row of a replay, compared.

    quantity, file, part, indices, is_deterministic, tolerance, reason: see `lab.replay.Row`;
    values: how many numbers or bytes; is_promised: its bits must be the same, as the row is
    deterministic and the machine is the receipt's; difference: see `comparing.difference`;
    stored_sha256, recomputed_sha256: of both arrays' bytes.
    """

    quantity: str
    file: str
    part: Part
    indices: tuple[int, ...] | None
    is_deterministic: bool
    tolerance: float
    reason: str
    values: int
    is_promised: bool
    difference: float
    outcome: Outcome
    stored_sha256: str
    recomputed_sha256: str


@dataclass(frozen=True)
class Replayed:
    """A drawn feature, computed again.

    commit: of its receipt, whose code was run; code_sha256: of that code; changes: in what this
    machine differs from the receipt's; failure: why there are no rows, "" if there are; seconds: of
    the replay; seconds_whole: of the run that the receipt is of.
    """

    feature: str
    title: str
    way: Way
    commit: str
    code_sha256: str
    changes: tuple[str, ...]
    seconds: float
    seconds_whole: float
    rows: tuple[ComparedRow, ...]
    failure: str = ""

    def count(self, outcome: Outcome) -> int:
        """Return how many rows came to an outcome."""
        return sum(row.outcome is outcome for row in self.rows)

    @property
    def is_reproduced(self) -> bool:
        """Return whether there are rows and all of them reproduced."""
        return bool(self.rows) and not self.failure and not self.count(Outcome.DIFFERENT)


@dataclass(frozen=True)
class ReproductionObservations:
    """The draw, and what came of each drawn feature; machine: the one that this run is on."""

    draw: Draw
    replayed: Sequence[Replayed]
    machine: Mapping[str, object]

    @property
    def rows(self) -> list[tuple[str, ComparedRow]]:
        """Return (feature, row) of all rows: those that did not reproduce first."""
        pairs = [(one.feature, row) for one in self.replayed for row in one.rows]
        order = list(Outcome)
        return sorted(pairs, key=lambda pair: order.index(pair[1].outcome))
