"""The findings of the representation analysis: sentences that change with their numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping

from lab import present
from lab.contract import Measurement
from lab.representation_analysis.measured import Observations

NEAR, FAR = 0.05, 2.0  # relative change that is called none; factor that is called large
CLOSE = 0.7  # rank correlation or cosine from which a sentence says so
LOOSE = 0.3  # mean cosine below which directions are called unlike
GAP = 0.1  # difference of two CKA that is called one
LEAST = 1e-9  # a standard error below this is rounding

Measurements = Mapping[str, Measurement]


def findings(observations: Observations, measurements: Measurements) -> list[str]:
    """Return the sentences that the measurements support."""
    return [
        _growth_finding(observations, measurements),
        _massive_finding(measurements),
        _control_finding(measurements),
        _zeroed_finding(observations, measurements),
        _position_finding(measurements),
        _write_finding(observations, measurements),
        _ablation_finding(observations, measurements),
        _attribution_finding(measurements),
        _lens_finding(observations, measurements),
        _similarity_finding(observations, measurements),
        _similarity_control_finding(measurements),
    ]


def _growth_finding(observations: Observations, measurements: Measurements) -> str:
    without = measurements["norm_growth"]
    direction = "grows" if without.number > 1 else "does not grow"
    return (
        f"Without the first token the stream {direction} from layer to layer: from depth 1 on by "
        f"{stated(without)} times a layer; it is longer behind "
        f"{measurements['norm_growing_steps'].value} of {observations.layers} layers than before "
        "them. With the first token it is "
        f"{stated(measurements['norm_growth_with_first_token'])} times; that token is up to "
        f"{stated(measurements['first_token_norm_ratio'])} times as long as the mean of the others."
    )


def _massive_finding(measurements: Measurements) -> str:
    layers = int(measurements["massive_layers"].number)
    if not layers:
        return (
            "No layer's largest activation is massive, above 100 and above 1000 times the median, "
            "in the mean over sequences."
        )
    share = measurements["massive_at_first_token"]
    place = "all of them at the first token"
    if share.value is None or share.number < 1:
        place = f"{_percent(share)} of them at the first token"
    return (
        f"The outputs of {present.count(layers, 'layer')} in a row, from layer "
        f"{measurements['massive_onset_layer'].value} on, have a massive activation, up to "
        f"{stated(measurements['massive_value'])}. All massive activations are in "
        f"{present.count(int(measurements['massive_dimensions'].number), 'dimension')}, {place}. "
        "The largest number of the first such layer is "
        f"{stated(measurements['massive_onset_jump'])} times that of the layer before."
    )


def _control_finding(measurements: Measurements) -> str:
    count = int(measurements["massive_random_weights"].number)
    verdict = "training made them"
    if count or not measurements["massive_layers"].number:
        verdict = "so this text says nothing about training"
    return (
        f"With random weights {present.number(count)} numbers of the stream are massive: {verdict}."
    )


def _zeroed_finding(observations: Observations, measurements: Measurements) -> str:
    zeroed, mean = measurements["zeroed_ratio"], measurements["mean_ratio"]
    needs = zeroed.number > FAR
    is_bias = abs(mean.number - 1) < NEAR
    verdict = "the model does not need this number"
    if needs and is_bias:
        verdict = "the model needs this number, but not what it says about the text"
    elif needs:
        verdict = "the model needs this number, and its mean is not enough"
    return (
        f"Dimension {measurements['massive_dimension'].value} of the first token set to 0 "
        f"multiplies the perplexity of other text, {stated(measurements['perplexity_base'])}, by "
        f"{stated(zeroed)}; set to its mean, by {stated(mean)}: {verdict}. "
        f"Of {observations.plan.dimensions} other dimensions, which hold no massive number, set to "
        "0, the one that changes most multiplies it by "
        f"{stated(measurements['other_dimension_ratio'])}."
    )


def _position_finding(measurements: Measurements) -> str:
    kinds = {
        "word starts": "norm_word_start",
        "word insides": "norm_inside_word",
        "digits": "norm_digit",
        "punctuation": "norm_punctuation",
        "blanks": "norm_blank",
    }
    listed = [f"{kind} {stated(measurements[name])}" for kind, name in kinds.items()]
    return (
        "Among tokens that are neither the first nor of huge norm, those of the second half of the "
        f"text are {stated(measurements['norm_late_positions'])} times as long as those of the "
        f"first half. Length by kind, against the mean of all: {', '.join(listed)}."
    )


def _write_finding(observations: Observations, measurements: Measurements) -> str:
    is_alike = abs(measurements["write_cosine"].number) > LOOSE
    verdict = "the first layer rewrites the embedding"
    if measurements["embedding_cosine"].number > CLOSE:
        verdict = "the first layer keeps the embedding"
    by_layer = observations.writes.cosine[..., 1:].mean((0, 2), dtype="float64")  # [L]
    lowest, highest = (present.number(float(end), 2) for end in (by_layer.min(), by_layer.max()))
    return (
        f"The MLP writes more than attention in {measurements['mlp_larger_layers'].value} of "
        f"{observations.layers} layers. The directions of the two are "
        f"{'alike' if is_alike else 'unlike'}, mean cosine {stated(measurements['write_cosine'])}, "
        f"by layer from {lowest} to {highest}; the cosine of the stream before and behind layer 0 "
        f"is {stated(measurements['embedding_cosine'])}: {verdict}."
    )


def _ablation_finding(observations: Observations, measurements: Measurements) -> str:
    rho = measurements["norm_ablation_correlation"]
    verdict = "the length of a write does not tell what it is worth"
    if rho.number >= CLOSE:
        verdict = "long writes are those that the model needs"
    elif _is_clear(rho):
        verdict = "the length of a write tells little of what it is worth"
    return (
        f"In texts of {observations.plan.test_length} tokens, one write that is replaced by its "
        f"mean costs {stated(measurements['attention_rise'])} nats/token if it is attention's and "
        f"{stated(measurements['mlp_rise'])} if it is an MLP's, means over layers; the two of "
        f"layer {measurements['costliest_layer'].value} cost most, their sum is "
        f"{stated(measurements['costliest_rise'])}. Over all writes the rank correlation of length "
        f"with cost is {stated(rho)}: {verdict}."
    )


def _attribution_finding(measurements: Measurements) -> str:
    rho = measurements["attribution_ablation_correlation"]
    verdict = "what a write adds directly is not what it is worth either"
    if rho.number >= CLOSE:
        verdict = "what a write adds directly is what it is worth"
    elif _is_clear(rho):
        verdict = "what a write adds directly is part of what it is worth"
    return (
        "To the logit of the right token over the mean logit, all attention together adds "
        f"{stated(measurements['attention_attribution'])} directly, all MLPs "
        f"{stated(measurements['mlp_attribution'])}, the embedding "
        f"{stated(measurements['embedding_attribution'])}. Over all writes the rank correlation of "
        f"this part with cost is {stated(rho)}: {verdict}."
    )


def _lens_finding(observations: Observations, measurements: Measurements) -> str:
    rho = measurements["lens_agreement_depth"]
    rises = int(measurements["lens_kl_rises"].number)
    verdict = "it does not come nearer with depth"
    if rho.number > CLOSE:
        verdict = "it comes nearer with depth"
        if rises:
            verdict += ", but not steadily"
    return (
        "The logit lens has the model's first choice for "
        f"{_percent(measurements['lens_agreement_middle'])} of tokens in the middle of the model "
        f"and for {_percent(measurements['lens_agreement_before_last'])} before the last layer, "
        f"rank correlation with depth {stated(rho)}. Its KL rises in {rises} of "
        f"{present.count(observations.layers, 'step')} and is highest at depth "
        f"{measurements['lens_kl_highest_depth'].value}, embedding apart: {verdict}."
    )


def _similarity_finding(observations: Observations, measurements: Measurements) -> str:
    outliers = measurements["cka_outlier_gap"].number
    first = measurements["cka_first_token_gap"].number
    verdict = "the likeness is not that of a few tokens"
    if outliers > GAP and first < GAP:
        verdict = "a few tokens make the layers look alike, and not the first ones alone"
    elif outliers > GAP:
        verdict = "the first tokens make the layers look alike"
    pair = observations.plan.pair
    return (
        f"CKA of the outputs of layers {pair[0]} and {pair[1]} is "
        f"{stated(measurements['cka_raw'])} with all tokens, "
        f"{stated(measurements['cka_without_first'])} without the first ones and "
        f"{stated(measurements['cka_without_outliers'])} without the "
        f"{present.count(int(measurements['outlier_tokens'].number), 'token')} of huge norm, "
        f"{measurements['outlier_tokens_behind_first'].value} of them not first: {verdict}."
    )


def _similarity_control_finding(measurements: Measurements) -> str:
    control = measurements["cka_random_weights"]
    is_less = control.number < measurements["cka_without_outliers"].number
    verdict = "more" if is_less else "less"
    return (
        f"With random weights it is {stated(control)} with all tokens: without those of huge norm "
        f"the trained layers are {verdict} alike than random ones. With the other tokens of one "
        f"layer in another order it is {stated(measurements['cka_shuffled'])}, which is what "
        "tokens that have nothing to do with each other give. Embedding and last layer have "
        f"{stated(measurements['cka_first_to_last'])}."
    )


def stated(measurement: Measurement) -> str:
    """Return value and standard error, to the digits that the error leaves: `24,000 ± 400`.

    The error has one digit, or two if the first is a 1; the value ends where the error does.
    """
    error = measurement.stderr or 0.0
    if measurement.value is None or error < LEAST:
        return present.number(measurement.value)
    place = math.floor(math.log10(error))  # of the error's first digit
    if error < 2 * 10.0**place:
        place -= 1
    decimals = max(0, -place)
    shown = (f"{round(number, -place):,.{decimals}f}" for number in (measurement.number, error))
    return " ± ".join(shown)


def _is_clear(measurement: Measurement) -> bool:
    """Return whether a number is above 0 by more than two standard errors."""
    return measurement.number > 2 * (measurement.stderr or 0.0)


def _percent(measurement: Measurement) -> str:
    """Return a share as percent: `35.2 %`."""
    if measurement.value is None:
        return "not measured"
    return f"{present.number(100 * measurement.number, 3)} %"
