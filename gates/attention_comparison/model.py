"""FEAT-012's attention recomputed from base model and adapters, for every model that it looked at.

Base, adapters, the adapters against one another: on all prompts. Random updates, snapshots and
their random updates: each on prompts that the nonce draws for it. Every prompt is a sequence by
itself. A gap is given as a share of what is allowed, so 1 is the limit.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import Any

from gates.attention_comparison import page, weights
from gates.attention_comparison.arrays import (
    ARRAYS,
    PROMPTS,
    compared,
    features,
    planned_trials,
    prompts,
    settings_key,
    shape,
    steps,
)
from gates.attention_comparison.weights import Update, Weights
from gates.shared import outputs, stored, trials, trials_model
from gates.shared.stored import cached, config

FIRST_QUERY = 7  # the first with 8 keys
DRAWN_PROMPTS = 1  # of each kind, per random update and snapshot
# dtype -> what another order of arithmetic may change: a share of the value, and a floor in its own
# unit, in the mean over heads. bfloat16 on a GPU keeps 8 bits of a number.
DIVERGENCE = {"float32": (5e-3, 1e-8), "bfloat16": (0.2, 2e-3)}
STATISTIC = {"float32": (3e-5, 2e-6), "bfloat16": (0.2, 2e-3)}
ONE_HEAD = 10  # times as much for a single head
# A head that gives the first token all but 1e-5 has little else to average: rounding moves it far.
WITHOUT_SINK = {"float32": (3e-5, 3e-3), "bfloat16": (0.2, 2e-3)}
ONE_HEAD_WITHOUT_SINK = 200

Patterns = dict[int, Any]  # prompt -> [L·H, T, T] in float32
Values = dict[int, Any]  # column in the arrays -> [L·H]


def differences() -> dict[str, Any]:
    """Return how far stored and recomputed values are apart.

    models: "GROUP INDEX" -> name -> shares of what is allowed, in the mean and of the worst head;
    norms: "GROUP INDEX" -> largest relative difference of a norm; page: "GROUP INDEX" -> largest
    difference of a share, in levels; off: largest divergence of the base from itself, through
    PEFT with the adapter switched off.
    """
    files = (ARRAYS, PROMPTS, page.NAME, *weights.files())
    name = f"attention comparison differences {settings_key()}"
    compute = lambda: trials_model.without_warnings(_differences)  # noqa: E731
    return dict(cached(name, files, compute))


def _differences() -> dict[str, Any]:
    import torch

    arrays = stored.arrays("arrays")
    every = range(len(prompts()))
    found: dict[str, Any] = {"models": {}, "norms": {}, "page": {}}
    with torch.no_grad():
        # 1. The base, and the base with an adapter that is switched off.
        model = Weights()
        base = _patterns(model.put(None), every)
        found["models"]["base"] = _gaps(arrays, "base", None, _statistics_of(base))
        found["page"]["base"] = page.gap(_layers(base[0]), 0)
        found["off"] = _switched_off(base)

        # 2. The adapters, and each pair of them.
        tuned = []
        for index in range(len(planned_trials())):
            update = weights.adapter(index)
            tuned.append(_patterns(model.put(update), every))
            _add(found, arrays, "tuned", index, (update, base, tuned[-1]))
        for index, (one, other) in enumerate(itertools.combinations(tuned, 2)):
            seen = {"divergence": _divergences(one, other)}
            found["models"][f"between_seeds {index}"] = _gaps(arrays, "between_seeds", index, seen)

        # 3. Random updates and snapshots, on drawn prompts; the page shows the first prompt.
        draw = outputs.rng()
        for group, index, update in _others():
            chosen = _drawn_prompts(draw)
            seen_by = _patterns(model.put(update), chosen)
            _add(found, arrays, group, index, (update, base, seen_by))
            if group == "snapshots":
                first = _patterns(model.model, [0])[0]
                found["page"][f"{group} {index}"] = page.gap(_layers(first), 1 + index)
    return found


def _others() -> Iterable[tuple[str, int, Update]]:
    """Yield (group, index, update) of all models but the base and the adapters."""
    seeds, draws = config()["seeds"], config()["draws"]
    for i, seed in enumerate(seeds):
        norms = weights.norms(weights.adapter(i))
        for k in range(draws):
            yield "random", i * draws + k, weights.random_update(norms, (seed, k))
    for i in range(len(steps())):
        snapshot = weights.snapshot(i)
        yield "snapshots", i, snapshot
        norms = weights.norms(snapshot)
        yield "snapshots_random", i, weights.random_update(norms, (seeds[0], 0))


def _drawn_prompts(draw: Any) -> list[int]:
    """Return the indices of drawn prompts, some of each kind."""
    by_kind: dict[str, list[int]] = {}
    for i, prompt in enumerate(prompts()):
        by_kind.setdefault(prompt["kind"], []).append(i)
    drawn = []
    for indices in by_kind.values():
        drawn += draw.sample(indices, min(DRAWN_PROMPTS, len(indices)))
    return drawn


def _add(
    found: dict[str, Any],
    arrays: dict[str, Any],
    group: str,
    index: int,
    of: tuple[Update, Patterns, Patterns],
) -> None:
    """Add a model's gaps and norms; `of` is its update, the base's patterns and its own."""
    update, base, after = of
    label = f"{group} {index}"
    seen = _statistics_of(after) | {"divergence": _divergences(base, after)}
    found["models"][label] = _gaps(arrays, group, index, seen)
    worst = 0.0
    expected = weights.norms(update)
    for actual, norm in zip(arrays[f"{group}.norms"][index].tolist(), expected, strict=True):
        worst = max(worst, abs(actual / norm - 1))
    found["norms"][label] = worst


def _switched_off(base: Patterns) -> float:
    """Return the largest divergence of the base from itself with an adapter that is off."""
    from peft import PeftModel

    folder = trials.folder(planned_trials()[0], features())
    model = PeftModel.from_pretrained(trials_model.base_model(), folder).eval()
    model.get_base_model().set_attn_implementation("eager")
    with model.disable_adapter():
        off = _patterns(model.get_base_model(), [0, len(compared()) - 1])
    return max(float(values.max()) for values in _divergences(base, off).values())


# One model's attention


def _patterns(model: Any, chosen: Iterable[int]) -> Patterns:
    """Return the patterns of some prompts."""
    import torch

    found = {}
    for prompt in chosen:
        ids = torch.tensor([prompts()[prompt]["ids"]])
        layers = model.model(input_ids=ids, output_attentions=True, use_cache=False).attentions
        assert len(layers) == shape()[0], "transformers returned no attention"
        found[prompt] = torch.cat(list(layers)).flatten(0, 1).numpy()
    return found


def _layers(pattern: Any) -> Any:
    """Return a pattern [L·H, T, T] as [L, H, T, T] in double precision."""
    return pattern.reshape(*shape(), *pattern.shape[1:]).astype("float64")


def _column(prompt: int) -> int:
    """Return a prompt's column in the arrays: repeated sequences are counted by themselves."""
    count = len(compared())
    return prompt if prompt < count else prompt - count


