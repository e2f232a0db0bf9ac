"""What a run of the instrumented QLoRA observed, before any number is computed from it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

    from lab.instruments.data import Example
    from lab.instruments.evaluation import Evaluation
    from lab.instruments.memory import MemorySplit
    from lab.instruments.models import Loaded
    from lab.instruments.stopwatch import Interval
    from lab.instruments.training import Step

RUNS = ("true", "shuffled")  # trained on the true answers, and on shuffled ones


@dataclass(frozen=True)
class DataSets:
    """Stored data: training examples in order, the same with answers shuffled, held-out ones."""

    true: Sequence[Example]
    shuffled: Sequence[Example]
    evaluation: Sequence[Example]


@dataclass(frozen=True)
class Baseline:
    """What the model does before it learns.

    first_loss: nats/token on the first training batch; answers: token ids.
    """

    evaluation: Evaluation
    first_loss: float
    answers: list[list[int]]
    parameters: int


@dataclass(frozen=True)
class TrainingRun:
    """One training run.

    curve: (optimizer steps done, loss in nats/token on the curve's examples), between the ends;
    memory: at the peak of the first `curve_every` steps; answers: token ids, of the true run alone.
    """

    steps: list[Step]
    curve: list[tuple[int, float]]
    memory: MemorySplit
    evaluation: Evaluation
    answers: list[list[int]]


@dataclass(frozen=True)
class WidestBatch:
    """The micro-batch with the longest row of tokens, of those trained before the peak was read.

    index: counted in micro-batches from 0; tokens: of its row; supervised: those that the loss
    counts; activations: bytes of each storage kept for its backward pass; logits: bytes as wide as
    the vocabulary that its loss holds at one time.
    """

    index: int
    tokens: int
    supervised: int
    activations: Sequence[int]
    logits: int


@dataclass(frozen=True)
class QloraObservations:
    """All that a run observed.

    weights: arrays by "layers" and "gaussian"; process_bytes: before a model was loaded; device:
    what the peak is of: "cpu" (the whole process) or "cuda" (its tensors).
    """

    loaded: Loaded
    sets: DataSets
    base: Baseline
    runs: Mapping[str, TrainingRun]
    widest: WidestBatch
    weights: Mapping[str, Mapping[str, np.ndarray]]
    bits: float
    adapter_parameters: int
    process_bytes: int
    device: str
    intervals: Sequence[Interval]

    @property
    def evaluations(self) -> dict[str, Evaluation]:
        """The held-out evaluations by name: base, true, shuffled."""
        after_training = {name: run.evaluation for name, run in self.runs.items()}
        return {"base": self.base.evaluation} | after_training

    def answered(self) -> Iterator[tuple[Example, list[int], list[int]]]:
        """Yield each prompted example with the answer (token ids) before and after training."""
        before = self.base.answers
        after = self.runs["true"].answers
        yield from zip(self.sets.evaluation[: len(before)], before, after, strict=True)
