"""What a next experiment costs: trainings by FEAT-017's models, all else by the receipt. Pure.

- A training feature repeats, for each seed, the trainings that the config lists. Their time is that
  of their steps, and their memory the peak of the largest, by the models that FEAT-017 fitted: no
  loading, no evaluation. All tokens of a row count, as in `python -m lab fits`.
- Everything else takes what the verified run took, times the repeats or the setting, and its
  memory: an upper bound, as loading the model does not repeat.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from lab.config import Config
from lab.instruments.memory_model import MemoryFit, TrainingSetup, memory
from lab.instruments.model_shape import ModelShape
from lab.instruments.throughput_model import MachineRates, TimeFit, step_seconds
from lab.synthesis.next_questions.candidates import lookup, size_of
from lab.synthesis.next_questions.measured import Candidate, Cost, Source

SEEDS = "seeds"


@dataclass(frozen=True)
class CostModel:
    """FEAT-017's models: the shape of the model that is trained, this machine's rates and fits."""

    feature: str
    shape: ModelShape
    rates: MachineRates
    memory_fit: MemoryFit
    time_fit: TimeFit

    @classmethod
    def from_json(
        cls, feature: str, machine: Mapping[str, Any], model_config: Mapping[str, Any]
    ) -> CostModel:
        """Return the models as FEAT-017's result and its stored config of the model have them."""
        return cls(
            feature=feature,
            shape=ModelShape.from_config(model_config),
            rates=MachineRates(**machine["rates"]),
            memory_fit=MemoryFit(**machine["memory_fit"]),
            time_fit=TimeFit(**machine["time_fit"]),
        )


def with_cost(
    candidate: Candidate, source: Source, model: CostModel | None, config: Config
) -> Candidate:
    """Return a candidate with what it costs; one that is out of reach as it is."""
    repeats = candidate.repeats
    if repeats is not None and repeats.needed is None:
        return candidate
    settings = source.result.environment.get("config", {})
    rows = config["trainings"].get(candidate.feature, ())
    trains_seeds = repeats is None or repeats.word == SEEDS
    if model is not None and rows and trains_seeds:
        return replace(candidate, cost=_of_trainings(candidate, settings, rows, model))
    return replace(candidate, cost=_of_receipt(candidate, source))


def _of_trainings(
    candidate: Candidate, settings: Mapping[str, Any], rows: Any, model: CostModel
) -> Cost:
    """Return the cost of a feature's trainings, with more seeds or on more examples."""
    # 1. How often all of it is trained: a changed setting makes each training as much longer.
    times = float(size_of(lookup(settings, SEEDS)) or 1)
    if candidate.repeats is not None and candidate.repeats.needed is not None:
        times = float(candidate.repeats.needed)
    elif candidate.change is not None and candidate.change.before and candidate.change.after:
        times *= candidate.change.after / candidate.change.before

    # 2. One seed.
    seconds, peaks = 0.0, []
    for row in rows:
        setup = TrainingSetup(
            method=row["method"],
            batch=lookup(settings, row["batch"]),
            sequence=lookup(settings, "data.max_tokens"),
            rank=lookup(settings, row["rank"]),
        )
        trainings = size_of(lookup(settings, row["times"])) or 0
        steps = trainings * lookup(settings, row["examples"]) / setup.batch
        seconds += steps * step_seconds(model.shape, setup, model.rates, model.time_fit)
        peaks.append(memory(model.shape, setup, model.memory_fit).total)
    return Cost(times * seconds, max(peaks), f"models of {model.feature}")


def _of_receipt(candidate: Candidate, source: Source) -> Cost:
    """Return the cost of the verified run, times what is repeated or changed."""
    times = 1.0
    repeats, change = candidate.repeats, candidate.change
    if repeats is not None and repeats.needed is not None:
        times = repeats.needed / (repeats.before or 1)
    elif change is not None and change.before and change.after:
        times = change.after / change.before
    return Cost(times * source.seconds, source.bytes, f"receipt of {candidate.feature}")
