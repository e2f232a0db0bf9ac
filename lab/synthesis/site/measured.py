"""What the site is made of: results as they were given, and what was measured of stored trials."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab.result import Result
from lab.synthesis.retrospect import PredictionScore

NONE = "none"  # the receipt of a feature that was run by hand


@dataclass(frozen=True)
class FigureFile:
    """A figure of a feature's report: its file there, its path in the site, its size in pixels."""

    name: str
    source: Path
    target: str
    width: int
    height: int


@dataclass(frozen=True)
class Feature:
    """A feature whose result was given.

    receipt: its digest, or NONE; date, machine: of the run, as receipt and result name them; page:
    a stored page of the feature that the site copies, or an empty text.
    """

    id: str
    phase: int
    result: Result
    report: str
    receipt: str
    date: str
    machine: str
    folder: Path
    figures: tuple[FigureFile, ...]
    scores: tuple[PredictionScore, ...]
    page: str

    @property
    def href(self) -> str:
        """The file of its page."""
        return f"{self.id}.html"

    @property
    def outcomes(self) -> Counter[str]:
        """How many of its predictions had which outcome."""
        return Counter(score.outcome for score in self.scores)


@dataclass(frozen=True)
class Question:
    """A question of the log, and the features that ask it."""

    id: str
    section: str
    text: str
    status: str
    why: str
    experiments: tuple[str, ...]


@dataclass(frozen=True)
class Concept:
    """A concept document: its file's name without the suffix, and its Markdown."""

    name: str
    source: str

    @property
    def href(self) -> str:
        """The file of its page."""
        return f"concept-{self.name}.html"

    @property
    def title(self) -> str:
        """The text of its first heading."""
        return self.source.partition("# ")[2].partition("\n")[0].strip()


@dataclass(frozen=True)
class Sources:
    """Everything that was given, in the plan's order; absent: (id, title) without a result."""

    project: str
    is_sample: bool
    phases: Mapping[int, Mapping[str, Any]]
    features: tuple[Feature, ...]
    absent: tuple[tuple[str, str], ...]
    questions: tuple[Question, ...]
    concepts: tuple[Concept, ...]

    @property
    def scores(self) -> tuple[PredictionScore, ...]:
        """Every prediction with its outcome."""
        scores: list[PredictionScore] = []
        for feature in self.features:
            scores += feature.scores
        return tuple(scores)

    @property
    def outcomes(self) -> Counter[str]:
        """How many predictions had which outcome."""
        return Counter(score.outcome for score in self.scores)


@dataclass(frozen=True)
class Row:
    """What a row of the grid has in common: everything of a trial but its rate and its seed.

    steps: optimizer steps; examples: different ones; shuffled: the control with mixed answers.
    """

    batch: int
    steps: int
    examples: int
    shuffled: bool
    rank: int
    alpha: float
    rslora: bool


@dataclass(frozen=True)
class StoredTrial:
    """A trial as it was stored, and what was computed from its files.

    identity: the digest of its description; file: of its description, below the feature's outputs;
    losses: nats/token of each step's batch; curve: (steps done, nats/token on a part of the
    held-out examples); held_out, accuracy: over all of their tokens; spectra: kind of linear layer
    -> singular values of ΔW, mean over its layers; stable_rank: mean over all layers; norm: ‖ΔW‖_F
    over all layers; forgetting: (nats/byte, stderr, KL in nats/token) where it was scored; answers:
    token ids per prompt.
    """

    name: str
    feature: str
    identity: str
    file: str
    sha256: str
    row: Row
    rate: float
    seed: int
    losses: tuple[float, ...]
    curve: tuple[tuple[int, float], ...]
    held_out: float
    accuracy: float
    spectra: Mapping[str, tuple[float, ...]]
    stable_rank: float
    norm: float
    forgetting: tuple[float, float, float] | None
    answers: tuple[tuple[int, ...], ...]

    @property
    def cell(self) -> str:
        """The name of all trials that differ from it in the seed alone."""
        return self.name.rpartition("-seed")[0]


@dataclass(frozen=True)
class Prompt:
    """A held-out example that was answered: its prompt's text and the answer in the data."""

    text: str
    expected: str


@dataclass(frozen=True)
class Trials:
    """All stored trials, and what the model without an adapter does on the same data.

    texts: token ids -> text of every answer.
    """

    trials: tuple[StoredTrial, ...]
    prompts: tuple[Prompt, ...]
    base_answers: tuple[tuple[int, ...], ...]
    base_held_out: float | None
    texts: Mapping[tuple[int, ...], str]

    @property
    def cells(self) -> dict[str, list[StoredTrial]]:
        """The trials of each cell, by seed."""
        cells: dict[str, list[StoredTrial]] = {}
        for trial in sorted(self.trials, key=lambda trial: trial.seed):
            cells.setdefault(trial.cell, []).append(trial)
        return cells

    @property
    def rates(self) -> list[float]:
        """The columns of the grid."""
        return sorted({trial.rate for trial in self.trials})

    @property
    def rows(self) -> list[Row]:
        """The rows of the grid: true answers first, then the training with most trials."""
        rows = {trial.row for trial in self.trials}
        counts = Counter(_training(trial.row) for trial in self.trials)

        def order(row: Row) -> tuple[Any, ...]:
            training = _training(row)
            return (row.shuffled, -counts[training], training, row.rank, row.alpha, row.rslora)

        return sorted(rows, key=order)


def _training(row: Row) -> tuple[int, int, int]:
    return row.batch, row.steps, row.examples


def mean_loss(cell: Sequence[StoredTrial]) -> float:
    """Return the mean held-out loss of a cell's trials."""
    return statistics.fmean(trial.held_out for trial in cell)
