"""A replay of FEAT-021: the first steps of a drawn model, up to its first stored weights."""

from __future__ import annotations

import dataclasses
import random
from pathlib import Path

from lab.contract import Context
from lab.induction_heads.measured import CONDITIONS, InductionPlan
from lab.replay import Row, main

CURVES = ("first", "second", "accuracy", "induction", "previous")


def replay(ctx: Context, stored: Path, draw: random.Random) -> list[Row]:
    """Return the rows of a stored run."""
    del stored
    from lab.induction_heads import training
    from lab.instruments import aside

    # 1. A shorter training: its rate does not depend on the number of steps.
    plan = InductionPlan.from_config(ctx.config)
    condition, seed = draw.choice(CONDITIONS), draw.choice(plan.seeds)
    short = dataclasses.replace(plan, steps=plan.checkpoint_every)
    task = (training.train, short, condition, seed)
    run = aside.run({"": task}, workers=1, threads=ctx.config["threads"])[""]

    # 2. What was seen on the way, and the weights at its start and its end.
    folder = f"artifacts/runs/{run.name}"
    looks = tuple(range(len(short.steps_evaluated)))
    what = f"steps 0 to {short.steps}, {run.name}"
    rows = []
    for name in CURVES:
        array = getattr(run, name)
        rows.append(Row(f"{name}, {what}", f"{folder}/curve.safetensors", (name,), array, looks))
    for name, array in run.weights.items():
        quantity = f"weights {name} at steps 0 and {short.steps}, {run.name}"
        rows.append(Row(quantity, f"{folder}/weights.safetensors", (name,), array, (0, 1)))
    return rows


if __name__ == "__main__":
    main(replay)
