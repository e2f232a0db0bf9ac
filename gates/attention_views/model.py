"""FEAT-011's attention and losses, recomputed from the base model for a sample drawn by the nonce.

Code of its own: transformers' eager attention, which returns whole patterns, in place of the
recording of sdpa; heads switched off by columns of the output projection. torch is imported inside
the functions, so that a warm cache never loads it.
"""

from __future__ import annotations

import random
import warnings
from functools import partial
from typing import Any

from gates.attention_views import arrays
from gates.shared import outputs, stored
from gates.shared.stored import cached, config
from gates.shared.tokens import texts

# What another order of float32 may change, or bfloat16 on a GPU: of shares, of nats, of tokens.
TOLERANCES = {"float32": 2e-3, "bfloat16": 0.1}
HEADS = 12  # heads of each set that are recomputed
ROWS = 24  # rows of patterns of each text
SEQUENCES = "artifacts/sequences.safetensors"
TEXTS = "artifacts/texts.json"
Values = dict[str, dict[str, list[float]]]


def folder() -> Any:
    """Return the folder of the model."""
    return outputs.inputs()[config()["model"]]


def weights_digest() -> str:
    """Return the sha256 (hex) of the model's weights."""

    def compute() -> str:
        return outputs.digest_of(folder() / "model.safetensors")

    return str(cached("weights", [], compute))


def tolerance() -> float:
    """Return what a stored share may differ from the recomputed one."""
    return TOLERANCES[config()["dtype"]]


#### the sample


def shape() -> tuple[int, int]:
    """Return (layers, heads) of the model, from its config."""
    document = _json(folder() / "config.json")
    return document["num_hidden_layers"], document["num_attention_heads"]


