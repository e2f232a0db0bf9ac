"""A replay of FEAT-005: the data drawn anew, and a drawn trial."""

from __future__ import annotations

import random
from pathlib import Path

from lab.contract import Context
from lab.instruments import sweep, training_replays
from lab.replay import Row, main

DATA = [f"artifacts/{name}.jsonl" for name in ("train", "evaluation")]


def replay(ctx: Context, stored: Path, draw: random.Random) -> list[Row]:
    """Return the rows of a stored run."""
    with sweep.open_context(ctx) as (sweep_context, _):
        rows = training_replays.file_rows(ctx.out, DATA, "examples")
        trial = training_replays.draw_trial(stored, draw)
        rows += training_replays.replay_trial(sweep_context, stored, trial, draw)
    return rows


if __name__ == "__main__":
    main(replay)
