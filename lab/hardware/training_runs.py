"""Trainings of a few steps, each in a process of its own, with their memory and their time.

run_all(plans)
    for each plan: a process forked from one that has loaded the libraries and computed nothing
        measure_run: load the model → train → peak and seconds → count the tensors
"""

from __future__ import annotations

import ctypes
import gc
import json
import multiprocessing
import random
import shutil
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lab.hardware.measured import RunPlan, TrainingRun
from lab.instruments.chat import IGNORE, Encoded

if TYPE_CHECKING:
    import torch

    from lab.instruments.models import Loaded

# what a run would load anyway: it is part of the process before the model, and loaded once
PRELOADED = [
    "torch",
    "transformers",
    "peft",
    "peft.tuners.lora",
    "bitsandbytes",
    "transformers.models.llama.modeling_llama",
    "lab.instruments.full_tuning",
    "lab.instruments.lora_linear",
    "lab.instruments.memory",
    "lab.instruments.training",
]
M_TRIM_THRESHOLD = -1  # malloc.h
M_MMAP_THRESHOLD = -3
ROWS = 512  # tokens of the product that shows how fast the machine is
LEARNING_RATE = 1e-4
FIRST_TOKEN = 3  # of a random text: SmolLM2's special tokens are before it


def in_new_process(work: Callable[..., Any], *arguments: Any) -> Any:
    """Return `work(*arguments)` from a process that has loaded the libraries and nothing else."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    with ProcessPoolExecutor(1, context) as pool:
        return pool.submit(work, *arguments).result()


def build_shapes(
    base: Path, changes: Mapping[str, Mapping[str, int]], folder: Path, seed: int
) -> dict[str, Path]:
    """Write a random model for each changed config of `base`; return name -> folder of all.

    A shape without changes is `base` itself.
    """
    folders = {}
    for number, (name, change) in enumerate(changes.items()):
        folders[name] = base
        if change:
            folders[name] = folder / name
            in_new_process(write_random_model, base, change, folders[name], seed + number)
    return folders


def write_random_model(base: Path, change: Mapping[str, int], folder: Path, seed: int) -> None:
    """Write a model with the config of `base`, changed, and weights from the seed in bfloat16."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    document = json.loads((base / "config.json").read_text("utf-8"))
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(document | dict(change)), "utf-8")
    config = AutoConfig.from_pretrained(folder)
    torch.manual_seed(seed)
    AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).save_pretrained(folder)
    for path in base.glob("*token*"):
        shutil.copy(path, folder)


def run_all(
    plans: Sequence[RunPlan],
    folders: Mapping[str, Path],
    seed: int,
    before_run: Callable[[int, RunPlan], None],
) -> tuple[TrainingRun, ...]:
    """Run each plan in a process of its own, one after the other; return what each measured."""
    runs = []
    for number, plan in enumerate(plans):
        before_run(number, plan)
        runs.append(in_new_process(measure_run, plan, folders[plan.shape], seed))
    return tuple(runs)


def measure_run(plan: RunPlan, folder: Path, seed: int) -> TrainingRun:
    """Train the model in `folder` for two steps to see its memory, then for those that are timed.

    The lab's loop keeps freed memory, and what does not fit into its gaps is added: the peak then
    depends on the order of sizes. So the memory is that of steps which return each tensor when it
    is freed.
    """
    import torch

    from lab.instruments import memory, training

    # 1. The loaded process. What loading freed goes back to the kernel: `loaded` is what is held.
    _return_memory()
    started = memory.resident_bytes()
    loaded = _load(plan, folder)
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    resident = memory.resident_bytes()

    # 2. Memory: two steps, as the optimizer's state is made by the first one's end.
    model = _prepare(loaded, plan, seed)
    examples = random_examples(plan, loaded.model.config.vocab_size, seed)
    batches = [examples[: plan.setup.batch], examples[-plan.setup.batch :]]
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=LEARNING_RATE, weight_decay=0.0, fused=True)
    memory.reset_peak()
    losses = [_step(model, optimizer, batch) for batch in batches]
    peak = memory.peak_bytes()
    counted = _count(model, optimizer)
    activations = sum(memory.activation_bytes(model, lambda: _loss(model, batches[0])))
    optimizer.zero_grad()
    del optimizer

    # 3. Time, by the lab's loop, which keeps freed memory; its first step warms up.
    speed = _LayerProduct(loaded.model.config)
    products = []  # seconds of the same product beside each step
    settings = training.Settings(
        steps=plan.steps + 1,
        batch_size=plan.setup.batch,
        learning_rate=LEARNING_RATE,
        warmup_steps=0,
        schedule="constant",
    )
    memory.reset_peak()
    steps = training.train(
        model,
        examples,
        settings,
        after_step=lambda done, step, optimizer: products.append(speed.seconds()),
    )
    peak_kept = memory.peak_bytes()
    return TrainingRun(
        plan=plan,
        started=started,
        loaded=resident,
        peak=peak,
        peak_kept=peak_kept,
        seconds=tuple(step.seconds for step in steps[1:]),
        products=tuple(products[:-1]),
        losses=(*losses, *(step.loss for step in steps)),
        # an example's last token is predicted and not computed
        tokens=steps[0].total_tokens - plan.setup.batch,
        supervised_tokens=steps[0].supervised_tokens,
        activations=activations,
        **counted,
    )


