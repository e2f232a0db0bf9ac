"""FEAT-001's numbers computed again from what it stored: arrays, data, adapters' headers.

Needs numpy and no torch. Everything here comes from files below the outputs and from the header of
the base model's weights. gates/qlora/model.py checks the arrays themselves.
"""

from __future__ import annotations

import math
from typing import Any

from gates.shared import outputs
from gates.shared.stored import (
    arrays,
    artifact,
    cached,
    config,
    header,
    ratio,
    rows,
    supervised,
    token_mean,
)

RUNS = ("true", "shuffled")
EVALUATIONS = ("base", *RUNS)
SETS = ("train", "control", "evaluation")
LAST = 10  # optimizer steps at the end of training
LOGIT_ROWS = 128  # tokens whose logits exist at one time, at most
PARTS = ("weights", "adapters", "gradients", "optimizer")  # of the peak, beside the rest
LINEARS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
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
FILES = (
    *(f"artifacts/{name}.safetensors" for name in ("evaluation", "training", "quantisation")),
    *(f"artifacts/{name}.jsonl" for name in SETS),
    *(f"artifacts/adapter_{name}/adapter_model.safetensors" for name in ("initial", *RUNS)),
    "artifacts/stages.json",
    "artifacts/memory.json",
)


# The base model


def base_shapes() -> dict[str, list[int]]:
    """Return name -> shape of the base model's weights."""
    tensors = header(outputs.inputs()["smollm2-135m"] / "model.safetensors")
    return {name: entry["shape"] for name, entry in tensors.items()}


def linear_names() -> list[str]:
    """Return the base model's linear layers in their order: what is quantised and adapted."""

    def position(name: str) -> tuple[int, int]:
        parts = name.split(".")  # model.layers.LAYER.BLOCK.LINEAR.weight
        return int(parts[2]), LINEARS.index(parts[-2])

    names = [name for name in base_shapes() if name.split(".")[-2] in LINEARS]
    return sorted(names, key=position)


def nf4_bytes(count: int) -> int:
    """Return the bytes of `count` weights in NF4 with double quantisation.

    By Dettmers et al. 2023 (arXiv:2305.14314), section 3. Half a byte each, one byte of scale per
    64, one float32 per 256 of these scales.
    """
    blocks = math.ceil(count / 64)
    return math.ceil(count / 2) + blocks + 4 * math.ceil(blocks / 256)


def dtype_bytes() -> int:
    """Return the bytes of a number of the unquantised part of the model."""
    sizes = {"float32": 4, "bfloat16": 2}
    return sizes[outputs.result()["environment"]["dtype"]]


# Measurements


def measurements() -> dict[str, Any]:
    """Return measurement -> what it must be (a value, or a mapping with value, stderr, n)."""
    return dict(cached("qlora numbers", FILES, _measurements))


def _measurements() -> dict[str, Any]:
    return _of_data() | _of_evaluation() | _of_training() | _of_memory() | _of_quantisation()


def _of_data() -> dict[str, Any]:
    """Recompute sizes and shares of the data and the adapters, and the difference at step 0."""
    train = rows("train")
    evaluation = rows("evaluation")
    total = sum(len(row["ids"]) for row in train + evaluation)
    adapter = header(artifact("adapter_true/adapter_model.safetensors"))
    parameters = sum(math.prod(entry["shape"]) for entry in adapter.values())
    base_parameters = sum(math.prod(shape) for shape in base_shapes().values())
    training_arrays = arrays("training")
    difference = training_arrays["true.loss"][0] - training_arrays["first_loss_of_base"][0]
    return {
        "train_examples": len(train),
        "eval_examples": len(evaluation),
        "tokens_per_example": total / len(train + evaluation),
        "supervised_share": sum(supervised(row) for row in train + evaluation) / total,
        "adapter_parameters": parameters,
        "adapter_share": parameters / base_parameters,
        "step_0_difference": float(difference),
    }


