"""Activation extraction: is what the extractor records the residual stream, and is it all of it?

run(ctx)
    measure(ctx)
        measure_model       texts through the real model: stream, lens, statistics, an early end
        measure_guards      what must be refused
        measure_forms       bfloat16, NF4, an adapter, a silent layer
        measure_family      ten tiny random models
    store                   all arrays and the adapter under artifacts/
    numbers.measurements    the numbers; tables, findings and figures are made from them
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from lab.activation_extraction import figures, numbers, report, tables
from lab.activation_extraction.measured import ActivationObservations, ModelArrays
from lab.contract import Context, Experiment, Outcome, main
from lab.instruments.arrays import save_arrays

EXPERIMENT = Experiment(
    title="Activation extraction",
    question=(
        "Does the extractor record the residual stream and all that is written to it, in every "
        "kind of model, and leave what the model computes as it was?"
    ),
    hypothesis=(
        "After each layer the stream is what entered plus what attention and the MLP wrote, to "
        "float noise: below 1e-6 of its length in float32, below 1e-12 in float64. What leaves a "
        "layer enters the next one bit for bit, the lens at the last layer is the model's own "
        "prediction, and logits stay the same bit for bit. transformers' last hidden state is "
        "another thing: it is behind the final norm, and to norm it again is wrong."
    ),
    method=(
        "Eight texts go through SmolLM2-135M, without and with the extractor, which reads every "
        "tensor where the model has it and computes none. The same sum is taken with the stream "
        "read at a wrong place, behind the input norm, which must show. Statistics over two passes "
        "are held against those of kept tensors. The model is recorded in bfloat16, in NF4, with a "
        "LoRA adapter, and with one layer whose output projections are 0, which must write "
        "nothing. Ten tiny random models (Llama, Qwen 2 and 3, Mistral, Gemma 2 and 3, OLMo 2, "
        "Phi-3, GPT-2, GPT-NeoX) are recorded in float32 and float64, one text behind padding; the "
        "same sum without attention's write must show. Gradient checkpointing, a second pass "
        "without clear(), no pass at all, a tensor changed in place and a position that does not "
        "exist must be refused."
    ),
    headline=(
        "residual_error",
        "misplaced_error",
        "families_with_identity",
        "lens_kl_last",
        "double_norm_kl",
        "logits_change",
    ),
    packages=("torch", "transformers", "peft", "bitsandbytes"),
)


def run(ctx: Context) -> Outcome:
    """Measure, store the arrays, and return numbers, tables, findings and figures."""
    observations, environment = measure(ctx)
    store(ctx.out / "artifacts", observations)
    measurements = numbers.measurements(observations)
    return Outcome(
        measurements,
        tables=tables.tables(observations),
        findings=report.findings(measurements),
        figures=figures.figures(observations, measurements),
        environment=environment,
    )


def measure(ctx: Context) -> tuple[ActivationObservations, dict[str, Any]]:
    """Record the real model, its forms and the families; return this, and which model it was."""
    import torch

    from lab.activation_extraction import guarding, measuring
    from lab.instruments import sequences, sweep
    from lab.instruments.families import CHANGES

    config = ctx.config
    total = 2 + len(CHANGES)
    with sweep.model_folder(ctx) as folder:
        # 1. The real model.
        ctx.progress(0, total, "recording the model")
        load = measuring.load_from(folder, config["device"])
        loaded = load(torch.float32, None)
        ids = sequences.natural(loaded.tokenizer, **config["texts"]).to(config["device"])
        model, statistics = measuring.measure_model(
            loaded, ids, positions=config["positions"], stop_layer=config["stop_layer"]
        )
        guards = guarding.measure_guards(loaded.model, ids[:1], config["stop_layer"])

        # 2. Its other forms.
        ctx.progress(1, total, "bfloat16, NF4, an adapter and a silent layer")
        forms = measuring.measure_forms(
            load,
            ids[:1, : config["form_tokens"]],
            lora=config["adapter"],
            silent_layer=config["silent_layer"],
            seed=ctx.seed,
            adapter_folder=ctx.out / "artifacts" / "adapter",
        )
        environment = {
            "model": config["model"],
            "model_sha256": loaded.digest,
            "device": config["device"],
            "dtype": "float32",
        }

    # 3. The families.
    families = {}
    for number, family in enumerate(CHANGES):
        ctx.progress(2 + number, total, family)
        families[family] = measuring.measure_family(family, config["family_tokens"], ctx.seed)
    ctx.progress(total, total, "recorded")
    observations = ActivationObservations(
        model=model,
        statistics=statistics,
        forms=forms,
        silent_layer=config["silent_layer"],
        stop_layer=config["stop_layer"],
        families=families,
        guards=guards,
    )
    return observations, environment


def store(artifacts: Path, observations: ActivationObservations) -> None:
    """Write all arrays, and what the guards did."""
    # 1. The real model.
    model = observations.model
    save_arrays(artifacts / "model.safetensors", of_model(model))
    save_arrays(artifacts / "logits.safetensors", vars(model.logits))
    sides: dict[str, Mapping[str, np.ndarray]] = {}
    for name, counted in observations.statistics.items():
        sides[f"{name}.streamed"] = counted.streamed
        sides[f"{name}.reference"] = counted.reference
    save_arrays(artifacts / "statistics.safetensors", joined(sides))
    save_arrays(artifacts / "forms.safetensors", joined(observations.forms))

    # 2. The families.
    (artifacts / "families").mkdir()
    for family, arrays in observations.families.items():
        streams = joined({"float32": arrays.float32, "float64": arrays.float64})
        texts = {"ids": arrays.ids, "mask": arrays.mask}
        logits = {"logits": arrays.logits, "lens": arrays.lens}
        save_arrays(artifacts / "families" / f"{family}.safetensors", texts | streams | logits)

    # 3. The guards.
    document = json.dumps(asdict(observations.guards), indent=1)
    (artifacts / "guards.json").write_text(document + "\n", "utf-8")


def of_model(model: ModelArrays) -> dict[str, np.ndarray]:
    """Return the arrays of the real model by the names that they are stored under."""
    arrays: dict[str, np.ndarray] = dict(model.stream)
    for name, array in vars(model).items():
        if isinstance(array, np.ndarray):
            arrays[name] = array
    return arrays


def joined(parts: Mapping[str, Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Return "part.name" → array of arrays by part and name."""
    arrays: dict[str, np.ndarray] = {}
    for part, named in parts.items():
        arrays |= {f"{part}.{name}": array for name, array in named.items()}
    return arrays


if __name__ == "__main__":
    main(EXPERIMENT, run)
