"""Attention views: maps, head grids, profiles by layer and a page, with their controls.

run(ctx)
    measure(ctx)
        token_sets        running text, random tokens, one token, a random sequence twice
        statistics_of     of every head on each set, and of random weights (observing.py)
        token_losses      on the second copy without induction heads, and without random ones
        _shown_text       the patterns of each text of the page
    store                 arrays under artifacts/, the page as attention.html
    measurements, tables, findings, figures    made from the observations
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lab.attention_views.measured import (
    INDUCTION,
    NATURAL,
    NATURAL_UNTRAINED,
    NOTHING,
    PREVIOUS,
    REPEATED,
    REPEATED_UNTRAINED,
    SETS,
    Head,
    ShownText,
    ViewObservations,
    ViewPlan,
)
from lab.contract import Context, Experiment, Outcome, main
from lab.instruments.arrays import save_arrays
from lab.present.attention_page import COMMITTED_BYTES, render

if TYPE_CHECKING:
    from lab.attention_views.token_sets import TextToShow
    from lab.instruments.models import Loaded

EXPERIMENT = Experiment(
    title="Attention visualisation",
    question=(
        "Where do the heads of a small language model look, and which of the patterns that one "
        "sees mean something?"
    ),
    hypothesis=(
        "From the third layer on most heads look mostly at the first token, whatever it is, "
        "because it carries a residual far larger than any other; where all tokens are the same "
        "one, this sink vanishes. A few heads, and no head of random weights, look at the token "
        "behind the last occurrence of the current one; the model copies by them, so that without "
        "them the loss on a repeated sequence rises more than without as many others."
    ),
    method=(
        "The attention of every head is recorded on running text of Python's documentation, on "
        "random tokens, on one token repeated, and on random sequences that occur twice. A head "
        "has a sink if its mean share on the first token is above 0.3 at 64 tokens (Gu et al. "
        "2025, arXiv:2410.10781). Controls of the sink: the second token, one token repeated, "
        "random weights. The induction score is the mean share, in the second copy, on the token "
        "behind the last occurrence of the current one (Olsson et al. 2022, arXiv:2209.11895); its "
        "control is a model of the same architecture with random weights. Causal test: the results "
        "of the heads with the highest induction scores are set to 0, and the loss on the second "
        "copy of other sequences is compared with that without random sets of as many other heads. "
        "Distances are given with and without the first token, which is far away from most tokens "
        "and would make every layer with a sink look far-sighted. The page has every share of the "
        "shown texts in steps of 1/255."
    ),
    headline=(
        "sink_rate",
        "sink_rate_one_token",
        "sink_follows_norm",
        "induction_score",
        "induction_score_random_weights",
        "ablation_ratio",
    ),
    packages=("torch", "transformers"),
)


def run(ctx: Context) -> Outcome:
    """Measure, store the arrays and the page, and return numbers, tables, findings and figures."""
    from lab.attention_views.figures import figures
    from lab.attention_views.numbers import measurements
    from lab.attention_views.report import findings, page_facts
    from lab.attention_views.tables import tables

    observations, environment = measure(ctx)
    numbers = measurements(observations)
    store(ctx.out, observations, page_facts(observations.plan, numbers))
    return Outcome(
        numbers,
        tables=tables(observations),
        findings=findings(observations.plan, numbers),
        figures=figures(observations, numbers),
        environment=environment,
    )


def measure(ctx: Context) -> tuple[ViewObservations, dict[str, Any]]:
    """Do the whole experiment; return what was observed, and of which model."""
    from lab.attention_views import observing, token_sets
    from lab.attention_views.numbers import score_map

    # 1. The model and the token sequences.
    plan = ViewPlan.from_config(ctx.config)
    loaded = load_model(ctx)
    shown = token_sets.texts_to_show(ctx, plan, loaded)
    sets = token_sets.token_sets(ctx, plan, loaded)

    # 2. The statistics of every head on each set; the last two are of random weights.
    control = observing.untrained(loaded.model, ctx.seed)
    statistics = {}
    norms = np.empty(0)
    for done, kind in enumerate(SETS):
        ctx.progress(done, len(SETS) + 2, f"attention on {kind}")
        is_control = kind in (NATURAL_UNTRAINED, REPEATED_UNTRAINED)
        model = control if is_control else loaded.model
        period = plan.period if kind in (REPEATED, REPEATED_UNTRAINED) else None
        statistics[kind], own_norms = observing.statistics_of(model, sets[kind], period=period)
        if kind == NATURAL:
            norms = own_norms

    # 3. The causal test, on sequences that the heads were not chosen by.
    ctx.progress(len(SETS), len(SETS) + 2, "heads switched off")
    induction = score_map(statistics[REPEATED].induction, plan.period + 1)
    previous = score_map(statistics[REPEATED].previous, 1)
    heads = _switched_off(plan, induction, previous, ctx.seed)
    losses = {}
    for ablation in plan.ablations:
        losses[ablation] = observing.token_losses(loaded.model, sets["ablation"], heads[ablation])

    # 4. The patterns of the page.
    ctx.progress(len(SETS) + 1, len(SETS) + 2, "patterns of the page")
    texts = [_shown_text(loaded, text) for text in shown]
    ctx.progress(len(SETS) + 2, len(SETS) + 2, "numbers and figures")
    observations = ViewObservations(
        plan=plan,
        model=ctx.config["model"],
        statistics=statistics,
        ids={kind: ids.cpu().numpy() for kind, ids in sets.items()},
        norms=norms,
        heads=heads,
        losses=losses,
        texts=texts,
    )
    environment = {
        "model": ctx.config["model"],
        "model_sha256": loaded.digest,
        "device": ctx.config["device"],
        "dtype": ctx.config["dtype"],
    }
    return observations, environment


# Parts of the run


def load_model(ctx: Context) -> Loaded:
    """Return the model of the config; "tiny" is a random one."""
    import torch

    from lab.instruments import models

    if ctx.config["model"] == "tiny":
        return models.tiny(ctx.seed)
    folder = models.locate(ctx.config["model"], ctx.inputs)
    dtype = getattr(torch, ctx.config["dtype"])
    return models.load(folder, dtype=dtype, device=ctx.config["device"])


def _switched_off(
    plan: ViewPlan, induction: np.ndarray, previous: np.ndarray, seed: int
) -> dict[str, list[Head]]:
    """Return the heads of each ablation, by their scores [L, H]; the random ones are others."""
    from lab.attention_views.numbers import head_before, ranked

    order = ranked(induction)
    top, others = order[: plan.top], sorted(order[plan.top :])
    heads: dict[str, list[Head]] = {
        NOTHING: [],
        INDUCTION: sorted(top),
        PREVIOUS: [head_before(previous, order[0])],
    }
    rng = random.Random(seed)
    for name in plan.random_sets:
        heads[name] = sorted(rng.sample(others, min(plan.top, len(others))))
    return heads


def _shown_text(loaded: Loaded, text: TextToShow) -> ShownText:
    """Return a text of the page with its tokens and patterns."""
    from lab.attention_views import observing
    from lab.instruments import sequences

    return ShownText(
        key=text.key,
        label=text.label,
        note=text.note,
        ids=text.ids.numpy(),
        tokens=sequences.token_texts(loaded.tokenizer, text.ids.tolist()),
        patterns=observing.patterns_of(loaded.model, text.ids.to(loaded.model.device)),
        period=text.period,
    )


# Storage


def store(out: Path, observations: ViewObservations, facts: str) -> None:
    """Write the arrays below artifacts/ and the page as attention.html.

    Raises:
        ContractError: the page has more than COMMITTED_BYTES.
    """
    from lab.attention_views.numbers import induction_map, ranked
    from lab.attention_views.page import page_of

    # 1. The arrays.
    folder = out / "artifacts"
    folder.mkdir(exist_ok=True)
    for kind, statistics in observations.statistics.items():
        arrays = {name: array for name, array in vars(statistics).items() if array is not None}
        save_arrays(folder / f"statistics_{kind}.safetensors", arrays)
    save_arrays(folder / "sequences.safetensors", observations.ids)
    save_arrays(folder / "norms.safetensors", {"norms": observations.norms})
    save_arrays(folder / "ablation_losses.safetensors", observations.losses)
    patterns = {text.key: text.patterns for text in observations.texts}
    save_arrays(folder / "patterns.safetensors", patterns)

    # 2. What is no array.
    _write_json(folder / "ablation_heads.json", observations.heads)
    texts = []
    for text in observations.texts:
        entry = {"key": text.key, "label": text.label, "note": text.note, "period": text.period}
        texts.append(entry | {"ids": text.ids.tolist(), "tokens": list(text.tokens)})
    _write_json(folder / "texts.json", texts)

    # 3. The page.
    first_head = ranked(induction_map(observations))[0]
    page = page_of(observations.texts, model=observations.model, first_head=first_head, facts=facts)
    html = render(page, max_bytes=COMMITTED_BYTES)
    (out / "attention.html").write_text(html, encoding="utf-8")


def _write_json(path: Path, document: Mapping[str, Any] | list[Any]) -> None:
    path.write_text(json.dumps(document, indent=1, ensure_ascii=True) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(EXPERIMENT, run)
