"""FEAT-001's numbers computed again from what it stored: arrays, data, adapters' headers.

Needs numpy and no torch. Everything here comes from files below the outputs and from the header of
the base model's weights; what the arrays themselves are worth is settled in gates/qlora/model.py.
"""

from __future__ import annotations

import math
from typing import Any

from gates.shared import outputs
from gates.shared.stored import (
    arrays,
    artifact,
    cached,
    header,
    ratio,
    rows,
    supervised,
    token_mean,
)

RUNS = ("true", "shuffled")
EVALUATIONS = ("base", *RUNS)
SETS = ("train", "control", "evaluation")
LAST = 10
PARTS = ("weights", "adapters", "gradients", "optimizer")
LINEARS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
FILES = (
    *(f"artifacts/{name}.safetensors" for name in ("evaluation", "training", "quantisation")),
    *(f"artifacts/{name}.jsonl" for name in SETS),
    *(f"artifacts/adapter_{name}/adapter_model.safetensors" for name in ("initial", *RUNS)),
    "artifacts/stages.json",
)


def base_shapes() -> dict[str, list[int]]:
    """Give name -> shape of the base model's weights."""
    found = header(outputs.inputs()["smollm2-135m"] / "model.safetensors")
    return {name: entry["shape"] for name, entry in found.items()}


def linear_names() -> list[str]:
    """Give the base model's linear layers, in their order: what is quantised and adapted."""
    names = [name for name in base_shapes() if name.split(".")[-2] in LINEARS]
    return sorted(
        names, key=lambda name: (int(name.split(".")[2]), LINEARS.index(name.split(".")[-2]))
    )


def nf4_bytes(count: int) -> int:
    """Give the bytes of `count` weights in NF4 with double quantisation.

    By Dettmers et al. 2023 (arXiv:2305.14314), section 3. Half a byte each, one byte of scale per
    64, one float32 per 256 of these scales.
    """
    blocks = math.ceil(count / 64)
    return math.ceil(count / 2) + blocks + 4 * math.ceil(blocks / 256)


def numbers() -> dict[str, Any]:
    """Give measurement -> what it must be (a value, or a mapping with value, stderr, n)."""
    return dict(cached("qlora numbers", FILES, _numbers))


def _numbers() -> dict[str, Any]:
    return _of_data() | _of_evaluation() | _of_training() | _of_memory() | _of_quantisation()


def _of_data() -> dict[str, Any]:
    train, evaluation = rows("train"), rows("evaluation")
    total = sum(len(row["ids"]) for row in train + evaluation)
    adapter = header(artifact("adapter_true/adapter_model.safetensors"))
    parameters = sum(math.prod(entry["shape"]) for entry in adapter.values())
    loss = arrays("training")
    return {
        "train_examples": len(train),
        "eval_examples": len(evaluation),
        "tokens_per_example": total / len(train + evaluation),
        "supervised_share": sum(supervised(row) for row in train + evaluation) / total,
        "adapter_parameters": parameters,
        "adapter_share": parameters / sum(math.prod(shape) for shape in base_shapes().values()),
        "step_0_difference": float(loss["true.loss"][0] - loss["first_loss_of_base"][0]),
    }


def _of_evaluation() -> dict[str, Any]:
    import numpy as np

    found = arrays("evaluation")
    example_ids = found["example_ids"]
    numbers: dict[str, Any] = {}
    losses = {name: found[f"{name}.losses"].astype(np.float64) for name in EVALUATIONS}
    for name in EVALUATIONS:
        numbers[f"eval_loss_{name}"] = token_mean(losses[name], example_ids)
        numbers[f"eval_token_accuracy_{name}"] = token_mean(
            found[f"{name}.hits"].astype(np.float64), example_ids
        )
        numbers[f"eval_entropy_{name}"] = token_mean(
            found[f"{name}.entropies"].astype(np.float64), example_ids
        )
    numbers["improvement"] = token_mean(losses["base"] - losses["true"], example_ids)
    numbers["improvement_shuffled"] = token_mean(losses["base"] - losses["shuffled"], example_ids)
    numbers["control_gap"] = token_mean(losses["shuffled"] - losses["true"], example_ids)
    gained = (losses["base"] - losses["shuffled"], losses["base"] - losses["true"])
    return numbers | {"format_share": ratio(*gained, example_ids)}


