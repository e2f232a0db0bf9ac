"""FEAT-015's sentences, written again from the recomputed numbers.

Whole sentences are compared, so that a verdict, a label or a number in another place is seen.
"""

from __future__ import annotations

from typing import Any

from gates.representation_analysis import arrays
from gates.shared import documents
from gates.shared.documents import NUMBER, written
from gates.shared.stored import config

CLOSE, LOOSE = 0.7, 0.3  # rank correlations and cosines from which a sentence says so
UNITS = {
    "norm_growth": "times a layer",
    "norm_growth_with_first_token": "times a layer",
    "first_token_norm_ratio": "times",
    "norm_growing_steps": "layers",
    "massive_value": "",
    "massive_onset_jump": "times",
    "massive_at_first_token": "share",
    "massive_layers": "layers",
    "massive_onset_layer": "layer",
    "massive_dimension": "dimension",
    "massive_dimensions": "dimensions",
    "massive_random_weights": "numbers",
    "write_cosine": "cosine",
    "embedding_cosine": "cosine",
    "attention_attribution": "logits",
    "mlp_attribution": "logits",
    "embedding_attribution": "logits",
    "mlp_larger_layers": "layers",
    "norm_late_positions": "times",
    "norm_word_start": "times",
    "norm_inside_word": "times",
    "norm_digit": "times",
    "norm_punctuation": "times",
    "norm_blank": "times",
    "lens_agreement_depth": "rank correlation",
    "lens_agreement_middle": "share",
    "lens_agreement_before_last": "share",
    "lens_kl_rises": "steps",
    "lens_kl_highest_depth": "depth",
    "lens_kl_last": "nats",
    "perplexity_base": "",
    "zeroed_ratio": "times",
    "mean_ratio": "times",
    "other_dimension_ratio": "times",
    "attention_rise": "nats/token",
    "mlp_rise": "nats/token",
    "costliest_rise": "nats/token",
    "costliest_layer": "layer",
    "norm_ablation_correlation": "rank correlation",
    "attribution_ablation_correlation": "rank correlation",
    "cka_raw": "CKA",
    "cka_without_first": "CKA",
    "cka_without_outliers": "CKA",
    "cka_random_weights": "CKA",
    "cka_shuffled": "CKA",
    "cka_outlier_gap": "CKA",
    "cka_first_token_gap": "CKA",
    "cka_first_to_last": "CKA",
    "outlier_tokens": "tokens",
    "outlier_tokens_behind_first": "tokens",
}


def agree(actual: str, expected: str) -> bool:
    """Return whether two texts have the same words, and numbers that differ by their rounding.

    Digits alone, as of a layer or of 24 texts, are a count or a name and differ by nothing.
    """
    counts = [[n for n in NUMBER.findall(text) if n.isdigit()] for text in (actual, expected)]
    return counts[0] == counts[1] and documents.agree(actual, expected)


#### numbers as reports write them


def percent(share: float | None) -> str:
    """Return a share in percent: 35.2 %."""
    return "not measured" if share is None else f"{written(100.0 * float(share))} %"


