"""A replay of FEAT-010: a drawn layer of everything recorded of the model, and a drawn family."""

from __future__ import annotations

import random
from pathlib import Path

from lab.attention_extraction.experiment import both_sides
from lab.contract import Context
from lab.replay import Row, main

NOT_BY_LAYER = {"ids", "logits_recorded", "logits_plain"}
SETTINGS = {"padding", "rope_theta"}  # numbers, no arrays


def replay(ctx: Context, stored: Path, draw: random.Random) -> list[Row]:
    """Return the rows of a stored run; what the model computes does not depend on it."""
    del stored
    import torch

    from lab.attention_extraction import measuring
    from lab.instruments import sequences, sweep
    from lab.instruments.families import CHANGES

    # 1. The real model.
    config = ctx.config
    with sweep.model_folder(ctx) as folder:
        loaded = measuring.load_from(folder, config["device"])(torch.float32, None)
    ids = sequences.natural(loaded.tokenizer, 1, config["tokens"]).to(config["device"])
    model, kinds = measuring.measure_model(loaded, ids, config["padding"], config["logits"])
    layer = draw.randrange(len(model.pattern))
    rows = []
    for name, array in vars(model).items():
        if name in SETTINGS:
            continue
        indices = None if name in NOT_BY_LAYER else (layer,)
        row = Row(
            quantity=name if indices is None else f"{name} of layer {layer}",
            file="artifacts/model.safetensors",
            part=(name,),
            indices=indices,
            recomputed=array if indices is None else array[[layer]],
        )
        rows.append(row)
    for name, array in both_sides(kinds).items():
        row = Row(
            quantity=f"pattern of layer {layer}, {name}",
            file="artifacts/parity.safetensors",
            part=(name,),
            indices=(layer,),
            recomputed=array[[layer]],
        )
        rows.append(row)

    # 2. A family.
    family = draw.choice(sorted(CHANGES))
    arrays = measuring.measure_family(
        family, config["family_tokens"], ctx.seed, ctx.out / "artifacts" / family
    )
    for name, array in both_sides({"float32": arrays.float32, "float64": arrays.float64}).items():
        row = Row(
            quantity=f"pattern of the family {family}, {name}",
            file=f"artifacts/families/{family}.safetensors",
            part=(name,),
            recomputed=array,
        )
        rows.append(row)
    return rows


if __name__ == "__main__":
    main(replay)
