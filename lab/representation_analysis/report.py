"""The findings of the representation analysis: sentences that change with their numbers."""

from __future__ import annotations

from collections.abc import Mapping

from lab import present
from lab.contract import Measurement
from lab.representation_analysis.measured import AnalysisPlan

NEAR, FAR = 0.05, 2.0  # relative change that is called none; factor that is called large
CLOSE, LOOSE = 0.7, 0.3  # rank correlations from which a sentence says so
GAP = 0.1  # difference of two CKA that is called one

Measurements = Mapping[str, Measurement]


def findings(plan: AnalysisPlan, measurements: Measurements) -> list[str]:
    """Return the sentences that the measurements support."""
    return [
        _growth_finding(measurements),
        _massive_finding(measurements),
        _control_finding(measurements),
        _zeroed_finding(plan, measurements),
        _position_finding(measurements),
        _write_finding(measurements),
        _ablation_finding(plan, measurements),
        _attribution_finding(measurements),
        _lens_finding(measurements),
        _similarity_finding(plan, measurements),
        _similarity_control_finding(measurements),
    ]


def _growth_finding(measurements: Measurements) -> str:
    without = measurements["norm_growth"]
    with_first = measurements["norm_growth_with_first_token"]
    direction = "grows" if without.number > 1 else "does not grow"
    return (
        f"Without the first token the stream {direction} from layer to layer: "
        f"{present.quantity(without)}, in {measurements['norm_growing_steps'].value} steps up. "
        f"With it one would read {present.quantity(with_first)}; the first token is up to "
        f"{present.quantity(measurements['first_token_norm_ratio'])} as long as the mean of the "
        "others."
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
        f"{present.quantity(measurements['massive_value'])}. All massive activations are in "
        f"{present.count(int(measurements['massive_dimensions'].number), 'dimension')}, {place}. "
        "Against the layer before, the largest number is "
        f"{present.quantity(measurements['massive_onset_jump'])} as large."
    )


def _control_finding(measurements: Measurements) -> str:
    count = int(measurements["massive_random_weights"].number)
    verdict = "training made them"
    if count or not measurements["massive_layers"].number:
        verdict = "so this text says nothing about training"
    return (
        f"With random weights {present.number(count)} numbers of the stream are massive: {verdict}."
    )


def _zeroed_finding(plan: AnalysisPlan, measurements: Measurements) -> str:
    zeroed, mean = measurements["zeroed_ratio"], measurements["mean_ratio"]
    other = measurements["other_dimension_ratio"]
    needs = zeroed.number > FAR
    is_bias = abs(mean.number - 1) < NEAR
    verdict = "the model does not need this number"
    if needs and is_bias:
        verdict = "the model needs this number, but not what it says about the text"
    elif needs:
        verdict = "the model needs this number, and its mean is not enough"
    return (
        f"Dimension {measurements['massive_dimension'].value} of the first token set to 0 "
        "multiplies the perplexity of other text, "
        f"{present.quantity(measurements['perplexity_base'])}, by {present.quantity(zeroed)}; set "
        f"to its mean, by {present.quantity(mean)}: {verdict}. "
        f"Of {plan.dimensions} other dimensions set to 0, the one that changes most gives "
        f"{present.quantity(other)}."
    )


def _position_finding(measurements: Measurements) -> str:
    late = measurements["norm_late_positions"]
    kinds = {
        "word starts": "norm_word_start",
        "word insides": "norm_inside_word",
        "digits": "norm_digit",
        "punctuation": "norm_punctuation",
        "blanks": "norm_blank",
    }
    stated = [f"{kind} {present.number(measurements[name].value)}" for kind, name in kinds.items()]
    return (
        "Among tokens that are neither the first nor an outlier, those of the second half of the "
        f"text are {present.quantity(late)} as long as those of the first. Length by kind, against "
        f"all of them: {', '.join(stated)}."
    )


def _write_finding(measurements: Measurements) -> str:
    is_alike = abs(measurements["write_cosine"].number) > LOOSE
    cosine = measurements["embedding_cosine"]
    verdict = "the first layer rewrites the embedding"
    if cosine.number > CLOSE:
        verdict = "the first layer keeps the embedding"
    return (
        f"The MLP writes more than attention in {measurements['mlp_larger_layers'].value} layers. "
        f"The directions of the two are {'alike' if is_alike else 'unlike'}, mean cosine "
        f"{_plain('write_cosine', measurements)}; the cosine of the stream before and behind layer "
        f"0 is {_plain('embedding_cosine', measurements)}: {verdict}."
    )


