"""A replay of FEAT-001: data, initial adapter, first steps of a run, held-out losses of another."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np

from lab.contract import Context
from lab.instruments import adapters, training_replays
from lab.instruments.training import Settings
from lab.qlora import experiment
from lab.qlora.measured import RUNS
from lab.replay import Row, main

DATA = [f"artifacts/{name}.jsonl" for name in ("train", "control", "evaluation")]


def replay(ctx: Context, stored: Path, draw: random.Random) -> list[Row]:
    """Return the rows of a stored run."""
    from safetensors.numpy import load_file
    from safetensors.torch import load_file as load_torch

    # 1. The data and the adapter that training begins with.
    loaded = experiment.load_model(ctx)
    sets = experiment.prepare_data(ctx, loaded)
    rows = training_replays.file_rows(ctx.out, DATA, "examples")
    model = experiment.attach(ctx, loaded)
    start = adapters.state(model)
    tensor = draw.choice(sorted(name for name in start if "lora_A" in name))
    row = Row(
        quantity=f"initial adapter, {tensor}",
        file="artifacts/adapter_initial/adapter_model.safetensors",
        part=(tensor,),
        recomputed=np.asarray(start[tensor]),
    )
    rows.append(row)

    # 2. The first steps of one of the two runs.
    name = draw.choice(RUNS)
    examples = [example.encoded for example in getattr(sets, name)]
    steps = training_replays.first_steps(model, examples, Settings(**ctx.config["training"]))
    file = "artifacts/training.safetensors"
    what = f"the run on {name} answers"
    rows += training_replays.step_rows(steps, file=file, prefix=f"{name}.", what=what)

    # 3. Held-out losses under a stored adapter.
    name = draw.choice(RUNS)
    adapters.restore(model, load_torch(stored / f"artifacts/adapter_{name}" / adapters.WEIGHTS))
    rows += training_replays.evaluation_rows(
        model,
        [example.encoded for example in sets.evaluation],
        load_file(stored / "artifacts/evaluation.safetensors")["example_ids"],
        draw,
        file="artifacts/evaluation.safetensors",
        prefix=f"{name}.",
        what=f"the run on {name} answers",
    )
    return rows


if __name__ == "__main__":
    main(replay)
