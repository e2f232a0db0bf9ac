"""FEAT-012's losses recomputed: of every snapshot, under every ablation, of the training's batches.

The nonce draws examples for each row of losses. Switched-off heads are columns of 0 in the output
projection. That a snapshot has the loss of its training's next batch says that it is of this
training: the stored trial says what that loss is.
"""

from __future__ import annotations

from typing import Any

from gates.attention_comparison import weights
from gates.attention_comparison.arrays import (
    ARRAYS,
    HEADS,
    features,
    heads,
    planned_trials,
    settings_key,
    shape,
    steps,
)
from gates.attention_comparison.weights import Weights
from gates.shared import outputs, stored, trials, trials_model
from gates.shared.stored import cached, config

DRAWN_EXAMPLES = 5  # of each row

Gap = list[float]  # of token losses: mean of stored - recomputed, and mean size of it


def differences() -> dict[str, Any]:
    """Return how far stored and recomputed losses are apart.

    held_out: "step S" -> gap; tuned, base: the set of heads that is off -> gap; training: step ->
    relative difference of a batch's mean loss from that of the stored trial.
    """
    files = (ARRAYS, HEADS, *weights.files(), *trials.frozen_files("train", "evaluation"))
    files += tuple(trials.files(planned_trials(), ["steps.safetensors", "trial.json"]))
    name = f"attention comparison losses {settings_key()}"
    compute = lambda: trials_model.without_warnings(_differences)  # noqa: E731
    return dict(cached(name, files, compute))


def _differences() -> dict[str, Any]:
    import torch

    arrays = stored.arrays("arrays")
    model = Weights()
    draw = outputs.rng()
    found: dict[str, Any] = {"held_out": {}, "training": {}}
    with torch.no_grad():
        # 1. The base and every snapshot; after the last there is no batch.
        for i, step in enumerate([0, *steps()]):
            update = weights.snapshot(i - 1) if i else None
            model.put(update)
            row = arrays["snapshots.losses"][i]
            found["held_out"][f"step {step}"] = _gap(model.model, row, draw)
            if step < config()["training"]["steps"]:
                found["training"][str(step)] = _batch_gap(model.model, step)

        # 2. Tuned model and base without each set of heads.
        for name, update in (("tuned", weights.adapter(0)), ("base", None)):
            found[name] = {}
            for i, chosen in enumerate([[], heads()["moved"], *heads()["random"]]):
                model.put(update)
                _switch_off(model.model, chosen)
                label = "none" if not i else f"set {i - 1}"
                found[name][label] = _gap(model.model, arrays[f"ablation.{name}"][i], draw)
    return found


def loss_examples() -> list[dict[str, Any]]:
    """Return the held-out examples whose losses are stored: those behind the prompts'."""
    first = config()["prompts"]["task"]
    return trials.rows("evaluation", features())[first : first + config()["loss_examples"]]


def _gap(model: Any, row: Any, draw: Any) -> Gap:
    """Return the gap of stored token losses [N] on drawn examples."""
    examples = loss_examples()
    drawn = sorted(draw.sample(range(len(examples)), min(DRAWN_EXAMPLES, len(examples))))
    owners = stored.arrays("arrays")["token_examples"]
    actual: list[float] = []
    for i in drawn:
        actual += row[owners == i].tolist()
    recomputed = trials_model.token_values(model, [examples[i] for i in drawn])["losses"]
    changes = [a - b for a, b in zip(actual, recomputed, strict=True)]
    return [sum(changes) / len(changes), sum(map(abs, changes)) / len(changes)]


def _batch_gap(model: Any, step: int) -> float:
    """Return the relative difference of a batch's loss from the one that the trial stored."""
    name = planned_trials()[0]
    of = trials.trial(name, features())
    examples = trials.used(of, trials.rows("train", features()))
    size = of["training"]["batch_size"]
    batch = [examples[i % len(examples)] for i in range(step * size, (step + 1) * size)]
    losses = trials_model.token_values(model, batch)["losses"]
    expected = float(trials.load(name, "steps", features())["loss"][step])
    return abs(sum(losses) / len(losses) / expected - 1)


def _switch_off(model: Any, chosen: list[int]) -> None:
    """Set to 0 what reads these heads."""
    per_layer = shape()[1]
    for head in chosen:
        layer, number = divmod(head, per_layer)
        weight = model.get_submodule(f"model.layers.{layer}.self_attn.o_proj").weight.data
        width = weight.shape[1] // per_layer
        weight[:, number * width : (number + 1) * width] = 0  # [out, H·D]