def _of_training() -> dict[str, Any]:
    import numpy as np

    found = arrays("training")
    numbers: dict[str, Any] = {}
    for name in RUNS:
        weights = found[f"{name}.supervised_tokens"][-LAST:]
        for field in ("loss", "token_accuracy", "entropy"):
            mean = (found[f"{name}.{field}"][-LAST:] * weights).sum() / weights.sum()
            numbers[f"last_{field}_{name}"] = {"value": float(mean), "n": len(weights)}
        numbers[f"grad_norm_median_{name}"] = float(np.median(found[f"{name}.grad_norm"]))
        numbers[f"grad_norm_max_{name}"] = float(found[f"{name}.grad_norm"].max())
    both = {field: np.concatenate([found[f"{name}.{field}"] for name in RUNS]) for field in FIELDS}
    spent = both["seconds"].sum()
    return numbers | {
        "steps": len(found["true.loss"]),
        "learning_rate_peak": float(found["true.learning_rate"].max()),
        "first_loss": float(found["true.loss"][0]),
        "tokens_per_second_total": float(both["total_tokens"].sum() / spent),
        "tokens_per_second_supervised": float(both["supervised_tokens"].sum() / spent),
        "seconds_per_step": float(np.median(both["seconds"])),
        **{f"seconds_{stage}": seconds for stage, seconds in stage_seconds().items()},
    }


FIELDS = (
    "loss",
    "token_accuracy",
    "entropy",
    "grad_norm",
    "learning_rate",
    "supervised_tokens",
    "total_tokens",
    "seconds",
)


def stages() -> list[dict[str, Any]]:
    """Give the run's stages as it logged them: name, begin and end in seconds since its start."""
    found: list[dict[str, Any]] = outputs.read_json("artifacts/stages.json")
    return found


def stage_seconds() -> dict[str, float]:
    """Give stage -> seconds, from the logged intervals."""
    seconds: dict[str, float] = {}
    for stage in stages():
        seconds[stage["stage"]] = seconds.get(stage["stage"], 0.0) + stage["end"] - stage["begin"]
    return seconds


def _of_memory() -> dict[str, Any]:
    """Give what the tensors hold, in bytes, by their shapes: none of it depends on the machine."""
    whole = {"float32": 4, "bfloat16": 2}[outputs.result()["environment"]["dtype"]]
    shapes, linears = base_shapes(), linear_names()
    quantised = sum(nf4_bytes(math.prod(shapes[name])) for name in linears)
    others = sum(math.prod(shape) for name, shape in shapes.items() if name not in set(linears))
    adapter = [
        4 * math.prod(e["shape"])
        for e in header(artifact("adapter_true/adapter_model.safetensors")).values()
    ]
    count = sum(math.prod(shapes[name]) for name in linears)
    return {
        "memory_weights": quantised + whole * others,
        "memory_adapters": sum(adapter),
        "memory_gradients": sum(adapter),
        # two moments and a step counter per tensor
        "memory_optimizer": sum(2 * size + 4 for size in adapter),
        "bits_per_parameter": 8 * quantised / count,
    }