def _of_evaluation() -> dict[str, Any]:
    """Recompute losses, accuracies, entropies and the paired differences of the losses."""
    import numpy as np

    stored_arrays = arrays("evaluation")
    example_ids = stored_arrays["example_ids"]
    expected: dict[str, Any] = {}
    # 1. Each evaluation by itself; all arrays [N], one value per supervised token.
    losses = {}
    for name in EVALUATIONS:
        losses[name] = stored_arrays[f"{name}.losses"].astype(np.float64)
        hits = stored_arrays[f"{name}.hits"].astype(np.float64)
        entropies = stored_arrays[f"{name}.entropies"].astype(np.float64)
        expected[f"eval_loss_{name}"] = token_mean(losses[name], example_ids)
        expected[f"eval_token_accuracy_{name}"] = token_mean(hits, example_ids)
        expected[f"eval_entropy_{name}"] = token_mean(entropies, example_ids)
    # 2. Paired token by token.
    gain = losses["base"] - losses["true"]
    gain_shuffled = losses["base"] - losses["shuffled"]
    expected["improvement"] = token_mean(gain, example_ids)
    expected["improvement_shuffled"] = token_mean(gain_shuffled, example_ids)
    expected["control_gap"] = token_mean(losses["shuffled"] - losses["true"], example_ids)
    expected["format_share"] = ratio(gain_shuffled, gain, example_ids)
    return expected


def _of_training() -> dict[str, Any]:
    """Recompute the ends of the training curves, gradient norms, and times."""
    import numpy as np

    steps = arrays("training")
    expected: dict[str, Any] = {}
    # 1. Each run.
    for name in RUNS:
        weights = steps[f"{name}.supervised_tokens"][-LAST:]
        for field in ("loss", "token_accuracy", "entropy"):
            mean = (steps[f"{name}.{field}"][-LAST:] * weights).sum() / weights.sum()
            expected[f"last_{field}_{name}"] = {"value": float(mean), "n": len(weights)}
        expected[f"grad_norm_median_{name}"] = float(np.median(steps[f"{name}.grad_norm"]))
        expected[f"grad_norm_max_{name}"] = float(steps[f"{name}.grad_norm"].max())
    # 2. Both runs together.
    both = {}
    for field in ("seconds", "total_tokens", "supervised_tokens"):
        both[field] = np.concatenate([steps[f"{name}.{field}"] for name in RUNS])
    seconds = both["seconds"].sum()
    expected |= {
        "steps": len(steps["true.loss"]),
        "learning_rate_peak": float(steps["true.learning_rate"].max()),
        "first_loss": float(steps["true.loss"][0]),
        "tokens_per_second_total": float(both["total_tokens"].sum() / seconds),
        "tokens_per_second_supervised": float(both["supervised_tokens"].sum() / seconds),
        "seconds_per_step": float(np.median(both["seconds"])),
    }
    # 3. The stages.
    for stage, duration in stage_seconds().items():
        expected[f"seconds_{stage}"] = duration
    return expected


def stages() -> list[dict[str, Any]]:
    """Return the run's stages as it logged them: name, begin and end in seconds since its start."""
    entries: list[dict[str, Any]] = outputs.read_json("artifacts/stages.json")
    return entries


def stage_seconds() -> dict[str, float]:
    """Return stage -> seconds, from the logged intervals."""
    seconds: dict[str, float] = {}
    for stage in stages():
        seconds[stage["stage"]] = seconds.get(stage["stage"], 0.0) + stage["end"] - stage["begin"]
    return seconds


def _of_memory() -> dict[str, Any]:
    """Recompute what tensors hold, in bytes.

    All but the activations follow from shapes and data and depend on no machine.
    """
    # 1. Weights: the linear layers in NF4, the rest as it is.
    shapes = base_shapes()
    linear_sizes = [math.prod(shapes[name]) for name in linear_names()]
    quantised = sum(nf4_bytes(size) for size in linear_sizes)
    unquantised = sum(math.prod(shape) for shape in shapes.values()) - sum(linear_sizes)
    # 2. Adapters in float32.
    tensors = header(artifact("adapter_true/adapter_model.safetensors"))
    adapter = [4 * math.prod(entry["shape"]) for entry in tensors.values()]
    # 3. The widest micro-batch.
    logits = logits_bytes(widest_batch()["supervised"])
    return {
        "memory_weights": quantised + dtype_bytes() * unquantised,
        "memory_adapters": sum(adapter),
        "memory_gradients": sum(adapter),
        # two moments and a step counter per tensor
        "memory_optimizer": sum(2 * size + 4 for size in adapter),
        "memory_activations": sum(outputs.read_json("artifacts/memory.json")["activations"]),
        "memory_logits": logits,
        "bits_per_parameter": 8 * quantised / sum(linear_sizes),
    }


