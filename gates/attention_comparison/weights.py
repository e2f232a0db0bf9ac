"""The models that FEAT-012 compared, made again: the base with an update in its weights.

The code is independent of the lab's: ΔW is added to the weights themselves, attention is
transformers' own eager one, and random updates are drawn anew from their seeds. torch and
transformers are imported inside functions, so a warm cache never loads them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gates.attention_comparison.arrays import features, planned_trials, steps
from gates.shared import outputs, trials, trials_model
from gates.shared.stored import config

SNAPSHOTS = "artifacts/snapshots.safetensors"
WEIGHTS = "adapter_model.safetensors"
PREFIX = "base_model.model."

Update = dict[str, tuple[Any, Any]]  # linear -> A [r, in], B [out, r], without the scale


class Weights:
    """The base in float32 with eager attention, one update after the other in its weights."""

    def __init__(self) -> None:
        self.model = trials_model.base_model().eval()
        self.model.set_attn_implementation("eager")
        self.base = {name: self._weight(name).clone() for name in linears()}

    def _weight(self, linear: str) -> Any:
        return self.model.get_submodule(linear).weight.data

    def put(self, update: Update | None) -> Any:
        """Return the model with this update alone in its weights; it stays the same object."""
        import torch

        for linear, base in self.base.items():
            weight = self._weight(linear)
            weight.copy_(base)
            if update is not None:
                A, B = update[linear]
                weight.add_(torch.from_numpy(B) @ torch.from_numpy(A), alpha=scale())
        return self.model


def scale() -> float:
    """Return s of ΔW = s·B·A."""
    return float(config()["lora"]["lora_alpha"] / config()["lora"]["r"])


def linears() -> dict[str, list[int]]:
    """Return linear layer -> [out, in], in the order of the layers."""
    shapes = trials.linear_shapes()
    return {name.removesuffix(".weight"): size for name, size in shapes.items()}


def files() -> tuple[str, ...]:
    """Return the paths below the outputs that hold the updates."""
    return (SNAPSHOTS, *trials.files(planned_trials(), [WEIGHTS]))


def adapter(index: int) -> Update:
    """Return the stored adapter of a seed."""
    from safetensors.numpy import load_file

    folder = trials.folder(planned_trials()[index], features())
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
        A = tensors.pop(f"{PREFIX}{linear}.lora_A.weight").astype("float32")
        B = tensors.pop(f"{PREFIX}{linear}.lora_B.weight").astype("float32")
        update[linear] = (A, B)
    assert not tensors, f"tensors of no linear layer: {sorted(tensors)[:3]}"
    return update


def norms(update: Update) -> list[float]:
    """Return ‖s·B·A‖_F of every linear layer."""
    return [_norm(A, B) for A, B in update.values()]


def random_update(wanted: Sequence[float], seed: tuple[int, int]) -> Update:
    """Return the random update of these norms: A, then B of each layer from default_rng(seed)."""
    import numpy as np

    generator = np.random.default_rng(seed)
    rank = config()["lora"]["r"]
    update = {}
    for (linear, (rows, columns)), norm in zip(linears().items(), wanted, strict=True):
        A = generator.standard_normal((rank, columns), dtype=np.float32)
        B = generator.standard_normal((rows, rank), dtype=np.float32)
        update[linear] = (A, B * np.float32(norm / _norm(A, B)))
    return update


def _norm(A: Any, B: Any) -> float:
    """Return ‖s·B·A‖_F; A is [r, in], B [out, r]."""
    import numpy as np

    return scale() * float(np.linalg.norm((B @ A).astype(np.float64)))
