"""What FEAT-017 was planned to measure: shapes, trainings, and which of them are held out."""

from __future__ import annotations

from typing import Any

MODEL = "smollm2-135m"  # its folder is an input, which the plan of the project pins
STEPS = 3
REPEATS = 7
SHAPES: dict[str, dict[str, int]] = {
    "base": {},
    "shallow": {"num_hidden_layers": 6},
    "wide": {
        "num_hidden_layers": 4,
        "hidden_size": 1024,
        "intermediate_size": 2816,
        "num_attention_heads": 16,
        "num_key_value_heads": 4,
        "head_dim": 64,
    },
}
SETTINGS = ("method", "batch", "sequence", "supervised", "rank")
FIXED = {  # of every training
    "weight_bytes": 4,
    "adapter_bytes": 4,
    "optimizer_bytes": 8,
    "double_quant": True,
    "checkpointing": False,
    "logits": "fused",
    "all_parameters": False,
}
FIELDS = ("name", "role", "shape", *SETTINGS)
ROWS = (
    ("shallow_lora", "fit", "shallow", "lora", 8, 64, 0.4, 16),
    ("shallow_full", "fit", "shallow", "full", 8, 64, 0.4, 0),
    ("shallow_qlora", "fit", "shallow", "qlora", 4, 128, 0.4, 16),
    ("shallow_long", "fit", "shallow", "lora", 1, 512, 0.6, 64),
    ("wide_lora", "fit", "wide", "lora", 4, 128, 0.4, 64),
    ("deep_short", "fit", "base", "lora", 2, 64, 0.4, 8),
    ("base_lora", "held-out", "base", "lora", 4, 64, 0.4, 16),
    ("base_qlora", "held-out", "base", "qlora", 4, 64, 0.4, 16),
    ("base_full", "held-out", "base", "full", 2, 64, 0.4, 0),
    ("longest_lora", "held-out", "shallow", "lora", 1, 1024, 0.4, 64),
    ("wide_full", "held-out", "wide", "full", 4, 64, 0.4, 0),
    ("wide_qlora", "held-out", "wide", "qlora", 4, 128, 0.4, 32),
)
RUNS: list[dict[str, Any]] = [dict(zip(FIELDS, row, strict=True)) for row in ROWS]
