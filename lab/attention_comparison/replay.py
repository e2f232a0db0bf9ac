"""A replay of FEAT-012: a drawn snapshot beside its random update."""

from __future__ import annotations

import random
from pathlib import Path
from typing import TYPE_CHECKING

from lab.attention_comparison.experiment import EARLIER, SNAPSHOTS, job_of, planned_trials
from lab.contract import Context
from lab.replay import Row, main

if TYPE_CHECKING:
    import numpy as np

    from lab.attention_comparison.measured import ModelAttention

ARRAYS = "artifacts/arrays.safetensors"


def replay(ctx: Context, stored: Path, draw: random.Random) -> list[Row]:
    """Return the rows of a stored run."""
    from lab.attention_comparison import watching
    from lab.instruments import aside, sweep

    # 1. The snapshot, by the stored adapter of its step.
    with sweep.open_context(ctx, EARLIER) as (sweep_context, _):
        job, plan = job_of(ctx, sweep_context, planned_trials(ctx.config)[0])
        place = draw.randrange(len(plan.steps))
        step = plan.steps[place]
        file = stored / "artifacts" / SNAPSHOTS
        task = (watching.snapshots, job, file, [step], (plan.seeds[0], 0))
        looked = aside.run({"": task}, workers=1, threads=sweep_context.threads)[""]

    # 2. Its arrays, and those of the random update.
    (snapshot,) = looked
    rows = []
    for group, attention in (
        ("snapshots", snapshot.trained),
        ("snapshots_random", snapshot.random),
    ):
        for name, array in _arrays(attention).items():
            quantity = f"{name} of {group}, step {step}"
            rows.append(Row(quantity, ARRAYS, (f"{group}.{name}",), array[None], (place,)))
    # the first losses are those of the base
    losses = snapshot.losses[None]
    rows.append(Row(f"losses, step {step}", ARRAYS, ("snapshots.losses",), losses, (place + 1,)))
    return rows


def _arrays(attention: ModelAttention) -> dict[str, np.ndarray]:
    return {
        "divergence": attention.divergence,
        "norms": attention.norms,
        **attention.statistics,
    }


if __name__ == "__main__":
    main(replay)
