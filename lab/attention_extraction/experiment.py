"""Attention extraction: does the extractor see what the model computes, and change nothing?

run(ctx)
    measure(ctx)
        measure_model       one text through the real model, recorded and held against eager
        measure_positions   positions shifted and stretched
        measure_wrappers    bfloat16, NF4, an adapter
        measure_family      ten tiny random models
        measure_guards      what must be refused
    store                   arrays, the families' models and the adapter under artifacts/
    numbers.measurements    the numbers; tables, findings and figures are made from them
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import numpy as np

from lab.attention_extraction import figures, numbers, report, tables
from lab.attention_extraction.measured import ExtractionObservations, Pair
from lab.contract import Context, Experiment, Outcome, main
from lab.instruments.arrays import save_arrays

EXPERIMENT = Experiment(
    title="Attention extraction",
    question=(
        "Does the extractor record the attention that the model computes, in every kind of model, "
        "and leave what the model computes as it was?"
    ),
    hypothesis=(
        "Recorded weights differ from eager attention by rounding alone: below 1e-5 in float32, "
        "and by orders of magnitude less in float64. Logits stay the same bit for bit. Statistics "
        "that never hold a row of weights agree with those of the rows. Keys that are shared in "
        "the wrong order, positions that are stretched and padding that is seen would all show."
    ),
    method=(
        "One text is recorded on SmolLM2-135M beside eager attention with `output_attentions`, in "
        "float32 and in float64, behind padding, in bfloat16, in NF4 and with a LoRA adapter. Ten "
        "tiny random models (Llama, Qwen 2 and 3, Mistral, Gemma 2 and 3, OLMo 2, Phi-3, GPT-2, "
        "GPT-NeoX) with short sliding windows and strong soft-capping are recorded in the same "
        "way. Patterns are computed again from q and k with the key heads in their true order and "
        "in the tiled one, and with scale 1 in place of 1/√d; positions are shifted (which RoPE "
        "must not notice) and stretched (which it must). Gradient checkpointing and a second pass "
        "without clear() must be refused, and a pass that raises must leave no hook."
    ),
    headline=(
        "parity_float32",
        "parity_orders",
        "logits_change",
        "families_in_parity",
        "tiled_error",
        "gqa_gap",
    ),
    packages=("torch", "transformers", "peft", "bitsandbytes"),
)


def run(ctx: Context) -> Outcome:
    """Measure, store the arrays, and return numbers, tables, findings and figures."""
    observations = measure(ctx)
    store(ctx.out / "artifacts", observations)
    measurements = numbers.measurements(observations)
    return Outcome(
        measurements,
        tables=tables.tables(observations),
        findings=report.findings(measurements),
        figures=figures.figures(observations, measurements),
    )


def measure(ctx: Context) -> ExtractionObservations:
    """Record the real model, its wrappers and the families, and try the guards."""
    import torch

    from lab.attention_extraction import measuring
    from lab.instruments import sequences, sweep
    from lab.instruments.families import CHANGES

    config = ctx.config
    artifacts = ctx.out / "artifacts"
    total = 3 + len(CHANGES)
    with sweep.model_folder(ctx) as folder:
        # 1. The real model.
        load = measuring.load_from(folder, config["device"])
        loaded = load(torch.float32, None)
        ids = sequences.natural(loaded.tokenizer, 1, config["tokens"]).to(config["device"])
        ctx.progress(0, total, "recording the model")
        model, kinds = measuring.measure_model(loaded, ids, config["padding"], config["logits"])
        kinds |= measuring.measure_positions(
            loaded, ids, shift=config["shift"], stretch=config["stretch"]
        )
        ctx.progress(1, total, "guards")
        guards = measuring.measure_guards(loaded, ids)

        # 2. Its wrappers.
        ctx.progress(2, total, "bfloat16, NF4 and an adapter")
        kinds |= measuring.measure_wrappers(
            load, ids, config["adapter"], ctx.seed, artifacts / "adapter"
        )

    # 3. The families.
    recorded = {}
    for number, family in enumerate(CHANGES):
        ctx.progress(3 + number, total, family)
        recorded[family] = measuring.measure_family(
            family, config["family_tokens"], ctx.seed, artifacts / "families" / family
        )
    ctx.progress(total, total, "recorded")
    return ExtractionObservations(model, kinds, recorded, guards)


def store(artifacts: Path, observations: ExtractionObservations) -> None:
    """Write the arrays of the model and of each family, and what the guards did."""
    model = vars(observations.model) | {}
    settings = {name: model.pop(name) for name in ("padding", "rope_theta")}
    save_arrays(artifacts / "model.safetensors", model)
    save_arrays(artifacts / "parity.safetensors", both_sides(observations.kinds))
    for family, arrays in observations.families.items():
        sides = both_sides({"float32": arrays.float32, "float64": arrays.float64})
        texts = {"ids": arrays.ids, "mask": arrays.mask}
        save_arrays(artifacts / "families" / f"{family}.safetensors", texts | sides)
    document = settings | asdict(observations.guards)
    (artifacts / "guards.json").write_text(json.dumps(document, indent=1) + "\n", "utf-8")


def both_sides(pairs: Mapping[str, Pair]) -> dict[str, np.ndarray]:
    """Return "float32.recorded" and "float32.reference", and so on for each pair."""
    arrays = {}
    for name, pair in pairs.items():
        arrays[f"{name}.recorded"] = pair.recorded
        arrays[f"{name}.reference"] = pair.reference
    return arrays


if __name__ == "__main__":
    main(EXPERIMENT, run)
