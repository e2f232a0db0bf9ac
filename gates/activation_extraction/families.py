"""The ten tiny models, drawn again from the seed, and where each reads and writes its stream."""

from __future__ import annotations

from typing import Any

from gates.activation_extraction.hooks import LLAMA, Places
from gates.shared import sequences
from gates.shared.stored import config

VOCABULARY = 97
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
OF_GEMMA = {"head_dim": 16, "query_pre_attn_scalar": 16, "sliding_window": 8}
SETTINGS: dict[str, dict[str, Any]] = {
    "qwen3": {"head_dim": 16},
    "mistral": {"sliding_window": 8},
    "gemma2": OF_GEMMA | {"attn_logit_softcapping": 2.0},
    "gemma3_text": OF_GEMMA,
    "phi3": {"sliding_window": 8},
    "gpt2": {"attn_pdrop": 0.0},
}
BEHIND = ("post_attention_layernorm", "post_feedforward_layernorm")  # norms behind the writes
GEMMA = Places("model.layers", *BEHIND, "pre_feedforward_layernorm", "input_layernorm")
PLACES = {
    **dict.fromkeys(("llama", "qwen2", "qwen3", "mistral", "phi3"), LLAMA),
    "gemma2": GEMMA,
    "gemma3_text": GEMMA,
    "olmo2": Places("model.layers", *BEHIND, "mlp", None),
    "gpt2": Places("transformer.h", "attn", "mlp", "ln_2", "ln_1"),
    "gpt_neox": Places("gpt_neox.layers", "attention", "mlp", None, "input_layernorm"),
}
FINAL_NORMS = {"gpt2": "transformer.ln_f", "gpt_neox": "gpt_neox.final_layer_norm"}
FINAL_CAP = 30.0  # Gemma 2's, of its config by default


def build(family: str, seed: int) -> Any:
    """Return the random model that the seed draws, in float32."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    settings = AutoConfig.for_model(family, **(SIZES | SETTINGS.get(family, {})))
    implementation = "eager" if family == "gemma2" else "sdpa"
    model = AutoModelForCausalLM.from_config(settings, attn_implementation=implementation)
    generator = torch.Generator().manual_seed(seed)
    for weight in model.parameters():
        if weight.dim() > 1:
            weight.data = torch.randn(weight.shape, generator=generator) * 0.25
    return model.eval().requires_grad_(requires_grad=False)


def texts(seed: int) -> tuple[Any, Any]:
    """Return the tokens [2, T], and the mask that puts the second text behind padding."""
    import torch

    total = config()["family_tokens"]
    ids = torch.tensor(sequences.random_tokens(VOCABULARY, 2, total, seed))
    mask = torch.ones(2, total, dtype=torch.int64)
    mask[1, : total // 4] = 0
    return ids, mask


def lens(model: Any, family: str, residual: Any) -> Any:
    """Return the logits of the last layer's stream by the model's norm and head."""
    norm = model.get_submodule(FINAL_NORMS.get(family, "model.norm"))
    logits = model.lm_head(norm(residual))
    if family == "gemma2":
        logits = FINAL_CAP * (logits / FINAL_CAP).tanh()
    return logits
