"""FEAT-012's arrays recomputed from base model and adapters.

The nonce draws three models, some prompts, a set of heads and some examples. The code is
independent of the lab's: ΔW is added to the weights themselves, attention is transformers' own
eager one, every prompt is a sequence by itself, switched-off heads are columns of 0 in the output
projection, and random updates are drawn anew from their seeds. torch and transformers are imported
inside functions, so a warm cache never loads them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from gates.attention_comparison.arrays import (
    ARRAYS,
    FILES,
    HEADS,
    PROMPTS,
    compared,
    features,
    heads,
    prompts,
    shape,
    steps,
)
from gates.shared import outputs, stored, trials, trials_model
from gates.shared.stored import cached, config

FIRST_QUERY = 7  # the first with 8 keys
DRAWN_PROMPTS = 2  # of each kind
DRAWN_EXAMPLES = 12
SNAPSHOTS = "artifacts/snapshots.safetensors"
WEIGHTS = "adapter_model.safetensors"
PREFIX = "base_model.model."

Update = dict[str, tuple[Any, Any]]  # linear -> A [r, in], B [out, r], without the scale


def scale() -> float:
    """Return s of ΔW = s·B·A."""
    return float(config()["lora"]["lora_alpha"] / config()["lora"]["r"])


def linears() -> dict[str, list[int]]:
    """Return linear layer -> [out, in], in the order of the layers."""
    shapes = trials.linear_shapes()
    return {name.removesuffix(".weight"): size for name, size in shapes.items()}


# Which models


def drawn_models() -> list[tuple[str, int]]:
    """Return (group, index) of an adapter or its null, of a snapshot, and of a snapshot's null."""
    draw = outputs.rng()
    names = heads()["trials"]
    of_seeds = [("tuned", i) for i in range(len(names))]
    of_seeds += [("random", i) for i in range(len(names) * config()["draws"])]
    snapshots = range(len(steps()))
    drawn = [draw.choice(of_seeds), ("snapshots", draw.choice(snapshots))]
    return [*drawn, ("snapshots_random", draw.choice(snapshots))]


