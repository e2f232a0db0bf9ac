"""FEAT-015's stream, writes, lens and similarity, all of them recomputed from the model.

Code of its own: eager attention with hooks on the modules, CKA of features by sums over sequences.
The token ids are those that the gate draws. torch is imported inside the functions, so that a warm
cache never loads it.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import Any

from gates.representation_analysis import arrays, drawn
from gates.shared import outputs, stored
from gates.shared.stored import cached, config

OTHER_SHAPE = 1e9  # the difference of an array of another shape
MARGIN = 0.01  # a number this near a limit may be on either side of it


def weights_digest() -> str:
    """Return the sha256 (hex) of the model's weights."""

    def compute() -> str:
        return outputs.digest_of(drawn.folder() / "model.safetensors")

    return str(cached("weights", [], compute))


@functools.cache
def eager_model() -> Any:
    """Return the model in float32 with eager attention."""
    import torch
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(
        drawn.folder(), dtype=torch.float32, attn_implementation="eager"
    ).eval()


def _untrained_model() -> Any:
    """Return the model with the random weights that the run's seed draws."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(arrays.seed())
    return AutoModelForCausalLM.from_config(
        AutoConfig.from_pretrained(drawn.folder()),
        dtype=torch.float32,
        attn_implementation="eager",
    ).eval()


@functools.cache
def trained() -> dict[str, Any]:
    """Return "stream" [L + 1, B, T, D], "attention" and "mlp" [L, B, T, D], "logits" [B, T, V]."""
    return _pass(eager_model())


@functools.cache
def untrained() -> dict[str, Any]:
    """Return the same with random weights."""
    return _pass(_untrained_model())


def _pass(model: Any) -> dict[str, Any]:
    import torch

    kept: dict[str, list[Any]] = {"stream": [], "attention": [], "mlp": []}
    handles = []

    def keep(name: str) -> Callable[..., None]:
        def hook(_module: Any, _inputs: Any, output: Any) -> None:
            kept[name].append(output[0] if isinstance(output, tuple) else output)

        return hook

    handles.append(model.model.embed_tokens.register_forward_hook(keep("stream")))
    for layer in model.model.layers:
        handles.append(layer.self_attn.register_forward_hook(keep("attention")))
        handles.append(layer.mlp.register_forward_hook(keep("mlp")))
        handles.append(layer.register_forward_hook(keep("stream")))
    with torch.no_grad():
        logits = model(torch.tensor(drawn.tokens()["ids"]), use_cache=False).logits
    for handle in handles:
        handle.remove()
    tensors = {name: torch.stack(parts) for name, parts in kept.items()}
    return tensors | {"logits": logits}


#### the stream


def stream_differences(file: str) -> dict[str, float]:
    """Return array -> largest relative difference, of stream or stream_random_weights.

    top_position and top_dimension: of the number at that place to the largest one; hits: 0, or 1
    where the criterion is met by other numbers than those stored.
    """
    return _cached(file, lambda: _stream_differences(file))


def _stream_differences(file: str) -> dict[str, float]:
    import numpy as np

    stream = (trained() if file == "stream" else untrained())["stream"]
    actual = stored.arrays(file)
    sizes = stream[1:].abs().numpy()  # [L, B, T, D]
    layers, batch = sizes.shape[:2]
    flat = sizes.reshape(layers, batch, -1)
    # of an even number of values torch takes the lower one in the middle
    middle = (flat.shape[-1] - 1) // 2
    median = np.partition(flat, middle, axis=-1)[..., middle].T
    top = flat.max(-1).T  # [B, L]
    norms = np.linalg.norm(stream.numpy().astype("float64"), axis=-1).transpose(1, 0, 2)
    expected = {"norms": norms, "top": top, "median": median}
    differences = {name: _relative(actual[name], array) for name, array in expected.items()}

    # The number at the stored place.
    places = actual["top_position"], actual["top_dimension"]
    differences["top_place"] = OTHER_SHAPE
    if all(place.shape == top.shape for place in places):
        sequences, numbers = np.meshgrid(range(batch), range(layers), indexing="ij")
        at_place = sizes[numbers, sequences, places[0], places[1]]
        differences["top_place"] = _relative(at_place, top)

    # Every massive number, and no other.
    limit = np.maximum(arrays.ABSOLUTE, arrays.RELATIVE * median.T)[..., None, None]
    is_sure, is_possible = (sizes > limit * (1 + MARGIN)), (sizes > limit * (1 - MARGIN))
    hits = [tuple(hit) for hit in actual["hits"].tolist()]
    sure = {(b, layer, t, d) for layer, b, t, d in np.argwhere(is_sure).tolist()}
    possible = {(b, layer, t, d) for layer, b, t, d in np.argwhere(is_possible).tolist()}
    is_right = sure <= set(hits) <= possible and hits == sorted(set(hits))
    differences["hits"] = 0.0 if is_right else 1.0
    return differences


def outliers_agree() -> bool:
    """Return whether the stored tokens of huge norm are those of the stream."""
    return bool(_cached("similarity", lambda: {"agree": _outliers_agree()})["agree"])


def _outliers_agree() -> bool:
    import numpy as np

    norms = trained()["stream"].double().norm(dim=-1).numpy()  # [L + 1, B, T]
    median = np.median(norms, axis=(1, 2), keepdims=True)
    actual = stored.arrays("similarity")["outliers"]
    sure = (norms > arrays.HUGE * (1 + MARGIN) * median).any(0)
    possible = (norms > arrays.HUGE * (1 - MARGIN) * median).any(0)
    if actual.shape != sure.shape or not set(actual.ravel().tolist()) <= {0, 1}:
        return False
    return bool((actual >= sure).all() and (actual <= possible).all())


#### the writes


def write_differences() -> dict[str, float]:
    """Return array -> largest difference: relative of norms, in logits of attributions, else plain.

    sum: of all attributions together to the logit itself, which the stored arrays must give; mean
    attribution, mean embedding: over the tokens behind the first, of each write.
    """
    return _cached("writes", _write_differences)


def _write_differences() -> dict[str, float]:
    import torch

    recorded = trained()
    stream, parts = recorded["stream"], (recorded["attention"], recorded["mlp"])
    norms = torch.stack([part.norm(dim=-1) for part in parts])  # [2, L, B, T]
    lengths = stream.norm(dim=-1)
    cosine = (parts[0] * parts[1]).sum(-1) / (norms[0] * norms[1])
    stream_cosine = (stream[1:] * stream[:-1]).sum(-1) / (lengths[1:] * lengths[:-1])
    attribution, embedding, target = _attributions(recorded)
    actual = stored.arrays("writes")
    expected = {
        "cosine": cosine.transpose(0, 1),
        "stream_cosine": stream_cosine.transpose(0, 1),
        "attribution": attribution,
        "embedding": embedding,
        "target": target,
    }
    differences = {name: _apart(actual[name], array.numpy()) for name, array in expected.items()}
    differences["norms"] = _relative(actual["norms"], norms.permute(2, 0, 1, 3).numpy())
    total = actual["attribution"].astype("float64").sum((1, 2)) + actual["embedding"]
    differences["sum"] = _apart(total, actual["target"])
    # A small lie about each token is a large one about their mean: rounding is on both sides.
    for name, tokens in (("attribution", (0, 3)), ("embedding", None)):
        means = (_mean_behind(array, tokens) for array in (actual[name], expected[name].numpy()))
        differences[f"mean {name}"] = _apart(*means)
    return differences


def _attributions(recorded: dict[str, Any]) -> tuple[Any, Any, Any]:
    """Return what each write, the embedding and all add to the next token's logit over the mean."""
    import torch

    model = eager_model()
    ids = torch.tensor(drawn.tokens()["ids"])
    head = model.lm_head.weight.detach()
    norm = model.model.norm
    scale = 1 / (recorded["stream"][-1].pow(2).mean(-1) + norm.variance_epsilon).sqrt()  # [B, T]
    rows = (head[ids[:, 1:]] - head.mean(0)) * norm.weight.detach() * scale[:, :-1, None]

    def along(vectors: Any) -> Any:
        return (vectors[:, :-1] * rows).sum(-1)  # [B, T - 1]

    added = []
    for part in ("attention", "mlp"):
        added.append(torch.stack([along(layer) for layer in recorded[part]], dim=1))
    logits = recorded["logits"][:, :-1]
    target = logits.gather(2, ids[:, 1:, None])[..., 0] - logits.mean(-1)
    return torch.stack(added, dim=1), along(recorded["stream"][0]), target


