"""The exit gate of phase 5 passes a decision whose models follow from what was measured.

It sees peaks, seconds, roles and errors that were changed, also where the result says the same.
"""

import json
import shutil
import statistics
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lab import present
from lab.contract import Measurement, Result
from lab.hardware import fitting
from lab.hardware.figures import against
from lab.hardware.measured import HardwareObservations, RunPlan, TrainingRun
from lab.hardware.numbers import of_memory
from lab.instruments.memory_model import TrainingSetup, memory
from lab.instruments.model_shape import ModelShape
from tests.gates.conftest import assert_able_to_fail_for_each, failing

GATE = "phase_5/test_phase_5.py"
FEATURE = "FEAT-017"
WORDS = "one two three four five six"
CONFIG = {
    "model_type": "llama",
    "num_hidden_layers": 3,
    "hidden_size": 64,
    "intermediate_size": 192,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 500,
    "tie_word_embeddings": True,
}
LOADED, WORKSPACE = 300_000_000, 2_000_000

MEMORY = "test_memory_errors_follow_from_the_measured_peaks"
TIME = "test_time_errors_follow_from_the_measured_seconds"
REPORT = "test_decision_reports_how_far_its_models_are_off"


def training(
    role: str, method: str, shape: tuple[int, int], rank: int, surplus: float
) -> TrainingRun:
    """Return a training whose peak is what is counted, a workspace and some share more.

    shape: sequences of a step, tokens of each.
    """
    batch, sequence = shape
    setup = TrainingSetup(method, batch=batch, sequence=sequence, supervised=0.4, rank=rank)
    counted = memory(ModelShape.from_config(CONFIG, "base"), setup)
    added = round((counted.increment + WORKSPACE) * (1 + surplus))
    seconds = 1e-4 * batch * sequence
    return TrainingRun(
        plan=RunPlan(f"{method}_{batch}_{sequence}", role, "base", setup, steps=3),
        started=LOADED // 2,
        loaded=LOADED,
        peak=LOADED + added,
        peak_kept=LOADED + 2 * added,
        weights=round(counted.weights),
        absmax=0,
        trained=round(counted.adapters),
        gradients=round(counted.gradients),
        optimizer=round(counted.optimizer),
        activations=round(counted.activations),
        seconds=(seconds, 1.2 * seconds, 0.9 * seconds),
        products=(0.01, 0.01, 0.01),
        losses=(6.0, 5.0, 4.0),
        tokens=batch * sequence,
        supervised_tokens=setup.supervised_tokens,
    )


RUNS = (
    training("fit", "lora", (8, 64), 16, 0.02),
    training("fit", "full", (4, 64), 0, -0.03),
    training("fit", "lora", (1, 256), 64, 0.01),
    training("held-out", "lora", (4, 128), 8, 0.05),
    training("held-out", "full", (8, 256), 0, -0.04),
    training("held-out", "qlora", (2, 64), 16, 0.01),
)


def measurements_of(runs: tuple[TrainingRun, ...]) -> dict[str, Measurement]:
    """Return the memory's errors by the lab's own code."""
    shapes = {"base": ModelShape.from_config(CONFIG, "base")}
    observations = HardwareObservations(shapes=shapes, runs=runs, timings={}, receipts=())
    fitted = [run for run in runs if run.plan.role == "fit"]
    fit = fitting.fit_memory(fitted, shapes)
    factor = fitting.kept_factor(fitted, shapes, fit)
    models: Any = SimpleNamespace(
        memory_fit=fit,
        memory=fitting.predict_memory(runs, shapes, fit),
        loop=fitting.predict_loop(runs, shapes, fit, factor),
        kept_factor=factor,
    )
    held = len(runs) - len(fitted)
    return {
        **of_memory(observations, models),
        "held_out": Measurement.of_exact(held, "configurations"),
        "recommendation": Measurement.of_exact("stay on this machine"),
    }


def times_of(runs: tuple[TrainingRun, ...]) -> fitting.Predictions:
    """Return the medians of the steps, and predictions that are too long or short."""
    measured = {run.plan.name: statistics.median(run.seconds) for run in runs}
    predicted = {}
    for number, (name, seconds) in enumerate(measured.items()):
        predicted[name] = seconds * (1.1 if number % 2 else 0.95)
    return fitting.Predictions(measured, predicted)


def time_figure(runs: tuple[TrainingRun, ...]) -> present.Figure:
    """Return the figure of measured and predicted seconds by the lab's own code."""
    observations = HardwareObservations(shapes={}, runs=runs, timings={}, receipts=())
    return against("time", times_of(runs), observations, title="Steps", unit=("s", 1.0))


def write(folder: Path, runs: tuple[TrainingRun, ...]) -> None:
    """Write a whole FEAT-017 made from these trainings."""
    (folder / "artifacts/configs").mkdir(parents=True, exist_ok=True)
    (folder / "artifacts/configs/base.json").write_text(json.dumps(CONFIG))
    (folder / "artifacts/runs.json").write_text(json.dumps([asdict(run) for run in runs]))
    worst = max(times_of(runs).errors(fitting.names_of(runs, "held-out")))
    time_error = Measurement.of_estimate(worst, "", stderr=0.01, n=3)
    result = Result(
        experiment="lab.hardware.experiment",
        title="Hardware decision",
        question=WORDS,
        hypothesis=WORDS,
        method=WORDS,
        headline=(),
        measurements={**measurements_of(runs), "time_error_max": time_error},
        findings=("It fits.",),
    )
    present.write(folder, result, [time_figure(runs)])


