"""Honest repositories made at random: `python tests/phases/faults/honest.py SEED` repeats one.

Each has a random plan and a random sequence of what honest people do with it: runs, decisions,
commits, merges, kills, clones, a second machine. After every step `audit` must have no error,
`status` no warning, the run an exit code that the situation explains, and the independent checker
no violation. A failure prints the seed and the story so far.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from collections.abc import Collection
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parent)]
from honest_life import Life  # noqa: E402
from honest_steps import STEPS  # noqa: E402

LENGTH = 12
"""Steps of one repository: about five seconds."""


class HonestRepositoryError(AssertionError):
    """A false alarm, with what has to be typed to see it again and the story that led to it."""

    def __init__(self, seed: int, story: list[str], problem: str) -> None:
        lines = [f"{number:2d}. {line}" for number, line in enumerate(story, 1)]
        again = f"python tests/phases/faults/honest.py {seed}"
        super().__init__("\n".join([f"{again}:", *lines, problem]))


def live(seed: int, folder: Path, *, without: Collection[str] = (), length: int = LENGTH) -> Life:
    """Make one repository and return it after its last step; `without` names steps to leave out.

    Raises:
        HonestRepositoryError: something that must hold did not.
    """
    life = Life(folder, random.Random(seed))
    weights = {step: often for step, often in STEPS.items() if step.__name__ not in without}
    done = 0
    try:
        while done < length:
            (step,) = life.chance.choices(list(weights), list(weights.values()))
            if step(life):
                life.check()
                done += 1
    except Exception as error:
        problem = f"{type(error).__name__}: {error}"
        raise HonestRepositoryError(seed, life.story, problem) from error
    return life


def main() -> int:
    """Make the repositories that the command line asks for; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("seeds", type=int, nargs="+")
    parser.add_argument("--without", action="append", default=[], help="a step to leave out")
    words = parser.parse_args()
    failed = 0
    for seed in words.seeds:
        with tempfile.TemporaryDirectory(prefix="phases-honest-") as folder:
            try:
                life = live(seed, Path(folder), without=words.without)
            except HonestRepositoryError as error:
                failed += 1
                print(error, flush=True)
            else:
                print(f"{seed}: ok, {len(life.story)} lines of story", flush=True)
    return min(1, failed)


if __name__ == "__main__":
    sys.exit(main())