#### the lens


def lens_differences() -> dict[str, float]:
    """Return "kl": largest share that it differs by, or of 0.1 nats; "agrees": share that is wrong.

    Where the two highest logits are nearly equal, agreement may be either.
    """
    return _cached("lens", _lens_differences)


def _lens_differences() -> dict[str, float]:
    import numpy as np
    import torch

    places = drawn.lens_positions()
    recorded, model = trained(), eager_model()
    final = recorded["logits"][:, places].log_softmax(-1)
    choice = final.argmax(-1, keepdim=True)
    norm, head = model.model.norm, model.lm_head.weight.detach()
    kl, lead = [], []
    with torch.no_grad():
        for residual in recorded["stream"][:, :, places]:
            scale = (residual.pow(2).mean(-1, keepdim=True) + norm.variance_epsilon).rsqrt()
            logits = (residual * scale * norm.weight) @ head.T
            kl.append((final.exp() * (final - logits.log_softmax(-1))).sum(-1))
            # by how much the model's choice is above all others, or below the highest
            chosen = logits.gather(-1, choice)[..., 0]
            others = logits.scatter(-1, choice, -torch.inf).amax(-1)
            lead.append(chosen - others)
    actual = stored.arrays("lens")
    expected = torch.stack(kl, dim=1).numpy()  # [B, L + 1, P]
    ahead = torch.stack(lead, dim=1).numpy()
    if actual["kl"].shape != expected.shape or actual["agrees"].shape != ahead.shape:
        return {"kl": OTHER_SHAPE, "agrees": OTHER_SHAPE}
    wrong = (actual["agrees"] != (ahead > 0)) & (abs(ahead) > 1e-3)
    wrong |= ~np.isin(actual["agrees"], (0, 1))
    apart = abs(actual["kl"] - expected) / np.maximum(0.1, expected)
    return {"kl": float(apart.max()), "agrees": float(wrong.mean())}


