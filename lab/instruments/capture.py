"""Attention recorded while a model runs, without changing what it computes.

    with AttentionExtractor(model, layers=[3, 4]) as extractor:
        logits = model(ids).logits
    extractor["pattern", 3]  # [B, H, Q, K]

Inside the block transformers calls `_attend` in the place of the model's own attention. It lets the
own implementation compute the output, so that logits stay the same bit for bit, and records what
was asked for beside it. It works at the level of transformers' attention interface, so quantised
layers, PEFT adapters and the packed attention of training need nothing of their own.

Shapes at every step, for B sequences of T tokens:

    step                            Llama (SmolLM2-135M)          Qwen2 (0.5B)
    x, after the input norm         [B, T, 576]                   [B, T, 896]
    q_proj, k_proj, v_proj          [B, T, 576], 192, 192         [B, T, 896], 128, 128 (with bias)
    q, as heads                     [B, T, 9, 64]                 [B, T, 14, 64]
    k, v, as heads                  [B, T, 3, 64]                 [B, T, 2, 64]
    rot_q, rot_k, after RoPE        as q, k                       as q, k
    query head h reads key head     h // 3                        h // 7
    attn_scores, pattern            [B, 9, T, T]                  [B, 14, T, T]
    z, the heads' results           [B, T, 9, 64]                 [B, T, 14, 64]
    o_proj                          [B, T, 576]                   [B, T, 896]
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import torch

from lab.instruments import attention, packed_attention, projections
from lab.instruments.attention import AttentionCall, AttentionStatistics, CaptureError, RowBlocks

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel

# What can be recorded, under the names of TransformerLens, and the shape of each. `heads` are the
# chosen query heads, `queries` the chosen positions; k and v keep the key heads H' and all T.
SHAPES = {
    "pattern": "[B, heads, queries, T]",
    "attn_scores": "[B, heads, queries, T]",
    "q": "[B, queries, heads, D]",
    "rot_q": "[B, queries, heads, D]",
    "z": "[B, queries, heads, D]",
    "k": "[B, T, H', D]",
    "rot_k": "[B, T, H', D]",
    "v": "[B, T, H', D]",
}
OF_KEYS = ("k", "rot_k", "v")
IMPLEMENTATIONS = ("sdpa", "eager")

# By the id of each attention module that is recorded: two models can share one config object.
_extractors: dict[int, AttentionExtractor] = {}


class AttentionExtractor:
    """A context manager that records the attention of one model's forward pass.

    Args:
        model: any causal language model of transformers whose attention is "sdpa" or "eager"; also
            quantised, or wrapped by PEFT.
        record: keys of SHAPES. Patterns are the weights before dropout, in float32 or wider;
            scores are scaled and soft-capped, -inf where a query may not attend.
        statistics: compute `AttentionStatistics` of every chosen layer.
        offsets: of the statistics' diagonals.
        layers, heads, positions: which layers, query heads and queries; None: all. Statistics are
            of all queries.
        dtype: of the stored tensors; None: as they are computed. Float16 halves the memory of
            patterns and rounds them to 2⁻¹¹ of their size.
        folder: write each layer's tensors to layer_00.safetensors, … there and keep none in memory.

    Raises:
        CaptureError: at the start, if the model cannot be recorded; in a forward pass, if a layer
            runs twice, or has a kind of attention that is not known here.
    """

    def __init__(
        self,
        model: PreTrainedModel | PeftModel,
        *,
        record: Collection[str] = ("pattern",),
        statistics: bool = False,
        offsets: Sequence[int] = (),
        layers: Sequence[int] | None = None,
        heads: Sequence[int] | None = None,
        positions: Sequence[int] | None = None,
        dtype: torch.dtype | None = None,
        folder: Path | None = None,
    ) -> None:
        unknown = sorted(set(record) - set(SHAPES))
        if unknown:
            msg = f"record {unknown}: not known; known are {', '.join(SHAPES)}"
            raise CaptureError(msg)
        self.model = model.get_base_model() if hasattr(model, "get_base_model") else model
        self.config = self.model.config.get_text_config()
        self.record = tuple(record)
        if any(offset < 0 for offset in offsets):
            msg = f"offsets {list(offsets)}: no query attends to a later key; expected 0 or more"
            raise CaptureError(msg)
        self.with_statistics = statistics
        self.offsets = tuple(offsets)
        count = self.config.num_hidden_layers
        if layers is None:
            layers = range(count)
        self.layers = chosen("layer", layers, count)
        self.heads = None
        if heads is not None:
            self.heads = chosen("head", heads, self.config.num_attention_heads)
        self.positions = None if positions is None else tuple(positions)
        self.dtype = dtype
        self.folder = folder
        self.statistics: dict[int, AttentionStatistics] = {}
        self._tensors: dict[int, dict[str, torch.Tensor | RowBlocks]] = {}
        self._projected: dict[tuple[int, str], torch.Tensor] = {}
        self._recorded: set[int] = set()
        self._cleanup = ExitStack()

    def __enter__(self) -> Self:
        """Put `_attend` in the place of the model's attention."""
        # 1. Refuse what would be recorded wrongly.
        own = self.config._attn_implementation  # transformers has no other name for it
        if own.startswith("recorded"):
            msg = "this model, or one that shares its config object, is being recorded by another "
            msg += "extractor; leave its block first"
            raise CaptureError(msg)
        if own not in IMPLEMENTATIONS:
            msg = f"attention is {own!r}; expected one of {', '.join(IMPLEMENTATIONS)}: load the "
            msg += 'model with attn_implementation="sdpa"'
            raise CaptureError(msg)
        if any(getattr(part, "gradient_checkpointing", False) for part in self.model.modules()):
            msg = "gradient checkpointing computes each layer twice; switch it off to record: "
            msg += "model.activation_checkpointing_disable()"
            raise CaptureError(msg)

        # 2. Switch over. Whatever fails from here on, the stack takes all of it back.
        self.clear()
        with ExitStack() as stack:
            _register(own)
            stack.callback(setattr, self.config, "_attn_implementation", own)
            self.config._attn_implementation = f"recorded_{own}"
            for module in self.model.modules():
                if hasattr(module, "layer_idx"):
                    stack.callback(_extractors.pop, id(module), None)
                    _extractors[id(module)] = self
            wanted = [name for name in ("q", "k") if name in self.record]
            if wanted:
                stack.enter_context(
                    projections.watched(self.model, self.layers, wanted, self._projected)
                )
            self._cleanup = stack.pop_all()
        return self

    def __exit__(self, error_type: type[BaseException] | None, *error: object) -> None:
        """Give the model its own attention back.

        Raises:
            CaptureError: somebody else changed it inside the block, which ends the recording.
        """
        found = self.config._attn_implementation
        self._cleanup.close()
        if error_type is None and not found.startswith("recorded"):
            msg = f"attention was set to {found!r} inside the block, where nothing was recorded "
            msg += "any more; set it before the block"
            raise CaptureError(msg)

    def clear(self) -> None:
        """Forget what was recorded, so that the model can run again."""
        self.statistics.clear()
        self._tensors.clear()
        self._projected.clear()
        self._recorded.clear()

    def __getitem__(self, key: str | tuple[str, int]) -> torch.Tensor:
        """Return a recorded tensor: `extractor["pattern", 3]`, "blocks.3.attn.hook_pattern".

        Patterns and scores of causal attention are kept without the later keys, which halves their
        memory: each call makes the tensor anew, so use one layer after the other.

        Raises:
            CaptureError: it was not recorded.
        """
        name, layer = _parsed(key)
        tensors = self._tensors.get(layer, {})
        if name not in tensors:
            msg = f"{name} of layer {layer} was not recorded; recorded: {self._summary()}"
            raise CaptureError(msg)
        return _whole(tensors[name])

    def stacked(self, name: str) -> torch.Tensor:
        """Return a tensor of all chosen layers, [layers, …]."""
        return torch.stack([self[name, layer] for layer in self.layers])

    @property
    def recorded(self) -> frozenset[int]:
        """Return the layers that were recorded."""
        return frozenset(self._recorded)

    def require_all_recorded(self) -> None:
        """Check that every chosen layer was recorded: the guard against a hook that never ran.

        Raises:
            CaptureError: the model did not run inside the block, or skipped layers.
        """
        missing = sorted(set(self.layers) - self.recorded)
        if missing:
            msg = f"layers {missing} were not recorded; run the model inside the `with` block"
            raise CaptureError(msg)

    def _summary(self) -> str:
        if not self._recorded:
            return "nothing; run the model inside the `with` block"
        where = f" (in {self.folder})" if self.folder else ""
        return f"{', '.join(self.record) or 'statistics'} of layers {sorted(self._recorded)}{where}"

    # What `_attend` calls

    def note(
        self,
        layer: int,
        call: AttentionCall,
        value: torch.Tensor,
        z: torch.Tensor,
        log_sum_exp: torch.Tensor | None,
    ) -> None:
        """Record one layer.

        value: [B, H', K, D]; z: [B, Q, H, D], the heads' results; log_sum_exp: [B, H, Q], where
        the kernel gave it.
        """
        # 1. Once per forward pass.
        if layer in self._recorded:
            msg = f"layer {layer} ran twice; call clear() before the model runs again (generate() "
            msg += "runs it once per token: record a forward pass over the whole text)"
            raise CaptureError(msg)
        self._recorded.add(layer)
        if self.positions is not None:
            chosen("position", self.positions, call.query.shape[2])

        # 2. The statistics.
        if self.with_statistics:
            if log_sum_exp is not None:
                statistics = attention.flash_statistics(call, log_sum_exp, self.offsets)
            else:
                statistics = attention.chunked_statistics(call, self.offsets)
            self.statistics[layer] = statistics

        # 3. The tensors.
        tensors = {name: self._tensor(name, layer, call, value, z) for name in self.record}
        if self.folder is None:
            self._tensors[layer] = tensors
        elif tensors:
            from safetensors.torch import save_file

            self.folder.mkdir(parents=True, exist_ok=True)
            whole = {name: _whole(tensor) for name, tensor in tensors.items()}
            save_file(whole, self.folder / f"layer_{layer:02d}.safetensors")

    def _tensor(
        self, name: str, layer: int, call: AttentionCall, value: torch.Tensor, z: torch.Tensor
    ) -> torch.Tensor | RowBlocks:
        """Return what is recorded under a name, as SHAPES says, on the CPU."""
        # 1. Patterns and scores of the chosen heads.
        if name in ("pattern", "attn_scores"):
            chosen = call if self.heads is None else attention.of_heads(call, self.heads)
            compute = attention.patterns if name == "pattern" else attention.scores
            return compute(chosen, self.positions, self.dtype)

        # 2. All others, as [B, T, heads, D].
        if name in ("q", "k"):
            shape = (call.query if name == "q" else call.key).transpose(1, 2).shape
            projected = self._projected.pop((layer, name))
            if projected.numel() != shape.numel():
                msg = f"{name} of earlier tokens is not in their cache; record rot_{name}, or run "
                msg += "the whole text at once"
                raise CaptureError(msg)
            tensor = projected.view(shape)
        else:
            tensor = {
                "rot_q": call.query.transpose(1, 2),
                "rot_k": call.key.transpose(1, 2),
                "v": value.transpose(1, 2),
                "z": z,
            }[name]
        if name not in OF_KEYS:
            if self.heads is not None:
                tensor = tensor[:, :, list(self.heads)]
            if self.positions is not None:
                tensor = tensor[:, list(self.positions)]
        return tensor.detach().to(device="cpu", dtype=self.dtype).contiguous()


