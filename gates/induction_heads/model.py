"""FEAT-021's losses, scores, patterns and ablations recomputed from the stored weights, in numpy.

Code of its own: one head after the other, in float64, rotations as complex numbers. Every stored
set of weights is evaluated, and every ablation. Whether the weights come from the trainings is
checked in gates/induction_heads/replay.py.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Any

from gates.induction_heads import arrays, plan
from gates.shared import stored
from gates.shared.stored import cached

ROTARY_BASE = 10_000.0
TOLERANCE = 1e-3  # nats/token, shares of attention: what float32 in another order may change
ACCURACY_TOLERANCE = 5e-3  # a few tokens whose two best logits are as good as equal


def run_files(run: str) -> list[str]:
    """Return the files that a run's recomputed values depend on."""
    return [
        f"artifacts/runs/{run}/weights.safetensors",
        f"artifacts/runs/{run}/curve.safetensors",
        "artifacts/evaluation.safetensors",
    ]


#### the model


def forward(
    weights: dict[str, Any], ids: Any, zeroed: Collection[tuple[int, int]] = ()
) -> tuple[Any, list[Any]]:
    """Return log probabilities [B, T, V] and patterns [B, H, T, T] of each layer."""
    import numpy as np

    width = plan.plan()["head_width"]
    length = ids.shape[1]
    positions = np.arange(length)
    angles = positions[:, None] * ROTARY_BASE ** (-np.arange(0, width, 2) / width)
    turns = np.exp(1j * angles)  # [T, D / 2]
    future = positions[None, :] > positions[:, None]  # [T, T]

    x = weights["embedding"][ids]  # [B, T, d]
    patterns = []
    for layer in range(sum(name.endswith(".query") for name in weights)):
        normed = _normed(x)
        of_layer = []
        for head in range(plan.plan()["heads"]):
            part = slice(head * width, (head + 1) * width)
            # 1. Scores: the real part of the product of turned queries with conjugate turned keys.
            q = _turned(normed @ weights[f"layers.{layer}.query"][:, part], turns)
            k = _turned(normed @ weights[f"layers.{layer}.key"][:, part], turns)
            scores = (q @ k.conj().transpose(0, 2, 1)).real / math.sqrt(width)
            shares = np.where(future, 0.0, np.exp(scores - scores.max(-1, keepdims=True)))
            pattern = shares / shares.sum(-1, keepdims=True)  # [B, T, T]
            of_layer.append(pattern)
            # 2. What the head writes goes to the stream, unless it is zeroed.
            if (layer, head) not in zeroed:
                v = normed @ weights[f"layers.{layer}.value"][:, part]
                x = x + pattern @ v @ weights[f"layers.{layer}.output"][part]
        patterns.append(np.stack(of_layer, axis=1))
    logits = _normed(x) @ weights["unembedding"]
    peak = logits.max(-1, keepdims=True)
    return logits - peak - np.log(np.exp(logits - peak).sum(-1, keepdims=True)), patterns


def _normed(x: Any) -> Any:
    centred = x - x.mean(-1, keepdims=True)
    return centred / (centred.var(-1, keepdims=True) + 1e-5) ** 0.5


def _turned(x: Any, turns: Any) -> Any:
    """Return [B, T, D] as complex numbers [B, T, D / 2], each turned by its position."""
    half = x.shape[-1] // 2
    return (x[..., :half] + 1j * x[..., half:]) * turns


def weights_at(run: str, index: int) -> dict[str, Any]:
    """Return the parameters of a run at a stored step, in float64."""
    import numpy as np

    return {
        name: array[index].astype(np.float64) for name, array in arrays.load(run, "weights").items()
    }


#### what is recomputed


def recomputed(run: str, index: int) -> dict[str, Any]:
    """Return the fields of a run's curve at a stored step, and its mean patterns on the film."""
    key = f"induction model {plan.plan_key()} {run} {index}"
    return dict(cached(key, run_files(run), lambda: _evaluate(weights_at(run, index))))


