"""FEAT-008's arrays recomputed from base model and adapters.

The nonce draws the models, items and texts. The code is independent of the lab's: every choice is a
sequence by itself, tokenised whole, in padded batches; PEFT's own loading; numpy's singular values.
torch, transformers and peft are imported inside functions, so a warm cache never loads them.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Any

from gates.forgetting.arrays import (
    BASE,
    SCORES,
    TEXT,
    adapters,
    arrays,
    features,
    scale,
    texts,
)
from gates.forgetting.items import FILES as ITEM_FILES
from gates.forgetting.items import items
from gates.shared import outputs, trials, trials_model
from gates.shared.stored import cached, config

DRAWN_MODELS = 2  # adapters, besides the base
DRAWN_ITEMS = 6  # of each suite
DRAWN_TEXTS = 6
BATCH = 32  # sequences of similar length
WEIGHTS = "adapter_model.safetensors"


def drawn_models() -> list[str]:
    """Return the base and the adapters that the nonce draws."""
    names = sorted(adapters())
    drawn = outputs.rng().sample(names, min(DRAWN_MODELS, len(names)))
    return [BASE, *sorted(drawn)]


def drawn_items() -> list[int]:
    """Return the indices of the items that the nonce draws, as many of each suite."""
    suites: dict[str, list[int]] = {}
    for i, item in enumerate(items()):
        suites.setdefault(item["suite"], []).append(i)
    draw = outputs.rng()
    drawn = []
    for indices in suites.values():
        drawn += sorted(draw.sample(indices, min(DRAWN_ITEMS, len(indices))))
    return drawn


def drawn_texts() -> list[int]:
    """Return the indices of the texts that the nonce draws."""
    count = len(texts())
    return sorted(outputs.rng().sample(range(count), min(DRAWN_TEXTS, count)))


def matrices() -> list[str]:
    """Return the names of the matrices that were decomposed."""
    intruders = config()["intruders"]
    names = []
    for block in intruders["blocks"]:
        names += [f"model.layers.{block}.{linear}" for linear in intruders["linears"]]
    return names


def drawn_matrix() -> int:
    """Return the index of the matrix that the nonce draws."""
    return outputs.rng().randrange(len(matrices()))


def differences() -> dict[str, Any]:
    """Return how far stored and recomputed values differ, and the z of the base's text.

    models: name -> mean differences of log-likelihoods, losses and divergences; norms,
    similarities: name -> the largest difference; own_text: see `_own_text`.
    """
    files = (SCORES, TEXT, *ITEM_FILES, *trials.files(adapters().values(), [WEIGHTS]))
    return dict(cached("forgetting differences", files, _compute_quietly))


def _compute_quietly() -> dict[str, Any]:
    # by hand, this repository's own config makes the libraries' warnings errors
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return _compute()


def _compute() -> dict[str, Any]:
    import torch
    from peft import PeftModel

    stored = arrays()
    base = trials_model.base_model().eval()
    models = {}
    with torch.no_grad():
        # 1. The base's distributions over all texts.
        references = _text_log_p(base, texts())
        own_text = _own_text(references)

        # 2. The drawn models, one after the other.
        for name in drawn_models():
            if name == BASE:
                models[name] = _differences(base, name, stored, references)
                continue
            folder = trials.folder(adapters()[name], features())
            model = PeftModel.from_pretrained(base, folder).eval()
            models[name] = _differences(model, name, stored, references)
            base = model.unload()

    # 3. What the adapters' tensors alone say.
    norms = {name: _norms(name, stored[f"{name}.norms"].tolist()) for name in adapters()}
    similarities = {name: _similarities(name, stored) for name in drawn_models()}
    return {
        "models": models,
        "own_text": own_text,
        "norms": norms,
        "similarities": similarities,
    }


def _differences(
    model: Any, name: str, stored: dict[str, Any], references: list[Any]
) -> dict[str, float]:
    """Return mean |differences| of stored and recomputed log-likelihoods, losses, divergences.

    references: per text the base's log-probabilities [drawn, V].
    """
    # 1. The items.
    rows = items()
    recomputed = _log_likelihoods(model, [rows[i] for i in drawn_items()])
    actual = stored[f"{name}.log_likelihoods"][drawn_items()].tolist()
    gaps: list[float] = []
    for one, other in zip(actual, recomputed, strict=True):
        gaps += [abs(a - b) for a, b in zip(one, other, strict=True)]
    means = {"log_likelihoods": sum(gaps) / len(gaps)}

    # 2. The texts.
    indices = drawn_texts()
    every_text = texts()
    tuned = _text_log_p(model, [every_text[i] for i in indices])
    losses: list[float] = []
    divergences: list[float] = []
    for i, log_q in zip(indices, tuned, strict=True):
        ids = _drawn(every_text[i])
        loss = -log_q[range(len(ids)), ids]  # [drawn]
        log_p = references[i]
        divergence = (log_p.exp() * (log_p - log_q)).sum(1)  # [drawn]
        of_text = stored[f"{name}.example_ids"] == i
        losses += _gaps(stored[f"{name}.losses"][of_text], loss)
        divergences += _gaps(stored[f"{name}.divergences"][of_text], divergence)
    means["losses"] = sum(losses) / len(losses)
    means["divergences"] = sum(divergences) / len(divergences)
    return means


def _gaps(actual: Any, expected: Any) -> list[float]:
    pairs = zip(actual.tolist(), expected.tolist(), strict=True)
    return [abs(a - b) for a, b in pairs]


def _drawn(text: dict[str, Any]) -> list[int]:
    ids: list[int] = text["ids"][len(text["ids"]) - text["drawn"] :]
    return ids


def _logits(model: Any, sequences: Sequence[Sequence[int]]) -> Any:
    """Return the logits [B, T, V] of sequences padded on the right."""
    import torch

    longest = max(map(len, sequences))
    ids = torch.tensor([list(s) + [0] * (longest - len(s)) for s in sequences])
    mask = torch.tensor([[1] * len(s) + [0] * (longest - len(s)) for s in sequences])
    return model(input_ids=ids, attention_mask=mask).logits


def _text_log_p(model: Any, rows: Sequence[dict[str, Any]]) -> list[Any]:
    """Return per text log-probabilities [drawn, V], in float64, where the drawn tokens are."""
    log_p = []
    for row in rows:  # one at a time: the logits of a batch would be gigabytes
        logits = _logits(model, [row["ids"]])[0]  # [T, V]
        first = len(row["ids"]) - row["drawn"]
        log_p.append(logits[first - 1 : -1].double().log_softmax(-1))
    return log_p


def _own_text(references: list[Any]) -> dict[str, float]:
    """Return how many standard deviations the loss of the base's text is from its expectation.

    Where x is drawn from p, −log p(x) has the mean H(p) and the variance Σ p·log²p − H². Text that
    another model or another temperature wrote has another mean.
    """
    excess = variance = 0.0
    for text, log_p in zip(texts(), references, strict=True):
        ids = _drawn(text)
        p = log_p.exp()
        entropy = -(p * log_p).sum(1)  # [drawn]
        excess += float((-log_p[range(len(ids)), ids] - entropy).sum())
        variance += float(((p * log_p**2).sum(1) - entropy**2).sum())
    return {"z": excess / math.sqrt(variance)}


def _log_likelihoods(model: Any, rows: Sequence[dict[str, Any]]) -> list[list[float]]:
    """Return the log-likelihood of each choice of each item, from one sequence per choice."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(outputs.inputs()[trials.model_name()])

    def encode(text: str) -> list[int]:
        ids: list[int] = tokenizer.encode(text, add_special_tokens=False)
        return ids

    # 1. Per choice where it begins, and the whole sequence.
    pairs = []
    for row in rows:
        start = len(encode(row["prompt"]))
        pairs += [(start, encode(f"{row['prompt']} {choice}")) for choice in row["choices"]]

    # 2. In batches of similar length.
    totals = [0.0] * len(pairs)
    by_length = sorted(range(len(pairs)), key=lambda i: len(pairs[i][1]))
    for first in range(0, len(pairs), BATCH):
        group = by_length[first : first + BATCH]
        log_p = _logits(model, [pairs[i][1] for i in group]).log_softmax(-1)  # [B, T, V]
        for k, i in enumerate(group):
            start, ids = pairs[i]
            totals[i] = sum(float(log_p[k, t - 1, ids[t]]) for t in range(start, len(ids)))
    return [totals[i : i + 4] for i in range(0, len(totals), 4)]


