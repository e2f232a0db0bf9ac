"""FEAT-015's sentences, written again from the recomputed numbers.

Whole sentences are compared, so that a verdict, a label or a number in another place is seen.
"""

from __future__ import annotations

from typing import Any

from gates.representation_analysis import arrays
from gates.shared.documents import NUMBER, PRECISION, stated_numbers
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
    if NUMBER.sub("#", actual) != NUMBER.sub("#", expected):
        return False
    if [n for n in NUMBER.findall(actual) if n.isdigit()] != [
        n for n in NUMBER.findall(expected) if n.isdigit()
    ]:
        return False
    pairs = zip(stated_numbers(actual), stated_numbers(expected), strict=True)
    return all(abs(a - b) <= PRECISION * abs(b) for a, b in pairs)


#### numbers as reports write them


def written(value: float | None, digits: int = 3) -> str:
    """Return a number to `digits` significant digits: 2.22 · 1.00e-05 · 0 · not measured."""
    if value is None:
        return "not measured"
    if isinstance(value, int):
        return f"{value:,}"
    size = abs(value)
    if size == 0:
        return "0"
    if size < 1e-3 or size >= 1e6:
        return f"{value:.{digits - 1}e}"
    if size < 1:
        return f"{value:#.{digits}g}"
    return f"{value:,.{max(0, digits - len(str(int(size))))}f}"


def percent(share: float | None) -> str:
    """Return a share in percent: 35.2 %."""
    return "not measured" if share is None else f"{written(100.0 * float(share))} %"


def counted(number: int, noun: str) -> str:
    """Return `1 layer`, `2 layers`."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def _value(name: str) -> Any:
    return arrays.values()[name]


def _plain(name: str) -> str:
    """Return value and standard error: 2.222 ± 0.34."""
    fields = arrays.measurements()[name]
    text = written(fields["value"], 4)
    return text if fields["stderr"] is None else f"{text} ± {written(fields['stderr'], 2)}"


def _quantity(name: str) -> str:
    """Return value, standard error, unit and n: 2.222 ± 0.34 nats/token (n = 4)."""
    fields = arrays.measurements()[name]
    text = _plain(name)
    if UNITS[name]:
        text += f" {UNITS[name]}"
    if fields["n"] is not None:
        text += f" (n = {fields['n']})"
    return text


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
        f"Without the first token the stream {verdict} from layer to layer: "
        f"{_quantity('norm_growth')}, in {_value('norm_growing_steps')} steps up. With it one "
        f"would read {_quantity('norm_growth_with_first_token')}; the first token is up to "
        f"{_quantity('first_token_norm_ratio')} as long as the mean of the others."
    )


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
        f"{_quantity('massive_value')}. All massive activations are in "
        f"{counted(_value('massive_dimensions'), 'dimension')}, {where} at the first token. "
        f"Against the layer before, the largest number is {_quantity('massive_onset_jump')} as "
        "large."
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
        f"perplexity of other text, {_quantity('perplexity_base')}, by "
        f"{_quantity('zeroed_ratio')}; set to its mean, by {_quantity('mean_ratio')}: {verdict}. "
        f"Of {config()['interventions']['dimensions']} other dimensions set to 0, the one that "
        f"changes most gives {_quantity('other_dimension_ratio')}."
    )


def _of_tokens() -> str:
    kinds = {
        "word starts": "norm_word_start",
        "word insides": "norm_inside_word",
        "digits": "norm_digit",
        "punctuation": "norm_punctuation",
        "blanks": "norm_blank",
    }
    listed = ", ".join(f"{kind} {written(_value(name), 4)}" for kind, name in kinds.items())
    return (
        "Among tokens that are neither the first nor an outlier, those of the second half of the "
        f"text are {_quantity('norm_late_positions')} as long as those of the first. Length by "
        f"kind, against all of them: {listed}."
    )


def _of_writes() -> str:
    directions = "alike" if abs(_value("write_cosine")) > LOOSE else "unlike"
    verdict = "keeps" if _value("embedding_cosine") > CLOSE else "rewrites"
    return (
        f"The MLP writes more than attention in {_value('mlp_larger_layers')} layers. The "
        f"directions of the two are {directions}, mean cosine {_plain('write_cosine')}; the cosine "
        f"of the stream before and behind layer 0 is {_plain('embedding_cosine')}: the first layer "
        f"{verdict} the embedding."
    )


def _of_ablation() -> str:
    rho = _value("norm_ablation_correlation")
    verdict = "the length of a write does not tell what it is worth"
    if rho >= LOOSE:
        verdict = "the length of a write tells little of what it is worth"
    if rho >= CLOSE:
        verdict = "long writes are those that the model needs"
    return (
        f"In texts of {config()['test']['length']} tokens, a write of attention that is replaced "
        f"by its mean costs {_quantity('attention_rise')} and one of an MLP "
        f"{_quantity('mlp_rise')}, means over layers; the writes of layer "
        f"{_value('costliest_layer')} cost most, together {_quantity('costliest_rise')}. The rank "
        f"correlation of a write's length with its cost is {_plain('norm_ablation_correlation')}: "
        f"{verdict}."
    )


def _of_attribution() -> str:
    rho = _value("attribution_ablation_correlation")
    verdict = "is not what it is worth either"
    if rho >= LOOSE:
        verdict = "is what it is worth" if rho >= CLOSE else "is part of what it is worth"
    return (
        "To the logit of the right token over the mean logit, attention adds "
        f"{_quantity('attention_attribution')} directly, the MLPs {_quantity('mlp_attribution')}, "
        f"the embedding {_quantity('embedding_attribution')}. The rank correlation of this part "
        f"with the cost of a write is {_plain('attribution_ablation_correlation')}: what a write "
        f"adds directly {verdict}."
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
        f"with depth {_plain('lens_agreement_depth')}. Its KL rises in {counted(rises, 'step')} "
        f"and is highest at depth {_value('lens_kl_highest_depth')}, embedding apart: {verdict}."
    )


def _of_similarity() -> str:
    first, second = config()["cka"]["layers"]
    verdict = "the likeness is not that of a few tokens"
    if _value("cka_outlier_gap") > 0.1:
        verdict = "the first tokens make the layers look alike"
        if _value("cka_first_token_gap") < 0.1:
            verdict = "a few tokens make the layers look alike, and not the first ones alone"
    return (
        f"CKA of the outputs of layers {first} and {second} is {_quantity('cka_raw')} with all "
        f"tokens, {_quantity('cka_without_first')} without the first ones and "
        f"{_quantity('cka_without_outliers')} without the "
        f"{counted(_value('outlier_tokens'), 'token')} of huge norm, "
        f"{_value('outlier_tokens_behind_first')} of them not first: {verdict}."
    )


def _of_its_controls() -> str:
    verdict = "layers are less alike than random ones"
    if _value("cka_random_weights") < _value("cka_without_outliers"):
        verdict = "more than random layers are alike"
    return (
        f"With random weights it is {_quantity('cka_random_weights')}: {verdict}. With the tokens "
        f"of one layer in another order it is {_quantity('cka_shuffled')}. Embedding and last "
        f"layer have {_quantity('cka_first_to_last')}."
    )