def update(group: str, index: int) -> Update:
    """Return the update of a model."""
    seeds = config()["seeds"]
    if group == "tuned":
        return adapter(index)
    if group == "snapshots":
        return snapshot(index)
    if group == "random":
        norms = stored.arrays("arrays")["tuned.norms"][index // config()["draws"]]
        seed = (seeds[index // config()["draws"]], index % config()["draws"])
        return random_update(norms, seed)
    norms = stored.arrays("arrays")["snapshots.norms"][index]
    return random_update(norms, (seeds[0], 0))


def adapter(index: int) -> Update:
    """Return the stored adapter of a seed."""
    from safetensors.numpy import load_file

    folder = trials.folder(heads()["trials"][index], features())
    return _paired(load_file(folder / WEIGHTS))


def snapshot(index: int) -> Update:
    """Return a snapshot's update."""
    from safetensors import safe_open

    prefix = f"{steps()[index]}."
    with safe_open(outputs.out() / SNAPSHOTS, "np") as file:
        names = [name for name in file.keys() if name.startswith(prefix)]  # noqa: SIM118
        tensors = {name.removeprefix(prefix): file.get_tensor(name) for name in names}
    return _paired(tensors)


def _paired(tensors: dict[str, Any]) -> Update:
    update = {}
    for linear in linears():
        A = tensors.pop(f"{PREFIX}{linear}.lora_A.weight")
        B = tensors.pop(f"{PREFIX}{linear}.lora_B.weight")
        update[linear] = (A, B)
    assert not tensors, f"tensors of no linear layer: {sorted(tensors)[:3]}"
    return update


def random_update(norms: Sequence[float], seed: tuple[int, int]) -> Update:
    """Return the random update of these norms: A, then B of each layer from default_rng(seed)."""
    import numpy as np

    generator = np.random.default_rng(seed)
    rank = config()["lora"]["r"]
    update = {}
    for (linear, (rows, columns)), norm in zip(linears().items(), norms, strict=True):
        A = generator.standard_normal((rank, columns), dtype=np.float32)
        B = generator.standard_normal((rows, rank), dtype=np.float32)
        update[linear] = (A, B * np.float32(norm / update_norm(A, B)))
    return update


def update_norm(A: Any, B: Any) -> float:
    """Return ‖s·B·A‖_F; A is [r, in], B [out, r]."""
    import numpy as np

    return scale() * float(np.linalg.norm((B @ A).astype(np.float64)))


def merged(update: Update | None) -> Any:
    """Return the base with the update in its weights, with eager attention."""
    import torch

    model = trials_model.base_model().eval()
    model.set_attn_implementation("eager")
    for linear, (A, B) in (update or {}).items():
        change = scale() * (torch.from_numpy(B).double() @ torch.from_numpy(A).double())
        model.get_submodule(linear).weight.data += change.float()
    return model


# Attention


def drawn_prompts() -> list[int]:
    """Return the indices among all prompts that the nonce draws, some of each kind."""
    draw = outputs.rng()
    by_kind: dict[str, list[int]] = {}
    for i, prompt in enumerate(prompts()):
        by_kind.setdefault(prompt["kind"], []).append(i)
    drawn = []
    for indices in by_kind.values():
        drawn += sorted(draw.sample(indices, min(DRAWN_PROMPTS, len(indices))))
    return drawn


def differences() -> dict[str, Any]:
    """Return how far stored and recomputed values are apart.

    models: "GROUP INDEX" -> name -> (mean |difference|, mean |stored change|) over heads and drawn
    prompts; base: the same of the base's statistics; norms: largest relative difference; losses and
    ablation: stored and recomputed token losses; page: largest difference of a share, in levels.
    """
    names = heads()["trials"]
    files = (*FILES, SNAPSHOTS, "attention_over_time.html", *trials.frozen_files("evaluation"))
    files += tuple(trials.files(names, [WEIGHTS]))
    compute = lambda: trials_model.without_warnings(_differences)  # noqa: E731
    return dict(cached("attention comparison differences", files, compute))


def _differences() -> dict[str, Any]:
    import torch

    from gates.attention_comparison import page

    arrays = stored.arrays("arrays")
    found: dict[str, Any] = {"models": {}, "norms": {}}
    with torch.no_grad():
        # 1. The base.
        base = merged(None)
        before = {i: _patterns(base, i) for i in drawn_prompts()}
        found["base"] = _statistics_gap(arrays, "base", None, before)
        found["page_base"] = page.gap(_patterns(base, 0), 0)
        found["ablation_base"] = _ablation(base, arrays["ablation.base"])  # changes the model

        # 2. The drawn models.
        for group, index in drawn_models():
            of = update(group, index)
            model = merged(of)
            after = {i: _patterns(model, i) for i in drawn_prompts()}
            gaps = _statistics_gap(arrays, group, index, after)
            gaps["divergence"] = _divergence_gap(arrays, group, index, before, after)
            found["models"][f"{group} {index}"] = gaps
            found["norms"][f"{group} {index}"] = _norm_gap(of, arrays[f"{group}.norms"][index])
            if group == "snapshots":
                found["page"] = page.gap(_patterns(model, 0), 1 + index)
                found["losses"] = _losses(model, arrays["snapshots.losses"][1 + index])

        # 3. The tuned model without the drawn heads.
        found["ablation_tuned"] = _ablation(merged(adapter(0)), arrays["ablation.tuned"])
    return found


def _patterns(model: Any, prompt: int) -> Any:
    """Return the patterns of one prompt, [L, H, T, T], in float64."""
    import torch

    ids = torch.tensor([prompts()[prompt]["ids"]])
    weights = model.model(input_ids=ids, output_attentions=True, use_cache=False).attentions
    assert len(weights) == shape()[0], "transformers returned no attention"
    return torch.cat(list(weights)).double().numpy()


def _statistics_gap(
    arrays: dict[str, Any], group: str, index: int | None, patterns: dict[int, Any]
) -> dict[str, list[float]]:
    """Return name -> [mean |stored - recomputed|, mean |stored|]."""
    import numpy as np

    columns = _columns()
    gaps: dict[str, list[Any]] = {}
    for prompt, pattern in patterns.items():
        kind, column = columns[prompt]
        for name, values in _statistics(pattern, kind).items():
            rows = arrays[f"{group}.{name}"]
            if index is not None:
                rows = rows[index]
            actual = rows[:, column]
            gaps.setdefault(name, []).append([np.abs(actual - values), np.abs(actual)])
    return {name: np.array(parts).mean((0, 2)).tolist() for name, parts in gaps.items()}


def _columns() -> dict[int, tuple[str, int]]:
    """Return prompt -> its kind and its column in the arrays."""
    columns = {}
    count = len(compared())
    for i, prompt in enumerate(prompts()):
        columns[i] = (prompt["kind"], i if i < count else i - count)
    return columns


def _statistics(pattern: Any, kind: str) -> dict[str, Any]:
    """Return the statistics [L·H] of one prompt's patterns [L, H, T, T], by their definitions."""
    import numpy as np

    weights = pattern.reshape(-1, *pattern.shape[2:])  # [L·H, T, T]
    length = weights.shape[-1]
    if kind == "repeated":
        period = config()["prompts"]["period"]
        queries = np.arange(period + 1, 2 * period + 1)
        return {"induction": weights[:, queries, queries - period + 1].mean(1)}

    places = np.arange(length)
    away = places[:, None] - places[None]  # [query, key]
    positive = np.where(weights > 0, weights, 1.0)
    entropy = -(positive * np.log(positive)).sum(-1)  # [L·H, T]
    others = weights[..., 1:]
    shares = others / np.maximum(others.sum(-1, keepdims=True), 1e-6)
    far = (shares * away[:, 1:]).sum(-1)
    counted = slice(FIRST_QUERY, length)
    return {
        "sink": weights[:, counted, 0].mean(1),
        "entropy": (entropy[:, counted] / np.log(places[counted] + 1)).mean(1),
        "distance": (weights * away).sum(-1)[:, counted].mean(1),
        "distance_without_sink": far[:, counted].mean(1),
    }


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


def _divergence_gap(
    arrays: dict[str, Any], group: str, index: int, before: dict[int, Any], after: dict[int, Any]
) -> list[float]:
    """Return [mean |stored - recomputed|, mean stored] of the divergence from the base."""
    import numpy as np

    gaps, sizes = [], []
    for prompt, (kind, column) in _columns().items():
        if prompt not in before or kind == "repeated":
            continue
        values = js(before[prompt], after[prompt])[..., FIRST_QUERY:].mean(-1).reshape(-1)
        actual = arrays[f"{group}.divergence"][index][:, column]
        gaps.append(np.abs(actual - values).mean())
        sizes.append(actual.mean())
    return [float(np.mean(gaps)), float(np.mean(sizes))]


def _norm_gap(of: Update, norms: Any) -> float:
    """Return the largest relative difference of a stored ‖ΔW‖ from that of the tensors."""
    worst = 0.0
    for (A, B), actual in zip(of.values(), norms.tolist(), strict=True):
        expected = update_norm(A, B)
        worst = max(worst, abs(actual - expected) / expected)
    return worst


# Losses


def drawn_examples() -> list[int]:
    """Return the loss examples that the nonce draws, as indices among them."""
    count = config()["loss_examples"]
    return sorted(outputs.rng().sample(range(count), min(DRAWN_EXAMPLES, count)))


def drawn_set() -> int:
    """Return the set of heads that the nonce draws: 0 the moved ones, then the random sets."""
    return outputs.rng().randrange(1 + len(heads()["random"]))


def _losses(model: Any, row: Any) -> list[list[float]]:
    """Return stored and recomputed token losses of the drawn examples; row: [N] stored."""
    examples = trials.rows("evaluation", features())[config()["prompts"]["task"] :]
    owners = stored.arrays("arrays")["token_examples"]
    actual: list[float] = []
    for i in drawn_examples():
        actual += row[owners == i].tolist()
    recomputed = trials_model.token_values(model, [examples[i] for i in drawn_examples()])
    return [actual, recomputed["losses"]]


def _ablation(model: Any, rows: Any) -> list[list[list[float]]]:
    """Return `_losses` with all heads, and without the drawn set; the model is changed."""
    intact = _losses(model, rows[0])
    document = heads()
    chosen = [document["moved"], *document["random"]][drawn_set()]
    per_layer = shape()[1]
    for head in chosen:
        layer, number = divmod(head, per_layer)
        weight = model.get_submodule(f"model.layers.{layer}.self_attn.o_proj").weight.data
        width = weight.shape[1] // per_layer
        weight[:, number * width : (number + 1) * width] = 0  # [out, H·D]: what reads this head
    return [intact, _losses(model, rows[1 + drawn_set()])]


# Identities that need no model


def replay() -> dict[str, float]:
    """Return the gap of the last snapshot from the stored adapter, and of the training losses."""
    names = heads()["trials"]
    files = (ARRAYS, HEADS, SNAPSHOTS, *trials.files(names, [WEIGHTS, "steps.safetensors"]))

    def compute() -> dict[str, float]:
        import numpy as np

        # 1. Tensor by tensor.
        last, expected = snapshot(len(steps()) - 1), adapter(0)
        gap = 0.0
        for linear, parts in expected.items():
            for actual, wanted in zip(last[linear], parts, strict=True):
                gap = max(gap, float(np.abs(actual - wanted).max()))

        # 2. The loss of every step.
        arrays = stored.arrays("arrays")
        losses = trials.load(names[0], "steps", features())["loss"]
        worst = float(np.abs(arrays["snapshots.training_losses"] / losses - 1).max())

        # 3. The same models, looked at twice.
        twice = {"gap": gap, "losses": worst}
        for group, other in (("snapshots", "tuned"), ("snapshots_random", "random")):
            change = arrays[f"{group}.divergence"][-1] - arrays[f"{other}.divergence"][0]
            size = float(arrays[f"{other}.divergence"][0].mean())
            twice[group] = float(np.abs(change).mean()) / max(size, 1e-12)
        return twice

    return dict(cached("attention comparison replay", files, compute))


def norms() -> dict[str, float]:
    """Return the largest relative difference of a random update's norm from the one it copies."""

    def compute() -> dict[str, float]:
        import numpy as np

        arrays = stored.arrays("arrays")
        tuned = np.repeat(arrays["tuned.norms"], config()["draws"], axis=0)
        pairs = {
            "random": (arrays["random.norms"], tuned),
            "snapshots_random": (arrays["snapshots_random.norms"], arrays["snapshots.norms"]),
        }
        return {name: float(np.abs(a / b - 1).max()) for name, (a, b) in pairs.items()}

    return dict(cached("attention comparison norms", (ARRAYS, HEADS), compute))


def ranges() -> dict[str, list[float]]:
    """Return the least and the largest value of each kind of array."""

    def compute() -> dict[str, list[float]]:
        found: dict[str, list[float]] = {}
        for name, array in stored.arrays("arrays").items():
            kind = name.partition(".")[2]
            low, high = float(array.min()), float(array.max())
            known = found.setdefault(kind, [math.inf, -math.inf])
            found[kind] = [min(low, known[0]), max(high, known[1])]
        return found

    return dict(cached("attention comparison ranges", (ARRAYS,), compute))


def texts_hold() -> dict[str, bool]:
    """Return whether each kind of prompt is what it claims to be."""
    files = (PROMPTS, *trials.frozen_files("evaluation"))
    compute = lambda: trials_model.without_warnings(_texts_hold)  # noqa: E731
    return dict(cached("attention comparison prompts", files, compute))


def _texts_hold() -> dict[str, bool]:
    from pydoc_data import topics

    from transformers import AutoTokenizer

    by_kind: dict[str, list[list[int]]] = {}
    for prompt in prompts():
        by_kind.setdefault(prompt["kind"], []).append(prompt["ids"])
    settings = config()["prompts"]
    tokenizer = AutoTokenizer.from_pretrained(outputs.inputs()[config()["model"]])

    # 1. The first held-out examples.
    examples = trials.rows("evaluation", features())[: settings["task"]]
    holds = {"task": by_kind["task"] == [example["ids"] for example in examples]}

    # 2. Different windows of the running text.
    running = "\n".join(topics.topics[name].strip() for name in sorted(topics.topics))
    windows = {tokenizer.decode(ids).strip("\ufffd") for ids in by_kind["text"]}
    lengths = {len(ids) for ids in by_kind["text"]}
    is_whole = len(windows) == settings["text"] and lengths == {settings["text_tokens"]}
    holds["text"] = is_whole and all(window in running for window in windows)

    # 3. A first token, then the same random tokens twice.
    period = settings["period"]
    repeated = by_kind["repeated"]
    holds["repeated"] = len(repeated) == settings["repeated"] and all(
        len(ids) == 1 + 2 * period
        and ids[1 : 1 + period] == ids[1 + period :]
        and len(set(ids[1 : 1 + period])) > period // 2
        for ids in repeated
    )
    return holds
