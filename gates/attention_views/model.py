"""FEAT-011's attention and losses, all of them recomputed from the base model.

Nothing is drawn: one pass gives all heads and layers of a set, and the sets are small. Code of its
own: transformers' eager attention, which returns whole patterns, in place of the recording of sdpa;
heads switched off by columns of the output projection. torch is imported inside the functions, so
that a warm cache never loads it.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import Any

from gates.attention_views import arrays
from gates.shared import outputs, stored
from gates.shared.stored import cached, config

SEQUENCES = "artifacts/sequences.safetensors"
TEXTS = "artifacts/texts.json"
HEADS = "artifacts/ablation_heads.json"
OTHER_SHAPE = {"single": 1e9, "head": 1e9}  # the difference of an array of another shape
Difference = dict[str, float]


def folder() -> Any:
    """Return the folder of the model."""
    return outputs.inputs()[config()["model"]]


def weights_digest() -> str:
    """Return the sha256 (hex) of the model's weights."""

    def compute() -> str:
        return outputs.digest_of(folder() / "model.safetensors")

    return str(cached("weights", [], compute))


def document() -> dict[str, Any]:
    """Return the model's config.json."""
    import json

    content: dict[str, Any] = json.loads((folder() / "config.json").read_text("utf-8"))
    return content


def shape() -> tuple[int, int]:
    """Return (layers, heads) of the model, from its config."""
    return document()["num_hidden_layers"], document()["num_attention_heads"]


#### how far stored and recomputed values are apart


def set_differences(kind: str) -> dict[str, Difference]:
    """Return statistic -> difference over all sequences, layers, heads and queries of a set.

    Of "natural" also "norms". `single`: the largest difference of a value, as a share of the value
    where that is above 1, of a norm always; `head`: the largest of a head's mean, or a layer's.
    """
    read = [SEQUENCES, f"artifacts/statistics_{kind}.safetensors"]
    if kind == "natural":
        read.append("artifacts/norms.safetensors")
    return dict(_cached(f"set {kind}", read, lambda: _set_differences(kind)))


def _set_differences(kind: str) -> dict[str, Difference]:
    import numpy as np
    import torch

    # 1. The patterns of all heads.
    ids = torch.from_numpy(stored.arrays("sequences")[kind])
    model = eager_model() if kind in arrays.TRAINED else untrained_model()
    with torch.no_grad():
        result = model.model(ids, output_attentions=True, output_hidden_states=True)
    assert len(result.attentions) == shape()[0], "transformers returned no attention"

    # 2. Their statistics, layer by layer.
    actual = stored.arrays(f"statistics_{kind}")
    layers = [_statistics_of(layer, is_repeated="repeated" in kind) for layer in result.attentions]
    assert set(actual) == set(layers[0]), f"{kind} has the statistics {sorted(actual)}"
    differences = {}
    for name in actual:
        expected = np.stack([layer[name].numpy() for layer in layers], axis=1)  # [B, L, H, T]
        differences[name] = _difference(actual[name], expected, np.maximum(1, abs(expected)))

    # 3. The residual that enters each layer.
    if kind == "natural":
        states = result.hidden_states[:-1]
        expected = np.stack([state.norm(dim=-1).numpy() for state in states], axis=1)  # [B, L, T]
        norms = stored.arrays("norms")["norms"]
        differences["norms"] = _difference(norms, expected, expected)
    return differences


def _difference(actual: Any, expected: Any, scale: Any) -> Difference:
    """Return the largest difference of a value and of a mean over sequences [B, …, T] and T."""
    if actual.shape != expected.shape:
        return dict(OTHER_SHAPE)
    share = (actual.astype("float64") - expected) / scale
    return {"single": float(abs(share).max()), "head": float(abs(share.mean((0, -1))).max())}