@pytest.fixture(scope="module")
def phase(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Write the feature's outputs and the inputs of the phase, and return both."""
    folder = tmp_path_factory.mktemp("phase")
    write(folder / "out" / FEATURE, RUNS)
    inputs = folder / "inputs.json"
    inputs.write_text("{}")
    return folder / "out", inputs


@pytest.fixture
def copy(phase: tuple[Path, Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(phase[0], tmp_path / "out"))


def failures(out: Path, inputs: Path) -> list[str]:
    """Return the checks that fail beside those that compare digests."""
    return failing(GATE, out, inputs, "-m", "not integrity")


def test_the_runner_finds_the_exit_gate_able_to_fail(
    phase: tuple[Path, Path], gates_dir: Path
) -> None:
    folder, inputs = phase
    assert_able_to_fail_for_each(GATE, folder, inputs, gates_dir, features=(FEATURE,))


def test_a_phase_of_which_all_was_waived_does_not_pass(
    phase: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, copy: Path
) -> None:
    import gates.phase_5.test_phase_5 as gate

    monkeypatch.setattr(gate, "FEATURES", ())
    with pytest.raises(AssertionError, match="every feature of the phase was waived"):
        gate.test_at_least_one_feature_was_verified()


def test_a_missing_feature_is_seen(phase: tuple[Path, Path], copy: Path) -> None:
    shutil.rmtree(copy / FEATURE)
    assert any(FEATURE in check for check in failures(copy, phase[1]))


def edit_runs(out: Path, edit: Callable[[list[dict[str, Any]]], None]) -> None:
    path = out / FEATURE / "artifacts/runs.json"
    runs = json.loads(path.read_text())
    edit(runs)
    path.write_text(json.dumps(runs))


def raise_a_peak(runs: list[dict[str, Any]]) -> None:
    runs[3]["peak"] += 100_000


def slow_a_run_down(runs: list[dict[str, Any]]) -> None:
    runs[4]["seconds"] = [2 * second for second in runs[4]["seconds"]]


def use_a_longer_text(runs: list[dict[str, Any]]) -> None:
    runs[5]["plan"]["setup"]["sequence"] *= 2


def exchange_roles(runs: list[dict[str, Any]]) -> None:
    """Fit the trainings that the model misses most, and hold out those that it was made for."""
    for run in runs:
        run["plan"]["role"] = {"fit": "held-out", "held-out": "fit"}[run["plan"]["role"]]


@pytest.mark.parametrize(
    ("edit", "check"),
    [
        (raise_a_peak, MEMORY),
        (use_a_longer_text, MEMORY),
        (exchange_roles, MEMORY),
        (exchange_roles, TIME),
        (slow_a_run_down, TIME),
    ],
)
def test_other_measured_trainings_are_seen(
    phase: tuple[Path, Path],
    copy: Path,
    edit: Callable[[list[dict[str, Any]]], None],
    check: str,
) -> None:
    edit_runs(copy, edit)
    assert check in failures(copy, phase[1])


def state(out: Path, **measurements: Measurement) -> None:
    """Write other measurements into the result, and seal it anew."""
    folder = out / FEATURE
    document = json.loads((folder / "result.json").read_text())
    for name, measurement in measurements.items():
        document["measurements"][name] = measurement.to_json()
    present.write(folder, Result.from_json(document | {"files": {}}), [time_figure(RUNS)])


def test_errors_that_were_made_smaller_are_seen(phase: tuple[Path, Path], copy: Path) -> None:
    honest = measurements_of(RUNS)["memory_error_max"]
    assert honest.stderr is not None
    smaller = Measurement.of_estimate(honest.value, "", stderr=honest.stderr / 2, n=honest.n)
    state(copy, memory_error_max=smaller)
    assert MEMORY in failures(copy, phase[1])
    state(copy, memory_error_max=honest, time_error_max=Measurement.of_estimate(0.01, ""))
    assert failures(copy, phase[1]) == [TIME]


def test_a_model_that_is_no_better_than_a_constant_is_seen(
    phase: tuple[Path, Path], tmp_path: Path
) -> None:
    """All said as it was measured: on these trainings the model is worth nothing."""
    peaks = {run.plan.name: run.peak for run in RUNS}
    runs = tuple(replace(run, peak=max(peaks.values())) for run in RUNS)
    write(tmp_path / "out" / FEATURE, runs)
    assert failures(tmp_path / "out", phase[1]) == [MEMORY]


def test_another_number_in_the_report_is_seen(phase: tuple[Path, Path], copy: Path) -> None:
    path = copy / FEATURE / "report.md"
    text = path.read_text()
    assert "stay on this machine" in text
    path.write_text(text.replace("stay on this machine", "buy a machine"))
    assert failures(copy, phase[1]) == [REPORT]
