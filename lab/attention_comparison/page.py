"""The page attention_over_time.html: one held-out example at every snapshot of the training."""

from __future__ import annotations

import numpy as np

from lab.attention_comparison.measured import ComparisonObservations
from lab.attention_comparison.numbers import course, divergences
from lab.present import number
from lab.present.attention_page import (
    COMMITTED_BYTES,
    SINK,
    AttentionPage,
    PageText,
    Statistic,
    Variant,
    render,
)

NAME = "attention_over_time.html"
MOVED = Statistic(
    "js",
    "movement",
    "Jensen-Shannon divergence from the base on this text, in thousandths of a nat",
    is_share=False,
)


def page(observations: ComparisonObservations) -> str:
    """Return the page as HTML."""
    plan = observations.plan
    film = observations.film
    trained = observations.snapshots.trained

    # 1. The models with their losses, and two statistics of each, of the first prompt alone.
    losses = observations.snapshots.losses.mean(1, dtype=np.float64)
    labels = [
        f"{model}, loss {loss:.2f}" for model, loss in zip(film.patterns, losses, strict=True)
    ]
    sinks = [observations.base["sink"], *(model.statistics["sink"] for model in trained)]
    moves = [np.zeros_like(observations.adapter_off), *divergences(trained)]
    variants = []
    for label, pattern, sink, move in zip(
        labels, film.patterns.values(), sinks, moves, strict=True
    ):
        shape = (plan.layers, plan.heads_per_layer)
        statistics = {
            SINK.key: sink[:, 0].reshape(shape).tolist(),
            MOVED.key: (1000 * move[:, 0]).reshape(shape).tolist(),
        }
        variants.append(Variant.of_layers(label, pattern.astype(np.float32), statistics))

    # 2. What the reader sees first: the head that moved furthest on this text.
    seen = course(observations)
    furthest = plan.place(int(moves[-1][:, 0].argmax()))
    introduction = (
        "One held-out example under the base and under the adapter of seed "
        f"{plan.seeds[0]} after every {plan.steps[0]} steps of training. Over these steps the "
        f"held-out loss fell by {number(float(seen.fall[-1]), 3)} nats/token; the page opens at "
        f"the last step, at the head that moved furthest on this text, layer {furthest[0]}, "
        f"head {furthest[1]}."
    )
    text = PageText("a held-out example", film.tokens, tuple(variants))
    made = AttentionPage(
        title="Attention while a model is fine-tuned",
        introduction=introduction,
        statistics=(MOVED, SINK),
        texts=(text,),
        first_head=furthest,
        first_variant=len(variants) - 1,
    )
    return render(made, max_bytes=COMMITTED_BYTES)
