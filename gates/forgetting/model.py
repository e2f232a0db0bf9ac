"""FEAT-008's arrays computed again from base model and adapters.

The nonce draws the models, items and texts. Code of its own: every choice is a sequence by itself,
tokenised whole, in padded batches; PEFT's own loading; numpy's singular values. torch, transformers
and peft are imported inside, so that a warm cache never loads them.
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
    config,
    features,
    scale,
    texts,
)
from gates.forgetting.items import FILES, items
from gates.shared import outputs, trials, trials_model
from gates.shared.stored import cached

DRAWN_MODELS = 2  # adapters, besides the base
DRAWN_ITEMS = 6  # of each suite
DRAWN_TEXTS = 6
BATCH = 32  # sequences of similar length


def drawn_models() -> list[str]:
    """Give the base and the adapters that the nonce draws."""
    return [
        BASE,
        *sorted(outputs.rng().sample(sorted(adapters()), min(DRAWN_MODELS, len(adapters())))),
    ]


def drawn_items() -> list[int]:
    """Give the items that the nonce draws, as many of each suite."""
    suites: dict[str, list[int]] = {}
    for i, item in enumerate(items()):
        suites.setdefault(item["suite"], []).append(i)
    draw = outputs.rng()
    return [i for of in suites.values() for i in sorted(draw.sample(of, min(DRAWN_ITEMS, len(of))))]


def drawn_texts() -> list[int]:
    """Give the texts that the nonce draws."""
    return sorted(outputs.rng().sample(range(len(texts())), min(DRAWN_TEXTS, len(texts()))))


def matrices() -> list[str]:
    """Give the matrices whose singular vectors were looked at."""
    chosen = config()["intruders"]
    return [
        f"model.layers.{block}.{linear}"
        for block in chosen["blocks"]
        for linear in chosen["linears"]
    ]


def drawn_matrix() -> int:
    """Give the index of the matrix that the nonce draws."""
    return outputs.rng().randrange(len(matrices()))


def again() -> dict[str, Any]:
    """Give by model how far stored and recomputed values differ, and the z of the base's text.

    The differences are given as their largest and their mean; the text is the base's own.
    """
    read = (SCORES, TEXT, *FILES, *trials.files(adapters().values(), ["adapter_model.safetensors"]))
    return dict(cached("forgetting again", read, _quietly))


def _quietly() -> dict[str, Any]:
    trials_model.refuse_changed((SCORES, TEXT, *FILES))
    # by hand, this repository's own config makes the libraries' warnings errors
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return _again()


def _again() -> dict[str, Any]:
    import torch
    from peft import PeftModel

    stored = arrays()
    base = trials_model.base_model().eval()
    found: dict[str, Any] = {"models": {}}
    with torch.no_grad():
        references = _text_log_p(base, texts())
        found["own_text"] = _own_text(references)
        for name in drawn_models():
            place = None if name == BASE else trials.folder(adapters()[name], features())
            model = base if place is None else PeftModel.from_pretrained(base, place).eval()
            found["models"][name] = _differences(model, name, stored, references)
            if place is not None:
                base = model.unload()
    found["norms"] = {name: _norms(name, stored[f"{name}.norms"].tolist()) for name in adapters()}
    found["similarities"] = {name: _similarities(name, stored) for name in drawn_models()}
    return found


def _differences(
    model: Any, name: str, stored: dict[str, Any], references: list[Any]
) -> dict[str, float]:
    """Give mean |differences| of stored and recomputed log-likelihoods, losses and divergences."""
    rows = items()
    scored = _log_likelihoods(model, [rows[i] for i in drawn_items()])
    kept = stored[f"{name}.log_likelihoods"][drawn_items()].tolist()
    pairs = [
        (a, b) for one, two in zip(kept, scored, strict=True) for a, b in zip(one, two, strict=True)
    ]
    found = {"log_likelihoods": sum(abs(a - b) for a, b in pairs) / len(pairs)}
    chosen, every = drawn_texts(), texts()
    tuned = _text_log_p(model, [every[i] for i in chosen])
    example_ids = stored[f"{name}.example_ids"]
    for part in ("losses", "divergences"):
        gaps: list[float] = []
        for i, log_q in zip(chosen, tuned, strict=True):
            log_p = references[i]
            ids = _drawn(every[i])
            right = (
                -log_q[range(len(ids)), ids]
                if part == "losses"
                else (log_p.exp() * (log_p - log_q)).sum(1)
            )
            met = stored[f"{name}.{part}"][example_ids == i].tolist()
            gaps += [abs(a - b) for a, b in zip(met, right.tolist(), strict=True)]
        found[part] = sum(gaps) / len(gaps)
    return found


def _drawn(text: dict[str, Any]) -> list[int]:
    ids: list[int] = text["ids"][len(text["ids"]) - text["drawn"] :]
    return ids


def _log_p(model: Any, sequences: Sequence[Sequence[int]]) -> Any:
    """Give the logits [B, T, V] of sequences padded on the right."""
    import torch

    longest = max(map(len, sequences))
    ids = torch.tensor([list(s) + [0] * (longest - len(s)) for s in sequences])
    mask = torch.tensor([[1] * len(s) + [0] * (longest - len(s)) for s in sequences])
    return model(input_ids=ids, attention_mask=mask).logits


def _text_log_p(model: Any, rows: Sequence[dict[str, Any]]) -> list[Any]:
    """Give per text log-probabilities [drawn, V], in float64, at the places of the drawn tokens."""
    found = []
    for row in rows:  # one at a time: the logits of a batch would be gigabytes
        logits = _log_p(model, [row["ids"]])[0]
        first = len(row["ids"]) - row["drawn"]
        found.append(logits[first - 1 : -1].double().log_softmax(-1))
    return found


def _own_text(references: list[Any]) -> dict[str, float]:
    """Give how many standard deviations the loss of the base's text lies from its expectation.

    Where x is drawn from p, −log p(x) has the mean H(p) and the variance Σ p·log²p − H². Text that
    another model or another temperature wrote has another mean.
    """
    excess = variance = 0.0
    for text, log_p in zip(texts(), references, strict=True):
        ids, p = _drawn(text), log_p.exp()
        entropy = -(p * log_p).sum(1)
        excess += float((-log_p[range(len(ids)), ids] - entropy).sum())
        variance += float(((p * log_p**2).sum(1) - entropy**2).sum())
    return {"z": excess / math.sqrt(variance)}


def _log_likelihoods(model: Any, rows: Sequence[dict[str, Any]]) -> list[list[float]]:
    """Give the log-likelihood of each choice of each item, from one sequence per choice."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(outputs.inputs()[trials.model_name()])

    def encode(text: str) -> list[int]:
        ids: list[int] = tokenizer.encode(text, add_special_tokens=False)
        return ids

    pairs = [
        (len(encode(row["prompt"])), encode(f"{row['prompt']} {c}"))
        for row in rows
        for c in row["choices"]
    ]
    totals = [0.0] * len(pairs)
    by_length = sorted(range(len(pairs)), key=lambda i: len(pairs[i][1]))
    for first in range(0, len(pairs), BATCH):
        group = by_length[first : first + BATCH]
        log_p = _log_p(model, [pairs[i][1] for i in group]).log_softmax(-1)
        for row, i in enumerate(group):
            start, ids = pairs[i]
            totals[i] = sum(float(log_p[row, t - 1, ids[t]]) for t in range(start, len(ids)))
    return [totals[i : i + 4] for i in range(0, len(totals), 4)]