def _divergences(first: Patterns, second: Patterns) -> Values:
    """Return column -> mean divergence over the queries with at least 8 keys."""
    found = {}
    for prompt in set(first) & set(second):
        if prompts()[prompt]["kind"] != "repeated":
            rows = js(first[prompt].astype("float64"), second[prompt].astype("float64"))
            found[_column(prompt)] = rows[:, FIRST_QUERY:].mean(1)
    return found


def js(first: Any, second: Any) -> Any:
    """Return ½ KL(p‖m) + ½ KL(q‖m), m = (p + q) / 2, of rows of weights [..., K], in nats."""
    import numpy as np

    middle = (first + second) / 2
    safe = np.where(middle > 0, middle, 1.0)
    total = 0.0
    for one in (first, second):
        ratio = np.where(one > 0, one, safe) / safe
        total = total + (one * np.log(ratio)).sum(-1) / 2
    return total


def _statistics_of(patterns: Patterns) -> dict[str, Values]:
    """Return name -> column -> the statistic of each head."""
    found: dict[str, Values] = {}
    for prompt, pattern in patterns.items():
        for name, values in _statistics(pattern, prompts()[prompt]["kind"]).items():
            found.setdefault(name, {})[_column(prompt)] = values
    return found


def _statistics(pattern: Any, kind: str) -> dict[str, Any]:
    """Return the statistics [L·H] of one prompt's patterns, by their definitions."""
    import numpy as np

    weights = pattern.astype(np.float64)  # [L·H, T, T]
    length = weights.shape[-1]
    if kind == "repeated":
        period = config()["prompts"]["period"]
        queries = np.arange(period + 1, 2 * period + 1)
        return {"induction": weights[:, queries, queries - period + 1].mean(1)}

    places = np.arange(length)
    away = places[:, None] - places[None]  # [query, key]
    positive = np.where(weights > 0, weights, 1.0)
    entropy = -(positive * np.log(positive)).sum(-1)  # [L·H, T]
    distance = (weights * away).sum(-1)  # [L·H, T]
    rest = 1 - weights[..., 0]  # a query that looks at nothing else has distance 0
    others = np.maximum(distance - weights[..., 0] * places, 0) / np.maximum(rest, 1e-6)
    far = np.where(rest > 1e-6, others, 0.0)
    counted = slice(FIRST_QUERY, length)
    return {
        "sink": weights[:, counted, 0].mean(1),
        "entropy": (entropy[:, counted] / np.log(places[counted] + 1)).mean(1),
        "distance": distance[:, counted].mean(1),
        "distance_without_sink": far[:, counted].mean(1),
    }


# Stored against recomputed


def _gaps(
    arrays: dict[str, Any], group: str, index: int | None, seen: dict[str, Values]
) -> dict[str, list[float]]:
    """Return name -> the gap as shares of what is allowed: in the mean, and of the worst head."""
    import numpy as np

    gaps = {}
    for name, by_column in seen.items():
        rows = arrays[f"{group}.{name}"]
        if index is not None:
            rows = rows[index]
        columns = sorted(by_column)
        expected = np.stack([by_column[column] for column in columns], axis=1)  # [L·H, columns]
        gap = np.abs(rows[:, columns] - expected).mean(1)  # [L·H]
        size = np.abs(expected).mean(1)  # [L·H]
        relative, floor = _allowed(name)[config()["dtype"]]
        in_the_mean = gap.mean() / (relative * size.mean() + floor)
        one_head = ONE_HEAD_WITHOUT_SINK if name == "distance_without_sink" else ONE_HEAD
        worst = (gap / (relative * size + floor)).max() / one_head
        gaps[name] = [float(in_the_mean), float(worst)]
    return gaps


def _allowed(name: str) -> dict[str, tuple[float, float]]:
    """Return dtype -> share and floor that an array of this name may be off, in the mean."""
    if name == "divergence":
        return DIVERGENCE
    return WITHOUT_SINK if name == "distance_without_sink" else STATISTIC
