"""The tables of the activation study: layers, families, and the model's other forms."""

from __future__ import annotations

from lab.activation_extraction.measured import FORMS, ActivationObservations
from lab.activation_extraction.numbers import (
    family_row,
    first_lengths,
    form_change,
    residual_errors,
)
from lab.contract import Table


def tables(observations: ActivationObservations) -> list[Table]:
    """Return all tables."""
    return [layer_table(observations), family_table(observations), form_table(observations)]


def layer_table(observations: ActivationObservations) -> Table:
    """Return the mean lengths in every layer, and how well it adds up."""
    counted = {
        name: each.streamed["mean_norm_without_first"]
        for name, each in observations.statistics.items()
    }
    first = first_lengths(observations, "resid_post")
    model = observations.model
    errors = residual_errors(model.stream).max(axis=1)
    rows = []
    for layer in range(len(errors)):
        rows.append(
            (
                layer,
                float(counted["resid_post"][layer]),
                float(counted["attn_out"][layer]),
                float(counted["mlp_out"][layer]),
                float(first[layer]),
                float(errors[layer]),
                float(model.lens_kl[layer].mean()),
                float(model.double_kl[layer].mean()),
            )
        )
    return Table(
        "Layers: mean length of a token's vector, and what the lens says",
        (
            "layer",
            "stream",
            "attention's write",
            "MLP's write",
            "stream, first token",
            "error of the sum",
            "lens (nats)",
            "lens, normed twice (nats)",
        ),
        tuple(rows),
    )


def family_table(observations: ActivationObservations) -> Table:
    """Return the errors of every family."""
    rows = []
    for family, arrays in observations.families.items():
        row = family_row(arrays)
        mid = "no such place" if row.mid is None else row.mid
        rows.append((family, row.float32, row.float64, mid, row.lens, row.without_attention))
    return Table(
        "Families: largest errors",
        (
            "family",
            "sum, float32",
            "sum, float64",
            "resid_mid, float64",
            "lens (logits)",
            "sum without attention",
        ),
        tuple(rows),
    )


def form_table(observations: ActivationObservations) -> Table:
    """Return the error of each form, and how far it is from the model."""
    rows = []
    for form in FORMS:
        error = float(residual_errors(observations.forms[form]).max())
        rows.append((form, error, form_change(observations, form)))
    return Table(
        "The model in other forms",
        ("form", "error of the sum", "change of the last layer's output"),
        tuple(rows),
    )
