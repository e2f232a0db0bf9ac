"""The measured half again: stored trainings, timings and receipts, by this gate's own arithmetic.

Sizes come from the stored configs alone. A training's tensors are counted, the workspace and the
three factors of time are fitted, and every error follows.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from gates.hardware import stated
from gates.shared import closed_form, outputs
from gates.shared.closed_form import Sizes, Step
from gates.shared.statistics import jackknife_stderr
from gates.shared.stored import config

READ = ("artifacts/runs.json", "artifacts/timings.json", "artifacts/receipts.json")
CONFIGS = ("base", "shallow", "wide")
FILES = (*READ, *(f"artifacts/configs/{name}.json" for name in CONFIGS), *stated.READ)
RATES = ("layer", "adapter", "head", "attention", "bandwidth", "dequantised")
SHOWN_RATES = {
    "layer": "gemm_float32",
    "adapter": "gemm_adapter",
    "head": "gemm_head",
    "attention": "attention_rate",
    "bandwidth": "bandwidth",
    "dequantised": "dequantised_rate",
}
COUNTED = ("weights", "absmax", "trained", "gradients", "optimizer", "activations")
LONG = 2048
EIGHT = "Llama-3.1-8B"
LARGER = ("SmolLM2-360M", "Llama-3.2-1B", EIGHT)
PRODUCT_ROWS = 512


@dataclass(frozen=True)
class Training:
    """One stored run with the sizes of its shape. All numbers are those of the file."""

    raw: dict[str, Any]
    sizes: Sizes

    @property
    def name(self) -> str:
        """Return its name."""
        return str(self.raw["plan"]["name"])

    @property
    def held_out(self) -> bool:
        """Return whether nothing is fitted to it."""
        return bool(self.raw["plan"]["role"] == "held-out")

    @property
    def setup(self) -> dict[str, Any]:
        """Return its settings."""
        settings: dict[str, Any] = self.raw["plan"]["setup"]
        return settings

    @property
    def tokens(self) -> int:
        """Return the tokens of a step."""
        return int(self.setup["batch"] * self.setup["sequence"])

    @property
    def supervised(self) -> int:
        """Return the tokens of a step that the loss counts."""
        each = max(1, round(self.setup["supervised"] * self.setup["sequence"]))
        return int(self.setup["batch"] * each)

    @property
    def increment(self) -> int:
        """Return what the training added to the loaded process."""
        return int(self.raw["peak"] - self.raw["loaded"])

    @property
    def increment_kept(self) -> int:
        """Return what the lab's own loop added, which keeps freed memory."""
        return int(self.raw["peak_kept"] - self.raw["loaded"])

    @property
    def seconds(self) -> float:
        """Return the median of the steps."""
        return float(statistics.median(self.raw["seconds"]))


def sizes(document: dict[str, Any]) -> Sizes:
    """Return the sizes of a Llama, its parameters counted: tied embedding, matrices, norms."""
    assert document["model_type"] == "llama"
    assert document["tie_word_embeddings"] is True
    bare = closed_form.sizes_of(document, 0)
    norms = (2 * bare.layers + 1) * bare.d
    return closed_form.sizes_of(document, bare.vocabulary * bare.d + bare.linear + norms)


def shapes() -> dict[str, Sizes]:
    """Return the sizes of each stored config."""
    return {
        name: sizes(outputs.read_json(f"artifacts/configs/{name}.json"))
        for name in config()["shapes"]
    }


def trainings() -> list[Training]:
    """Return the stored runs in their order."""
    by_name = shapes()
    rows = outputs.read_json("artifacts/runs.json")
    return [Training(row, by_name[row["plan"]["shape"]]) for row in rows]


def timings() -> dict[str, dict[str, Any]]:
    """Return the stored timings."""
    stored: dict[str, dict[str, Any]] = outputs.read_json("artifacts/timings.json")
    return stored


def amounts(base: Sizes) -> dict[str, float]:
    """Return the work of each timing: FLOP, bytes, weights, operations."""
    rows = 512
    return {
        "layer": 2.0 * rows * base.d * base.m,
        "adapter": 2.0 * rows * base.d * 16,
        "head": 2.0 * 128 * base.d * base.vocabulary,
        "attention": 7.0 * rows**2 * base.heads * base.head,
        "bandwidth": 12.0 * 2**24,
        "dequantised": float(base.d * base.m),
        "overhead": 2000.0,
    }


# Memory