#### similarity


def similarity_differences() -> dict[str, float]:
    """Return array -> largest difference of CKA."""
    return _cached("similarity differences", _similarity_differences, file="similarity")


def _similarity_differences() -> dict[str, float]:
    import torch

    actual = stored.arrays("similarity")
    stream, random = (one["stream"].flatten(1, 2) for one in (trained(), untrained()))
    count, length = config()["sequences"]["count"], config()["sequences"]["length"]
    kept = torch.from_numpy(actual["outliers"]).flatten() == 0
    behind = torch.arange(count * length) % length > 0
    every = torch.ones_like(kept)
    first, second = (layer + 1 for layer in config()["cka"]["layers"])
    x, y = stream[first], stream[second]
    cases = {
        "pair.raw": (x, y, every),
        "pair.without_first": (x, y, behind),
        "pair.without_outliers": (x, y, kept),
        "pair.random_weights": (random[first], random[second], every),
        "pair.shuffled": (x, _reordered(y, kept), kept),
        "ends": (stream[0], stream[-1], kept),
    }
    differences = {}
    for name, (a, b, chosen) in cases.items():
        differences[name] = _apart_of_cka(actual[name], _cka(a, b, chosen))
    for name, chosen in (("raw", every), ("without_outliers", kept)):
        differences[f"matrix.{name}"] = _apart(actual[f"matrix.{name}"], _matrix(stream[:, chosen]))
    return differences


