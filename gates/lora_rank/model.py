"""FEAT-007's arrays, a sample of them, computed again from base model, adapters and full update.

Code of its own: full singular value decompositions in float64 where the lab works on factors,
Adam's first step by its formula where the lab runs an optimizer, padded batches. torch and
peft are imported inside, so a warm cache never loads them. `drawn_seed` and `drawn_layers`
come from the nonce.
"""

from __future__ import annotations

import math
from typing import Any

from gates.lora_rank import plan
from gates.lora_rank.arrays import ADAPTER, arrays
from gates.shared import outputs, trials, trials_model
from gates.shared.stored import cached

DECOMPOSED = 18  # pairs of a trial and a layer whose update is decomposed again
COMPARED = 6  # layers whose directions are compared again
EPS = 1e-8  # Adam's


def drawn_updates() -> list[tuple[str, int]]:
    """Give (trial, layer's place) that the nonce draws."""
    places = range(len(plan.layers()))
    every = [(trial, place) for trial in plan.names() for place in places]
    return sorted(outputs.rng().sample(every, min(DECOMPOSED, len(every))))


def drawn_layers() -> list[int]:
    """Give the layers whose directions are compared."""
    return sorted(outputs.rng().sample(range(len(plan.layers())), COMPARED))


def drawn_seed() -> int:
    """Give the place of a seed in the config."""
    return outputs.rng().randrange(len(plan.config()["seeds"]))


def drawn_part() -> str:
    """Give the part of the full update that is evaluated again, besides the whole."""
    return outputs.rng().choice(plan.parts()[1:])


def _adapter(trial: str) -> dict[str, Any]:
    from safetensors.torch import load_file

    found: dict[str, Any] = load_file(trials.folder(trial, plan.features()) / ADAPTER)
    return found


def _update(tensors: dict[str, Any], layer: str, lora: dict[str, Any]) -> Any:
    """Give dW of a layer in float64."""
    B, A = (tensors[f"base_model.model.{layer}.lora_{k}.weight"].double() for k in "BA")
    return plan.scale(lora) * B @ A


# The LoRA updates


def updates() -> list[dict[str, Any]]:
    """Give the drawn updates' singular values, |U^T W V|_F of the strongest directions, |W|_F."""
    read = trials.files(sorted({trial for trial, _ in drawn_updates()}), ["trial.json", ADAPTER])
    return list(cached("lora updates", read, _updates))


def _updates() -> list[dict[str, Any]]:
    import torch
    from safetensors import safe_open

    place, names, found = (
        outputs.inputs()[trials.model_name()] / "model.safetensors",
        plan.layers(),
        [],
    )
    with safe_open(place, framework="pt") as weights:
        for trial, i in drawn_updates():
            lora = trials.trial(trial, plan.features())["lora"]
            delta = _update(_adapter(trial), names[i], lora)
            weight = weights.get_tensor(f"{names[i]}.weight").double()
            U, S, Vh = torch.linalg.svd(delta, full_matrices=False)
            k = min(lora["r"], *delta.shape)
            least = min(plan.config()["ranks"])
            inside = torch.linalg.norm(U[:, :least].T @ weight @ Vh[:least].T)
            values = {
                "values": S[:k].tolist(),
                "inside": float(inside),
                "weight": float(torch.linalg.norm(weight)),
            }
            found.append(values)
    return found


# The first steps, and what two ranks have in common


def first() -> dict[str, Any]:
    """Give the gradients and the overlaps of the drawn seed.

    gradient [L], along [3, ranks, L], adapter_gradient [3, ranks], overlaps of SIDES.
    """
    pair = [
        plan.row(f"r{r}")[drawn_seed()]
        for r in (plan.config()["ranks"][0], plan.config()["ranks"][-1])
    ]
    mine = [path for path in ("artifacts/train.jsonl",) if (outputs.out() / path).is_file()]
    read = (*trials.files(pair), *mine)
    return dict(cached("lora first steps", read, lambda: trials_model._quietly(_first)))


