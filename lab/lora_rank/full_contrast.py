"""One full fine-tuning on the same examples, and the same update cut to few directions.

What a rank-r part of it still achieves is the direct answer to "why is low rank enough": nothing is
trained again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from lab.instruments import evaluation, full_tuning, lowrank, models, trials
from lab.instruments.training import Step
from lab.instruments.trials import SweepContext, Trial
from lab.lora_rank.measured import FullTuningRun

UPDATE = "full/update.safetensors"  # below artifacts/: layer -> ΔW [m, n] in bfloat16


def study(
    sweep_context: SweepContext, trial: Trial, cuts: Sequence[int], control: int, artifacts: Path
) -> FullTuningRun:
    """Train the linear layers as `trial` says, store ΔW, evaluate it whole and in parts.

    The adapter settings of `trial` are not used. cuts: numbers of directions to evaluate; control:
    number of random directions.
    """
    # 1. Train in float32.
    stage = trials.Stage(sweep_context)
    loaded = stage.loaded
    if sweep_context.dtype != "float32":
        loaded = models.load(sweep_context.model, dtype=torch.float32, device=sweep_context.device)
    before = {}
    for name, weight in full_tuning.linear_parameters(loaded.model).items():
        before[name] = weight.detach().clone()
    examples = [example.encoded for example in stage.examples(trial)]
    steps, update = full_tuning.tune(loaded, examples, trial.training, _silent)
    _save_update(artifacts / UPDATE, update)

    # 2. Evaluate the whole update, which the model has now, then each part of it.
    held_out = [example.encoded for example in stage.evaluation]
    evaluations = {"full": evaluation.evaluate(loaded.model, held_out)}
    values, vectors = _decompose(update)
    for name, part in _parts(update, vectors, cuts=cuts, control=control, seed=trial.seed):
        full_tuning.set_weights(loaded.model, before, part)
        evaluations[name] = evaluation.evaluate(loaded.model, held_out)

    return FullTuningRun(
        steps=tuple(steps),
        kinds=tuple(name.rpartition(".")[2] for name in update),
        shapes=np.array([delta.shape for delta in update.values()]),
        values=values,
        evaluations=evaluations,
    )


def _silent(done: int, step: Step, optimizer: torch.optim.Optimizer) -> None:
    """Report nothing: this runs in a process of its own."""


def _save_update(path: Path, update: Mapping[str, torch.Tensor]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: delta.cpu().contiguous() for name, delta in update.items()}, path)
    path.chmod(0o644)  # safetensors makes it private to its owner


def _decompose(
    update: Mapping[str, torch.Tensor],
) -> tuple[np.ndarray, dict[str, torch.Tensor]]:
    """Return singular values [L, most] and layer -> directions [d, d], strongest first.

    Where a layer has fewer singular values than another, the rest are zeros.
    """
    by_layer = []
    vectors = {}
    for name, delta in update.items():
        values, vectors[name] = lowrank.principal_directions(delta.float().cpu())
        by_layer.append(values.numpy())
    most = max(map(len, by_layer))
    padded = [np.pad(values, (0, most - len(values))) for values in by_layer]
    return np.stack(padded), vectors


def _parts(
    update: Mapping[str, torch.Tensor],
    vectors: Mapping[str, torch.Tensor],
    *,
    cuts: Sequence[int],
    control: int,
    seed: int,
) -> Iterator[tuple[str, dict[str, torch.Tensor]]]:
    """Yield name and ΔW of the update's best part of each rank, then of its random part.

    The random part is in `control` random directions per layer.
    """
    for k in cuts:
        best = {name: directions[:, :k] for name, directions in vectors.items()}
        yield f"rank {k}", _project(update, best)
    generator = torch.Generator().manual_seed(seed)
    drawn = {}
    for name, directions in vectors.items():
        drawn[name] = lowrank.random_columns(len(directions), control, generator)
    yield f"random {control}", _project(update, drawn)


def _project(
    update: Mapping[str, torch.Tensor], columns: Mapping[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """Return the part of each layer's ΔW [m, n] in the span of orthonormal columns [d, k]."""
    parts = {}
    for name, delta in update.items():
        layer_columns = columns[name].to(delta.device, torch.float32)
        parts[name] = lowrank.project(delta.float(), layer_columns)
    return parts