def _whole(recorded: torch.Tensor | RowBlocks) -> torch.Tensor:
    return recorded.whole() if isinstance(recorded, RowBlocks) else recorded


def chosen(what: str, numbers: Sequence[int], count: int) -> tuple[int, ...]:
    """Return the numbers; refuse an empty choice, and a number that is not below `count`."""
    if not numbers:
        msg = f"no {what} is chosen; leave {what}s out to record all"
        raise CaptureError(msg)
    wrong = [number for number in numbers if not 0 <= number < count]
    if wrong:
        msg = f"{what} {wrong[0]} does not exist; there are {what}s 0 to {count - 1}"
        raise CaptureError(msg)
    return tuple(numbers)


def _parsed(key: str | tuple[str, int]) -> tuple[str, int]:
    """Return (name, layer) of ("pattern", 3) or "blocks.3.attn.hook_pattern"."""
    if not isinstance(key, str):
        return key
    try:
        blocks, layer, attn, hook = key.split(".")
        if (blocks, attn) == ("blocks", "attn") and hook.startswith("hook_"):
            return hook.removeprefix("hook_"), int(layer)
    except ValueError:
        pass
    msg = f'{key!r}; expected ("pattern", 3) or "blocks.3.attn.hook_pattern"'
    raise CaptureError(msg)


