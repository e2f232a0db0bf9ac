"""A replay of FEAT-017: all numbers from the stored runs, and one of the trainings again."""

from __future__ import annotations

import dataclasses
import json
import random
import tempfile
from pathlib import Path
from typing import Any

from lab.contract import Context
from lab.hardware import numbers
from lab.hardware.catalogue import read_catalogue
from lab.hardware.decision import decide
from lab.hardware.decision_numbers import decision_measurements
from lab.hardware.experiment import plans
from lab.hardware.feasibility import Machine
from lab.hardware.measured import (
    HardwareObservations,
    Receipt,
    RunPlan,
    Timing,
    TrainingRun,
)
from lab.instruments.memory_model import TrainingSetup
from lab.instruments.model_shape import ModelShape
from lab.replay import Row, array_of, main

RUNS = "artifacts/runs.json"
COUNTED = ("weights", "absmax", "trained", "gradients", "optimizer", "tokens", "supervised_tokens")
SMALL = "shallow"  # the shape whose trainings take seconds
TIME_TOLERANCE = 0.75  # a factor of 4 either way: what else runs on the machine


def replay(ctx: Context, stored: Path, draw: random.Random) -> list[Row]:
    """Return the rows of a stored run."""
    return [*_closed_form(stored), *_training(ctx, stored, draw)]


def _closed_form(stored: Path) -> list[Row]:
    """Return every measurement, computed from what was stored beside it."""
    # 1. The observations as they were stored.
    artifacts = stored / "artifacts"
    shapes = {}
    for path in sorted((artifacts / "configs").glob("*.json")):
        shapes[path.stem] = ModelShape.from_config(_read(path), path.stem)
    observations = HardwareObservations(
        shapes=shapes,
        runs=tuple(_run_from_json(raw) for raw in _read(stored / RUNS)),
        timings={
            name: Timing(raw["amount"], tuple(raw["seconds"]))
            for name, raw in _read(artifacts / "timings.json").items()
        },
        receipts=tuple(Receipt(**raw) for raw in _read(artifacts / "receipts.json")),
    )

    # 2. What follows from them, from the prices and from the machine.
    catalogue = read_catalogue(artifacts / "decision")
    models = numbers.fits(observations)
    machine = Machine.from_json(_read(artifacts / "decision" / "machine.json"))
    measured = numbers.measurements(observations, models, catalogue)
    measured |= decision_measurements(decide(catalogue, machine))
    rows = []
    for name, measurement in measured.items():
        row = Row(
            quantity=f"measurement {name}, from what was stored",
            file="result.json",
            part=("measurements", name, "value"),
            recomputed=array_of(measurement.value),
            tolerance=1e-6,
            reason="a fit in float64",
        )
        rows.append(row)
    return rows


def _run_from_json(raw: dict[str, Any]) -> TrainingRun:
    """Return the run of which `asdict` made this JSON."""
    plan = {**raw["plan"], "setup": TrainingSetup(**raw["plan"]["setup"])}
    lists = {name: tuple(raw[name]) for name in ("seconds", "products", "losses")}
    return TrainingRun(**{**raw, **lists, "plan": RunPlan(**plan)})


def _training(ctx: Context, stored: Path, draw: random.Random) -> list[Row]:
    """Return what one training of the small shape measures: losses, tensors, and its time."""
    from lab.hardware import training_runs
    from lab.instruments import sweep

    # 1. One of the trainings, in a process of its own, as all were.
    planned = plans(ctx.config)
    number = draw.choice([i for i, plan in enumerate(planned) if plan.shape == SMALL])
    plan = planned[number]
    changes = ctx.config["shapes"]
    seed = ctx.seed + list(changes).index(SMALL)
    with sweep.model_folder(ctx) as base, tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / SMALL
        write = training_runs.write_random_model
        training_runs.in_new_process(write, base, changes[SMALL], folder, seed)
        run = training_runs.in_new_process(training_runs.measure_run, plan, folder, ctx.seed)

    # 2. Its losses and counts, which are promised, and its time, which is not.
    measured = json.loads(json.dumps(dataclasses.asdict(run)))
    what = f"training {plan.name}"
    losses = array_of(measured["losses"])
    rows = [Row(f"losses, {what}", RUNS, (number, "losses"), losses)]
    for name in COUNTED:
        values = array_of(measured[name])
        rows.append(Row(f"{name}, {what}", RUNS, (number, name), values, tolerance=0.0))
    row = Row(
        quantity=f"seconds of each step, {what}",
        file=RUNS,
        part=(number, "seconds"),
        recomputed=array_of(measured["seconds"]),
        is_deterministic=False,
        tolerance=TIME_TOLERANCE,
        reason="a time, of a machine that also does other work: a factor of 4",
    )
    return [*rows, row]


def _read(path: Path) -> Any:
    return json.loads(path.read_text("utf-8"))


if __name__ == "__main__":
    main(replay)
