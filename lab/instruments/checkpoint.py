"""A training run on disk, from which it goes on bit for bit.

One safetensors file, replaced as a whole. No pickles.
"""

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file

_MOMENTS = ("exp_avg", "exp_avg_sq", "step")  # AdamW's state of one tensor


def save(
    path: Path,
    trained: Mapping[str, torch.Tensor],
    optimizer: torch.optim.Optimizer,
    rows: list[list[float]],
) -> None:
    """Write parameters, AdamW's moments, torch's random state and the records so far.

    A crash leaves the old file.
    """
    tensors = {f"parameter/{name}": p.detach() for name, p in trained.items()}
    for name, p in trained.items():
        tensors |= {f"{moment}/{name}": optimizer.state[p][moment] for moment in _MOMENTS}
    tensors["random_state"] = torch.get_rng_state()
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_suffix(".part")
    save_file(
        {name: t.contiguous() for name, t in tensors.items()},
        fresh,
        metadata={"rows": json.dumps(rows)},
    )
    fresh.replace(path)


def load(
    path: Path, trained: Mapping[str, torch.nn.Parameter], optimizer: torch.optim.Optimizer
) -> list[list[float]]:
    """Put back what `save` wrote, into the given tensors and optimizer; give the records so far."""
    with safe_open(path, framework="pt") as file, torch.no_grad():
        for name, p in trained.items():
            p.copy_(file.get_tensor(f"parameter/{name}"))
            # AdamW's moments are in the parameter's dtype and place; its step counter stays a
            # float32 on the CPU
            moments = {
                m: file.get_tensor(f"{m}/{name}").to(p.device if m != "step" else "cpu")
                for m in _MOMENTS
            }
            optimizer.state[p] = moments
        torch.set_rng_state(file.get_tensor("random_state"))
        return json.loads(file.metadata()["rows"])
