"""Where the memory of a training step goes, in bytes.

What tensors hold is counted, the rest is the measured peak's.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch

_STATUS = Path("/proc/self/status")


@dataclass(frozen=True)
class MemorySplit:
    """Bytes: peak = weights + adapters + gradients + optimizer + rest.

    On a CPU rest includes the process itself.
    """

    peak: int
    weights: int
    adapters: int
    gradients: int
    optimizer: int

    @property
    def rest(self) -> int:
        """Activations, logits, temporary copies, allocator's slack; on a CPU the process too."""
        return self.peak - self.weights - self.adapters - self.gradients - self.optimizer


def split(model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> MemorySplit:
    """The split of the peak since `reset_peak`, taken while the last step's gradients exist."""
    trained = model_tensors(model, trained=True)
    return MemorySplit(
        peak=peak_bytes(),
        weights=tensor_bytes(model_tensors(model, trained=False)),
        adapters=tensor_bytes(trained),
        gradients=tensor_bytes(p.grad for p in trained if p.grad is not None),
        optimizer=optimizer_bytes(optimizer),
    )


def tensor_bytes(tensors: Iterable[torch.Tensor]) -> int:
    """Bytes of the tensors, each storage once: tied weights are one."""
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}
    return sum(storages.values())


def model_tensors(model: torch.nn.Module, *, trained: bool) -> list[torch.Tensor]:
    """Parameters that are trained; or all others, buffers, what 4-bit weights keep beside them."""
    chosen = [p for p in model.parameters() if p.requires_grad == trained]
    if trained:
        return chosen
    return [*chosen, *model.buffers(), *(t for p in chosen for t in quantisation_tensors(p))]


def quantisation_tensors(weight: torch.Tensor) -> list[torch.Tensor]:
    """The scales of a 4-bit weight of bitsandbytes, and the scales of these scales.

    None for any other tensor.
    """
    state = getattr(weight, "quant_state", None)
    if state is None:
        return []
    return [state.absmax] + ([state.state2.absmax] if state.nested else [])


def optimizer_bytes(optimizer: torch.optim.Optimizer) -> int:
    """Bytes of an optimizer's state."""
    return tensor_bytes(
        v for entry in optimizer.state.values() for v in entry.values() if torch.is_tensor(v)
    )


def reset_peak() -> None:
    """Let the process's peak start anew at what it holds now.

    Linux: VmHWM through clear_refs; CUDA: its counter.
    """
    if torch.cuda.is_initialized():
        torch.cuda.reset_peak_memory_stats()
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def peak_bytes() -> int:
    """Peak since `reset_peak`: of the device's tensors under CUDA, else of the process (VmHWM)."""
    return torch.cuda.max_memory_allocated() if torch.cuda.is_initialized() else _status("VmHWM")


def resident_bytes() -> int:
    """What the process holds now (VmRSS)."""
    return _status("VmRSS")


def _status(field: str) -> int:
    for line in _STATUS.read_text("ascii").splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024  # the kernel says "kB" and means KiB
    msg = f"{_STATUS} has no line {field}: this kernel does not tell a process its memory"
    raise OSError(msg)
