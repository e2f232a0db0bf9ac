"""Tables, figures and sentences of the measured half, from what `trainings` computed."""

from __future__ import annotations

import statistics
from typing import Any

from gates.hardware import trainings
from gates.hardware.trainings import LARGER, Training
from gates.shared import outputs
from gates.shared.documents import written

MEMORY = "Trainings: what a step adds to the loaded process"
TIME = "Trainings: how long a step takes"
RATES = "This machine's rates"
EXPERIMENTS = "Every verified experiment, and the same with larger models on this machine"
PARTS = ("weights", "optimizer", "gradients", "adapters", "activations", "logits", "workspace")
WITHIN = {"memory": 15, "time": 25}  # %


def tables(computed: dict[str, Any]) -> dict[str, tuple[list[str], list[list[Any]]]]:
    """Return title → (columns, rows)."""
    larger = []
    for name in LARGER:
        larger += [f"{name}: min", f"{name}: GB"]
    return {
        MEMORY: (
            [
                *("training", "role", "shape", "method", "tokens"),
                *("plain step, MB", "predicted", "error, %"),
                *("lab's loop, MB", "predicted", "error, %"),
            ],
            [_memory_row(one, computed) for one in trainings.trainings()],
        ),
        TIME: (
            ["training", "role", "s", "predicted", "error, %"],
            [_time_row(one, computed) for one in trainings.trainings()],
        ),
        RATES: (
            ["work", "amount", "s (median)", "s (least)", "amount a second"],
            [_rate_row(name, one) for name, one in trainings.timings().items()],
        ),
        EXPERIMENTS: (
            ["experiment", "title", "min", "CPU min", "GB", *larger],
            _experiment_rows(computed),
        ),
    }


def _memory_row(one: Training, computed: dict[str, Any]) -> list[Any]:
    plan = one.raw["plan"]
    return [
        *(one.name, plan["role"], plan["shape"], one.setup["method"]),
        f"{one.setup['batch']} × {one.setup['sequence']}",
        *_beside(one.increment / 1e6, computed["memory"][one.name] / 1e6),
        *_beside(one.increment_kept / 1e6, computed["loop"][one.name] / 1e6),
    ]


def _time_row(one: Training, computed: dict[str, Any]) -> list[Any]:
    role = one.raw["plan"]["role"]
    return [one.name, role, *_beside(one.seconds, computed["seconds"][one.name])]


def _beside(measured: float, predicted: float) -> list[str]:
    """Return both to three digits, and the error in % to a tenth."""
    error = 100 * (predicted / measured - 1)
    return [written(measured), written(predicted), f"{error:+.1f}"]


def _rate_row(name: str, one: dict[str, Any]) -> list[Any]:
    median = statistics.median(one["seconds"])
    return [name, one["amount"], median, min(one["seconds"]), one["amount"] / median]


def _experiment_rows(computed: dict[str, Any]) -> list[list[Any]]:
    scales = trainings.scales(computed["machine"])
    rows = []
    for row in outputs.read_json("artifacts/receipts.json"):
        larger = []
        for factor, more in scales:
            larger += [row["seconds"] / 60 * factor, (row["peak_bytes"] + more) / 1e9]
        rows.append(
            [
                *(row["feature"], row["title"], row["seconds"] / 60, row["cpu_seconds"] / 60),
                *(row["peak_bytes"] / 1e9, *larger),
            ]
        )
    return rows


