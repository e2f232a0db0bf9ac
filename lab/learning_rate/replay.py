"""A replay of FEAT-006: a drawn one of the trials that no earlier feature had run."""

from __future__ import annotations

import random
from pathlib import Path

from lab.contract import Context
from lab.instruments import sweep, training_replays
from lab.learning_rate.experiment import EARLIER
from lab.replay import Row, main


def replay(ctx: Context, stored: Path, draw: random.Random) -> list[Row]:
    """Return the rows of a stored run."""
    trial = training_replays.draw_trial(stored, draw)
    with sweep.open_context(ctx, EARLIER) as (sweep_context, _):
        return training_replays.replay_trial(sweep_context, stored, trial, draw)


if __name__ == "__main__":
    main(replay)
