"""Where the blocks of each model family read the residual stream and write to it.

A block reads the stream x, adds what its attention writes and what its MLP writes, and hands on
y = x + attn_out + mlp_out. What is added is not always what the attention module returns: Gemma and
OLMo 2 have a norm behind it, Phi-3 and GPT-NeoX a dropout.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from lab.instruments.attention import CaptureError

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class ResidualStream:
    """The modules of one family, as dotted paths.

    Args:
        backbone: what has the layers, below the causal language model.
        layers: below `backbone`.
        final_norm: below `backbone`; between the last layer and the head.
        attn_out, mlp_out: below a layer; their output is what is added to the stream.
        resid_mid: below a layer; its input is the stream between the two writes. None: the two are
            added at once.
    """

    backbone: str = "model"
    layers: str = "layers"
    final_norm: str = "norm"
    attn_out: str = "self_attn"
    mlp_out: str = "mlp"
    resid_mid: str | None = "post_attention_layernorm"

    def part(self, name: str) -> str:
        """Return the module of "attn_out", "mlp_out" or "resid_mid", below a layer."""
        parts = {"attn_out": self.attn_out, "mlp_out": self.mlp_out, "resid_mid": self.resid_mid}
        return parts[name] or ""


_LLAMA = ResidualStream()
_GEMMA = ResidualStream(
    attn_out="post_attention_layernorm",
    mlp_out="post_feedforward_layernorm",
    resid_mid="pre_feedforward_layernorm",
)

FAMILIES: Mapping[str, ResidualStream] = {  # by config.model_type
    "llama": _LLAMA,
    "qwen2": _LLAMA,
    "qwen3": _LLAMA,
    "mistral": _LLAMA,
    "gemma2": _GEMMA,
    "gemma3_text": _GEMMA,
    # No norm before attention and MLP, one behind each.
    "olmo2": replace(_GEMMA, resid_mid="mlp"),
    "phi3": replace(_LLAMA, attn_out="resid_attn_dropout", mlp_out="resid_mlp_dropout"),
    "gpt2": ResidualStream(
        backbone="transformer", layers="h", final_norm="ln_f", attn_out="attn", resid_mid="ln_2"
    ),
    "gpt_neox": ResidualStream(
        backbone="gpt_neox",
        final_norm="final_layer_norm",
        attn_out="post_attention_dropout",
        mlp_out="post_mlp_dropout",
    ),
}


def unwrapped(model: Any) -> PreTrainedModel:
    """Return the causal language model that PEFT wraps, or the model itself."""
    base: PreTrainedModel = model.get_base_model() if hasattr(model, "get_base_model") else model
    return base


def residual_stream(model: PreTrainedModel) -> ResidualStream:
    """Return where an unwrapped model's blocks read and write.

    Raises:
        CaptureError: the family is unknown, or has cross-attention, a third write.
    """
    config = model.config
    family = config.model_type
    if family not in FAMILIES:
        msg = f"the residual stream of {family!r} is not known; known: {', '.join(FAMILIES)}. Add "
        msg += f"it to FAMILIES in {__name__}"
        raise CaptureError(msg)
    if getattr(config, "add_cross_attention", False):
        msg = f"{family} with cross-attention writes to the stream a third time; not known here"
        raise CaptureError(msg)
    stream = FAMILIES[family]
    if getattr(config, "use_parallel_residual", False):
        return replace(stream, resid_mid=None)
    return stream


def layers(model: PreTrainedModel) -> list[torch.nn.Module]:
    """Return the layers of an unwrapped model, first to last; one used twice comes twice."""
    stream = residual_stream(model)
    listed: Any = model.get_submodule(f"{stream.backbone}.{stream.layers}")
    return list(listed)  # `children()` would leave out what was there before


def final_norm(model: PreTrainedModel) -> torch.nn.Module:
    """Return the norm between the last layer and the head of an unwrapped model."""
    stream = residual_stream(model)
    return model.get_submodule(f"{stream.backbone}.{stream.final_norm}")
