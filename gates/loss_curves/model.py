"""FEAT-005's losses along updates and gradients, recomputed from base and adapters.

The nonce draws which. Code of its own: PEFT's loading, padded batches, one backward pass per
example. torch is imported inside the functions, so that a warm cache never loads it.
"""

from __future__ import annotations

from typing import Any

from gates.loss_curves import arrays
from gates.shared import outputs, stored, trials, trials_model
from gates.shared.stored import cached, config, supervised

# of the lengths of two gradients: what float32 in another order may change in their product
TOLERANCE = 0.01
REPEATED = 8  # of the overfitting run's examples


#### what was stored


def stored_alphas() -> list[float]:
    """Return the stored values of t in base + t·ΔW."""
    alphas: list[float] = _as_lists("line")["alphas"]
    return alphas


def stored_update_losses(run: str) -> list[list[float]]:
    """Return the stored token losses of a run along its update: [alphas][tokens]."""
    rows: list[list[float]] = _as_lists("line")[run]
    return rows


def stored_products(point: str) -> list[list[float]]:
    """Return the stored inner products of the gradients at a point."""
    rows: list[list[float]] = _as_lists("gradient_products")[point]
    return rows


def stored_curve_losses(trial: str) -> list[float]:
    """Return the losses of the curve's examples from the evaluation of a trial or "base"."""
    return trials_model.stored(trial, "losses", range(config()["data"]["curve"]))


def _as_lists(name: str) -> dict[str, Any]:
    def compute() -> dict[str, Any]:
        return {key: array.tolist() for key, array in stored.arrays(name).items()}

    return dict(cached(f"{name} as lists", [f"artifacts/{name}.safetensors"], compute))


#### losses along updates


def draw_alpha_index(run: str) -> int:
    """Return the index of the t that the nonce draws for a run.

    t = 0 and t = 1 are not drawn: their losses are compared with the evaluations.
    """
    indices = [i for i, alpha in enumerate(stored_alphas()) if alpha not in {0.0, 1.0}]
    rng = outputs.rng()
    chosen = {name: rng.choice(indices) for name in arrays.RUNS_ALONG_UPDATE}
    return chosen[run]


def recompute_update_losses(run: str) -> list[float]:
    """Return the token losses of the curve's examples at base + t·ΔW for the drawn t."""
    name = arrays.shapes()[run]
    read = (*trials.files([name]), "artifacts/evaluation.jsonl", "artifacts/line.safetensors")

    def compute() -> list[float]:
        return trials_model.without_warnings(_update_losses, run, name)

    losses: list[float] = cached(f"update losses {run} {config()['data']['curve']}", read, compute)
    return losses


def _update_losses(run: str, name: str) -> list[float]:
    import torch
    from peft import PeftModel

    model = PeftModel.from_pretrained(trials_model.base_model(), trials.folder(name)).eval()
    alpha = stored_alphas()[draw_alpha_index(run)]
    examples = trials.rows("evaluation")[: config()["data"]["curve"]]
    with torch.no_grad():
        # ΔW is linear in B
        for key, tensor in model.named_parameters():
            if "lora_B" in key:
                tensor.mul_(alpha)
        return trials_model.token_values(model, examples)["losses"]


#### gradients


def draw_gradients() -> tuple[str, int, int]:
    """Return the point and the two examples that the nonce draws."""
    rng = outputs.rng()
    point = rng.choice(arrays.POINTS)
    first, second = rng.sample(range(config()["noise"]["examples"]), 2)
    return point, first, second


def recompute_products() -> list[float]:
    """Return ⟨g_i, g_i⟩, ⟨g_i, g_j⟩, ⟨g_j, g_j⟩ of drawn examples' gradients at the drawn point."""
    point, _, _ = draw_gradients()
    healthy = arrays.shapes()["healthy"]
    low = arrays.grid_name("low", 8, config()["seeds"][0])
    name = {"start": healthy, "low": low, "healthy": healthy}[point]
    read = (*trials.files([name]), "artifacts/evaluation.jsonl")

    def compute() -> list[float]:
        return trials_model.without_warnings(_products, point, name)

    products: list[float] = cached(
        f"products {point} {name} {config()['noise']['examples']}", read, compute
    )
    return products


def _products(point: str, name: str) -> list[float]:
    import torch
    from peft import LoraConfig, PeftModel, get_peft_model

    # 1. The model: the trial's stored adapter, or the one that its seed draws.
    of = trials.trial(name)
    base = trials_model.base_model()
    if point == "start":
        torch.manual_seed(of["seed"])
        lora = LoraConfig(
            **of["lora"], target_modules=sorted(trials.LINEARS), task_type="CAUSAL_LM"
        )
        model = get_peft_model(base, lora)
    else:
        model = PeftModel.from_pretrained(base, trials.folder(name), is_trainable=True)
    model.eval()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]

    # 2. The gradient of each drawn example's summed loss, divided by the mean number of tokens.
    pool = trials.rows("evaluation")[: config()["noise"]["examples"]]
    mean_tokens = sum(supervised(row) for row in pool) / len(pool)
    gradients = []
    for index in draw_gradients()[1:]:
        log_p = trials_model.log_probabilities(model, [pool[index]])[0]  # [S, V]
        targets = [label for label in pool[index]["labels"][1:] if label != -100]
        target_log_p = log_p.gather(1, torch.tensor(targets)[:, None])  # [S, 1]
        model.zero_grad()
        (-target_log_p.sum() / mean_tokens).backward()
        gradients.append(torch.cat([p.grad.flatten().double() for p in trained]))

    first, second = gradients
    return [float(first @ first), float(first @ second), float(second @ second)]


#### the base on the repeated examples


def compare_repeated_base() -> dict[str, list[float]]:
    """Return the base's losses on some of the overfitting run's examples.

    "stored" and "recomputed"; the nonce draws the examples.
    """
    name = arrays.shapes()["overfitting"]
    read = (
        *trials.files([name], ["trial.json"]),
        "artifacts/train.jsonl",
        "artifacts/repeated_base.safetensors",
    )

    def compute() -> dict[str, list[float]]:
        return trials_model.without_warnings(_repeated_base, name)

    return dict(cached("repeated base", read, compute))


def _repeated_base(name: str) -> dict[str, list[float]]:
    import torch

    # 1. The stored tokens are those of the run's examples, in their order.
    examples = trials.used(trials.trial(name), trials.rows("train"))
    repeated_base = stored.arrays("repeated_base")
    actual = repeated_base["example_ids"].tolist()
    expected: list[int] = []
    for i, row in enumerate(examples):
        expected += [i] * supervised(row)
    assert actual == expected, (
        "repeated_base does not cover the overfitting run's examples in their order"
    )

    # 2. The losses of the drawn examples.
    drawn = sorted(outputs.rng().sample(range(len(examples)), min(REPEATED, len(examples))))
    stored_losses = []
    for example, loss in zip(actual, repeated_base["losses"].tolist(), strict=True):
        if example in drawn:
            stored_losses.append(loss)
    with torch.no_grad():
        base = trials_model.base_model().eval()
        values = trials_model.token_values(base, [examples[i] for i in drawn])
    return {"stored": stored_losses, "recomputed": values["losses"]}
