"""Everything that needs a model. Each call can run in a process of its own.

train(job, trial, …)        one training, its adapter every few steps
tuned(job, folders)         base and stored adapters: attention, and seeds against one another
random(job, folder, seeds)  random updates with the norms of a stored adapter
snapshots(job, file, …)     some snapshots: attention, a random update of their norms, losses
ablate(job, folder, sets)   losses with sets of heads switched off
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from lab.attention_comparison import patterns, updates
from lab.attention_comparison.measured import ModelAttention
from lab.attention_comparison.prompts import Prompt
from lab.instruments import ablation, adapters, data, evaluation, models, training, trials
from lab.instruments.adapters import LoraSettings

if TYPE_CHECKING:
    from lab.instruments.trials import SweepContext, Trial

Tensors = Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class Job:
    """What all models of a run have in common.

    prompts: all kinds; loss_examples: first and last + 1 of the held-out examples whose loss is
    measured; period: of the repeated sequences.
    """

    sweep_context: SweepContext
    lora: LoraSettings
    prompts: tuple[Prompt, ...]
    period: int
    loss_examples: tuple[int, int]


class _Stage:
    """A process's own model with one adapter that is filled anew, and the base's patterns."""

    def __init__(self, job: Job) -> None:
        context = job.sweep_context
        loaded = models.load(
            context.model, dtype=getattr(torch, context.dtype), device=context.device
        )
        self.linears = [name for name, _ in models.linear_weights(loaded.model)]
        self.model = adapters.attach(loaded, job.lora, seed=0)
        examples = data.read_examples(context.evaluation)[slice(*job.loss_examples)]
        self.examples = [example.encoded for example in examples]
        self.prompts = patterns.batches(job.prompts)
        with self.model.disable_adapter():
            self.base = patterns.record(self.model, self.prompts)
        self.job = job

    def fill(self, tensors: Tensors) -> None:
        """Make `tensors` the model's adapter."""
        adapters.restore(self.model, tensors)

    def look(self, tensors: Tensors) -> tuple[ModelAttention, dict[str, torch.Tensor]]:
        """Return the attention of the base with this update, and its patterns."""
        self.fill(tensors)
        recorded = patterns.record(self.model, self.prompts)
        attention = ModelAttention(
            divergence=patterns.divergences(self.prompts, self.base, recorded),
            statistics=patterns.statistics(self.prompts, recorded, self.job.period),
            norms=updates.norms(tensors, self.linears, self.job.lora.scale),
        )
        return attention, recorded

    def look_at_random(self, tensors: Tensors, seed: tuple[int, int]) -> ModelAttention:
        """Return the attention of the base with a random update of the same norms."""
        drawn = updates.random_like(tensors, self.linears, seed=seed, scale=self.job.lora.scale)
        attention, _ = self.look(drawn)
        return attention

    def losses(self) -> np.ndarray:
        """Return the loss of every supervised token of the loss examples, [N], nats."""
        losses: np.ndarray = evaluation.evaluate(self.model, self.examples).losses
        return losses


_stage = lru_cache(maxsize=1)(_Stage)  # a process looks at one model after the other


@dataclass(frozen=True)
class Tuned:
    """Base and stored adapters; see `ComparisonObservations`."""

    base: dict[str, np.ndarray]
    adapter_off: np.ndarray
    tuned: list[ModelAttention]
    between_seeds: np.ndarray


def tuned(job: Job, folders: Sequence[Path]) -> Tuned:
    """Look at the base and at the stored adapters, and compare these with one another."""
    stage = _stage(job)
    seen = [stage.look(load_file(folder / adapters.WEIGHTS)) for folder in folders]

    # The control: an adapter is there and switched off, so nothing may differ.
    with stage.model.disable_adapter():
        off = patterns.record(stage.model, stage.prompts)

    pairs = []
    for (_, one), (_, other) in combinations(seen, 2):
        pairs.append(patterns.divergences(stage.prompts, one, other))
    return Tuned(
        base=patterns.statistics(stage.prompts, stage.base, job.period),
        adapter_off=patterns.divergences(stage.prompts, stage.base, off),
        tuned=[attention for attention, _ in seen],
        between_seeds=np.stack(pairs),
    )


