"""A sample of FEAT-007's arrays recomputed from base model, adapters and full update.

Independent code: full singular value decompositions in float64 where the lab works on factors,
Adam's first step by its formula where the lab runs an optimizer, padded batches. torch and
peft are imported inside, so a warm cache never loads them. `drawn_seed` and `drawn_layers`
come from the nonce.
"""

from __future__ import annotations

import itertools
import math
from typing import Any

from gates.lora_rank import plan
from gates.lora_rank.arrays import ADAPTER, load
from gates.shared import outputs, trials, trials_model
from gates.shared.stored import cached, config

DECOMPOSED = 18  # pairs of a trial and a layer whose update is decomposed again
COMPARED = 6  # layers whose directions are compared again
EPS = 1e-8  # Adam's


def drawn_updates() -> list[tuple[str, int]]:
    """Return the pairs of a trial and a layer's index that the nonce draws."""
    layer_count = len(plan.layers())
    pairs = list(itertools.product(plan.all_trial_names(), range(layer_count)))
    return sorted(outputs.rng().sample(pairs, min(DECOMPOSED, len(pairs))))


def drawn_layers() -> list[int]:
    """Return the indices of the layers whose directions are compared."""
    return sorted(outputs.rng().sample(range(len(plan.layers())), COMPARED))


def drawn_seed() -> int:
    """Return the index of a seed in the config."""
    return outputs.rng().randrange(len(config()["seeds"]))


def drawn_part() -> str:
    """Return the part of the full update that is evaluated again, besides the whole."""
    return outputs.rng().choice(plan.full_parts()[1:])


def _adapter(trial: str) -> dict[str, Any]:
    from safetensors.torch import load_file

    tensors: dict[str, Any] = load_file(trials.folder(trial, plan.earlier_features()) / ADAPTER)
    return tensors


def _lora(trial: str) -> dict[str, Any]:
    settings: dict[str, Any] = trials.trial(trial, plan.earlier_features())["lora"]
    return settings


def _update(tensors: dict[str, Any], layer: str, lora: dict[str, Any]) -> Any:
    """Return dW [m, n] of a layer in float64."""
    A = tensors[f"base_model.model.{layer}.lora_A.weight"].double()  # [r, n]
    B = tensors[f"base_model.model.{layer}.lora_B.weight"].double()  # [m, r]
    return plan.scale(lora) * B @ A