def draw_heads(what: str) -> list[arrays.Head]:
    """Return the heads that the nonce draws for a set or a text."""
    layers, count = shape()
    rng = _rng(what)
    total = layers * count
    drawn = sorted(rng.sample(range(total), min(HEADS, total)))
    return [(place // count, place % count) for place in drawn]


def draw_sequence(kind: str) -> int:
    """Return the number of the sequence of a set that the nonce draws."""
    return _rng(f"sequence {kind}").randrange(len(stored.arrays("sequences")[kind]))


def draw_rows(text: dict[str, Any]) -> list[tuple[int, int, int]]:
    """Return the (layer, head, query) of a text's patterns that the nonce draws."""
    layers, count = shape()
    rng = _rng(f"rows {text['key']}")
    rows = []
    for _ in range(ROWS):
        rows.append((rng.randrange(layers), rng.randrange(count), rng.randrange(len(text["ids"]))))
    return rows


def draw_ablations() -> list[str]:
    """Return the ablations that are repeated: nothing, the induction heads, one of the others."""
    others = ["previous", *arrays.random_sets()]
    return ["nothing", "induction", _rng("ablation").choice(others)]


def _rng(what: str) -> random.Random:
    return random.Random(f"{outputs.rng().random()} {what}")


#### attention


def recompute_sets() -> Values:
    """Return set -> statistic of the drawn sequence and heads, flat; of "natural" also "norms"."""
    key = f"sets {config()['repeated']['period']} {outputs.result()['environment']['seed']}"
    return dict(cached(key, [SEQUENCES], lambda: _without_warnings(_recompute_sets)))


def stored_set(kind: str) -> dict[str, list[float]]:
    """Return the stored values in the places of a set of `recompute_sets`."""
    sequence = draw_sequence(kind)
    values = {}
    for name, array in stored.arrays(f"statistics_{kind}").items():
        rows = [array[sequence, layer, head] for layer, head in draw_heads(kind)]
        values[name] = [float(value) for row in rows for value in row]
    if kind == "natural":
        values["norms"] = stored.arrays("norms")["norms"][sequence].ravel().tolist()  # [L·T]
    return values


def _recompute_sets() -> Values:
    import torch

    values = {}
    model = {True: eager_model(), False: untrained_model()}
    for kind in arrays.SETS:
        is_trained = kind in arrays.TRAINED
        ids = stored.arrays("sequences")[kind][draw_sequence(kind)]
        with torch.no_grad():
            result = model[is_trained](
                torch.from_numpy(ids)[None], output_attentions=True, output_hidden_states=True
            )
        patterns = [result.attentions[layer][0, head] for layer, head in draw_heads(kind)]
        flat: dict[str, list[float]] = {}
        for pattern in patterns:
            for name, row in _statistics_of(pattern, is_repeated="repeated" in kind).items():
                flat.setdefault(name, []).extend(row.tolist())
        values[kind] = flat
        if kind == "natural":
            norms = [state[0].norm(dim=-1) for state in result.hidden_states[:-1]]
            flat["norms"] = torch.cat(norms).tolist()
    return values


def _statistics_of(pattern: Any, *, is_repeated: bool) -> dict[str, Any]:
    """Return the statistics [T] of one pattern [T, T]."""
    import torch

    total = len(pattern)
    queries = torch.arange(total)
    distances = (queries[:, None] - queries[None]).clamp(min=0)

    def diagonal(offset: int) -> Any:
        return torch.cat([torch.zeros(offset), pattern.diagonal(-offset)])

    statistics = {
        "sink": pattern[:, 0],
        "second": pattern[:, 1],
        "entropy": -(pattern * pattern.clamp(min=1e-30).log()).sum(1),
        "distance": (pattern * distances).sum(1),
        "previous": diagonal(1),
    }
    if is_repeated:
        period = config()["repeated"]["period"]
        statistics |= {"induction": diagonal(period - 1), "duplicate": diagonal(period)}
    return statistics


def recompute_rows() -> dict[str, list[list[float]]]:
    """Return text -> the drawn rows of its patterns, from the model."""
    return dict(cached("rows of patterns", [TEXTS], lambda: _without_warnings(_recompute_rows)))


def _recompute_rows() -> dict[str, list[list[float]]]:
    import torch

    model = eager_model()
    rows = {}
    for text in arrays.texts():
        with torch.no_grad():
            attentions = model(torch.tensor([text["ids"]]), output_attentions=True).attentions
        drawn = draw_rows(text)
        rows[text["key"]] = [
            attentions[layer][0, head, query].tolist() for layer, head, query in drawn
        ]
    return rows


def stored_rows() -> dict[str, list[list[float]]]:
    """Return the stored patterns in the places of `recompute_rows`."""
    read = [TEXTS, "artifacts/patterns.safetensors"]

    def compute() -> dict[str, list[list[float]]]:
        patterns = stored.arrays("patterns")
        rows = {}
        for text in arrays.texts():
            rows[text["key"]] = [patterns[text["key"]][place].tolist() for place in draw_rows(text)]
        return rows

    return dict(cached("stored rows", read, compute))


#### the causal test


def recompute_losses() -> dict[str, list[float]]:
    """Return ablation -> the token losses of the drawn sequence, for the drawn ablations."""
    read = [SEQUENCES, "artifacts/ablation_heads.json"]
    return dict(cached("ablation losses", read, lambda: _without_warnings(_recompute_losses)))


def stored_losses() -> dict[str, list[float]]:
    """Return the stored losses in the places of `recompute_losses`."""
    losses = stored.arrays("ablation_losses")
    sequence = draw_sequence("ablation")
    return {name: losses[name][sequence].tolist() for name in draw_ablations()}


def _recompute_losses() -> dict[str, list[float]]:
    import torch

    model = eager_model()
    width = model.config.head_dim
    ids = torch.from_numpy(stored.arrays("sequences")["ablation"][draw_sequence("ablation")])
    losses = {}
    for name in draw_ablations():
        # A head's result enters by its columns of the output projection.
        kept: dict[int, Any] = {}
        for layer, head in arrays.heads()[name]:
            weight = model.model.layers[layer].self_attn.o_proj.weight.data
            kept.setdefault(layer, weight.clone())
            weight[:, head * width : (head + 1) * width] = 0
        with torch.no_grad():
            log_p = model(ids[None]).logits[0, :-1].log_softmax(-1)  # [T - 1, V]
        losses[name] = (-log_p.gather(1, ids[1:, None])[:, 0]).tolist()
        for layer, weight in kept.items():
            model.model.layers[layer].self_attn.o_proj.weight.data.copy_(weight)
    return losses


#### models and token sequences


def eager_model() -> Any:
    """Return the base model in float32 with eager attention."""
    import torch
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(
        folder(), dtype=torch.float32, attn_implementation="eager"
    ).eval()


def untrained_model() -> Any:
    """Return the model with the random weights that the run's seed draws."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(outputs.result()["environment"]["seed"])
    return AutoModelForCausalLM.from_config(
        AutoConfig.from_pretrained(folder()), dtype=torch.float32, attn_implementation="eager"
    ).eval()


def read_by_tokenizer() -> dict[str, Any]:
    """Return "windows", the tokens that `natural` must have, and "tokens", the texts' tokens."""
    count, length = config()["sequences"]["count"], config()["sequences"]["length"]

    def compute() -> dict[str, Any]:
        from pydoc_data import topics

        from tokenizers import Tokenizer

        tokenizer = Tokenizer.from_file(str(folder() / "tokenizer.json"))
        decode = partial(tokenizer.decode, skip_special_tokens=False)
        text = "\n".join(topics.topics[name].strip() for name in sorted(topics.topics))
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        step = len(ids) // count
        windows = [ids[number * step : number * step + length] for number in range(count)]
        tokens = {}
        for shown in arrays.texts():
            tokens[shown["key"]] = texts(decode, shown["ids"])
        own = []
        for entry in config()["texts"]:
            own.append(tokenizer.encode(entry["text"], add_special_tokens=False).ids)
        return {"windows": windows, "tokens": tokens, "own": own}

    return dict(cached(f"tokenizer {arrays.settings_key()}", [TEXTS], compute))


def _json(path: Any) -> dict[str, Any]:
    import json

    document: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return document


def _without_warnings(compute: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return compute()
