"""A replay of FEAT-015: the stream, the writes and the lens of a drawn text."""

from __future__ import annotations

import random
from pathlib import Path

from lab.contract import Context
from lab.replay import Row, main
from lab.representation_analysis.experiment import load_model
from lab.representation_analysis.measured import AnalysisPlan

HITS = "hits"  # massive activations of all texts, one row each


def replay(ctx: Context, stored: Path, draw: random.Random) -> list[Row]:
    """Return the rows of a stored run; what the model computes does not depend on it."""
    del stored
    from lab.instruments import sequences
    from lab.representation_analysis import recording

    # 1. The pass of the text, and of the same text through random weights.
    plan = AnalysisPlan.from_config(ctx.config)
    loaded = load_model(ctx)
    model = loaded.model
    windows = sequences.natural(loaded.tokenizer, plan.count + plan.test_count, plan.length)
    ids = windows[: plan.count].to(model.device)
    recorded = recording.record(model, ids)
    control = recording.record(recording.untrained(model, ctx.seed), ids)

    # 2. What follows from them, of which one text is compared.
    observed = {
        "stream": recording.stream_of(recorded.stream),
        "stream_random_weights": recording.stream_of(control.stream),
        "writes": recording.writes_of(model, recorded),
        "lens": recording.lens_of(model, recorded, plan),
    }
    text = draw.randrange(plan.count)
    rows = []
    for group, arrays in observed.items():
        for name, array in vars(arrays).items():
            file = f"artifacts/{group}.safetensors"
            if name == HITS:
                rows.append(Row(f"{name} of {group}", file, (name,), array))
            else:
                quantity = f"{name} of {group}, text {text}"
                rows.append(Row(quantity, file, (name,), array[[text]], (text,)))
    return rows


if __name__ == "__main__":
    main(replay)
