"""Trainings computed again in part: their first steps, and a drawn pack of held-out examples.

Both go through `training.train` and `evaluation.evaluate` as the training did, with as many
threads, so that the same machine computes the same bits.
"""

import dataclasses
import random
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from lab.instruments import aside, evaluation, packing, training, trials
from lab.instruments.chat import Encoded
from lab.instruments.training import Settings, Step
from lab.instruments.trials import SweepContext, TrialResult
from lab.replay import Row

if TYPE_CHECKING:
    from peft import PeftModel

STEPS = 4  # optimizer steps of a training
MEASURED = ("loss", "token_accuracy", "entropy", "grad_norm", "learning_rate")  # not the seconds
TOKENS = ("losses", "entropies", "hits")


def draw_trial(outputs: Path, draw: random.Random) -> TrialResult:
    """Return one of the trials that a feature's outputs have, all of which are stored there."""
    folders = sorted(path.parent for path in (outputs / "artifacts").glob("trials/*/trial.json"))
    return trials.read(draw.choice([path for path in folders if path.name != trials.BASE]))


def replay_trial(
    sweep_context: SweepContext, outputs: Path, stored: TrialResult, draw: random.Random
) -> list[Row]:
    """Return the rows of a stored trial: its first steps, then a pack under its stored adapter.

    The data is that which `outputs` has, if it has any, else that of the context.
    """
    task = (_replay_trial, _stored_data(sweep_context, outputs), outputs, stored, draw)
    rows: list[Row] = aside.run({"": task}, workers=1, threads=sweep_context.threads)[""]
    return rows


def _replay_trial(
    sweep_context: SweepContext, outputs: Path, stored: TrialResult, draw: random.Random
) -> list[Row]:
    stage = trials.Stage(sweep_context)
    folder = stored.folder.relative_to(outputs).as_posix()
    what = f"trial {stored.trial.name}"

    # 1. The first steps, from the adapter that the trial's seed draws.
    model = stage.adapted(stored.trial, None)
    examples = [example.encoded for example in stage.examples(stored.trial)]
    steps = first_steps(model, examples, stored.trial.training)
    model.unload()
    rows = step_rows(steps, file=f"{folder}/steps.safetensors", prefix="", what=what)

    # 2. Held-out examples under the adapter that is stored.
    model = stage.adapted(stored.trial, stored.folder)
    held_out = [example.encoded for example in stage.evaluation]
    file = f"{folder}/evaluation.safetensors"
    ids = stored.evaluation.example_ids
    rows += evaluation_rows(model, held_out, ids, draw, file=file, prefix="", what=what)
    return rows


def _stored_data(sweep_context: SweepContext, outputs: Path) -> SweepContext:
    """Return a sweep's context with the data that a feature stored, where it stored any."""
    train, evaluation_set = (
        outputs / f"artifacts/{name}.jsonl" for name in ("train", "evaluation")
    )
    if not train.is_file():
        return sweep_context
    return dataclasses.replace(sweep_context, train=train, evaluation=evaluation_set)


class _EnoughStepsError(Exception):
    """The steps that were asked for are made."""


def first_steps(model: "PeftModel", examples: Sequence[Encoded], settings: Settings) -> list[Step]:
    """Return the first STEPS steps of a training, under the schedule of the whole one."""
    steps: list[Step] = []

    def stop_early(done: int, step: Step, optimizer: torch.optim.Optimizer) -> None:
        del optimizer
        steps.append(step)
        if done == STEPS:
            raise _EnoughStepsError

    # The schedule depends on the number of steps, so the training is left and not shortened.
    try:
        training.train(model, examples, settings, after_step=stop_early)
    except _EnoughStepsError:
        model.eval()
    return steps


def step_rows(steps: Sequence[Step], *, file: str, prefix: str, what: str) -> list[Row]:
    """Return a row for each quantity of the first steps.

    file: of the stored columns [steps], whose names begin with `prefix`; what: in words.
    """
    rows = []
    for name in MEASURED:
        values = [getattr(step, name) for step in steps]
        row = Row(
            quantity=f"{name} of the first {len(steps)} steps, {what}",
            file=file,
            part=(f"{prefix}{name}",),
            indices=tuple(range(len(steps))),
            recomputed=np.array(values, dtype=np.float64),
        )
        rows.append(row)
    return rows


def evaluation_rows(
    model: "PeftModel",
    held_out: Sequence[Encoded],
    example_ids: np.ndarray,
    draw: random.Random,
    *,
    file: str,
    prefix: str,
    what: str,
) -> list[Row]:
    """Return a row for each quantity of the tokens of one drawn pack of held-out examples.

    A whole pack, because the bits of a product depend on how many rows it has. example_ids: of the
    stored tokens [N]; file, prefix, what: as in `step_rows`.
    """
    # 1. The pack, and where its tokens are stored.
    packs = list(packing.fill(held_out, evaluation.TOKENS_PER_PACK))
    number = draw.randrange(len(packs))
    first = sum(len(pack) for pack in packs[:number])
    end = first + len(packs[number])
    places = np.flatnonzero((example_ids >= first) & (example_ids < end))

    # 2. Its tokens again.
    scores = evaluation.evaluate(model, packs[number])
    rows = []
    for name in TOKENS:
        row = Row(
            quantity=f"{name} of held-out examples {first} to {end - 1}, {what}",
            file=file,
            part=(f"{prefix}{name}",),
            indices=tuple(places.tolist()),
            recomputed=getattr(scores, name),
        )
        rows.append(row)
    return rows


def file_rows(made: Path, files: Sequence[str], quantity: str) -> list[Row]:
    """Return a row for each file below `made` that a feature stores under the same path."""
    rows = []
    for file in files:
        row = Row(
            quantity=f"{quantity}, {file}",
            file=file,
            part=(),
            recomputed=np.frombuffer((made / file).read_bytes(), dtype=np.uint8),
            tolerance=1.0,
            reason="drawn from Python's own library, which differs by version",
        )
        rows.append(row)
    return rows