def counted(number: int, noun: str) -> str:
    """Return `1 layer`, `2 layers`."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def _value(name: str) -> Any:
    return arrays.values()[name]


def stated(name: str) -> str:
    """Return value and standard error, both to the error's last digit: 24,000 ± 400.

    Of the error one digit is shown, and two if it begins with a 1; of a value without error, four.
    """
    fields = arrays.measurements()[name]
    value, error = fields["value"], fields["stderr"]
    if value is None or error is None or error < 1e-9:
        return written(value, 4)
    first, _, exponent = f"{error:.12e}".partition("e")
    last = int(exponent) - (1 if first.startswith("1") else 0)
    digits = 0 if last > 0 else -last
    return f"{round(value, -last):,.{digits}f} ± {round(error, -last):,.{digits}f}"


def _is_clear(name: str) -> bool:
    """Return whether an estimate is above 0 by more than two standard errors."""
    fields = arrays.measurements()[name]
    return bool(fields["value"] > 2 * (fields["stderr"] or 0))


#### findings


def findings() -> list[str]:
    """Return the findings but those of the probes, in their order."""
    return [
        _of_growth(),
        _of_massive_activations(),
        _of_random_weights(),
        _of_the_causal_test(),
        _of_tokens(),
        _of_writes(),
        _of_ablation(),
        _of_attribution(),
        _of_the_lens(),
        _of_similarity(),
        _of_its_controls(),
    ]


def _of_growth() -> str:
    verdict = "grows" if _value("norm_growth") > 1 else "does not grow"
    return (
        f"Without the first token the stream {verdict} from layer to layer: from depth 1 on by "
        f"{stated('norm_growth')} times a layer; it is longer behind "
        f"{_value('norm_growing_steps')} of {_layers()} layers than before them. With the first "
        f"token it is {stated('norm_growth_with_first_token')} times; that token is up to "
        f"{stated('first_token_norm_ratio')} times as long as the mean of the others."
    )


def _layers() -> int:
    return len(arrays.lengths(arrays.data())[0])


def _of_massive_activations() -> str:
    layers = _value("massive_layers")
    if layers == 0:
        return (
            "No layer's largest activation is massive, above 100 and above 1000 times the median, "
            "in the mean over sequences."
        )
    share = _value("massive_at_first_token")
    where = "all of them" if share == 1 else f"{percent(share)} of them"
    return (
        f"The outputs of {counted(layers, 'layer')} in a row, from layer "
        f"{_value('massive_onset_layer')} on, have a massive activation, up to "
        f"{stated('massive_value')}. All massive activations are in "
        f"{counted(_value('massive_dimensions'), 'dimension')}, {where} at the first token. The "
        f"largest number of the first such layer is {stated('massive_onset_jump')} times that of "
        "the layer before."
    )


def _of_random_weights() -> str:
    numbers = _value("massive_random_weights")
    is_made = numbers == 0 and _value("massive_layers") > 0
    verdict = "training made them" if is_made else "so this text says nothing about training"
    return f"With random weights {written(numbers)} numbers of the stream are massive: {verdict}."


def _of_the_causal_test() -> str:
    verdict = "the model does not need this number"
    if _value("zeroed_ratio") > 2:
        verdict = "the model needs this number, and its mean is not enough"
        if 0.95 < _value("mean_ratio") < 1.05:
            verdict = "the model needs this number, but not what it says about the text"
    return (
        f"Dimension {_value('massive_dimension')} of the first token set to 0 multiplies the "
        f"perplexity of other text, {stated('perplexity_base')}, by {stated('zeroed_ratio')}; set "
        f"to its mean, by {stated('mean_ratio')}: {verdict}. "
        f"Of {config()['interventions']['dimensions']} other dimensions, which hold no massive "
        "number, set to 0, the one that changes most multiplies it by "
        f"{stated('other_dimension_ratio')}."
    )


def _of_tokens() -> str:
    kinds = {
        "word starts": "norm_word_start",
        "word insides": "norm_inside_word",
        "digits": "norm_digit",
        "punctuation": "norm_punctuation",
        "blanks": "norm_blank",
    }
    listed = ", ".join(f"{kind} {stated(name)}" for kind, name in kinds.items())
    return (
        "Among tokens that are neither the first nor of huge norm, those of the second half of the "
        f"text are {stated('norm_late_positions')} times as long as those of the first half. "
        f"Length by kind, against the mean of all: {listed}."
    )


def _of_writes() -> str:
    directions = "alike" if abs(_value("write_cosine")) > LOOSE else "unlike"
    verdict = "keeps" if _value("embedding_cosine") > CLOSE else "rewrites"
    cosines = arrays.data()["writes.cosine"][:, :, 1:].mean((0, 2)).tolist()
    return (
        f"The MLP writes more than attention in {_value('mlp_larger_layers')} of {len(cosines)} "
        f"layers. The directions of the two are {directions}, mean cosine "
        f"{stated('write_cosine')}, by layer from {written(min(cosines), 2)} to "
        f"{written(max(cosines), 2)}; the cosine of the stream before and behind layer 0 is "
        f"{stated('embedding_cosine')}: the first layer {verdict} the embedding."
    )


def _of_ablation() -> str:
    verdict = "the length of a write does not tell what it is worth"
    if _is_clear("norm_ablation_correlation"):
        verdict = "the length of a write tells little of what it is worth"
    if _value("norm_ablation_correlation") >= CLOSE:
        verdict = "long writes are those that the model needs"
    return (
        f"In texts of {config()['test']['length']} tokens, one write that is replaced by its mean "
        f"costs {stated('attention_rise')} nats/token if it is attention's and "
        f"{stated('mlp_rise')} if it is an MLP's, means over layers; the two of layer "
        f"{_value('costliest_layer')} cost most, their sum is {stated('costliest_rise')}. Over all "
        f"writes the rank correlation of length with cost is "
        f"{stated('norm_ablation_correlation')}: {verdict}."
    )


def _of_attribution() -> str:
    rho = _value("attribution_ablation_correlation")
    verdict = "is not what it is worth either"
    if _is_clear("attribution_ablation_correlation"):
        verdict = "is part of what it is worth"
    if rho >= CLOSE:
        verdict = "is what it is worth"
    return (
        "To the logit of the right token over the mean logit, all attention together adds "
        f"{stated('attention_attribution')} directly, all MLPs {stated('mlp_attribution')}, the "
        f"embedding {stated('embedding_attribution')}. Over all writes the rank correlation of "
        f"this part with cost is {stated('attribution_ablation_correlation')}: what a write adds "
        f"directly {verdict}."
    )


def _of_the_lens() -> str:
    rises = _value("lens_kl_rises")
    verdict = "it does not come nearer with depth"
    if _value("lens_agreement_depth") > CLOSE:
        verdict = "it comes nearer with depth" + (", but not steadily" if rises else "")
    return (
        f"The logit lens has the model's first choice for "
        f"{percent(_value('lens_agreement_middle'))} of tokens in the middle of the model and for "
        f"{percent(_value('lens_agreement_before_last'))} before the last layer, rank correlation "
        f"with depth {stated('lens_agreement_depth')}. Its KL rises in {rises} of "
        f"{counted(_layers(), 'step')} and is highest at depth {_value('lens_kl_highest_depth')}, "
        f"embedding apart: {verdict}."
    )


def _of_similarity() -> str:
    first, second = config()["cka"]["layers"]
    verdict = "the likeness is not that of a few tokens"
    if _value("cka_outlier_gap") > 0.1:
        verdict = "the first tokens make the layers look alike"
        if _value("cka_first_token_gap") < 0.1:
            verdict = "a few tokens make the layers look alike, and not the first ones alone"
    return (
        f"CKA of the outputs of layers {first} and {second} is {stated('cka_raw')} with all "
        f"tokens, {stated('cka_without_first')} without the first ones and "
        f"{stated('cka_without_outliers')} without the "
        f"{counted(_value('outlier_tokens'), 'token')} of huge norm, "
        f"{_value('outlier_tokens_behind_first')} of them not first: {verdict}."
    )


def _of_its_controls() -> str:
    verdict = "less"
    if _value("cka_random_weights") < _value("cka_without_outliers"):
        verdict = "more"
    return (
        f"With random weights it is {stated('cka_random_weights')} with all tokens: without those "
        f"of huge norm the trained layers are {verdict} alike than random ones. With the other "
        f"tokens of one layer in another order it is {stated('cka_shuffled')}, which is what "
        "tokens that have nothing to do with each other give. Embedding and last layer have "
        f"{stated('cka_first_to_last')}."
    )