def _training_examples(trial: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the training examples of a trial, in the order of use."""
    return trials.used(trial, trials.rows("train", plan.earlier_features()))


# The LoRA updates


def recomputed_updates() -> list[dict[str, Any]]:
    """Return of each drawn update: values [k], inside_norm and weight_norm.

    values: its singular values; inside_norm: |U^T W V|_F of its strongest directions; weight_norm:
    |W|_F.
    """
    names = sorted({trial for trial, _ in drawn_updates()})
    files = trials.files(names, ["trial.json", ADAPTER])
    return list(cached("lora updates", files, _recompute_updates))


def _recompute_updates() -> list[dict[str, Any]]:
    import torch
    from safetensors import safe_open

    path = outputs.inputs()[trials.model_name()] / "model.safetensors"
    layers = plan.layers()
    smallest = min(config()["ranks"])
    updates = []
    with safe_open(path, framework="pt") as weights:
        for trial, layer in drawn_updates():
            lora = _lora(trial)
            delta = _update(_adapter(trial), layers[layer], lora)
            weight = weights.get_tensor(f"{layers[layer]}.weight").double()
            U, S, Vh = torch.linalg.svd(delta, full_matrices=False)
            inside = U[:, :smallest].T @ weight @ Vh[:smallest].T  # [smallest, smallest]
            rank = min(lora["r"], *delta.shape)
            updates.append(
                {
                    "values": S[:rank].tolist(),
                    "inside_norm": float(torch.linalg.norm(inside)),
                    "weight_norm": float(torch.linalg.norm(weight)),
                }
            )
    return updates


# The first steps, and what two ranks have in common


def recomputed_first_step() -> dict[str, Any]:
    """Return the gradients and the overlaps of the drawn seed.

    gradient_norms [L], descent [3, ranks, L], adapter_gradient_norms [3, ranks], overlaps of SIDES.
    """
    ranks = config()["ranks"]
    pair = [plan.trial_names(f"r{r}")[drawn_seed()] for r in (ranks[0], ranks[-1])]
    files = (*trials.files(pair), *trials.frozen_files("train"))
    return dict(
        cached(
            "lora first steps", files, lambda: trials_model.without_warnings(_recompute_first_step)
        )
    )


def _recompute_first_step() -> dict[str, Any]:
    import torch

    # 1. The gradient of the seed's first batch.
    seed = config()["seeds"][drawn_seed()]
    ranks = config()["ranks"]
    layers = plan.layers()
    trial = plan.planned_trial(f"r{ranks[0]}", seed)
    training = trial["training"]
    base = trials_model.base_model()
    G = _gradients(base, _training_examples(trial)[: training["batch_size"]])

    # 2. One step for each rank and convention.
    starts = {}
    descent = torch.zeros(len(plan.CONVENTIONS), len(ranks), len(layers), dtype=torch.float64)
    norms = torch.zeros(len(plan.CONVENTIONS), len(ranks), dtype=torch.float64)
    for j, r in enumerate(ranks):
        starts[r] = _initial_a(base, plan.adapter_settings()[f"r{r}"], seed)
        projections = {name: (G[name] @ starts[r][name].T).double() for name in layers}  # [m, r]
        for i, name in enumerate(plan.CONVENTIONS):
            scale = plan.scale(_lora_under(name, r))
            descent[i, j], norms[i, j] = _adam_step(projections, scale, training)

    # 3. The smallest and the largest rank.
    pair = [plan.trial_name(f"r{r}", seed) for r in (ranks[0], ranks[-1])]
    return {
        "gradient_norms": [float(torch.linalg.norm(G[name])) for name in layers],
        "descent": descent.tolist(),
        "adapter_gradient_norms": norms.tolist(),
        "overlaps": _overlaps(pair, [starts[ranks[0]], starts[ranks[-1]]]),
    }


def _lora_under(convention: str, r: int) -> dict[str, Any]:
    """Return the adapter of a rank under one of the three conventions."""
    alpha = config()["lora_alpha"]
    if convention == "alpha_2r":
        alpha = 2 * r
    return {"r": r, "lora_alpha": alpha, "use_rslora": convention == "rslora"}


def _gradients(model: Any, batch: list[dict[str, Any]]) -> dict[str, Any]:
    """Return layer -> dL/dW for the mean loss over the batch's supervised tokens."""
    import torch

    model.requires_grad_(requires_grad=False)
    weights = {name: model.get_submodule(name).weight for name in plan.layers()}
    for weight in weights.values():
        weight.requires_grad_(requires_grad=True)
    _loss(model, batch).backward()
    gradients = {name: weight.grad for name, weight in weights.items()}
    model.requires_grad_(requires_grad=False)
    for weight in weights.values():
        weight.grad = None
    assert all(isinstance(gradient, torch.Tensor) for gradient in gradients.values())
    return gradients


def _loss(model: Any, batch: list[dict[str, Any]]) -> Any:
    """Return the mean loss over a batch's supervised tokens, in nats."""
    import torch

    losses = []
    log_probabilities = trials_model.log_probabilities(model, batch)
    for example, log_p in zip(batch, log_probabilities, strict=True):
        targets = trials_model._targets(example)
        losses.append(-log_p.gather(1, targets[:, None])[:, 0])  # [S]
    return torch.cat(losses).mean()


def _initial_a(base: Any, lora: dict[str, Any], seed: int) -> dict[str, Any]:
    """Return layer -> the A [r, n] that PEFT draws for this seed."""
    import torch
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(seed)
    lora_config = LoraConfig(**lora, target_modules=sorted(trials.LINEARS), task_type="CAUSAL_LM")
    model = get_peft_model(base, lora_config)
    tensors = {}
    for name in plan.layers():
        A = model.get_parameter(f"base_model.model.{name}.lora_A.default.weight")
        tensors[name] = A.detach().clone()
    model.unload()
    return tensors


def _adam_step(
    projections: dict[str, Any], scale: float, training: dict[str, Any]
) -> tuple[Any, float]:
    """Return <dW, -G> of each layer [L] and |dL/dB| of Adam's first step from B = 0.

    dB = -lr g/(|g| + eps) with g = s G A^T, by Kingma and Ba 2015 (arXiv:1412.6980), algorithm 1:
    after bias correction the first moments are g and g^2. projections: layer -> G A^T [m, r].
    """
    import torch

    squares = sum(float((projection**2).sum()) for projection in projections.values())
    norm = scale * math.sqrt(squares)
    clip = min(1.0, training["max_grad_norm"] / (norm + 1e-6))
    rate = trials.rate(0, training)
    descent = []
    for projection in projections.values():
        g = clip * scale * projection
        descent.append(scale * rate * (g / (g.abs() + EPS) * projection).sum())
    return torch.stack(descent), norm


def _overlaps(pair: list[str], starts: list[dict[str, Any]]) -> dict[str, list[list[float]]]:
    """Return side -> phi(i, i) of the drawn layers: [layers, k]."""
    import torch

    layers = plan.layers()
    adapters = [_adapter(trial) for trial in pair]
    loras = [_lora(trial) for trial in pair]
    k = loras[0]["r"]
    overlaps: dict[str, list[list[float]]] = {"left": [], "right": [], "learned": []}
    for index in drawn_layers():
        layer = layers[index]
        # side -> orthonormal columns [d, k or more] of either trial
        columns: dict[str, list[Any]] = {side: [] for side in overlaps}
        for tensors, lora, start in zip(adapters, loras, starts, strict=True):
            U, _, Vh = torch.linalg.svd(_update(tensors, layer, lora), full_matrices=False)
            A = tensors[f"base_model.model.{layer}.lora_A.weight"].double()
            learned = A - start[layer].double()
            columns["left"].append(U)
            columns["right"].append(Vh.T)
            columns["learned"].append(torch.linalg.svd(learned, full_matrices=False)[2].T)
        for side, (one, other) in columns.items():
            squares = (one[:, :k].T @ other[:, :k]) ** 2  # [k, k]
            overlaps[side].append([float(squares[:i, :i].sum()) / i for i in range(1, k + 1)])
    return overlaps


# The full fine-tuning


def recomputed_full() -> dict[str, Any]:
    """Return what the full fine-tuning must have given.

    evaluations: "full" and the drawn part -> losses, entropies, hits of the drawn examples; values:
    singular values of each layer [L]; moved: smallest and largest of the layers' largest |dW|;
    grad_norm: |G| of the first batch; loss: of the first batch, and of the second one after one
    Adam step of all linear layers.
    """
    files = (plan.FULL_UPDATE, *trials.frozen_files("train", "evaluation"))
    return dict(
        cached(
            f"lora full {drawn_part()}",
            files,
            lambda: trials_model.without_warnings(_recompute_full),
        )
    )


def _recompute_full() -> dict[str, Any]:
    import torch
    from safetensors.torch import load_file

    # 1. The first steps of the run.
    model = trials_model.base_model()
    before = {name: model.get_submodule(name).weight.detach().clone() for name in plan.layers()}
    first_steps = _replay_first_steps(model, before)

    # 2. The stored update, and its drawn part.
    update = load_file(outputs.out() / plan.FULL_UPDATE)
    assert list(update) and set(update) == set(before), (
        "the full update does not cover the linear layers"
    )
    assert all(update[name].shape == before[name].shape for name in before), (
        "the full update has other shapes"
    )
    update = {name: update[name].float() for name in before}
    values, part = _decompose(update, drawn_part())

    # 3. Evaluate both.
    features = plan.earlier_features()
    examples = trials.rows("evaluation", features)
    drawn_examples = [examples[i] for i in trials_model.draw_examples(features)]
    evaluations = {}
    for name, change in (("full", update), (drawn_part(), part)):
        _set_weights(model, before, change)
        with torch.no_grad():
            evaluations[name] = trials_model.token_values(model, drawn_examples)
    largest = [float(delta.abs().max()) for delta in update.values()]
    return first_steps | {
        "evaluations": evaluations,
        "values": values,
        "moved": [min(largest), max(largest)],
    }


def _set_weights(model: Any, before: dict[str, Any], change: dict[str, Any]) -> None:
    for name, weight in before.items():
        model.get_submodule(name).weight.data = weight + change[name]


def _replay_first_steps(model: Any, before: dict[str, Any]) -> dict[str, Any]:
    """Return the first batch's loss and gradient norm, the second's loss after one step of Adam."""
    import torch

    training = plan.full_training()
    examples = _training_examples(plan.first_trial())
    size = training["batch_size"]
    with torch.no_grad():
        first_loss = float(_loss(model, examples[:size]))
    G = _gradients(model, examples[:size])
    norm = math.sqrt(sum(float((g.double() ** 2).sum()) for g in G.values()))
    clip = min(1.0, training["max_grad_norm"] / (norm + 1e-6))
    rate = trials.rate(0, training)
    step = {}
    for name, gradient in G.items():
        g = clip * gradient
        step[name] = -rate * g / (g.abs() + EPS)
    _set_weights(model, before, step)
    with torch.no_grad():
        second_loss = float(_loss(model, examples[size : 2 * size]))
    return {"loss": [first_loss, second_loss], "grad_norm": norm}


def _decompose(update: dict[str, Any], part_name: str) -> tuple[list[list[float]], dict[str, Any]]:
    """Return all singular values [L], falling, and one part of the update.

    The part is its best rank or random directions per layer.
    """
    import torch

    kind, _, count = part_name.partition(" ")
    generator = torch.Generator().manual_seed(config()["seeds"][0])
    values = []
    part = {}
    for name, delta in update.items():
        # 1. Directions of the smaller side, from its Gram matrix.
        tall = delta.shape[0] > delta.shape[1]
        wide = delta.double()
        if tall:
            wide = wide.T  # [d, at least d]
        squares, vectors = torch.linalg.eigh(wide @ wide.T)  # rising
        values.append(squares.clamp(min=0).flip(0).sqrt().tolist())

        # 2. The part in the directions asked for: [d, count].
        columns = vectors.flip(1)[:, : int(count)]
        if kind == "random":
            normal = torch.randn(len(wide), int(count), generator=generator)
            columns = torch.linalg.qr(normal)[0].double()
        cut = columns @ (columns.T @ wide)
        if tall:
            cut = cut.T
        part[name] = cut.float()
    return values, part


# What was stored of it


def stored_tokens(part: str, column: str) -> list[float]:
    """Return stored losses, entropies or hits of the drawn examples.

    part: of the full update.
    """

    def compute() -> list[float]:
        arrays = load(plan.FULL_TOKENS)
        examples = set(trials_model.draw_examples(plan.earlier_features()))
        example_ids = arrays["example_ids"].tolist()
        values = arrays[f"{part}.{column}"].tolist()
        tokens = []
        for value, example_id in zip(values, example_ids, strict=True):
            if example_id in examples:
                tokens.append(value)
        return tokens

    return list(cached(f"lora full tokens {part} {column}", [plan.FULL_TOKENS], compute))