def _ablation_finding(plan: AnalysisPlan, measurements: Measurements) -> str:
    rho = measurements["norm_ablation_correlation"]
    verdict = "the length of a write does not tell what it is worth"
    if rho.number >= CLOSE:
        verdict = "long writes are those that the model needs"
    elif rho.number >= LOOSE:
        verdict = "the length of a write tells little of what it is worth"
    return (
        f"In texts of {plan.test_length} tokens, a write of attention that is replaced by its mean "
        "costs "
        f"{present.quantity(measurements['attention_rise'])} and one of an MLP "
        f"{present.quantity(measurements['mlp_rise'])}, means over layers; the writes of layer "
        f"{measurements['costliest_layer'].value} cost most, together "
        f"{present.quantity(measurements['costliest_rise'])}. The rank correlation of a write's "
        f"length with its cost is {_plain('norm_ablation_correlation', measurements)}: {verdict}."
    )


def _attribution_finding(measurements: Measurements) -> str:
    rho = measurements["attribution_ablation_correlation"]
    verdict = "what a write adds directly is not what it is worth either"
    if rho.number >= CLOSE:
        verdict = "what a write adds directly is what it is worth"
    elif rho.number >= LOOSE:
        verdict = "what a write adds directly is part of what it is worth"
    return (
        "To the logit of the right token over the mean logit, attention adds "
        f"{present.quantity(measurements['attention_attribution'])} directly, the MLPs "
        f"{present.quantity(measurements['mlp_attribution'])}, the embedding "
        f"{present.quantity(measurements['embedding_attribution'])}. The rank correlation of this "
        "part with the cost of a write is "
        f"{_plain('attribution_ablation_correlation', measurements)}: {verdict}."
    )


def _lens_finding(measurements: Measurements) -> str:
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
        f"rank correlation with depth {_plain('lens_agreement_depth', measurements)}. Its KL rises "
        f"in {present.count(rises, 'step')} and is highest at depth "
        f"{measurements['lens_kl_highest_depth'].value}, embedding apart: {verdict}."
    )


def _similarity_finding(plan: AnalysisPlan, measurements: Measurements) -> str:
    outliers = measurements["cka_outlier_gap"].number
    first = measurements["cka_first_token_gap"].number
    verdict = "the likeness is not that of a few tokens"
    if outliers > GAP and first < GAP:
        verdict = "a few tokens make the layers look alike, and not the first ones alone"
    elif outliers > GAP:
        verdict = "the first tokens make the layers look alike"
    return (
        f"CKA of the outputs of layers {plan.pair[0]} and {plan.pair[1]} is "
        f"{present.quantity(measurements['cka_raw'])} with all tokens, "
        f"{present.quantity(measurements['cka_without_first'])} without the first ones and "
        f"{present.quantity(measurements['cka_without_outliers'])} without the "
        f"{present.count(int(measurements['outlier_tokens'].number), 'token')} of huge norm, "
        f"{measurements['outlier_tokens_behind_first'].value} of them not first: {verdict}."
    )


def _similarity_control_finding(measurements: Measurements) -> str:
    control = measurements["cka_random_weights"]
    shuffled = measurements["cka_shuffled"]
    is_less = control.number < measurements["cka_without_outliers"].number
    verdict = (
        "more than random layers are alike" if is_less else "layers are less alike than random ones"
    )
    return (
        f"With random weights it is {present.quantity(control)}: {verdict}. With the tokens of one "
        f"layer in another order it is {present.quantity(shuffled)}. Embedding and last layer have "
        f"{present.quantity(measurements['cka_first_to_last'])}."
    )


def _plain(name: str, measurements: Measurements) -> str:
    """Return value and standard error without unit and n."""
    measurement = measurements[name]
    text = present.number(measurement.value)
    if measurement.stderr is not None:
        text += f" ± {present.number(measurement.stderr, 2)}"
    return text


def _percent(measurement: Measurement) -> str:
    """Return a share as percent: `35.2 %`."""
    if measurement.value is None:
        return "not measured"
    return f"{present.number(100 * measurement.number, 3)} %"
