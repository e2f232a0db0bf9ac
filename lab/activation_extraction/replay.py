"""A replay of FEAT-014: a drawn layer of everything recorded of the model, and a drawn family."""

from __future__ import annotations

import random
from pathlib import Path

from lab.activation_extraction.experiment import joined, of_model
from lab.activation_extraction.measured import STATISTICS
from lab.contract import Context
from lab.replay import Row, main

NOT_BY_LAYER = {"ids", "final_normed", "stopped"}


def replay(ctx: Context, stored: Path, draw: random.Random) -> list[Row]:
    """Return the rows of a stored run; what the model computes does not depend on it."""
    del stored
    import torch

    from lab.activation_extraction import measuring
    from lab.instruments import sequences, sweep
    from lab.instruments.families import CHANGES

    # 1. The real model: its tensors at one layer, and its logits.
    config = ctx.config
    with sweep.model_folder(ctx) as folder:
        loaded = measuring.load_from(folder, config["device"])(torch.float32, None)
    ids = sequences.natural(loaded.tokenizer, **config["texts"]).to(config["device"])
    model, statistics = measuring.measure_model(
        loaded, ids, positions=config["positions"], stop_layer=config["stop_layer"]
    )
    layer = draw.randrange(len(model.normed))
    rows = []
    for name, array in of_model(model).items():
        file = "artifacts/model.safetensors"
        if name in NOT_BY_LAYER:
            rows.append(Row(name, file, (name,), array))
        else:
            rows.append(Row(f"{name} of layer {layer}", file, (name,), array[[layer]], (layer,)))
    text = draw.randrange(len(ids))
    for name, array in vars(model.logits).items():
        file = "artifacts/logits.safetensors"
        quantity = f"{name} logits of text {text}"
        rows.append(Row(quantity, file, (name,), array[[text]], (text,)))

    # 2. The statistics of one tensor's name.
    counted = draw.choice(sorted(statistics))
    for name in STATISTICS:
        part = f"{counted}.streamed.{name}"
        array = statistics[counted].streamed[name]
        rows.append(Row(f"{name} of {counted}", "artifacts/statistics.safetensors", (part,), array))

    # 3. A family.
    family = draw.choice(sorted(CHANGES))
    arrays = measuring.measure_family(family, config["family_tokens"], ctx.seed)
    file = f"artifacts/families/{family}.safetensors"
    streams = joined({"float32": arrays.float32, "float64": arrays.float64})
    for name, array in streams.items():
        rows.append(Row(f"{name} of the family {family}", file, (name,), array))
    return rows


if __name__ == "__main__":
    main(replay)
