"""Tiny random models of ten families, each with what makes its attention special.

Sliding windows are shorter than the text and the soft-capping is strong, so that both matter. The
weights are large, so that rows of attention are peaked as in a trained model.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from transformers import PreTrainedModel

VOCABULARY = 97
WINDOW = 8
SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
GEMMA = {"head_dim": 16, "query_pre_attn_scalar": 16, "sliding_window": WINDOW}
CHANGES: dict[str, dict[str, Any]] = {  # family -> what differs from SIZES
    "llama": {},
    "qwen2": {},
    "qwen3": {"head_dim": 16},
    "mistral": {"sliding_window": WINDOW},
    "gemma2": {**GEMMA, "attn_logit_softcapping": 2.0},
    "gemma3_text": GEMMA,
    "olmo2": {},
    "phi3": {"sliding_window": WINDOW},
    "gpt2": {"attn_pdrop": 0.0},
    "gpt_neox": {},
}


def build(family: str, seed: int) -> PreTrainedModel:
    """Return a random model of a family of CHANGES, in float32 and evaluation mode.

    Gemma 2 has eager attention: sdpa knows no soft-capping.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model(family, **SIZES | CHANGES[family])
    implementation = "eager" if family == "gemma2" else "sdpa"
    model = AutoModelForCausalLM.from_config(config, attn_implementation=implementation)
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        if parameter.dim() > 1:
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.data = 0.25 * noise
    return model.eval()