def _reordered(y: Any, kept: Any) -> Any:
    """Return y with the kept tokens in the order that the seed draws, the others in their place."""
    import torch

    generator = torch.Generator().manual_seed(arrays.seed())
    order = [i for i in torch.randperm(len(y), generator=generator).tolist() if kept[i]]
    places = kept.nonzero().flatten()
    reordered = y.clone()
    reordered[places] = y[order]
    return reordered


def _cka(x: Any, y: Any, chosen: Any) -> Any:
    """Return linear CKA of the chosen tokens, of all and without each sequence: [1 + B].

    With sums over sequences: of tokens, of features and of their products.
    """
    import numpy as np

    count = config()["sequences"]["count"]
    chosen = chosen.reshape(count, -1).numpy()
    x, y = (t.double().numpy() - t.double().mean(0).numpy() for t in (x, y))
    parts = []
    for number in range(count):
        a = np.split(x, count)[number][chosen[number]]
        b = np.split(y, count)[number][chosen[number]]
        parts.append((len(a), a.sum(0), b.sum(0), a.T @ b, a.T @ a, b.T @ b))
    totals = [sum(column) for column in zip(*parts, strict=True)]

    def of(sums: Any) -> float:
        n, a, b, ab, aa, bb = sums
        shared = ab - np.outer(a, b) / n
        own = np.linalg.norm(aa - np.outer(a, a) / n) * np.linalg.norm(bb - np.outer(b, b) / n)
        return float((shared**2).sum() / own)

    values = [of(totals)]
    for part in parts:
        values.append(of([total - one for total, one in zip(totals, part, strict=True)]))
    return np.array(values)


def _matrix(stream: Any) -> Any:
    """Return the CKA of all pairs of depths [L + 1, L + 1] of tokens [L + 1, N, D]."""
    import torch

    products = []
    for depth in stream:
        centred = (depth.double() - depth.double().mean(0)).float()
        products.append(centred @ centred.T)
    stacked = torch.stack(products)  # [L + 1, N, N]
    shared: Any = 0.0
    for row in stacked.unbind(1):  # [L + 1, N]: a sum over N rows, in float64
        shared = shared + row.double() @ row.double().T
    scale = shared.diagonal().rsqrt()
    return (shared * scale[:, None] * scale).numpy()


#### helpers


def _apart(actual: Any, expected: Any) -> float:
    """Return the largest difference."""
    if actual.shape != expected.shape:
        return OTHER_SHAPE
    return float(abs(actual.astype("float64") - expected).max())


def _mean_behind(array: Any, axes: tuple[int, ...] | None) -> Any:
    """Return the mean over texts and tokens without the first of each, in float64."""
    return array[..., 1:].astype("float64").mean(axes)


def _apart_of_cka(actual: Any, expected: Any) -> float:
    """Return the largest difference; of a CKA that is nearly 1, as a part of what is left to 1.

    Such a CKA varies little from text to text, and so does its error.
    """
    if actual.shape != expected.shape:
        return OTHER_SHAPE
    scale = (100 * (1 - expected)).clip(1e-3, 1)
    return float((abs(actual - expected) / scale).max())


def _relative(actual: Any, expected: Any) -> float:
    """Return the largest difference as a share of the value."""
    if actual.shape != expected.shape:
        return OTHER_SHAPE
    return float((abs(actual.astype("float64") - expected) / abs(expected)).max())


def _cached(
    name: str, compute: Callable[[], dict[str, Any]], *, file: str | None = None
) -> dict[str, Any]:
    """Return `cached` by the stored file, which is called like the numbers by default."""

    def quiet() -> dict[str, Any]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return compute()

    path = f"artifacts/{file or name}.safetensors"
    return dict(cached(f"model {name} {arrays.settings_key()}", [path], quiet))
