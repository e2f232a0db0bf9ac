"""The figures of the activation study. Their captions are made from the numbers shown."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from lab import present
from lab.activation_extraction.measured import ActivationObservations
from lab.activation_extraction.numbers import first_lengths, residual_errors
from lab.contract import Measurement
from lab.present import number

LINES = {"resid_post": "stream", "attn_out": "attention's write", "mlp_out": "MLP's write"}


def figures(
    observations: ActivationObservations, measurements: Mapping[str, Measurement]
) -> list[present.Figure]:
    """Return all figures of the report."""
    return [
        identity_figure(observations),
        length_figure(observations),
        lens_figure(observations, measurements),
    ]


def identity_figure(observations: ActivationObservations) -> present.Figure:
    """Show how far stream and sum differ, by layer, and with the stream read at a wrong place."""
    stream = observations.model.stream
    misplaced = {**stream, "resid_pre": observations.model.normed}
    lines = {
        "read behind the input norm": residual_errors(misplaced),
        "bfloat16": residual_errors(observations.forms["bfloat16"]),
        "NF4": residual_errors(observations.forms["nf4"]),
        "float32": residual_errors(stream),
    }
    largest = {label: errors.max(axis=1) for label, errors in lines.items()}
    return present.Figure(
        name="identity",
        title="Is the stream what entered plus both writes?",
        caption=(
            "Largest error of a token in each layer, as a share of the stream's length: at most "
            f"{number(float(largest['float32'].max()), 3)} in float32, at least "
            f"{number(float(largest['read behind the input norm'].min()), 3)} where the stream is "
            "read behind the input norm, a control."
        ),
        x_label="layer",
        y_label="error (share of the length)",
        series=tuple(_line(label, errors) for label, errors in largest.items()),
        y_scale="log",
    )


def length_figure(observations: ActivationObservations) -> present.Figure:
    """Show the length of the stream and of both writes, the first token's stream apart."""
    counted = observations.statistics
    lines = {}
    for name, label in LINES.items():
        lines[label] = counted[name].streamed["mean_norm_without_first"]
    first = first_lengths(observations, "resid_post")
    longest = int(first.argmax())
    ratio = float(first[longest] / lines["stream"][longest])
    return present.Figure(
        name="lengths",
        title="How long are the stream and what is written to it?",
        caption=(
            "Mean length of a token's vector, the first token left out; the first token's stream "
            f"is drawn apart: it is longest after layer {longest}, {number(ratio, 3)} times as "
            "long as the others."
        ),
        x_label="layer",
        y_label="mean length",
        series=(
            *(_line(label, lengths) for label, lengths in lines.items()),
            present.Series(
                "stream, first token", list(range(len(first))), first.tolist(), style="dashed"
            ),
        ),
        y_scale="log",
    )


def lens_figure(
    observations: ActivationObservations, measurements: Mapping[str, Measurement]
) -> present.Figure:
    """Show the lens of every layer against the model's own prediction, right and normed twice."""
    once = observations.model.lens_kl.mean(axis=(1, 2))
    twice = observations.model.double_kl.mean(axis=(1, 2))
    return present.Figure(
        name="lens",
        title="How far is the lens from the model's own prediction?",
        caption=(
            f"Mean KL over {observations.model.lens_kl[0].size} tokens. Of the last layer's "
            f"stream it is {number(float(once[-1]), 3)} nats. The stream behind the final norm, "
            "which transformers gives as its last hidden state, is normed twice by the lens: "
            f"{number(float(twice[-1]), 3)} nats at the last layer, and more than the right lens "
            f"in {number(measurements['double_norm_layers'].value)} of {len(once)} layers."
        ),
        x_label="layer",
        y_label="KL (nats)",
        series=(_line("of the stream", once), _line("normed twice", twice)),
    )


def _line(label: str, values: np.ndarray) -> present.Series:
    return present.Series(label, list(range(len(values))), values.tolist())