def _first() -> dict[str, Any]:
    import torch

    seed, known, names = plan.config()["seeds"][drawn_seed()], plan.features(), plan.layers()
    of = plan.planned(f"r{plan.config()['ranks'][0]}", seed)
    examples = trials.used(of, trials.rows("train", known))
    base = trials_model.base_model()
    G = _gradient(base, examples[: of["training"]["batch_size"]])
    ranks, starts = plan.config()["ranks"], {}
    along = torch.zeros(len(plan.CONVENTIONS), len(ranks), len(names), dtype=torch.float64)
    norms = torch.zeros(len(plan.CONVENTIONS), len(ranks), dtype=torch.float64)
    for j, r in enumerate(ranks):
        starts[r] = _start(base, plan.adapters()[f"r{r}"], seed)
        seen = {name: (G[name] @ starts[r][name].T).double() for name in names}
        for i, lora in enumerate(_conventions(r)):
            along[i, j], norms[i, j] = _step(seen, plan.scale(lora), of["training"])
    pair = [plan.name(f"r{r}", seed) for r in (ranks[0], ranks[-1])]
    return {
        "gradient": [float(torch.linalg.norm(G[name])) for name in names],
        "along": along.tolist(),
        "adapter_gradient": norms.tolist(),
        "overlaps": _overlaps(pair, [starts[ranks[0]], starts[ranks[-1]]]),
    }


def _conventions(r: int) -> list[dict[str, Any]]:
    """Give the adapters of a rank under the three conventions."""
    alpha = plan.config()["lora_alpha"]
    return [
        {
            "r": r,
            "lora_alpha": 2 * r if name == "alpha_2r" else alpha,
            "use_rslora": name == "rslora",
        }
        for name in plan.CONVENTIONS
    ]


def _gradient(model: Any, batch: list[dict[str, Any]]) -> dict[str, Any]:
    """Give layer -> dL/dW for the mean loss over the batch's supervised tokens."""
    import torch

    model.requires_grad_(False)
    weights = {name: model.get_submodule(name).weight for name in plan.layers()}
    for weight in weights.values():
        weight.requires_grad_(True)
    _loss(model, batch).backward()
    found = {name: weight.grad for name, weight in weights.items()}
    model.requires_grad_(False)
    for weight in weights.values():
        weight.grad = None
    assert all(isinstance(grad, torch.Tensor) for grad in found.values())
    return found


def _loss(model: Any, batch: list[dict[str, Any]]) -> Any:
    import torch

    pairs = zip(batch, trials_model.log_probabilities(model, batch), strict=True)
    return -torch.cat(
        [log_p.gather(1, trials_model._targets(e)[:, None])[:, 0] for e, log_p in pairs]
    ).mean()


def _start(base: Any, lora: dict[str, Any], seed: int) -> dict[str, Any]:
    """Give layer -> the A that PEFT draws for this seed."""
    import torch
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(seed)
    model = get_peft_model(
        base, LoraConfig(**lora, target_modules=sorted(trials.LINEARS), task_type="CAUSAL_LM")
    )
    tensors = {name: p.detach().clone() for name, p in model.named_parameters() if "lora_A" in name}
    model.unload()
    return {
        name: tensors[f"base_model.model.{name}.lora_A.default.weight"] for name in plan.layers()
    }


def _step(seen: dict[str, Any], scale: float, training: dict[str, Any]) -> tuple[Any, float]:
    """Give <dW, -G> per layer and |dL/dB| of Adam's first step from B = 0.

    dB = -lr g/(|g| + eps) with g = s G A^T, by Kingma and Ba 2015 (arXiv:1412.6980), algorithm 1:
    after bias correction the first moments are g and g^2.
    """
    import torch

    norm = scale * math.sqrt(sum(float((part**2).sum()) for part in seen.values()))
    clip = min(1.0, training["max_grad_norm"] / (norm + 1e-6))
    rate, found = trials.rate(0, training), []
    for part in seen.values():
        g = clip * scale * part
        found.append(scale * rate * (g / (g.abs() + EPS) * part).sum())
    return torch.stack(found), norm


def _overlaps(pair: list[str], starts: list[dict[str, Any]]) -> dict[str, list[list[float]]]:
    """Give side -> phi(i, i) of the drawn layers: [layers, k]."""
    import torch

    names, adapters = plan.layers(), [_adapter(trial) for trial in pair]
    loras = [trials.trial(trial, plan.features())["lora"] for trial in pair]
    k = loras[0]["r"]
    found: dict[str, list[list[float]]] = {"left": [], "right": [], "learned": []}
    for i in drawn_layers():
        whole = [
            torch.linalg.svd(_update(a, names[i], lo), full_matrices=False)
            for a, lo in zip(adapters, loras, strict=True)
        ]
        learned = []
        for tensors, start in zip(adapters, starts, strict=True):
            moved = (
                tensors[f"base_model.model.{names[i]}.lora_A.weight"].double()
                - start[names[i]].double()
            )
            learned.append(torch.linalg.svd(moved, full_matrices=False)[2].T)
        sides = {
            "left": [U for U, _, _ in whole],
            "right": [V.T for _, _, V in whole],
            "learned": learned,
        }
        for side, (one, other) in sides.items():
            squares = (one[:, :k].T @ other[:, :k]) ** 2
            found[side].append([float(squares[:n, :n].sum()) / n for n in range(1, k + 1)])
    return found