def kept(training: Training) -> int:
    """Return the bytes that autograd keeps of the forward pass, without the logits."""
    s, t = training.sizes, training.tokens
    values = 4 * s.d + 3 * s.q + 2 * s.k + 4 * s.m + 2 + s.heads
    if training.setup["method"] != "full":
        values += 7 * training.setup["rank"]
    rest = 4 * (2 * s.head * t + s.d * training.supervised) + 8 * (2 * t + training.supervised)
    return s.layers * 4 * t * values + rest


def counted(training: Training) -> dict[str, int]:
    """Return the bytes of a training's tensors by purpose, in float32."""
    s, method = training.sizes, training.setup["method"]
    scales = s.layers * sum(
        math.ceil(a * b / 64) + 4 * math.ceil(math.ceil(a * b / 64) / 256) for a, b in s.matrices
    )
    trained = s.linear if method == "full" else training.setup["rank"] * s.per_rank
    weights = 4 * (s.n - s.linear)
    if method == "lora":
        weights += 4 * s.linear
    if method == "qlora":
        weights += s.linear // 2 + scales
    return {
        "weights": weights,
        "absmax": scales if method == "qlora" else 0,
        "trained": 4 * trained,
        "gradients": 4 * trained,
        "optimizer": 8 * trained,
        "activations": kept(training),
    }


