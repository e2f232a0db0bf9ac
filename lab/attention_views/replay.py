"""A replay of FEAT-011: a drawn set, a drawn text, and losses without a drawn set of heads."""

from __future__ import annotations

import json
import random
from pathlib import Path

from lab.attention_views.experiment import load_model
from lab.attention_views.measured import (
    NATURAL,
    NATURAL_UNTRAINED,
    REPEATED,
    REPEATED_UNTRAINED,
    SETS,
    ViewPlan,
)
from lab.contract import Context
from lab.replay import Row, main


def replay(ctx: Context, stored: Path, draw: random.Random) -> list[Row]:
    """Return the rows of a stored run."""
    from lab.attention_views import observing, token_sets

    # 1. The statistics of a set, of which one sequence is compared.
    plan = ViewPlan.from_config(ctx.config)
    loaded = load_model(ctx)
    model = loaded.model
    sets = token_sets.token_sets(ctx, plan, loaded)
    kind = draw.choice(SETS)
    if kind in (NATURAL_UNTRAINED, REPEATED_UNTRAINED):
        model = observing.untrained(model, ctx.seed)
    period = plan.period if kind in (REPEATED, REPEATED_UNTRAINED) else None
    statistics, norms = observing.statistics_of(model, sets[kind], period=period)
    sequence = draw.randrange(len(sets[kind]))
    rows = []
    for name, array in vars(statistics).items():
        if array is not None:
            file = f"artifacts/statistics_{kind}.safetensors"
            quantity = f"{name} of {kind}, sequence {sequence}"
            rows.append(Row(quantity, file, (name,), array[[sequence]], (sequence,)))
    if kind == NATURAL:
        file = "artifacts/norms.safetensors"
        quantity = f"residual norms of {kind}, sequence {sequence}"
        rows.append(Row(quantity, file, ("norms",), norms[[sequence]], (sequence,)))

    # 2. The patterns of a text of the page, of which one layer is compared.
    text = draw.choice(token_sets.texts_to_show(ctx, plan, loaded))
    patterns = observing.patterns_of(loaded.model, text.ids.to(loaded.model.device))
    layer = draw.randrange(len(patterns))
    quantity = f"patterns of {text.label}, layer {layer}"
    file = "artifacts/patterns.safetensors"
    rows.append(Row(quantity, file, (text.key,), patterns[[layer]], (layer,)))

    # 3. The losses without a set of heads.
    ablations = json.loads((stored / "artifacts/ablation_heads.json").read_text("utf-8"))
    name = draw.choice(sorted(ablations))
    heads = [tuple(head) for head in ablations[name]]
    losses = observing.token_losses(loaded.model, sets["ablation"], heads)
    file = "artifacts/ablation_losses.safetensors"
    rows.append(Row(f"losses without the heads of {name}", file, (name,), losses))
    return rows


if __name__ == "__main__":
    main(replay)