def random_examples(plan: RunPlan, vocabulary: int, seed: int) -> list[Encoded]:
    """Return the examples of all steps: `sequence` tokens to compute, the last ones supervised.

    Their first tokens differ, so that no beginning is shared.
    """
    draw = random.Random(seed)
    setup = plan.setup
    length = setup.sequence + 1
    prompt = length - setup.supervised_tokens // setup.batch
    count = setup.batch * (plan.steps + 1)
    first = draw.sample(range(FIRST_TOKEN, vocabulary), count)
    examples = []
    for number in range(count):
        rest = (draw.randrange(FIRST_TOKEN, vocabulary) for _ in range(length - 1))
        ids = (first[number], *rest)
        examples.append(Encoded(ids, (IGNORE,) * prompt + ids[prompt:]))
    return examples


def _load(plan: RunPlan, folder: Path) -> Loaded:
    import torch

    from lab.instruments import models

    quantisation: models.Quantisation | None = None
    if plan.setup.method == "qlora":
        quantisation = "nf4"
    loaded = models.load(
        folder,
        dtype=torch.float32,
        quantisation=quantisation,
        double_quant=plan.setup.double_quant,
    )
    # float32 weights would stay in the file, and be read into memory by the first step
    for parameter in loaded.model.parameters():
        if parameter.dtype == torch.float32:
            parameter.data = parameter.data.clone()
    return loaded


def _prepare(loaded: Loaded, plan: RunPlan, seed: int) -> Any:
    """Return the model with adapters, or for full fine-tuning with linear layers to train."""
    from lab.instruments import adapters, full_tuning

    if plan.setup.method != "full":
        settings = adapters.LoraSettings(r=plan.setup.rank, lora_alpha=plan.setup.rank)
        return adapters.attach(loaded, settings, seed)
    loaded.model.requires_grad_(requires_grad=False)
    for weight in full_tuning.linear_parameters(loaded.model).values():
        weight.requires_grad_(requires_grad=True)
    return loaded.model


class _LayerProduct:
    """One product of the model's widths: how fast the machine is right now."""

    def __init__(self, config: Any) -> None:
        import torch

        self.rows = torch.randn(ROWS, config.hidden_size)
        self.weight = torch.randn(config.intermediate_size, config.hidden_size)

    def seconds(self) -> float:
        """Return the median of some repetitions."""
        times = []
        for _ in range(5):
            began = time.perf_counter()
            _ = self.rows @ self.weight.t()
            times.append(time.perf_counter() - began)
        return statistics.median(times)


def _return_memory() -> None:
    """Let the C library return each tensor to the kernel when it is freed."""
    library = ctypes.CDLL(None)
    library.mallopt(M_MMAP_THRESHOLD, 64 * 1024)
    library.mallopt(M_TRIM_THRESHOLD, 64 * 1024)


def _step(model: Any, optimizer: torch.optim.Optimizer, batch: Sequence[Encoded]) -> float:
    """Run one optimizer step as the lab's loop does; leave its gradients; return its loss."""
    import torch

    model.train()
    optimizer.zero_grad()
    loss = _loss(model, batch)
    loss.backward()
    trained = [p for group in optimizer.param_groups for p in group["params"]]
    torch.nn.utils.clip_grad_norm_(trained, 1.0)
    optimizer.step()
    value: float = loss.item()
    return value


def _loss(model: Any, batch: Sequence[Encoded]) -> torch.Tensor:
    from lab.instruments.packing import pack, supervised_tokens

    return supervised_tokens(model, pack(batch)).losses.mean()


def _count(model: Any, optimizer: torch.optim.Optimizer) -> dict[str, int]:
    from lab.instruments import memory

    split = memory.split(model, optimizer)
    scales = [
        tensor
        for parameter in model.parameters()
        for tensor in memory.quantisation_tensors(parameter)
    ]
    return {
        "weights": split.weights,
        "absmax": memory.tensor_bytes(scales),
        "trained": split.adapters,
        "gradients": split.gradients,
        "optimizer": split.optimizer,
    }
