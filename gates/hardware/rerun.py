"""A planned LoRA training again, in a process of its own: what a plain step adds to it, in bytes.

Run as a script with torch and transformers alone, and no code of the lab: adapters and loss are
written here. Weights and tokens are random, as memory does not depend on them.

    python -I rerun.py '{"config": {...}, "batch": 4, "sequence": 64, "supervised": 26, "rank": 16}'
"""

from __future__ import annotations

import ctypes
import gc
import json
import math
import sys
from pathlib import Path
from typing import Any

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # malloc.h
PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
GROUP = 128  # tokens whose logits are there at one time
STEPS = 2  # the optimizer's state is made by the end of the first


def main() -> None:
    """Print the bytes that a step adds to the loaded process."""
    sys.stdout.write(str(added(json.loads(sys.argv[1]))) + "\n")


def added(training: dict[str, Any]) -> int:
    """Return what a LoRA training of a random Llama adds to the process that has loaded it."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    # 1. The loaded process; the C library returns what is freed at once.
    library = ctypes.CDLL(None)
    library.mallopt(M_MMAP_THRESHOLD, 64 * 1024)
    library.mallopt(M_TRIM_THRESHOLD, 64 * 1024)
    torch.manual_seed(0)
    config = LlamaConfig(**training["config"])
    model = LlamaForCausalLM._from_config(config, dtype=torch.float32)
    model.requires_grad_(requires_grad=False)
    gc.collect()
    library.malloc_trim(0)
    loaded = _status("VmRSS")

    # 2. Adapters on every linear layer of the decoder.
    trained = []
    for layer in model.model.layers:
        for part in (layer.self_attn, layer.mlp):
            for name in PROJECTIONS:
                if hasattr(part, name):
                    trained += _train(getattr(part, name), training["rank"])
    optimizer = torch.optim.AdamW(trained, lr=1e-4, fused=True)

    # 3. The steps.
    Path("/proc/self/clear_refs").write_text("5", "utf-8")
    for _ in range(STEPS):
        ids = torch.randint(config.vocab_size, (training["batch"], training["sequence"]))
        optimizer.zero_grad()
        hidden = model.model(ids, use_cache=False).last_hidden_state
        _backward(hidden[:, -training["supervised"] :].flatten(0, 1), model.lm_head)
        del hidden
        optimizer.step()
    return _status("VmHWM") - loaded


def _backward(hidden: Any, head: Any) -> None:
    """Compute the gradients of a loss on random targets, at most GROUP tokens' logits at a time."""
    import torch

    ends = hidden.detach().requires_grad_()
    for rows in ends.tensor_split(math.ceil(len(ends) / GROUP)):
        targets = torch.randint(head.out_features, (len(rows),))
        torch.nn.functional.cross_entropy(head(rows), targets).backward()
    hidden.backward(ends.grad)


def _train(linear: Any, rank: int) -> list[Any]:
    """Put an adapter beside a frozen linear layer; return its two matrices, in float32."""
    import torch

    outputs, inputs = linear.weight.shape
    down = torch.nn.Parameter(torch.randn(rank, inputs) / inputs**0.5)
    up = torch.nn.Parameter(torch.zeros(outputs, rank))
    frozen = linear.forward
    linear.forward = lambda x: frozen(x) + x @ down.t() @ up.t()
    return [down, up]


def _status(name: str) -> int:
    """Return a line of /proc/self/status in bytes."""
    for line in Path("/proc/self/status").read_text("utf-8").splitlines():
        if line.startswith(f"{name}:"):
            return 1024 * int(line.split()[1])
    raise KeyError(name)


if __name__ == "__main__":
    main()