def random(job: Job, folder: Path, seeds: Sequence[tuple[int, int]]) -> list[ModelAttention]:
    """Look at random updates with the norms of a stored adapter, one per seed of a draw."""
    stage = _stage(job)
    tensors = load_file(folder / adapters.WEIGHTS)
    return [stage.look_at_random(tensors, seed) for seed in seeds]


def train(job: Job, trial: Trial, steps: Sequence[int], file: Path) -> np.ndarray:
    """Repeat a trial; return the loss of every step's batch, [steps].

    The adapter's tensors after each of `steps` are written to `file`, as STEP.NAME.
    """
    stage = trials.Stage(job.sweep_context)
    model = stage.adapted(trial, None)
    states: dict[str, torch.Tensor] = {}

    def keep(done: int, step: training.Step, optimizer: torch.optim.Optimizer) -> None:
        del step, optimizer
        if done in steps:
            for name, tensor in adapters.state(model).items():
                states[f"{done}.{name}"] = tensor

    rows = training.train(
        model,
        [example.encoded for example in stage.examples(trial)],
        trial.training,
        after_step=keep,
        held_out=[example.encoded for example in stage.evaluation],
    )
    save_file(states, file)
    file.chmod(0o644)  # safetensors makes it private to its owner
    return np.array([row.loss for row in rows])


@dataclass(frozen=True)
class Snapshot:
    """One snapshot; pattern: of the first prompt, [L, H, T, T], float16, for the page."""

    trained: ModelAttention
    random: ModelAttention
    losses: np.ndarray
    pattern: np.ndarray


def snapshots(job: Job, file: Path, steps: Sequence[int], seed: tuple[int, int]) -> list[Snapshot]:
    """Look at stored snapshots, each beside a random update of its norms.

    `seed` is the same for all, so that the random update keeps its direction and only grows.
    """
    stage = _stage(job)
    looked = []
    for step in steps:
        tensors = read_snapshot(file, step)
        trained, recorded = stage.look(tensors)
        losses = stage.losses()
        random_update = stage.look_at_random(tensors, seed)
        looked.append(Snapshot(trained, random_update, losses, _pattern(job, recorded)))
    return looked


def base_snapshot(job: Job) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the base's losses, its pattern for the page, and each token's loss example."""
    stage = _stage(job)
    with stage.model.disable_adapter():
        scores = evaluation.evaluate(stage.model, stage.examples)
    return scores.losses, _pattern(job, stage.base), scores.example_ids


def _pattern(job: Job, recorded: dict[str, torch.Tensor]) -> np.ndarray:
    """Return the first prompt's patterns, without its padding, [L, H, T, T] in float16."""
    length = len(job.prompts[0].ids)
    pattern: np.ndarray = recorded["task"][:, 0, :, :length, :length].half().numpy()
    return pattern


def read_snapshot(file: Path, step: int) -> dict[str, torch.Tensor]:
    """Return the adapter's tensors after a step, from the file of all snapshots."""
    prefix = f"{step}."
    with safe_open(file, "pt") as stored:
        names = [name for name in stored.keys() if name.startswith(prefix)]  # noqa: SIM118
        return {name.removeprefix(prefix): stored.get_tensor(name) for name in names}


def ablate(job: Job, folder: Path | None, sets: Sequence[Sequence[tuple[int, int]]]) -> np.ndarray:
    """Return token losses with each set of (layer, head) switched off, [sets, N].

    Of the base with the adapter of a stored trial's folder, or of the base alone.
    """
    stage = _stage(job)
    rows = []
    if folder is not None:
        stage.fill(load_file(folder / adapters.WEIGHTS))
    for heads in sets:
        with ablation.zeroed(stage.model, set(heads)):
            if folder is None:
                with stage.model.disable_adapter():
                    rows.append(stage.losses())
            else:
                rows.append(stage.losses())
    return np.stack(rows)