# The full fine-tuning


def full() -> dict[str, Any]:
    """Give evaluations, values [L], moved, first and second of the full fine-tuning.

    evaluations: part -> losses, entropies, hits of the drawn examples; moved: smallest and largest
    |dW| of the layers' largest entries; first: |G| of the first batch and its loss; second: the
    loss on the second batch after one Adam step of all linear layers.
    """
    mine = [f"artifacts/{kind}.jsonl" for kind in ("train", "evaluation")]
    read = (plan.FULL, *(path for path in mine if (outputs.out() / path).is_file()))
    return dict(cached(f"lora full {drawn_part()}", read, lambda: trials_model._quietly(_full)))


def _full() -> dict[str, Any]:
    trials_model.refuse_changed([plan.FULL])
    import torch
    from safetensors.torch import load_file

    model, known = trials_model.base_model(), plan.features()
    before = {name: model.get_submodule(name).weight.detach().clone() for name in plan.layers()}
    found = _replayed(model, before)
    stored = load_file(outputs.out() / plan.FULL)
    assert list(stored) and set(stored) == set(before), (
        "the full update does not cover the linear layers"
    )
    assert all(stored[name].shape == before[name].shape for name in before), (
        "the full update has other shapes"
    )
    delta = {name: stored[name].float() for name in before}
    values, part = _parts(delta, drawn_part())
    examples = trials.rows("evaluation", known)
    chosen = [examples[i] for i in trials_model.drawn_examples(known)]
    evaluations = {}
    for name, change in (("full", delta), (drawn_part(), part)):
        _put(model, before, change)
        with torch.no_grad():
            evaluations[name] = trials_model.token_values(model, chosen)
    largest = [float(d.abs().max()) for d in delta.values()]
    return found | {
        "evaluations": evaluations,
        "values": values,
        "moved": [min(largest), max(largest)],
    }


def _put(model: Any, before: dict[str, Any], change: dict[str, Any]) -> None:
    for name, weight in before.items():
        model.get_submodule(name).weight.data = weight + change[name]


def _replayed(model: Any, before: dict[str, Any]) -> dict[str, Any]:
    """Give the first batch's loss and gradient norm, the second's loss after one step of Adam."""
    import torch

    of = plan.planned(f"r{plan.config()['ranks'][0]}", plan.config()["seeds"][0])
    training = of["training"] | {"learning_rate": plan.config()["full"]["learning_rate"]}
    examples, size = trials.used(of, trials.rows("train", plan.features())), training["batch_size"]
    with torch.no_grad():
        loss = float(_loss(model, examples[:size]))
    G = _gradient(model, examples[:size])
    norm = math.sqrt(sum(float((g.double() ** 2).sum()) for g in G.values()))
    clip, rate = min(1.0, training["max_grad_norm"] / (norm + 1e-6)), trials.rate(0, training)
    _put(
        model, before, {name: -rate * clip * g / ((clip * g).abs() + EPS) for name, g in G.items()}
    )
    with torch.no_grad():
        second = float(_loss(model, examples[size : 2 * size]))
    return {"loss": [loss, second], "grad_norm": norm}


def _parts(delta: dict[str, Any], wanted: str) -> tuple[list[list[float]], dict[str, Any]]:
    """Give all singular values, falling, and one part of the update.

    The part is its best rank or random directions per layer.
    """
    import torch

    kind, _, count = wanted.partition(" ")
    draw = torch.Generator().manual_seed(plan.config()["seeds"][0])
    values, part = [], {}
    for name, d in delta.items():
        tall = d.shape[0] > d.shape[1]
        side = (d.T if tall else d).double()
        squares, vectors = torch.linalg.eigh(side @ side.T)
        values.append(squares.clamp(min=0).flip(0).sqrt().tolist())
        best = vectors.flip(1)[:, : int(count)]
        if kind == "random":
            best = torch.linalg.qr(torch.randn(len(side), int(count), generator=draw))[0].double()
        cut = best @ (best.T @ side)
        part[name] = (cut.T if tall else cut).float()
    return values, part


# What was stored of it


def stored_tokens(part: str, what: str) -> list[float]:
    """Give stored losses, entropies or hits of the drawn examples for a part of the full update."""

    def compute() -> list[float]:
        found = arrays(plan.FULL_TOKENS)
        chosen = set(trials_model.drawn_examples(plan.features()))
        pairs = zip(found["example_ids"].tolist(), found[f"{part}.{what}"].tolist(), strict=True)
        return [value for owner, value in pairs if owner in chosen]

    return list(cached(f"lora full tokens {part} {what}", [plan.FULL_TOKENS], compute))