def widest_batch() -> dict[str, int]:
    """Return the micro-batch with the longest row of those trained before the peak was read.

    index: the first of them, counted from 0; tokens: of its row; supervised: those that the loss
    counts. A row holds the beginning that all its examples share once, and of each example what
    follows, without the last token: it predicts nothing.
    """
    plan = config()["training"]
    size = plan["batch_size"] // plan.get("accumulation", 1)
    steps = min(config()["curve_every"], plan["steps"])
    examples = rows("train")
    widest = {"index": -1, "tokens": 0, "supervised": 0}
    for index in range(steps * plan["batch_size"] // size):
        batch = [examples[i % len(examples)] for i in range(index * size, (index + 1) * size)]
        # each prompt's last token is its example's own: it predicts the first answer token
        prompts = [row["ids"][: row["labels"].count(-100) - 1] for row in batch]
        shared = _common_prefix(prompts)
        tokens = shared + sum(len(row["ids"]) - 1 - shared for row in batch)
        if tokens > widest["tokens"]:
            count = sum(supervised(row) for row in batch)
            widest = {"index": index, "tokens": tokens, "supervised": count}
    return widest


def _common_prefix(sequences: list[list[int]]) -> int:
    """Return the number of tokens with which all sequences begin."""
    length = 0
    for column in zip(*sequences, strict=False):
        if len(set(column)) > 1:
            break
        length += 1
    return length


def logits_bytes(tokens: int) -> int:
    """Return the bytes of logits and softmax, both [R, V] in float32, of one group of R tokens.

    The tokens are split into equal groups of at most LOGIT_ROWS. The softmax becomes the gradient
    in place; a model in bfloat16 rounds a copy of it.
    """
    rows_at_once = math.ceil(tokens / math.ceil(tokens / LOGIT_ROWS))
    vocabulary = base_shapes()["model.embed_tokens.weight"][0]
    bytes_each = 8
    if dtype_bytes() == 2:
        bytes_each += 2
    return rows_at_once * vocabulary * bytes_each


def least_activations(tokens: int) -> int:
    """Return the bytes that any backward pass of the adapters must keep of a row of `tokens`.

    Per linear layer the input of A and the input of B; per attention queries, keys and values; per
    MLP gate and up. Layers with the same input share it.
    """
    shapes = base_shapes()
    rank = config()["lora"]["r"]
    shared_inputs = ("k_proj", "v_proj", "up_proj")  # q_proj and gate_proj have the same
    kept_outputs = ("q_proj", "k_proj", "v_proj", "gate_proj", "up_proj")
    numbers_per_token = 0
    for name in linear_names():
        rows_of_weight, columns = shapes[name]
        linear = name.split(".")[-2]
        numbers_per_token += rank
        if linear not in shared_inputs:
            numbers_per_token += columns
        if linear in kept_outputs:
            numbers_per_token += rows_of_weight
    return tokens * numbers_per_token * dtype_bytes()


def _of_quantisation() -> dict[str, Any]:
    """Recompute the errors and distinct values, pooled over the layers."""
    import numpy as np

    stored_arrays = arrays("quantisation")
    expected: dict[str, Any] = {}
    for matrices, prefix in (("layers", ""), ("gaussian", "gaussian_")):
        norms = stored_arrays[f"{matrices}.squared_norm"]
        sizes = stored_arrays[f"{matrices}.size"]
        errors = {}
        for kind in ("nf4", "fp4"):
            squared_norms = stored_arrays[f"{matrices}.{kind}_error"] ** 2 * norms
            errors[kind] = float(np.sqrt(squared_norms.sum() / norms.sum()))
            expected[f"{prefix}{kind}_error"] = errors[kind]
        expected[f"{prefix}nf4_fp4_ratio"] = errors["nf4"] / errors["fp4"]
        distinct = stored_arrays[f"{matrices}.distinct_values"]
        expected[f"{prefix}distinct_values"] = float((distinct * sizes).sum() / sizes.sum())
    return expected


# Curves, tokens, layers, adapters


def training(run: str) -> dict[str, list[float]]:
    """Return field -> one value per optimizer step of a run."""
    lists = cached("qlora training", ["artifacts/training.safetensors"], _training_lists)
    return {field: lists[f"{run}.{field}"] for field in FIELDS}


def _training_lists() -> dict[str, list[Any]]:
    return {name: array.tolist() for name, array in arrays("training").items()}


def curve(run: str, examples: int) -> list[tuple[float, float]]:
    """Return (steps done, held-out loss of the first `examples`).

    The ends come from the evaluations, the rest is as stored.
    """
    lists = cached("qlora training", ["artifacts/training.safetensors"], _training_lists)
    files = ["artifacts/evaluation.safetensors"]
    ends = cached(f"qlora ends {examples}", files, lambda: _mean_losses(examples))
    steps = len(lists[f"{run}.loss"])
    return [(0, ends["base"]), *lists[f"{run}.curve"], (steps, ends[run])]


def _mean_losses(examples: int) -> dict[str, float]:
    """Return evaluation -> mean loss of the tokens of the first `examples` examples."""
    stored_arrays = arrays("evaluation")
    chosen = stored_arrays["example_ids"] < examples  # [N]
    means = {}
    for name in EVALUATIONS:
        means[name] = float(stored_arrays[f"{name}.losses"][chosen].mean(dtype="float64"))
    return means


def tokens_of(evaluation: str, examples: list[int]) -> dict[str, list[float]]:
    """Return the stored losses, entropies, hits of some evaluation examples' tokens, in order."""
    tokens: dict[str, list[float]] = {}
    for field, by_example in _by_example()[evaluation].items():
        tokens[field] = []
        for example in examples:
            tokens[field] += by_example[str(example)]
    return tokens


def _by_example() -> dict[str, dict[str, dict[str, list[float]]]]:
    """Return evaluation -> losses, entropies, hits -> example -> its tokens' values."""
    return dict(cached("qlora tokens", ["artifacts/evaluation.safetensors"], _split_by_example))


def _split_by_example() -> dict[str, Any]:
    stored_arrays = arrays("evaluation")
    example_ids = stored_arrays["example_ids"].tolist()
    split: dict[str, Any] = {name: {} for name in EVALUATIONS}
    for name in EVALUATIONS:
        for field in ("losses", "entropies", "hits"):
            values: dict[str, list[float]] = {}
            tokens = stored_arrays[f"{name}.{field}"].tolist()
            for example, value in zip(example_ids, tokens, strict=True):
                values.setdefault(str(example), []).append(value)
            split[name][field] = values
    return split


def layers(indices: list[int]) -> list[dict[str, float]]:
    """Return the stored measurements of some linear layers."""
    files = ["artifacts/quantisation.safetensors"]
    lists = cached("qlora layers", files, _quantisation_lists)
    names = ("nf4_error", "fp4_error", "distinct_values")
    return [{name: lists[f"layers.{name}"][i] for name in names} for i in indices]


def _quantisation_lists() -> dict[str, Any]:
    return {name: array.tolist() for name, array in arrays("quantisation").items()}


def adapter_norms() -> dict[str, list[float]]:
    """Return initial, true, shuffled -> the norm of each layer's B."""
    files = [f"artifacts/adapter_{name}/adapter_model.safetensors" for name in ("initial", *RUNS)]
    return dict(cached("qlora norms", files, _adapter_norms))


def _adapter_norms() -> dict[str, list[float]]:
    import numpy as np
    from safetensors.numpy import load_file

    norms: dict[str, list[float]] = {}
    for name in ("initial", *RUNS):
        tensors = load_file(artifact(f"adapter_{name}/adapter_model.safetensors"))
        names_of_b = sorted(key for key in tensors if "lora_B" in key)
        norms[name] = [float(np.linalg.norm(tensors[key])) for key in names_of_b]
    return norms