def _of_quantisation() -> dict[str, Any]:
    import numpy as np

    found = arrays("quantisation")
    numbers: dict[str, Any] = {}
    for of, prefix in (("layers", ""), ("gaussian", "gaussian_")):
        norms, sizes = found[f"{of}.squared_norm"], found[f"{of}.size"]
        error = {
            k: float(np.sqrt((found[f"{of}.{k}_error"] ** 2 * norms).sum() / norms.sum()))
            for k in ("nf4", "fp4")
        }
        numbers |= {f"{prefix}{kind}_error": value for kind, value in error.items()}
        numbers[f"{prefix}nf4_fp4_ratio"] = error["nf4"] / error["fp4"]
        distinct = found[f"{of}.distinct_values"]
        numbers[f"{prefix}distinct_values"] = float((distinct * sizes).sum() / sizes.sum())
    return numbers


def training(run: str) -> dict[str, list[float]]:
    """Give field -> one value per optimizer step of a run."""
    every = cached("qlora training", ["artifacts/training.safetensors"], _lists)
    return {field: every[f"{run}.{field}"] for field in FIELDS}


def _lists() -> dict[str, list[Any]]:
    return {name: array.tolist() for name, array in arrays("training").items()}


def curve(run: str, examples: int) -> list[tuple[float, float]]:
    """Give (steps done, held-out loss of the first `examples`).

    The ends come from the evaluations, the rest is as stored.
    """
    stored = cached("qlora training", ["artifacts/training.safetensors"], _lists)
    ends = cached(
        f"qlora ends {examples}", ["artifacts/evaluation.safetensors"], lambda: _ends(examples)
    )
    return [(0, ends["base"]), *stored[f"{run}.curve"], (len(stored[f"{run}.loss"]), ends[run])]


def _ends(examples: int) -> dict[str, float]:
    found = arrays("evaluation")
    return {
        name: float(found[f"{name}.losses"][found["example_ids"] < examples].mean(dtype="float64"))
        for name in EVALUATIONS
    }


def tokens_of(evaluation: str, examples: list[int]) -> dict[str, list[float]]:
    """Give the stored losses, entropies and hits of some evaluation examples' tokens, in order."""
    return {
        what: [value for i in examples for value in values[str(i)]]
        for what, values in _by_example()[evaluation].items()
    }


def _by_example() -> dict[str, dict[str, dict[str, list[float]]]]:
    """Give evaluation -> losses, entropies, hits -> example -> its tokens' values."""

    def compute() -> dict[str, Any]:
        found = arrays("evaluation")
        example_ids = found["example_ids"].tolist()
        split: dict[str, Any] = {name: {} for name in EVALUATIONS}
        for name in EVALUATIONS:
            for what in ("losses", "entropies", "hits"):
                values: dict[str, list[float]] = {}
                for owner, value in zip(example_ids, found[f"{name}.{what}"].tolist(), strict=True):
                    values.setdefault(str(owner), []).append(value)
                split[name][what] = values
        return split

    return dict(cached("qlora tokens", ["artifacts/evaluation.safetensors"], compute))


def layers(chosen: list[int]) -> list[dict[str, float]]:
    """Give the stored measurements of some linear layers."""

    def compute() -> dict[str, Any]:
        return {name: array.tolist() for name, array in arrays("quantisation").items()}

    stored = cached("qlora layers", ["artifacts/quantisation.safetensors"], compute)
    return [
        {
            what: stored[f"layers.{what}"][i]
            for what in ("nf4_error", "fp4_error", "distinct_values")
        }
        for i in chosen
    ]


def adapter_norms() -> dict[str, list[float]]:
    """Give initial, true, shuffled -> the norm of each layer's B."""
    files = [f"artifacts/adapter_{name}/adapter_model.safetensors" for name in ("initial", *RUNS)]

    def compute() -> dict[str, list[float]]:
        import numpy as np
        from safetensors.numpy import load_file

        norms = {}
        for name in ("initial", *RUNS):
            tensors = load_file(artifact(f"adapter_{name}/adapter_model.safetensors"))
            norms[name] = [
                float(np.linalg.norm(t)) for key, t in sorted(tensors.items()) if "lora_B" in key
            ]
        return norms

    return dict(cached("qlora norms", files, compute))