def findings(numbers: dict[str, Any]) -> list[str]:
    """Return all sentences."""
    value = {name: one["value"] if isinstance(one, dict) else one for name, one in numbers.items()}

    def shown(name: str, factor: float = 1.0) -> str:
        return written(value[name] * factor)

    def percent(name: str) -> str:
        return f"{shown(name, 100)} %"

    def judged(name: str, bound: int) -> str:
        side = "within" if 100 * value[name] < bound else "NOT within"
        return f"{side} {bound} %"

    constant = "fails" if 100 * value["memory_error_constant"] >= WITHIN["memory"] else "PASSES TOO"
    more = "more" if value["logits_over_weights"] > 1 else "NOT more"
    return [
        "Memory of a plain step, which returns freed memory at once: of "
        f"{value['held_out']} trainings that nothing was fitted to, the worst is off by "
        f"{percent('memory_error_max')} of what it adds to the loaded process, "
        f"{judged('memory_error_max', WITHIN['memory'])}. A constant {constant}: "
        f"{percent('memory_error_constant')}. One number is fitted, a workspace of "
        f"{shown('memory_workspace', 1e-6)} MB; what autograd keeps is counted, and off by at most "
        f"{percent('activations_count_error')}.",
        "Memory of the lab's own loop, which keeps freed memory and is what the decision counts: "
        f"the worst of the same trainings is off by {percent('memory_error_loop')}, "
        f"{judged('memory_error_loop', WITHIN['memory'])}. The loop is taken to hold "
        f"{shown('memory_kept_factor')} bytes per byte of activations. What fits here by less than "
        "that error has to be tried.",
        f"Time of a step of the same trainings: {judged('time_error_max', WITHIN['time'])}, at "
        f"worst {percent('time_error_max')}, {percent('time_error_mean')} in the mean; a constant "
        f"misses by {percent('time_error_constant')}.",
        f"This machine multiplies matrices of the model's shapes at {shown('gemm_float32')} "
        f"GFLOP/s in float32 and moves {shown('bandwidth')} GB/s.",
        f"Full logits of 2,048 tokens would be {more} bytes than the model's weights under QLoRA: "
        f"{shown('logits_over_weights')} times.",
        f"On a GPU a step of 2,048 tokens of Llama-3.1-8B needs {shown('qlora_8b_gigabytes')} GB "
        f"with QLoRA and {shown('full_8b_gigabytes')} GB with full fine-tuning.",
        f"The {value['experiments']} verified experiments took "
        f"{shown('experiments_seconds', 1 / 60)} minutes and at most "
        f"{shown('experiments_peak', 1e-9)} GB.",
    ]


def figures(computed: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return what each figure must show: texts, and label → (x, y)."""
    return {
        "memory": _against(computed, "memory", "What a plain step adds to memory", ("MB", 1e6)),
        "time": _against(computed, "time", "What a step takes", ("s", 1.0)),
        "parts": _parts(computed),
    }


def _against(
    computed: dict[str, Any], what: str, title: str, unit: tuple[str, float]
) -> dict[str, Any]:
    label, size = unit
    runs = trainings.trainings()
    predicted = computed["memory" if what == "memory" else "seconds"]
    measured = {one.name: one.increment if what == "memory" else one.seconds for one in runs}
    lines = {}
    for role, is_held in (("fit", False), ("held-out", True)):
        names = [one.name for one in runs if one.held_out == is_held]
        lines[role] = [
            [measured[name] / size for name in names],
            [predicted[name] / size for name in names],
        ]
    both = [value / size for value in (*measured.values(), *predicted.values())]
    lines["equal"] = [[min(both), max(both)]] * 2
    worst = computed["numbers"][f"{what}_error_max"]["value"]
    fitted = sum(not one.held_out for one in runs)
    return {
        "title": f"{title}: predicted against measured",
        "caption": (
            f"{fitted} trainings the model was fitted to, {len(runs) - fitted} that it was not; of "
            f"these the worst is off by {written(worst)}. On the line both are equal."
        ),
        "x_label": f"measured ({label})",
        "y_label": f"predicted ({label})",
        "scale": "linear",
        "lines": lines,
        "kinds": {"fit": "points", "held-out": "points", "equal": "line"},
    }


def _parts(computed: dict[str, Any]) -> dict[str, Any]:
    space = computed["machine"]["memory_fit"]["workspace"]
    peaks = {
        one.name: _at_peak(one, space)
        for one in trainings.trainings()
        if one.name.startswith("base_")
    }
    said = []
    for name, parts in peaks.items():
        largest = max(PARTS, key=lambda part: parts[part])
        said.append(f"{name}: {largest} {written(parts[largest] / 1e6)} MB")
    return {
        "title": "Memory at the peak of a step, by purpose",
        "caption": (
            "By the fitted model, without the process itself. The largest part of each: "
            f"{'; '.join(said)}. Gradients and activations are not there at the same time: only "
            "the larger counts."
        ),
        "x_label": "training",
        "y_label": "MB, rounded",
        "scale": "linear",
        "lines": {
            part: [list(peaks), [round(parts[part] / 1e6) for parts in peaks.values()]]
            for part in PARTS
        },
        "kinds": dict.fromkeys(PARTS, "bar"),
    }


def _at_peak(one: Training, space: float) -> dict[str, float]:
    parts = trainings.counted(one)
    is_full = one.setup["method"] == "full"
    weights = parts["weights"] - parts["absmax"] + (parts["trained"] if is_full else 0)
    logits = trainings.logits(one)
    at_loss = parts["activations"] + logits >= parts["gradients"]
    return {
        "weights": weights,
        "optimizer": parts["optimizer"],
        "gradients": 0 if at_loss else parts["gradients"],
        "adapters": 0 if is_full else parts["trained"],
        "activations": parts["activations"] if at_loss else 0,
        "logits": logits if at_loss else 0,
        "workspace": space,
    }
