"""Hardware decision: what trainings need here, and what follows for larger models and machines.

run(ctx)
    measure(ctx)
        build_shapes     random models of other depths and widths
        measure_rates    this machine's products, attention, bandwidth
        run_all          each training in a process of its own
        read_receipts    what the verified experiments took
    store                runs, timings, receipts, configs under artifacts/
    numbers.fits         both models, fitted to some trainings
    decision_outcome     what fits where, at what price, and the recommendation
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lab.contract import Context, Experiment, Outcome, main
from lab.hardware import figures, numbers, report, tables
from lab.hardware.catalogue import read_catalogue
from lab.hardware.decision_outcome import decision_outcome
from lab.hardware.feasibility import THIS_MACHINE
from lab.hardware.machine_memory import machine_bytes
from lab.hardware.measured import HardwareObservations, RunPlan
from lab.hardware.receipts import read_receipts
from lab.instruments.memory_model import TrainingSetup
from lab.instruments.model_shape import ModelShape

EXPERIMENT = Experiment(
    title="Hardware decision",
    question=(
        "Is this machine enough for what is wanted, and if not, is a GPU to be rented or bought? "
        "How far can memory and time of a training be computed before it runs?"
    ),
    hypothesis=(
        "A plain step's memory can be counted: with one fitted number, a model says to 15 % what "
        "a step of an unseen training adds to the loaded process, and a constant does not. Its "
        "time follows from measured rates to 25 %. QLoRA of 8 billion parameters fits on a GPU of "
        "24 GB, and full fine-tuning needs more than 80 GB."
    ),
    method=(
        "Trainings of a few steps of SmolLM2-135M and of random models of other depths and widths, "
        "by LoRA, QLoRA and full fine-tuning, each in a process of its own. Tensors are counted, "
        "the peak is the kernel's, of plain steps and of the lab's own loop. Memory and time in "
        "closed form are fitted to half of them and held against the others, beside a constant. "
        "The decision is computed from these, "
        "from tables of devices and prices that the user edits, and from stated needs."
    ),
    headline=(
        "recommendation",
        "memory_error_max",
        "memory_error_loop",
        "time_error_max",
        "memory_error_constant",
        "gemm_float32",
        "qlora_8b_gigabytes",
    ),
    packages=("torch", "transformers", "peft", "bitsandbytes"),
)


def run(ctx: Context) -> Outcome:
    """Measure, store, fit, and decide."""
    observations = measure(ctx)
    store(ctx.out / "artifacts", observations)
    return outcome(ctx, observations)


def outcome(ctx: Context, observations: HardwareObservations) -> Outcome:
    """Return all that follows from what was measured."""
    models = numbers.fits(observations)
    catalogue = read_catalogue()
    measured = numbers.measurements(observations, models, catalogue)
    decided = decision_outcome(ctx.out, models.machine(machine_bytes(), THIS_MACHINE))
    return Outcome(
        {**measured, **decided.measurements},
        tables=[*decided.tables, *tables.tables(observations, models, catalogue)],
        findings=[*decided.findings, *report.findings(measured)],
        figures=[*decided.figures, *figures.figures(observations, models)],
        environment=decided.environment,
    )


def measure(ctx: Context) -> HardwareObservations:
    """Run all trainings and time this machine."""
    from lab.hardware import rates, training_runs
    from lab.instruments import sweep

    config = ctx.config
    planned = plans(config)
    total = len(planned) + 2
    with sweep.model_folder(ctx) as base, tempfile.TemporaryDirectory() as scratch:
        # 1. The shapes and the rates.
        ctx.progress(0, total, "random models of other shapes")
        folders = training_runs.build_shapes(base, config["shapes"], Path(scratch), ctx.seed)
        stored = json.loads((base / "config.json").read_text("utf-8"))
        documents = {name: stored | change for name, change in config["shapes"].items()}
        store_configs(ctx.out / "artifacts" / "configs", documents)
        shapes = {name: ModelShape.from_config(one, name) for name, one in documents.items()}
        ctx.progress(1, total, "rates of this machine")
        timings = training_runs.in_new_process(
            rates.measure_rates, shapes["base"], config["repeats"], ctx.seed
        )

        # 2. The trainings.
        runs = training_runs.run_all(
            planned,
            folders,
            ctx.seed,
            lambda number, plan: ctx.progress(2 + number, total, plan.name),
        )
    ctx.progress(total, total, "trained")
    return HardwareObservations(shapes, runs, timings, read_receipts(ctx.inputs))


def plans(config: Any) -> list[RunPlan]:
    """Return the trainings that a config names."""
    planned = []
    for row in config["runs"]:
        setup = {name: row[name] for name in ("method", "batch", "sequence", "supervised", "rank")}
        planned.append(
            RunPlan(
                name=row["name"],
                role=row["role"],
                shape=row["shape"],
                setup=TrainingSetup(**setup),
                steps=config["steps"],
            )
        )
    return planned


def store_configs(folder: Path, documents: Mapping[str, Any]) -> None:
    """Write the config of each shape."""
    folder.mkdir(parents=True)
    for name, document in documents.items():
        (folder / f"{name}.json").write_text(json.dumps(document, indent=1) + "\n", "utf-8")


def store(artifacts: Path, observations: HardwareObservations) -> None:
    """Write what every number is made from."""
    documents = {
        "runs": [asdict(run) for run in observations.runs],
        "timings": {name: asdict(timing) for name, timing in observations.timings.items()},
        "receipts": [asdict(receipt) for receipt in observations.receipts],
    }
    for name, document in documents.items():
        (artifacts / f"{name}.json").write_text(json.dumps(document, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main(EXPERIMENT, run)