def beside_the_formula(training: Training) -> dict[str, int]:
    """Return bytes that the closed form leaves out: rotary tables, AdamW's step counters."""
    s = training.sizes
    matrices = 7 * s.layers * (1 if training.setup["method"] == "full" else 2)
    return {"weights": 2 * (s.head // 2) * 4, "optimizer": 4 * matrices}


def logits(training: Training) -> int:
    """Return the bytes of one group of logits and their softmax."""
    groups = math.ceil(training.supervised / 128)
    return 8 * training.sizes.vocabulary * math.ceil(training.supervised / groups)


def increment(training: Training, workspace: float = 0.0, factor: float = 1.0) -> float:
    """Return what a training adds to the loaded process."""
    parts = counted(training)
    adapters = 0 if training.setup["method"] == "full" else parts["trained"]
    moments = max(factor * parts["activations"] + logits(training), parts["gradients"])
    return adapters + parts["optimizer"] + workspace + moments


def workspace(fitted: Sequence[Training]) -> float:
    """Return the workspace with the least squares of relative errors."""
    weights = [1 / one.increment**2 for one in fitted]
    missing = [one.increment - increment(one) for one in fitted]
    total = math.fsum(weight * value for weight, value in zip(weights, missing, strict=True))
    return total / math.fsum(weights)


def kept_factor(runs: Sequence[Training], space: float) -> float:
    """Return the bytes held per byte of activations where the loop keeps freed memory."""
    above = below = 0.0
    for one in runs:
        parts = counted(one)
        adapters = 0 if one.setup["method"] == "full" else parts["trained"]
        rest = adapters + parts["optimizer"] + logits(one) + space
        held = one.increment_kept - rest
        above += parts["activations"] * held
        below += parts["activations"] ** 2
    return max(1.0, above / below)


# Time


def rates() -> dict[str, float]:
    """Return amounts per second; of the overhead the seconds of one operation."""
    medians = {
        name: one["amount"] / statistics.median(one["seconds"]) for name, one in timings().items()
    }
    return medians | {"overhead": 1 / medians["overhead"]}


def terms(training: Training, machine: dict[str, float]) -> tuple[list[float], float]:
    """Return seconds of products, one pass, one operation per layer; and those of the rest."""
    # 1. The machine's speed beside the steps.
    s, t = training.sizes, training.tokens
    product = 2.0 * PRODUCT_ROWS * s.d * s.m / statistics.median(training.raw["products"])
    slower = machine["layer"] / product

    # 2. The work.
    method = training.setup["method"]
    trained = counted(training)["trained"] / 4
    products = (6 if method == "full" else 4) * t * s.linear / machine["layer"]
    if method != "full":
        products += 6 * t * trained / machine["adapter"]
    products += 4 * training.supervised * s.d * s.vocabulary / machine["head"]
    pairs = training.setup["batch"] * training.setup["sequence"] ** 2
    products += 7 * pairs * s.q * s.layers / machine["attention"]
    rest = 28 * trained / machine["bandwidth"]
    if method == "qlora":
        rest += 2 * s.linear / machine["dequantised"]
    passes = kept(training) / machine["bandwidth"]
    operations = s.layers * machine["overhead"]
    return [products * slower, passes * slower, operations * slower], rest * slower


def time_factors(fitted: Sequence[Training], machine: dict[str, float]) -> list[float]:
    """Return the factors, none below 0, with the least squares of relative errors.

    The best of all choices of factors that are not 0.
    """
    import numpy as np

    rows, targets = [], []
    for one in fitted:
        parts, rest = terms(one, machine)
        rows.append([part / one.seconds for part in parts])
        targets.append(1 - rest / one.seconds)
    a, b = np.array(rows), np.array(targets)
    best, least = [0.0, 0.0, 0.0], float(b @ b)
    for count in (1, 2, 3):
        for chosen in combinations(range(3), count):
            solution = np.linalg.lstsq(a[:, chosen], b, rcond=None)[0]
            if (solution < 0).any():
                continue
            left = float(((a[:, chosen] @ solution - b) ** 2).sum())
            if left < least - 1e-15:
                least, best = left, [0.0, 0.0, 0.0]
                for index, value in zip(chosen, solution, strict=True):
                    best[index] = float(value)
    return best


def step_time(training: Training, machine: dict[str, float], factors: Sequence[float]) -> float:
    """Return the predicted seconds of a step."""
    parts, rest = terms(training, machine)
    return math.fsum(f * part for f, part in zip(factors, parts, strict=True)) + rest


def without_step(training: Training, index: int) -> Training:
    """Return a training without one of its timed steps."""
    raw = dict(training.raw)
    for field in ("seconds", "products"):
        raw[field] = [value for i, value in enumerate(raw[field]) if i != index]
    return Training(raw, training.sizes)


# Errors


def recompute() -> dict[str, Any]:
    """Return numbers, fits and predictions."""
    runs, machine = trainings(), rates()
    fitted = [one for one in runs if not one.held_out]
    held = [one for one in runs if one.held_out]
    space = workspace(fitted)
    factors = time_factors(fitted, machine)
    memory = {one.name: increment(one, space) for one in runs}
    seconds = {one.name: step_time(one, machine, factors) for one in runs}
    factor = kept_factor(fitted, space)
    started = math.fsum(one.raw["started"] for one in fitted) / len(fitted)
    numbers = {
        **_memory_numbers(fitted, held, space),
        "memory_runtime": started,
        "memory_kept_factor": factor,
        **_time_numbers(runs, machine, factors),
        **_counts(runs),
        **_rates(),
        **_models(),
        **_receipts(),
    }
    return {
        "numbers": numbers,
        "memory": memory,
        "loop": {one.name: increment(one, space, factor) for one in runs},
        "seconds": seconds,
        "machine": {
            "rates": machine,
            "memory_fit": {
                "runtime": started,
                "activation_factor": factor,
                "workspace": space,
            },
            "time_fit": dict(zip(("products", "passes", "operations"), factors, strict=True)),
        },
    }


def _memory_numbers(
    fitted: Sequence[Training], held: Sequence[Training], space: float
) -> dict[str, Any]:
    def errors(workspace_bytes: float) -> list[float]:
        return [abs(increment(one, workspace_bytes) / one.increment - 1) for one in held]

    def loop_error(some: Sequence[Training]) -> float:
        """Return the worst error of the loop's peak where some trainings alone are fitted."""
        bytes_ = workspace(some)
        factor = kept_factor(some, bytes_)
        return max(abs(increment(one, bytes_, factor) / one.increment_kept - 1) for one in held)

    without, loop_without = [], []
    for left in fitted:
        others = [one for one in fitted if one is not left]
        without.append(max(errors(workspace(others))))
        loop_without.append(loop_error(others))
    mean = math.fsum(one.increment for one in fitted) / len(fitted)
    return {
        "memory_error_max": {
            "value": max(errors(space)),
            "stderr": jackknife_stderr(without),
            "n": len(without),
        },
        "memory_error_loop": {
            "value": loop_error(fitted),
            "stderr": jackknife_stderr(loop_without),
            "n": len(loop_without),
        },
        "memory_error_mean": _sample(errors(space)),
        "memory_error_constant": max(abs(mean / one.increment - 1) for one in held),
        "memory_workspace": space,
    }


def _time_numbers(
    runs: Sequence[Training], machine: dict[str, float], factors: Sequence[float]
) -> dict[str, Any]:
    def errors(some: Sequence[Training], fit: Sequence[float]) -> list[float]:
        return [abs(step_time(one, machine, fit) / one.seconds - 1) for one in some if one.held_out]

    without = []
    for index in range(len(runs[0].raw["seconds"])):
        some = [without_step(one, index) for one in runs]
        fit = time_factors([one for one in some if not one.held_out], machine)
        without.append(max(errors(some, fit)))
    fitted = [one.seconds for one in runs if not one.held_out]
    mean = math.fsum(fitted) / len(fitted)
    now = errors(runs, factors)
    names = ("time_products", "time_passes", "time_operations")
    return {
        "time_error_max": {
            "value": max(now),
            "stderr": jackknife_stderr(without),
            "n": len(without),
        },
        "time_error_mean": _sample(now),
        "time_error_constant": max(abs(mean / one.seconds - 1) for one in runs if one.held_out),
        **dict(zip(names, factors, strict=True)),
    }


def _counts(runs: Sequence[Training]) -> dict[str, Any]:
    largest = dict.fromkeys(COUNTED, 0.0)
    for one in runs:
        for name, expected in counted(one).items():
            if expected:
                largest[name] = max(largest[name], abs(one.raw[name] / expected - 1))
    errors = {f"{name}_count_error": value for name, value in largest.items()}
    held = sum(one.held_out for one in runs)
    return {"configurations": len(runs), "held_out": held, **errors}


def _rates() -> dict[str, Any]:
    numbers = {}
    for name, measurement in SHOWN_RATES.items():
        one = timings()[name]
        values = [one["amount"] / seconds / 1e9 for seconds in one["seconds"]]
        numbers[measurement] = {
            "value": one["amount"] / statistics.median(one["seconds"]) / 1e9,
            "stderr": _sample(values)["stderr"],
            "n": len(values),
        }
    return numbers


def _models() -> dict[str, Any]:
    base = shapes()["base"]
    scales = base.layers * sum(
        math.ceil(a * b / 64) + 4 * math.ceil(math.ceil(a * b / 64) / 256) for a, b in base.matrices
    )
    stored = base.linear / 2 + scales + 2 * (base.n - base.linear)
    models = {model["name"]: model for model in stated.document("models.yaml")["models"]}
    eight = closed_form.sizes_of(models[EIGHT]["config"], models[EIGHT]["parameters"])
    rank = stated.document("needs.yaml")["assumptions"]["rank"]
    gigabytes = {}
    for method in ("qlora", "full"):
        step = Step(method, 1, LONG, rank, on_gpu=True)
        gigabytes[f"{method}_8b_gigabytes"] = (
            closed_form.step_bytes(eight, step, closed_form.NO_SLACK) / 1e9
        )
    return {
        "parameters": base.n,
        "linear_parameters": base.linear,
        "logits_over_weights": LONG * base.vocabulary * 4 / stored,
        **gigabytes,
    }


def _receipts() -> dict[str, Any]:
    rows = outputs.read_json("artifacts/receipts.json")
    return {
        "experiments": len(rows),
        "experiments_seconds": math.fsum(row["seconds"] for row in rows),
        "experiments_cpu_seconds": math.fsum(row["cpu_seconds"] for row in rows),
        "experiments_peak": max((row["peak_bytes"] for row in rows), default=0),
    }


def _sample(values: Sequence[float]) -> dict[str, Any]:
    sample = outputs.sample(values)
    return {name: sample[name] for name in ("value", "stderr", "n")}


def scales(machine: dict[str, Any]) -> list[tuple[float, float]]:
    """Return for each larger model by what an experiment's time [times] and memory [bytes] grow."""
    models = {model["name"]: model for model in stated.document("models.yaml")["models"]}
    settings = {"method": "lora", "batch": 8, "sequence": 32, "supervised": 0.4, "rank": 16}
    base = _reference(shapes()["base"], settings, machine)
    grown = []
    for name in LARGER:
        larger = closed_form.sizes_of(models[name]["config"], models[name]["parameters"])
        seconds, size = _reference(larger, settings, machine)
        grown.append((seconds / base[0], size - base[1]))
    return grown


def _reference(s: Sizes, settings: dict[str, Any], machine: dict[str, Any]) -> tuple[float, float]:
    product = 2.0 * PRODUCT_ROWS * s.d * s.m / machine["rates"]["layer"]
    raw = {"plan": {"setup": settings}, "products": [product]}
    training = Training(raw, s)
    factors = [machine["time_fit"][name] for name in ("products", "passes", "operations")]
    return step_time(training, machine["rates"], factors), 4 * s.n + increment(training)
