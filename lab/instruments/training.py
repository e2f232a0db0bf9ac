"""One explicit training loop: packed batches, loss on the completion only, resumed bit for bit.

train(model, examples, settings)
    for each step: set the rate → for each micro-batch: pack → logits → loss → backward
    → clip → AdamW → record
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch

from lab.instruments import adapters, allocator, checkpoint, training_checks
from lab.instruments.chat import Encoded
from lab.instruments.packing import Pack, pack, supervised_tokens
from lab.instruments.training_checks import TrainingError

if TYPE_CHECKING:
    from peft import PeftModel


@dataclass(frozen=True)
class Settings:
    """The settings of a training run.

    steps, warmup_steps: optimizer steps; batch_size: examples per step; learning_rate: its peak.
    """

    steps: int
    batch_size: int
    learning_rate: float
    warmup_steps: int
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    accumulation: int = 1  # micro-batches per step; divides batch_size
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    betas: tuple[float, float] = (0.9, 0.999)

    def __post_init__(self) -> None:
        """Refuse a batch that accumulation would not split evenly."""
        if self.batch_size % self.accumulation:
            msg = (
                f"batch_size {self.batch_size} cannot be split into {self.accumulation} "
                "equal micro-batches"
            )
            raise TrainingError(msg)


@dataclass(frozen=True)
class Step:
    """What one optimizer step measured, on its own batch, before its update.

    loss, entropy: nats per supervised token; token_accuracy: share of them whose most likely token
    is right; grad_norm: L2 norm over all adapters before clipping; learning_rate: the one used;
    tokens: of the batch's examples.
    """

    loss: float
    token_accuracy: float
    entropy: float
    grad_norm: float
    learning_rate: float
    supervised_tokens: int
    total_tokens: int
    seconds: float


# steps done; the last one; gradients are still there
AfterStep = Callable[[int, Step, torch.optim.Optimizer], None]


def learning_rate(step: int, settings: Settings) -> float:
    """Return the rate of step 0, 1, …: a linear rise over `warmup_steps`, then the schedule.

    Cosine and linear would reach 0 one step after the last.
    """
    if step < settings.warmup_steps:
        return settings.learning_rate * (step + 1) / settings.warmup_steps
    # 0 … <1
    progress = (step - settings.warmup_steps) / max(1, settings.steps - settings.warmup_steps)
    factor = {
        "cosine": (1 + math.cos(math.pi * progress)) / 2,
        "linear": 1 - progress,
        "constant": 1.0,
    }
    return settings.learning_rate * factor[settings.schedule]


def train(
    model: "PeftModel",
    examples: Sequence[Encoded],
    settings: Settings,
    *,
    after_step: AfterStep = lambda done, step, optimizer: None,
    resume: Path | None = None,
    save_every: int = 0,
    held_out: Sequence[Encoded] = (),
) -> list[Step]:
    """Train the adapters on `examples` in order, over and over; return all steps.

    Args:
        after_step: called with the number of steps done, the last step's record and the optimizer.
        resume: checkpoint file; where it exists, training resumes from it bit for bit.
        save_every: write the checkpoint after every so many steps; 0: never.
        held_out: examples for evaluation; none of their answers may be learned.

    Raises:
        TrainingError: nothing is trained, all labels are equal, a held-out answer is among the
            examples, no supervised token in a batch, a loss that is not a number, or gradients
            that are all zero.
    """
    allocator.keep_memory()
    trained = adapters.parameters(model)
    training_checks.before(trained, examples, held_out)
    optimizer = torch.optim.AdamW(
        trained.values(),
        lr=0.0,
        betas=settings.betas,
        weight_decay=settings.weight_decay,
        fused=True,
    )
    rows: list[list[Any]] = []
    if resume and resume.is_file():
        rows = checkpoint.load(resume, trained, optimizer)
    steps = [Step(*row) for row in rows]
    model.train()
    with allocator.collect_new_objects_only():
        for number in range(len(steps), settings.steps):
            batch = [examples[i % len(examples)] for i in _indices(number, settings.batch_size)]
            steps.append(
                _step(model, trained, optimizer, batch=batch, number=number, settings=settings)
            )
            done = number + 1
            if resume and save_every and done % save_every == 0:
                checkpoint.save(resume, trained, optimizer, [_row(step) for step in steps])
            after_step(done, steps[-1], optimizer)
            # an evaluation in between has switched dropout off; `train()` visits all layers: 40 ms
            if not model.training:
                model.train()
    optimizer.zero_grad()
    model.eval()
    return steps


def _indices(step: int, batch_size: int) -> range:
    return range(step * batch_size, (step + 1) * batch_size)


def _row(step: Step) -> list[float]:
    return [getattr(step, field.name) for field in fields(Step)]


def _step(
    model: "PeftModel",
    trained: dict[str, torch.nn.Parameter],
    optimizer: torch.optim.Optimizer,
    *,
    batch: Sequence[Encoded],
    number: int,
    settings: Settings,
) -> Step:
    """Run one optimizer step; its loss is the mean over the batch's tokens, however split."""
    # 1. The rate.
    began = time.perf_counter()
    rate = learning_rate(number, settings)
    for group in optimizer.param_groups:
        group["lr"] = rate

    # 2. Loss and gradient, summed over the micro-batches.
    supervised = sum(example.supervised for example in batch)
    training_checks.batch(number, supervised)
    device = next(iter(trained.values())).device
    optimizer.zero_grad()
    size = len(batch) // settings.accumulation
    sums = torch.zeros(3, dtype=torch.float64)  # of loss, hits, entropy over the supervised tokens
    for first in range(0, len(batch), size):
        sums += _backward(model, pack(batch[first : first + size], device), supervised)
    loss, accuracy, entropy = (sums / supervised).tolist()

    # 3. The update.
    norm = float(torch.nn.utils.clip_grad_norm_(trained.values(), settings.max_grad_norm))
    training_checks.step(number, loss, norm)
    optimizer.step()
    total = sum(len(example.ids) for example in batch)
    return Step(
        loss=loss,
        token_accuracy=accuracy,
        entropy=entropy,
        grad_norm=norm,
        learning_rate=rate,
        supervised_tokens=supervised,
        total_tokens=total,
        seconds=time.perf_counter() - began,
    )


def _backward(model: "PeftModel", micro: Pack, supervised: int) -> torch.Tensor:
    """Add this micro-batch's share of the gradient.

    Return the sums [3] of loss, hits and entropy over its tokens.
    """
    scores = supervised_tokens(model, micro)
    (scores.losses.sum() / supervised).backward()
    columns = (scores.losses, scores.hits, scores.entropies)  # each [S]
    return torch.stack([column.detach().double().sum() for column in columns]).cpu()
