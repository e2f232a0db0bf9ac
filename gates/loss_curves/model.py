"""FEAT-005's lines and gradients computed again, where the nonce points, from base and adapters.

Code of its own: PEFT's loading, padded batches, one backward pass per example. torch is imported
inside the functions, so that a warm cache never loads it.
"""

from __future__ import annotations

from typing import Any

from gates.loss_curves import arrays as loss_curves
from gates.shared import outputs, trials, trials_model
from gates.shared.stored import cached, supervised

# of the lengths of two gradients: what float32 in another order may change in their product
TOLERANCE = 0.01
REPEATED = 8  # of the overfitting run's examples


def drawn_place(run: str) -> int:
    """Give the index of the t that the nonce draws for a run's line.

    t = 0 and t = 1 are known from elsewhere.
    """
    at = line_at()
    free = [i for i, t in enumerate(at) if t not in {0.0, 1.0}]
    draw = outputs.rng()
    chosen = {name: draw.choice(free) for name in loss_curves.LINES}
    return chosen[run]


def line_at() -> list[float]:
    """Give the stored values of t."""
    found: list[float] = line_rows("at")
    return found


def line_rows(name: str) -> Any:
    """Give an array of line.safetensors as lists."""
    return _lists("line")[name]


def product_rows(point: str) -> list[list[float]]:
    """Give the stored inner products of the gradients at a point."""
    found: list[list[float]] = _lists("gradient_products")[point]
    return found


def _lists(name: str) -> dict[str, Any]:
    def compute() -> dict[str, Any]:
        from safetensors.numpy import load_file

        found = load_file(trials.artifacts() / f"{name}.safetensors")
        return {key: array.tolist() for key, array in found.items()}

    return dict(cached(f"{name} as lists", [f"artifacts/{name}.safetensors"], compute))


def evaluated(trial: str) -> list[float]:
    """Give the stored losses of the curve's examples from a trial's evaluation (or the base's)."""
    return trials_model.stored(trial, "losses", range(loss_curves.config()["data"]["curve"]))


def line_again(run: str) -> list[float]:
    """Give the token losses of the curve's examples at base + t·ΔW for the drawn t."""
    name = loss_curves.shapes()[run]
    read = (*trials.files([name]), "artifacts/evaluation.jsonl", "artifacts/line.safetensors")
    found: list[float] = cached(
        f"line again {run}", read, lambda: trials_model._quietly(_line, run, name)
    )
    return found


def _line(run: str, name: str) -> list[float]:
    trials_model.refuse_changed(trials.files([name]))
    import torch
    from peft import PeftModel

    model = PeftModel.from_pretrained(trials_model.base_model(), trials.folder(name)).eval()
    t = line_at()[drawn_place(run)]
    with torch.no_grad():
        for key, tensor in model.named_parameters():
            if "lora_B" in key:
                tensor.mul_(t)
        examples = trials.rows("evaluation")[: loss_curves.config()["data"]["curve"]]
        found: list[float] = trials_model.token_values(model, examples)["losses"]
    return found


def drawn_gradients() -> tuple[str, int, int]:
    """Give the point and the two examples that the nonce draws."""
    draw = outputs.rng()
    point = draw.choice(loss_curves.POINTS)
    first, second = draw.sample(range(loss_curves.config()["noise"]["examples"]), 2)
    return point, first, second


def products_again() -> list[float]:
    """Give ⟨g_i, g_i⟩, ⟨g_i, g_j⟩, ⟨g_j, g_j⟩ of drawn examples' gradients at the drawn point."""
    point, _, _ = drawn_gradients()
    healthy = loss_curves.shapes()["healthy"]
    low = loss_curves.grid_name("low", 8, loss_curves.config()["seeds"][0])
    name = {"start": healthy, "low": low, "healthy": healthy}[point]
    read = (*trials.files([name]), "artifacts/evaluation.jsonl")
    found: list[float] = cached(
        f"products again {point}", read, lambda: trials_model._quietly(_products, point, name)
    )
    return found


def _products(point: str, name: str) -> list[float]:
    trials_model.refuse_changed(trials.files([name]))
    import torch
    from peft import LoraConfig, PeftModel, get_peft_model

    of, base = trials.trial(name), trials_model.base_model()
    if point == "start":
        torch.manual_seed(of["seed"])
        told = LoraConfig(
            **of["lora"], target_modules=sorted(trials.LINEARS), task_type="CAUSAL_LM"
        )
        model = get_peft_model(base, told)
    else:
        model = PeftModel.from_pretrained(base, trials.folder(name), is_trainable=True)
    model.eval()
    pool = trials.rows("evaluation")[: loss_curves.config()["noise"]["examples"]]
    tokens = sum(supervised(row) for row in pool) / len(pool)
    trained = [p for p in model.parameters() if p.requires_grad]
    rows = []
    for place in drawn_gradients()[1:]:
        log_p = trials_model.log_probabilities(model, [pool[place]])[0]
        targets = torch.tensor([label for label in pool[place]["labels"][1:] if label != -100])
        model.zero_grad()
        (-log_p.gather(1, targets[:, None]).sum() / tokens).backward()
        rows.append(torch.cat([p.grad.flatten().double() for p in trained]))
    return [float(rows[0] @ rows[0]), float(rows[0] @ rows[1]), float(rows[1] @ rows[1])]


def repeated_again() -> dict[str, list[float]]:
    """Give the base's losses on some of the overfitting run's examples, "stored" and "again".

    The nonce draws the examples.
    """
    name = loss_curves.shapes()["overfitting"]
    read = (
        *trials.files([name], ["trial.json"]),
        *(f"artifacts/{part}" for part in ("train.jsonl", "repeated_base.safetensors")),
    )
    return dict(cached("repeated again", read, lambda: trials_model._quietly(_repeated, name)))


def _repeated(name: str) -> dict[str, list[float]]:
    import torch
    from safetensors.numpy import load_file

    trials_model.refuse_changed(["artifacts/repeated_base.safetensors"])
    examples = trials.used(trials.trial(name), trials.rows("train"))
    places = sorted(outputs.rng().sample(range(len(examples)), min(REPEATED, len(examples))))
    stored = load_file(trials.artifacts() / "repeated_base.safetensors")
    example_ids = stored["example_ids"].tolist()
    wanted = [i for i, row in enumerate(examples) for _ in range(supervised(row))]
    assert example_ids == wanted, (
        "repeated_base does not cover the overfitting run's examples in their order"
    )
    kept = [
        loss
        for loss, owner in zip(stored["losses"].tolist(), example_ids, strict=True)
        if owner in set(places)
    ]
    with torch.no_grad():
        again = trials_model.token_values(
            trials_model.base_model().eval(), [examples[i] for i in places]
        )
    return {"stored": kept, "again": again["losses"]}
