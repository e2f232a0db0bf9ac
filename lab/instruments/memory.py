"""Where the memory of a training step goes, in bytes.

What tensors hold is counted; the peak is measured by the kernel or by CUDA.
"""

import math
import weakref
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import torch

from lab.instruments.fused_cross_entropy import ROWS

_STATUS = Path("/proc/self/status")


@dataclass(frozen=True)
class MemorySplit:
    """Bytes: peak = weights + adapters + gradients + optimizer + rest.

    On a CPU the rest includes the process itself.
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
    """Return the split of the peak since `reset_peak`.

    Call it while the last step's gradients exist.
    """
    trained = model_tensors(model, trained=True)
    return MemorySplit(
        peak=peak_bytes(),
        weights=tensor_bytes(model_tensors(model, trained=False)),
        adapters=tensor_bytes(trained),
        gradients=tensor_bytes(p.grad for p in trained if p.grad is not None),
        optimizer=optimizer_bytes(optimizer),
    )


def tensor_bytes(tensors: Iterable[torch.Tensor]) -> int:
    """Return the bytes of the tensors, each storage once: tied weights count once."""
    return sum(storage_bytes(tensors).values())


def storage_bytes(tensors: Iterable[torch.Tensor]) -> dict[int, int]:
    """Return address -> bytes of the storages behind the tensors, in the order of the tensors."""
    return {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}


def model_tensors(model: torch.nn.Module, *, trained: bool) -> list[torch.Tensor]:
    """Return the parameters that are trained, or all other tensors of the model.

    The others are frozen parameters, buffers, and the scales of 4-bit weights.
    """
    parameters: list[torch.Tensor] = [p for p in model.parameters() if p.requires_grad == trained]
    if trained:
        return parameters
    scales = [scale for p in parameters for scale in quantisation_tensors(p)]
    return [*parameters, *model.buffers(), *scales]


def quantisation_tensors(weight: torch.Tensor) -> list[torch.Tensor]:
    """Return the scales of a 4-bit weight of bitsandbytes, and the scales of these scales.

    Any other tensor has none.
    """
    state = getattr(weight, "quant_state", None)
    if state is None:
        return []
    scales = [state.absmax]
    if state.nested:
        scales.append(state.state2.absmax)
    return scales


def optimizer_bytes(optimizer: torch.optim.Optimizer) -> int:
    """Return the bytes of an optimizer's state."""
    values = [value for entry in optimizer.state.values() for value in entry.values()]
    return tensor_bytes(filter(torch.is_tensor, values))


class _SavedTensor:
    """A tensor that autograd saved; it lives as long as the graph that needs it."""

    def __init__(self, tensor: torch.Tensor) -> None:
        # detached, or a saved output and its graph would keep each other alive
        self.tensor = tensor.detach()


def activation_bytes(
    model: torch.nn.Module, forward: Callable[[], torch.Tensor]
) -> tuple[int, ...]:
    """Return the bytes of each storage that autograd keeps of `forward()` for the backward pass.

    Tensors of the model itself are left out. A storage is counted once and whole, however many of
    its views are saved. What a custom autograd function keeps without `save_for_backward` is not
    seen. The random state is as before; no gradient is computed.
    """
    # autograd alone holds the saved tensors: what its graph drops on the way is not counted
    saved: weakref.WeakSet[_SavedTensor] = weakref.WeakSet()

    def pack(tensor: torch.Tensor) -> _SavedTensor:
        holder = _SavedTensor(tensor)
        saved.add(holder)
        return holder

    def unpack(holder: _SavedTensor) -> torch.Tensor:
        return holder.tensor

    hooks = torch.autograd.graph.saved_tensors_hooks(pack, unpack)
    with torch.random.fork_rng(), hooks, torch.enable_grad():
        loss = forward()
        # read while `loss` keeps the graph: a freed address may be used again
        kept_for_backward = storage_bytes(holder.tensor for holder in saved)
        del loss
    own = [*model_tensors(model, trained=False), *model_tensors(model, trained=True)]
    own_addresses = storage_bytes(own)
    sizes = [size for address, size in kept_for_backward.items() if address not in own_addresses]
    # a WeakSet has no order
    return tuple(sorted(sizes, reverse=True))


def logits_bytes(tokens: int, vocabulary: int, dtype: torch.dtype) -> int:
    """Return the bytes as wide as the vocabulary that `fused_cross_entropy` holds at one time.

    Of one group of rows: the logits and their softmax, which turns into the gradient in place, both
    in float32; for a head in another dtype also the gradient rounded to it.

    Args:
        tokens: S, the supervised tokens of a pack.
        vocabulary: V, the number of logits of each.
        dtype: of the head's weights.
    """
    groups = math.ceil(tokens / ROWS)
    rows = math.ceil(tokens / groups)  # of the largest group
    per_logit: int = 2 * torch.float32.itemsize
    if dtype != torch.float32:
        per_logit += dtype.itemsize
    return rows * vocabulary * per_logit


def reset_peak() -> None:
    """Set the peak back to what is held now.

    Linux: VmHWM through clear_refs; CUDA: its counter.
    """
    if torch.cuda.is_initialized():
        torch.cuda.reset_peak_memory_stats()
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def peak_bytes() -> int:
    """Return the peak since `reset_peak`: of tensors under CUDA, else of the process (VmHWM)."""
    if torch.cuda.is_initialized():
        return int(torch.cuda.max_memory_allocated())
    return _status("VmHWM")


def resident_bytes() -> int:
    """Return what the process holds now (VmRSS)."""
    return _status("VmRSS")


def _status(field: str) -> int:
    """Return a field of the process's status, in bytes."""
    for line in _STATUS.read_text("ascii").splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024  # the kernel says "kB" and means KiB
    msg = f"{_STATUS} has no line {field}: this kernel does not report the memory of a process"
    raise OSError(msg)