def _register(own: str) -> None:
    """Make `_attend` known to transformers, with the mask that the own implementation wants."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS

    name = f"recorded_{own}"
    AttentionInterface.register(name, _attend)
    # Without a mask function of this name the mask would be None, also for padded batches.
    AttentionMaskInterface.register(name, ALL_MASK_ATTENTION_FUNCTIONS[own])


def _attend(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    scaling: float | None = None,
    dropout: float = 0.0,
    **kwargs: Any,
) -> tuple[torch.Tensor, Any]:
    """Compute attention as the model does and record it; the signature is that of transformers.

    query: [B, H, Q, D]; key, value: [B, H', K, D]; returns [B, Q, H, D] and what the own
    implementation returns beside it.
    """
    # 1. Whose module this is: that of another model runs as it always does.
    own = _own(module)
    settings = {"scaling": scaling, "dropout": dropout, **kwargs}
    extractor = _extractors.get(id(module))
    if extractor is None:
        if not any(watched.config is module.config for watched in _extractors.values()):
            msg = "this model was copied inside a block that records; copy it before the block"
            raise CaptureError(msg)
        return own(module, query, key, value, attention_mask, **settings)

    # 2. What cannot be recorded.
    layer: int = module.layer_idx
    refused = [name for name in ("s_aux", "position_bias", "cache") if kwargs.get(name) is not None]
    if refused:
        msg = f"layer {layer}: attention with {refused[0]} is not known here"
        raise CaptureError(msg)

    # 3. The kernel's log-sum-exp comes with the result; with gradients, it is computed again.
    #    Under autocast the kernel gets q and k in another type.
    device = query.device.type
    is_cast = torch.is_autocast_enabled(device)
    dtype = torch.get_autocast_dtype(device) if is_cast else query.dtype
    call = AttentionCall(
        query=query.detach().to(dtype),
        key=key.detach().to(dtype),
        scale=query.shape[-1] ** -0.5 if scaling is None else scaling,
        mask=attention_mask,
        causal=kwargs.get("is_causal") is not False and getattr(module, "is_causal", True),
        softcap=kwargs.get("softcap"),
    )
    by_flash = (
        own is packed_attention.attention
        and call.is_plain
        and kwargs.get("layout") is None
        and not dropout
        and not is_cast
        and device == "cpu"
        and query.shape[-1] == value.shape[-1]
    )
    log_sum_exp = None
    if by_flash and not (torch.is_grad_enabled() and query.requires_grad):
        heads = query.shape[1]
        attended, log_sum_exp = attention.flash(
            query, attention.each_head(key, heads), attention.each_head(value, heads), call.scale
        )
        result: tuple[torch.Tensor, Any] = (attended.transpose(1, 2).contiguous(), None)
    else:
        result = own(module, query, key, value, attention_mask, **settings)
    if layer in extractor.layers:
        with torch.no_grad(), torch.autocast(device, enabled=False):
            extractor.note(layer, call, value.detach(), result[0].detach(), log_sum_exp)
    return result


def _own(module: torch.nn.Module) -> Callable[..., tuple[torch.Tensor, Any]]:
    """Return the attention of the module's own model.

    "sdpa" includes the packed rows of training.
    """
    if module.config._attn_implementation == "recorded_sdpa":
        return packed_attention.attention
    eager: Callable[..., tuple[torch.Tensor, Any]]
    eager = sys.modules[type(module).__module__].eager_attention_forward
    return eager
