"""One full fine-tuning on the same examples, and the same update cut down to few directions.

What a rank-r part of it still achieves is the direct answer to "why is low rank enough": nothing is
trained again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from lab.instruments import evaluation, full_tuning, lowrank, models, trials
from lab.instruments.evaluation import Evaluation
from lab.instruments.training import Step
from lab.instruments.trials import SweepContext, Trial

UPDATE = "full/update.safetensors"  # below artifacts/: layer -> ΔW [m, n] in bfloat16


@dataclass(frozen=True)
class Full:
    """A full fine-tuning: its steps, its update layer by layer, and what parts of it achieve.

    kinds: each layer's kind (q_proj …); shapes: its [m, n], [L, 2]; values: singular values of its
    ΔW [L, most], with zeros where a layer has fewer; evaluations: "full", "rank K" for each cut,
    "random K" for the control.
    """

    steps: tuple[Step, ...]
    kinds: tuple[str, ...]
    shapes: np.ndarray
    values: np.ndarray
    evaluations: Mapping[str, Evaluation]

    @property
    def sides(self) -> np.ndarray:
        """The largest rank that each layer's ΔW can have: [L]."""
        return self.shapes.min(1)

    def history(self) -> dict[str, np.ndarray]:
        """Field of a step -> one value per optimizer step."""
        return {
            f.name: np.array([getattr(s, f.name) for s in self.steps], dtype=np.float64)
            for f in fields(Step)
        }


def study(
    sweep_context: SweepContext, like: Trial, cuts: Sequence[int], control: int, artifacts: Path
) -> Full:
    """Train the linear layers as `like` says, evaluate, cut, evaluate again; store ΔW.

    The adapter of `like` is not used.
    """
    stage = trials.Stage(sweep_context)
    loaded = stage.loaded
    if sweep_context.dtype != "float32":
        loaded = models.load(sweep_context.model, dtype=torch.float32, device=sweep_context.device)
    held_out = [example.encoded for example in stage.evaluation]
    before = {
        name: weight.detach().clone() for name, weight in full_tuning.linears(loaded.model).items()
    }
    steps, update = full_tuning.tune(
        loaded, [e.encoded for e in stage.examples(like)], like.training, _silent
    )
    (artifacts / UPDATE).parent.mkdir(parents=True, exist_ok=True)
    save_file(
        {name: delta.cpu().contiguous() for name, delta in update.items()}, artifacts / UPDATE
    )
    (artifacts / UPDATE).chmod(0o644)  # safetensors makes it private to its owner
    found = {"full": evaluation.evaluate(loaded.model, held_out)}
    values, vectors = _decomposed(update)
    for name, parts in _cut(update, vectors, cuts, control, like.seed):
        full_tuning.put(loaded.model, before, parts)
        found[name] = evaluation.evaluate(loaded.model, held_out)
    most = max(len(v) for v in values)
    padded = np.stack([np.pad(v, (0, most - len(v))) for v in values])
    kinds = tuple(name.rpartition(".")[2] for name in update)
    return Full(
        tuple(steps), kinds, np.array([delta.shape for delta in update.values()]), padded, found
    )


def _silent(done: int, step: Step, optimizer: torch.optim.Optimizer) -> None:
    """Say nothing: this runs in a process of its own."""


def _decomposed(
    update: Mapping[str, torch.Tensor],
) -> tuple[list[np.ndarray], dict[str, torch.Tensor]]:
    values, vectors = [], {}
    for name, delta in update.items():
        found, vectors[name] = lowrank.principal(delta.float().cpu())
        values.append(found.numpy())
    return values, vectors


def _cut(
    update: Mapping[str, torch.Tensor],
    vectors: Mapping[str, torch.Tensor],
    cuts: Sequence[int],
    control: int,
    seed: int,
) -> Iterator[tuple[str, dict[str, torch.Tensor]]]:
    """The update's best parts of each rank, its part in `control` random directions per layer."""

    def part(columns: Callable[[torch.Tensor], torch.Tensor]) -> dict[str, torch.Tensor]:
        return {
            name: lowrank.projected(
                delta.float(), columns(vectors[name]).to(delta.device, torch.float32)
            )
            for name, delta in update.items()
        }

    for k in cuts:
        yield f"rank {k}", part(lambda best, k=k: best[:, :k])
    draw = torch.Generator().manual_seed(seed)
    yield f"random {control}", part(lambda best: lowrank.random_columns(len(best), control, draw))
