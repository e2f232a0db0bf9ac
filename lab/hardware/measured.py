"""What the hardware study observes: trainings of a few steps, rates, receipts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from lab.instruments.memory_model import TrainingSetup
from lab.instruments.model_shape import ModelShape

Role = Literal["fit", "held-out"]


@dataclass(frozen=True)
class RunPlan:
    """A training to measure.

    shape: name of the model's shape; role: whether the models are fitted to it or held against it;
    steps: timed ones, after one that is not.
    """

    name: str
    role: Role
    shape: str
    setup: TrainingSetup
    steps: int


@dataclass(frozen=True)
class TrainingRun:
    """What a training measured.

    Bytes of the process: started, without a model; loaded, with it; peak, of steps that return
    freed memory at once; peak_kept, of the timed ones, in which the loop keeps freed memory.
    Bytes of tensors: weights (frozen ones, buffers and 4-bit scales), absmax (those scales),
    trained, gradients, optimizer, activations (what autograd keeps of a forward pass, logits not
    among them). seconds: of each timed step; products: of the same matrix product right before
    each of them; losses: of all steps; tokens, supervised_tokens: of a step.
    """

    plan: RunPlan
    started: int
    loaded: int
    peak: int
    peak_kept: int
    weights: int
    absmax: int
    trained: int
    gradients: int
    optimizer: int
    activations: int
    seconds: tuple[float, ...]
    products: tuple[float, ...]
    losses: tuple[float, ...]
    tokens: int
    supervised_tokens: int

    @property
    def increment(self) -> int:
        """Return the bytes that the training added to the loaded process."""
        return self.peak - self.loaded

    @property
    def increment_kept(self) -> int:
        """Return the bytes that the lab's own loop added, which keeps freed memory."""
        return self.peak_kept - self.loaded


@dataclass(frozen=True)
class Timing:
    """A small piece of work, repeated: amount (FLOP, bytes, weights, operations), seconds each."""

    amount: float
    seconds: tuple[float, ...]


@dataclass(frozen=True)
class Receipt:
    """What a verified experiment took.

    seconds: by the clock; cpu_seconds: of all its processes; peak_bytes: of the largest of them.
    """

    feature: str
    title: str
    digest: str
    seconds: float
    cpu_seconds: float
    peak_bytes: int


@dataclass(frozen=True)
class HardwareObservations:
    """Everything that the numbers are made from.

    shapes: name -> sizes of the model; timings: name of a rate -> its measurement.
    """

    shapes: Mapping[str, ModelShape]
    runs: tuple[TrainingRun, ...]
    timings: Mapping[str, Timing]
    receipts: tuple[Receipt, ...]