def _tensors(name: str) -> dict[str, Any]:
    from safetensors.numpy import load_file

    return dict(
        load_file(trials.folder(adapters()[name], features()) / "adapter_model.safetensors")
    )


def _norms(name: str, stored: list[float]) -> float:
    """Give the largest relative difference of a stored ‖ΔW‖ from that of the adapter's tensors."""
    import numpy as np

    tensors, worst = _tensors(name), 0.0
    for linear, met in zip(trials.linear_shapes(), stored, strict=True):
        module = "base_model.model." + linear.removesuffix(".weight")
        A, B = (tensors[f"{module}.lora_{part}.weight"].astype(np.float64) for part in "AB")
        small = np.linalg.qr(B)[1] @ np.linalg.qr(A.T)[1].T  # of the same norm as B·A, and r × r
        right = scale(name) * float(np.linalg.norm(small))
        worst = max(worst, abs(met - right) / right)
    return worst


def _similarities(name: str, stored: dict[str, Any]) -> float:
    """Give the largest difference of stored and recomputed similarities in the drawn matrix."""
    import numpy as np
    import torch
    from safetensors import safe_open

    matrix = matrices()[drawn_matrix()]
    with safe_open(outputs.inputs()[trials.model_name()] / "model.safetensors", "pt") as file:
        weight = file.get_tensor(f"{matrix}.weight").to(torch.float32).numpy()
    changed = weight
    if name != BASE:
        tensors = _tensors(name)
        A, B = (tensors[f"base_model.model.{matrix}.lora_{part}.weight"] for part in "AB")
        changed = weight + np.float32(scale(name)) * (B @ A)
    met = stored[f"{name}.similarities"][drawn_matrix()]
    before, after = (
        np.linalg.svd(weight)[0][:, : min(weight.shape)],
        np.linalg.svd(changed)[0][:, : len(met)],
    )
    return float(np.abs(np.abs(before.T @ after).max(0) - met).max())
