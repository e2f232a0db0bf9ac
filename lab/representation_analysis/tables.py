"""The tables of the representation analysis."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from lab.contract import Measurement, Table
from lab.representation_analysis.measured import BASE, KINDS, MEAN, ZEROED, Observations
from lab.representation_analysis.numbers import (
    CKA_NAMES,
    attributions,
    extremes,
    first_norms,
    kind_norms,
    lens_profile,
    loss_rises,
    mean_norms,
    ordinary,
    perplexity_ratios,
    write_norms,
)

CASES = {
    "cka_raw": "all tokens",
    "cka_without_first": "without the first tokens",
    "cka_without_outliers": "without the tokens of huge norm",
    "cka_random_weights": "random weights, all tokens",
    "cka_shuffled": "one layer's tokens in another order, without those of huge norm",
}


def tables(observations: Observations, measurements: Mapping[str, Measurement]) -> list[Table]:
    """Return stream, writes, causal test, lens, similarity, kinds of tokens."""
    return [
        stream_table(observations),
        write_table(observations),
        intervention_table(observations),
        lens_table(observations),
        similarity_table(measurements),
        kind_table(observations),
    ]


def stream_table(observations: Observations) -> Table:
    """Return one row per layer: norms and extremes of its output."""
    top, median = extremes(observations.stream)
    control, _ = extremes(observations.random_stream)
    columns = {
        "norm, first token": first_norms(observations)[1:],
        "norm, others": mean_norms(observations)[1:],
        "largest number": top,
        "median": median,
        "largest / median": top / median,
        "largest, random weights": control,
    }
    return _by_layer("Stream: the output of each layer", columns)


def write_table(observations: Observations) -> Table:
    """Return one row per layer: what attention and MLP add, and what it costs to replace it."""
    columns: dict[str, Sequence[float] | np.ndarray] = {}
    for name, values in (
        ("length", write_norms(observations)),
        ("direct attribution", attributions(observations)),
        ("cost of the mean", loss_rises(observations)),
    ):
        columns[f"attention: {name}"] = values[0]
        columns[f"MLP: {name}"] = values[1]
    cosine = observations.writes.cosine[..., 1:].mean((0, 2), dtype="float64")
    title = "Writes: without the first token (logits, nats/token)"
    return _by_layer(title, columns | {"cosine of the two": cosine})


def _by_layer(title: str, columns: Mapping[str, Sequence[float] | np.ndarray]) -> Table:
    rows = []
    for layer, values in enumerate(zip(*columns.values(), strict=True)):
        rows.append((layer, *(float(value) for value in values)))
    return Table(title, ("layer", *columns), tuple(rows))


def intervention_table(observations: Observations) -> Table:
    """Return what was changed, the perplexity, and its ratio to that without a change."""
    target = observations.interventions.target
    changes = {
        BASE: "nothing",
        ZEROED: f"dimension {target.dimension} to 0",
        MEAN: f"dimension {target.dimension} to its mean {target.mean:.6g}",
    }
    for name, dimension in zip(observations.plan.others, target.others, strict=True):
        changes[name] = f"dimension {dimension} to 0 (control)"
    ratios = perplexity_ratios(observations)
    rows: list[tuple[str | float, ...]] = []
    for name, change in changes.items():
        loss = observations.interventions.losses[name].mean(dtype="float64")
        rows.append((change, float(np.exp(loss)), ratios[name]))
    title = f"Causal test: the first token in the output of layer {target.layer}"
    return Table(title, ("set", "perplexity", "times"), tuple(rows))


def lens_table(observations: Observations) -> Table:
    """Return agreement and KL of the lens at each depth."""
    agreement, kl = lens_profile(observations)
    rows = []
    for depth, (share, nats) in enumerate(zip(agreement, kl, strict=True)):
        rows.append((depth, float(share), float(nats)))
    columns = ("depth", "share with the model's first choice", "KL(model || lens) in nats")
    return Table("Logit lens", columns, tuple(rows))


def similarity_table(measurements: Mapping[str, Measurement]) -> Table:
    """Return the CKA of the planned pair, with its standard error, for each choice of tokens."""
    rows: list[tuple[str | float | None, ...]] = []
    for name in CKA_NAMES:
        measurement = measurements[name]
        rows.append((CASES[name], measurement.number, measurement.stderr))
    return Table("CKA of the planned pair of layers", ("of", "CKA", "standard error"), tuple(rows))


def kind_table(observations: Observations) -> Table:
    """Return kinds of tokens: how many, how many of huge norm, and the length of the others."""
    outliers = observations.similarity.outliers == 1
    norms = kind_norms(observations)
    rows: list[tuple[str | int | float | None, ...]] = []
    for code, kind in enumerate(KINDS):
        is_kind = observations.kinds == code
        counted = int((is_kind & ordinary(observations)).sum())
        huge = int((is_kind & outliers).sum())
        rows.append((kind, counted, huge, norms[kind]))
    columns = ("kind", "ordinary tokens", "of huge norm", "length against all ordinary tokens")
    return Table("Kinds of tokens", columns, tuple(rows))