def _statistics_of(patterns: Any, *, is_repeated: bool) -> dict[str, Any]:
    """Return the statistics [B, H, T] of patterns [B, H, T, T]."""
    import torch

    queries = torch.arange(patterns.shape[-1])
    distances = (queries[:, None] - queries[None]).clamp(min=0)

    def diagonal(offset: int) -> Any:
        values = patterns.diagonal(-offset, -2, -1)
        return torch.nn.functional.pad(values, (offset, 0))

    statistics = {
        "sink": patterns[..., 0],
        "second": patterns[..., 1],
        "entropy": -(patterns * patterns.clamp(min=1e-30).log()).sum(-1),
        "distance": (patterns * distances).sum(-1),
        "previous": diagonal(1),
    }
    if is_repeated:
        period = config()["repeated"]["period"]
        statistics |= {"induction": diagonal(period - 1), "duplicate": diagonal(period)}
    return statistics


def pattern_differences() -> dict[str, Difference]:
    """Return text -> difference of its patterns, over all layers, heads, queries and keys."""
    read = [TEXTS, "artifacts/patterns.safetensors"]
    return dict(_cached("patterns", read, _pattern_differences))


def _pattern_differences() -> dict[str, Difference]:
    import torch

    patterns = stored.arrays("patterns")
    texts = {text["key"]: text["ids"] for text in arrays.texts()}
    assert set(patterns) == set(texts), f"patterns of {sorted(patterns)}"
    differences = {}
    for key, ids in texts.items():
        with torch.no_grad():
            layers = eager_model().model(torch.tensor([ids]), output_attentions=True).attentions
        expected = torch.cat(layers).numpy()  # [L, H, T, T]
        differences[key] = dict(OTHER_SHAPE)
        if patterns[key].shape == expected.shape:
            apart = abs(patterns[key].astype("float64") - expected)
            differences[key] = {"single": float(apart.max()), "head": _of_heads(apart)}
    return differences


def _of_heads(apart: Any) -> float:
    """Return the largest mean of a head's row [T] of differences [L, H, T, T], summed over keys."""
    return float(apart.sum(-1).mean(-1).max())


def recomputed_losses() -> dict[str, list[list[float]]]:
    """Return ablation -> token losses [B, 2·S] of all sequences."""
    return dict(_cached("losses", [SEQUENCES, HEADS], _recomputed_losses))


def _recomputed_losses() -> dict[str, list[list[float]]]:
    import torch

    model = eager_model()
    width = model.config.head_dim
    ids = torch.from_numpy(stored.arrays("sequences")["ablation"])
    losses = {}
    for name, heads in arrays.heads().items():
        # A head's result enters by its columns of the output projection.
        kept: dict[int, Any] = {}
        for layer, head in heads:
            weight = model.model.layers[layer].self_attn.o_proj.weight.data
            kept.setdefault(layer, weight.clone())
            weight[:, head * width : (head + 1) * width] = 0
        with torch.no_grad():
            logits = model(ids).logits[:, :-1]  # [B, T - 1, V]
        right = logits.gather(2, ids[:, 1:, None])[..., 0]
        losses[name] = (logits.logsumexp(-1) - right).tolist()
        for layer, weight in kept.items():
            model.model.layers[layer].self_attn.o_proj.weight.data.copy_(weight)
    return losses


#### models


@functools.cache
def eager_model() -> Any:
    """Return the base model in float32 with eager attention."""
    import torch
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(
        folder(), dtype=torch.float32, attn_implementation="eager"
    ).eval()


@functools.cache
def untrained_model() -> Any:
    """Return the model with the random weights that the run's seed draws, in float32."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(arrays.seed())
    drawn = AutoModelForCausalLM.from_config(
        AutoConfig.from_pretrained(folder()),
        dtype=getattr(torch, config()["dtype"]),
        attn_implementation="eager",
    )
    return drawn.float().eval()


def _cached(name: str, files: list[str], compute: Callable[[], Any]) -> Any:
    """Return `cached` by the files and by the settings, without warnings of transformers."""

    def quiet() -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return compute()

    return cached(f"{name} {arrays.settings_key()}", files, quiet)
