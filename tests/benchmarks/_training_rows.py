"""The rows of `training_vs_trl`, each run in a process of its own.

Started as `python -m tests.benchmarks._training_rows ROW …`. All rows train the same adapters (same
seed, so the same A) on the same tokens in the same batches and order, with the same optimizer, at a
constant rate without warm-up, as schedules differ in their first step between the two libraries.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from lab.instruments.chat import Encoded

BATCH, RATE, RANK, ALPHA, SEED = 8, 1e-3, 16, 32, 0
EVALUATION = 256  # held-out examples

TRL = {  # name -> what differs from the defaults of trl.SFTConfig
    "trl default": {},
    "trl no checkpointing": {"gradient_checkpointing": False},
    "trl packing": {"padding_free": True},
    "trl packing, no checkpointing": {"padding_free": True, "gradient_checkpointing": False},
}
OURS, PLAIN = "this loop", "plain PEFT loop, padded"
ROWS = (OURS, *TRL, PLAIN)


@dataclass(frozen=True)
class Job:
    """What a row does.

    model: its folder; dtype: of the frozen weights, adapters are float32; steps: optimizer steps;
    max_tokens: longest example; threads: of torch.
    """

    row: str
    model: str
    dtype: str
    steps: int
    max_tokens: int
    threads: int
    evaluate: bool


@dataclass(frozen=True)
class RowResult:
    """What a row took.

    seconds: of each step; total, supervised: real tokens of each step; peak, added: bytes, the
    process's peak in training and its growth over the loaded process; flops: multiply-adds x 2 of
    each step's matrix products as this loop executes them (0 for other rows).
    """

    seconds: list[float]
    total: list[int]
    supervised: list[int]
    peak: int
    added: int
    flops: list[float]


def run(job: Job, evaluation_file: Path) -> RowResult:
    """Load, train, and evaluate if the job says so."""
    import torch

    from lab.instruments import data, evaluation, memory, models

    torch.set_num_threads(job.threads)
    loaded = models.load(job.model, dtype=getattr(torch, job.dtype))
    pool = data.load("python-docstrings", loaded.tokenizer, max_tokens=job.max_tokens)
    drawn = data.split(pool, train=BATCH * job.steps, evaluation=EVALUATION)
    examples = [e.encoded for e in drawn.train]
    model = adapted(loaded, quick=job.row == OURS)
    stamps: list[float] = []

    def tick(*_: object) -> None:
        stamps.append(time.perf_counter())

    before = memory.resident_bytes()
    memory.reset_peak()
    if job.row == OURS:
        _ours(model, examples, job, tick)
    elif job.row == PLAIN:
        _plain(model, examples, job, tick, loaded.tokenizer.pad_token_id)
    else:
        _trl(model, examples, job, tick, loaded.tokenizer)
    peak = memory.peak_bytes()
    if job.evaluate:
        scores = evaluation.evaluate(model, [e.encoded for e in drawn.evaluation])
        np.savez(evaluation_file, losses=scores.losses, example_ids=scores.example_ids)
    batches = [examples[i : i + BATCH] for i in range(0, len(examples), BATCH)]
    return RowResult(
        seconds=np.diff(stamps).tolist(),
        total=[sum(len(e.ids) for e in batch) for batch in batches],
        supervised=[sum(e.supervised for e in batch) for batch in batches],
        peak=peak,
        added=peak - before,
        flops=[_flops(loaded.model, batch) if job.row == OURS else 0.0 for batch in batches],
    )


def adapted(loaded: Any, *, quick: bool) -> Any:
    """Return the model with its adapters: as this project attaches them, or as PEFT does alone.

    Both start from the same random A.
    """
    import torch
    from peft import LoraConfig, get_peft_model

    from lab.instruments import adapters, models

    if quick:
        return adapters.attach(loaded, adapters.LoraSettings(RANK, ALPHA), SEED)
    linears = models.architecture(loaded.model.config).linears
    targets = sorted({name.rpartition(".")[2] for name in linears})
    torch.manual_seed(SEED)
    return get_peft_model(
        loaded.model,
        LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=targets, task_type="CAUSAL_LM"),
    )


def _ours(model: Any, examples: Sequence[Encoded], job: Job, tick: Callable[..., None]) -> None:
    from lab.instruments import training

    settings = training.Settings(
        steps=job.steps, batch_size=BATCH, learning_rate=RATE, warmup_steps=0, schedule="constant"
    )
    tick()
    training.train(model, examples, settings, after_step=tick)


def _trl(
    model: Any, examples: Sequence[Encoded], job: Job, tick: Callable[..., None], tokenizer: Any
) -> None:
    """Train with trl.SFTTrainer on the same batches.

    Its `packing` would put other examples into a batch; the collator that it then uses, without
    padding, is given the same batches. `chunked_nll` is what its default loss does since 1.16.
    """
    from datasets import Dataset
    from transformers import TrainerCallback
    from trl import SFTConfig, SFTTrainer

    class Clock(TrainerCallback):
        def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
            tick()

        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            tick()

    with tempfile.TemporaryDirectory() as folder:
        config = SFTConfig(
            output_dir=folder,
            max_steps=job.steps,
            per_device_train_batch_size=BATCH,
            train_sampling_strategy="sequential",
            learning_rate=RATE,
            lr_scheduler_type="constant",
            weight_decay=0.0,
            max_grad_norm=1.0,
            max_length=None,
            bf16=job.dtype == "bfloat16",
            use_cpu=True,
            report_to="none",
            save_strategy="no",
            disable_tqdm=True,
            **TRL[job.row],
        )
        rows = [{"input_ids": list(e.ids), "labels": list(e.labels)} for e in examples]
        trainer = SFTTrainer(
            model=model,
            args=config,
            train_dataset=Dataset.from_list(rows),
            processing_class=tokenizer,
            callbacks=[Clock()],
        )
        trainer.train()


def _plain(
    model: Any, examples: Sequence[Encoded], job: Job, tick: Callable[..., None], pad: int
) -> None:
    """Train as a first script does: padded batches through model(…).loss, AdamW, clipping."""
    import torch

    from lab.instruments.chat import IGNORE

    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=RATE, weight_decay=0.0)
    model.train()
    tick()
    for number in range(job.steps):
        batch = examples[number * BATCH : (number + 1) * BATCH]
        longest = max(len(e.ids) for e in batch)
        ids = torch.tensor([[*e.ids, *[pad] * (longest - len(e.ids))] for e in batch])
        labels = torch.tensor([[*e.labels, *[IGNORE] * (longest - len(e.ids))] for e in batch])
        mask = torch.tensor([[1] * len(e.ids) + [0] * (longest - len(e.ids)) for e in batch])
        optimizer.zero_grad()
        loss = model(input_ids=ids, attention_mask=mask, labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        loss.item()  # every script logs it
        tick()


def _flops(model: Any, batch: Sequence[Encoded]) -> float:
    """Return 2 per multiply-add in the matrix products of one step on a pack of T tokens.

    Through the frozen weights forward and back, through the adapters forward, back, and for their
    own gradients; attention, half a per cent, is left out; the head sees supervised tokens only.
    """
    from lab.instruments import models
    from lab.instruments.packing import pack

    packed = pack(batch)
    shapes = [tuple(weight.shape) for _, weight in models.linear_weights(model)]
    tokens, supervised = packed.ids.shape[1], len(packed.targets)
    frozen, low_rank = sum(m * n for m, n in shapes), RANK * sum(m + n for m, n in shapes)
    return (
        4.0 * tokens * frozen
        + 6.0 * tokens * low_rank
        + 4.0 * supervised * model.lm_head.weight.numel()
    )


def gemm_peak(threads: int) -> dict[str, float]:
    """Return the most FLOP/s that a square matrix product reached, by dtype.

    Best of some sizes, ten repetitions each.
    """
    import torch

    torch.set_num_threads(threads)
    peaks = {}
    for dtype in (torch.float32, torch.bfloat16):
        rates = []
        for size in (512, 768, 1024, 1536, 2048):
            a, b = (torch.randn(size, size).to(dtype) for _ in range(2))
            a @ b
            for _ in range(10):
                begin = time.perf_counter()
                a @ b
                rates.append(2 * size**3 / (time.perf_counter() - begin))
            # bfloat16 without instructions for it: the next size would take minutes
            if max(rates) < 1e10:
                break
        peaks[str(dtype).removeprefix("torch.")] = max(rates)
    return peaks


def main() -> None:
    """Run the job given as JSON; write its outcome as JSON to the second file (.npz beside it)."""
    job = json.loads(sys.argv[1])
    out = Path(sys.argv[2])
    warnings.filterwarnings("ignore")  # TRL's and PEFT's, of no consequence for times
    if job["row"] == "gemm":
        out.write_text(json.dumps(gemm_peak(job["threads"])))
    else:
        out.write_text(json.dumps(asdict(run(Job(**job), out.with_suffix(".npz")))))


if __name__ == "__main__":
    main()
