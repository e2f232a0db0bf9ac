"""A training run on disk, from which it resumes bit for bit.

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

    A crash leaves the old file in place.
    """
    tensors = {f"parameter/{name}": p.detach() for name, p in trained.items()}
    for name, p in trained.items():
        tensors |= {f"{moment}/{name}": optimizer.state[p][moment] for moment in _MOMENTS}
    tensors["random_state"] = torch.get_rng_state()
    path.parent.mkdir(parents=True, exist_ok=True)
    # Written under another name first: the rename replaces the old file as a whole.
    part = path.with_suffix(".part")
    save_file(
        {name: t.contiguous() for name, t in tensors.items()},
        part,
        metadata={"rows": json.dumps(rows)},
    )
    part.replace(path)


def load(
    path: Path, trained: Mapping[str, torch.nn.Parameter], optimizer: torch.optim.Optimizer
) -> list[list[float]]:
    """Load what `save` wrote into these tensors and the optimizer; return the records so far."""
    with safe_open(path, framework="pt") as file, torch.no_grad():
        for name, p in trained.items():
            p.copy_(file.get_tensor(f"parameter/{name}"))
            moments = {m: file.get_tensor(f"{m}/{name}") for m in _MOMENTS}
            # AdamW's moments are on the parameter's device; its step counter stays on the CPU.
            for m in ("exp_avg", "exp_avg_sq"):
                moments[m] = moments[m].to(p.device)
            optimizer.state[p] = moments
        torch.set_rng_state(file.get_tensor("random_state"))
        rows: list[list[float]] = json.loads(file.metadata()["rows"])
        return rows