def _tensors(name: str) -> dict[str, Any]:
    from safetensors.numpy import load_file

    return dict(load_file(trials.folder(adapters()[name], features()) / WEIGHTS))


def _norms(name: str, stored: list[float]) -> float:
    """Return the largest relative difference of a stored ‖ΔW‖ from that of the tensors."""
    import numpy as np

    tensors = _tensors(name)
    worst = 0.0
    for linear, actual in zip(trials.linear_shapes(), stored, strict=True):
        module = "base_model.model." + linear.removesuffix(".weight")
        A = tensors[f"{module}.lora_A.weight"].astype(np.float64)  # [r, in]
        B = tensors[f"{module}.lora_B.weight"].astype(np.float64)  # [out, r]
        small = np.linalg.qr(B)[1] @ np.linalg.qr(A.T)[1].T  # of the same norm as B·A, and r × r
        expected = scale(name) * float(np.linalg.norm(small))
        worst = max(worst, abs(actual - expected) / expected)
    return worst


def _similarities(name: str, stored: dict[str, Any]) -> float:
    """Return the largest difference of stored and recomputed similarities in the drawn matrix."""
    import numpy as np
    import torch
    from safetensors import safe_open

    # 1. The matrix before and after tuning, [out, in].
    matrix = matrices()[drawn_matrix()]
    with safe_open(outputs.inputs()[trials.model_name()] / "model.safetensors", "pt") as file:
        weight = file.get_tensor(f"{matrix}.weight").to(torch.float32).numpy()
    tuned = weight
    if name != BASE:
        tensors = _tensors(name)
        A = tensors[f"base_model.model.{matrix}.lora_A.weight"]
        B = tensors[f"base_model.model.{matrix}.lora_B.weight"]
        tuned = weight + np.float32(scale(name)) * (B @ A)

    # 2. Its leading left singular vectors against all of the base's.
    actual = stored[f"{name}.similarities"][drawn_matrix()]  # [k]
    before = np.linalg.svd(weight)[0][:, : min(weight.shape)]  # [out, min(out, in)]
    after = np.linalg.svd(tuned)[0][:, : len(actual)]  # [out, k]
    expected = np.abs(before.T @ after).max(0)
    return float(np.abs(expected - actual).max())
