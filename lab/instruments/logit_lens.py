"""The logit lens: what the model would predict if the residual stream ended here.

The model's own final norm and head are applied to the stream after any layer (nostalgebraist 2020,
"interpreting GPT: the logit lens").
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from lab.instruments import residual_stream

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel


def lens_logits(model: PreTrainedModel | PeftModel, residual: torch.Tensor) -> torch.Tensor:
    """Return the logits [..., V] of a residual stream [..., D]: final norm, head, soft-capping.

    Of the last layer's `resid_post` these are the model's own logits. The double-norm trap: the
    last entry of transformers' `hidden_states` is not that stream, it has been through the final
    norm already. The lens would norm it a second time, and its logits would look plausible and be
    wrong. Take the stream from `ActivationExtractor`.

    Raises:
        CaptureError: the model's family is unknown.
    """
    base = residual_stream.unwrapped(model)
    norm = residual_stream.final_norm(base)
    weight: Any = norm.weight
    head: Any = base.get_output_embeddings()
    logits: torch.Tensor = head(norm(residual.to(device=weight.device, dtype=weight.dtype)))
    cap = getattr(base.config, "final_logit_softcapping", None)
    if cap is None:
        return logits
    return torch.tanh(logits / cap) * cap
