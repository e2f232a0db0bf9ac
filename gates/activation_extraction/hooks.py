"""The residual stream of a model, read by hooks of the gate's own; each tensor is a copy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Places:
    """Modules of a layer: whose output is written to the stream, whose input is its middle.

    mid: None where a layer adds both writes at once; normed: the input norm, where there is one.
    """

    layers: str
    attention: str
    mlp: str
    mid: str | None
    normed: str | None


LLAMA = Places("model.layers", "self_attn", "mlp", "post_attention_layernorm", "input_layernorm")


def read(model: Any, places: Places, ids: Any, mask: Any = None) -> tuple[dict[str, Any], Any]:
    """Return name -> [L, B, T, D], and what the model returned.

    Names are those of gates.activation_extraction.arrays.STREAM, and "normed".
    """
    import torch

    found: dict[str, list[Any]] = {}
    handles = []

    def keep(name: str, pick: Callable[[Any, Any], Any]) -> Callable[..., None]:
        found[name] = []

        def hook(_module: Any, inputs: Any, output: Any) -> None:
            found[name].append(pick(inputs, output).detach().clone())

        return hook

    def before(inputs: Any, _output: Any) -> Any:
        return inputs[0]

    def after(_inputs: Any, output: Any) -> Any:
        return output[0] if isinstance(output, tuple) else output

    hooks = {"resid_pre": keep("resid_pre", before), "resid_post": keep("resid_post", after)}
    hooks |= {"attn_out": keep("attn_out", after), "mlp_out": keep("mlp_out", after)}
    if places.mid is not None:
        hooks["resid_mid"] = keep("resid_mid", before)
    if places.normed is not None:
        hooks["normed"] = keep("normed", after)
    for layer in model.get_submodule(places.layers):
        modules = {
            "resid_pre": layer,
            "resid_post": layer,
            "attn_out": layer.get_submodule(places.attention),
            "mlp_out": layer.get_submodule(places.mlp),
            "resid_mid": layer.get_submodule(places.mid or ""),
            "normed": layer.get_submodule(places.normed or ""),
        }
        handles += [modules[name].register_forward_hook(hook) for name, hook in hooks.items()]
    with torch.no_grad():
        out = model(ids, attention_mask=mask, use_cache=False)
    for handle in handles:
        handle.remove()
    return {name: torch.stack(tensors) for name, tensors in found.items()}, out