def _evaluate(weights: dict[str, Any]) -> dict[str, Any]:
    import numpy as np

    held_out = stored.arrays("evaluation")
    ids, periods = held_out["ids"], held_out["periods"]
    log_probabilities, patterns = forward(weights, ids)

    # 1. First copies: the tokens 1 … P; second copies: those after the first of them.
    firsts = [(row, q) for row, period in enumerate(periods.tolist()) for q in range(period)]
    rows, queries, keys = np.array(arrays.copying_queries()).T
    targets = ids[rows, queries + 1]
    first_rows, first_queries = np.array(firsts).T
    first = log_probabilities[first_rows, first_queries, ids[first_rows, first_queries + 1]]
    second = log_probabilities[rows, queries, targets]
    hits = log_probabilities[rows, queries].argmax(-1) == targets

    # 2. Scores: attention of each head to the token to copy, and to the one before.
    induction = [pattern[rows, :, queries, keys].mean(0).tolist() for pattern in patterns]
    previous = [np.diagonal(pattern, -1, 2, 3).mean((0, 2)).tolist() for pattern in patterns]
    _, film = forward(weights, held_out["film"])
    return {
        "first": float(-first.mean()),
        "second": float(-second.mean()),
        "accuracy": float(hits.mean()),
        "induction": induction,
        "previous": previous,
        "patterns": [pattern.mean(0).tolist() for pattern in film],
    }


def assert_agrees(run: str) -> None:
    """Check what a run stored of each stored step against its weights."""
    import numpy as np

    actual = arrays.load(run, "curve")
    if plan.condition_of(run) == "repeats":
        actual |= arrays.load(run, "patterns")
    for index, step in enumerate(plan.stored_steps()):
        expected = recomputed(run, index)
        for field in set(actual) - {"steps"}:
            tolerance = ACCURACY_TOLERANCE if field == "accuracy" else TOLERANCE
            values = actual[field][step // plan.plan()["every"]]
            error = np.abs(values - np.array(expected[field])).max()
            assert error <= tolerance, f"{run}, {field}, step {step}: off by {error}"


def recomputed_ablations(run: str) -> dict[str, Any]:
    """Return a trained model's losses by sequence: whole, without groups, without each head."""

    def compute() -> dict[str, Any]:
        weights = weights_at(run, -1)
        losses: dict[str, Any] = {"whole": _sequence_losses(weights, ())}
        for group, heads in arrays.groups(run).items():
            losses[group] = _sequence_losses(weights, heads)
        losses["single"] = []
        for layer in range(plan.layers_of(run)):
            heads = [(layer, head) for head in range(plan.plan()["heads"])]
            losses["single"].append([_sequence_losses(weights, [head]) for head in heads])
        return losses

    key = f"induction ablations {plan.plan_key()} {run}"
    return dict(cached(key, run_files(run), compute))


def _sequence_losses(weights: dict[str, Any], heads: Collection[tuple[int, int]]) -> list[float]:
    """Return the mean loss on the second copy of each sequence."""
    held_out = stored.arrays("evaluation")
    ids, periods = held_out["ids"], held_out["periods"].tolist()
    log_probabilities, _ = forward(weights, ids, heads)
    means = []
    for row, period in enumerate(periods):
        queries = range(period, 2 * period - 1)
        losses = [-log_probabilities[row, query, ids[row, query + 1]] for query in queries]
        means.append(math.fsum(losses) / len(losses))
    return means


def assert_ablations_agree(run: str) -> None:
    """Check the stored losses with heads zeroed against the weights, of every head and group."""
    import numpy as np

    actual = arrays.load(run, "ablation")
    expected = recomputed_ablations(run)
    assert set(actual) == set(expected), f"{run} stores the ablations {sorted(actual)}"
    for name, values in expected.items():
        error = np.abs(actual[name] - np.array(values)).max()
        assert error <= 10 * TOLERANCE, f"{run}, {name}: a sequence is off by {error}"
