"""Eager attention as the reference: what transformers returns with `output_attentions`.

In float64 the rest must vanish, or it is no rounding. transformers' eager attention takes its
softmax in float32 whatever the model computes in; `wide_softmax` lets it be as wide as its input.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel


@contextmanager
def wide_softmax() -> Iterator[None]:
    """Let every softmax inside the block be at least as wide as its input."""
    narrow = torch.nn.functional.softmax

    def wide(scores: torch.Tensor, *arguments: Any, dtype: Any = None, **options: Any) -> Any:
        wider = torch.promote_types(scores.dtype, dtype or scores.dtype)
        return narrow(scores, *arguments, dtype=wider, **options)

    torch.nn.functional.softmax = wide
    try:
        yield
    finally:
        torch.nn.functional.softmax = narrow


@torch.no_grad()  # type: ignore[untyped-decorator]
def eager_patterns(
    model: PreTrainedModel | PeftModel, ids: torch.Tensor, mask: torch.Tensor | None = None
) -> torch.Tensor:
    """Return eager attention's weights [L, B, H, T, T] of a forward pass.

    mask: [B, T], 0 for padding.
    """
    own = model.config._attn_implementation
    model.set_attn_implementation("eager")
    try:
        out = model(ids, attention_mask=mask, use_cache=False, output_attentions=True)
    finally:
        model.set_attn_implementation(own)
    return torch.stack(out.attentions)
