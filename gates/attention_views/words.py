"""FEAT-011's sentences, written again from the recomputed numbers: findings and the page's facts.

Whole sentences are compared, so that a verdict, a label or a number in another place is seen.
"""

from __future__ import annotations

from typing import Any

from gates.attention_views import arrays
from gates.shared.documents import written
from gates.shared.stored import config

CLOSE, LOOSE = 0.6, 0.3  # rank correlations from which a sentence says so
SHARES = (
    "sink_share_early",
    "sink_share_late",
    "entropy_first_layer",
    "induction_score",
    "induction_score_mean",
    "induction_score_random_weights",
    "previous_score",
    "previous_score_random_weights",
)
UNITS = {
    **dict.fromkeys((*arrays.RATES, "sink_rate_second_token"), "%"),
    **dict.fromkeys(SHARES, "share"),
    "sink_late_over_early": "times",
    "sink_follows_norm": "rank correlation",
    "norm_ratio_highest": "times",
    "entropy_highest_layer": "layer",
    "distance_late": "tokens",
    "distance_late_without_sink": "tokens",
    "distance_late_ratio": "times",
    "layers_with_sink": "layers",
    "layers_nearer_without_sink": "layers",
    "induction_head": "",
    "induction_heads": "heads",
    "previous_head": "",
    "previous_head_before_induction": "",
    "loss_first_copy": "nats/token",
    "loss_second_copy": "nats/token",
    "copy_loss_ratio": "times",
    "loss_without_induction_heads": "nats/token",
    "loss_without_previous_head": "nats/token",
    "loss_without_random_heads": "nats/token",
    "random_sets_with_previous_head": "sets",
    "ablation_ratio": "times",
    "ablation_rise_ratio": "times",
}


def percent(share: float) -> str:
    """Return a share in percent: 35.2 %."""
    return f"{written(100 * float(share))} %"


def counted(number: int, noun: str) -> str:
    """Return `1 head`, `2 heads`."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def _value(name: str) -> Any:
    return arrays.values()[name]


def _share(name: str) -> str:
    return percent(_value(name))


def _quantity(name: str) -> str:
    """Return value, standard error, unit and n: 2.222 ± 0.34 nats/token (n = 4)."""
    fields = arrays.measurements()[name]
    text = written(fields["value"], 4)
    if fields["stderr"] is not None:
        text += f" ± {written(fields['stderr'], 2)}"
    text += f" {UNITS[name]}"
    if fields["n"] is not None:
        text += f" (n = {fields['n']})"
    return text


#### findings


def findings() -> list[str]:
    """Return the findings, in their order."""
    return [
        _of_the_first_token(),
        _of_controls(),
        _of_depth(),
        _of_the_residual(),
        _of_distance(),
        _of_induction(),
        _of_the_previous_token(),
        _of_ablation(),
        _of_the_circuit(),
    ]


def _of_the_first_token() -> str:
    verdict = "the first token is no sink"
    if _value("sink_rate") > _value("sink_rate_second_token"):
        verdict = "the sink is the first token, not the beginning of the text"
    return (
        f"On running text of {config()['sequences']['length']} tokens {_quantity('sink_rate')} of "
        f"the heads give the first token a mean share above {arrays.THRESHOLD}, and "
        f"{_quantity('sink_rate_second_token')} the second token: {verdict}."
    )


def _of_controls() -> str:
    half = _value("sink_rate") / 2
    content = "it is not about content"
    if _value("sink_rate_random_tokens") < half:
        content = "it needs text that means something"
    difference = "and it stays there"
    if _value("sink_rate_one_token") < half:
        difference = "where no token differs from another it vanishes"
    return (
        f"The same rate is {_quantity('sink_rate_random_tokens')} on random tokens: {content}. On "
        f"one token repeated it is {_quantity('sink_rate_one_token')}: {difference}. With random "
        f"weights it is {_quantity('sink_rate_random_weights')}."
    )


def _of_depth() -> str:
    layers = config()["layers"]
    times = _value("sink_late_over_early")
    verdict = "grows" if times > 1 else "does not grow"
    return (
        f"The mean share on the first token {verdict} with depth: {_share('sink_share_early')} in "
        f"the first {counted(layers['early'], 'layer')}, {_share('sink_share_late')} from layer "
        f"{layers['late']} on, {written(times)} times as much."
    )


def _of_the_residual() -> str:
    rho = _value("sink_follows_norm")
    verdict = "does not follow"
    if rho is not None and rho > LOOSE:
        verdict = "follows" if rho > CLOSE else "loosely follows"
    return (
        f"Over layers the sink share {verdict} the size of the first token's residual against the "
        f"median token's: rank correlation {written(rho)}; the residual is up to "
        f"{_quantity('norm_ratio_highest')} as large."
    )


def _of_distance() -> str:
    is_farther = _value("distance_late_without_sink") > _value("distance_late")
    return (
        f"From layer {config()['layers']['late']} on a head looks {_quantity('distance_late')} "
        f"back in the mean; without the first token {_quantity('distance_late_without_sink')}, "
        f"which is {'farther' if is_farther else 'nearer'}. This holds in "
        f"{_value('layers_nearer_without_sink')} of "
        f"{counted(_value('layers_with_sink'), 'layer')} with a sink share above "
        f"{100 * arrays.HIGH_SINK:.0f} %."
    )


def _of_induction() -> str:
    verdict = "training made them"
    if _value("induction_score") < 2 * _value("induction_score_random_weights"):
        verdict = "so there are none"
    return (
        f"{counted(_value('induction_heads'), 'head')} look at the token behind the last "
        "occurrence of the current one with a mean share above "
        f"{config()['thresholds']['induction']}; the most does {_value('induction_head')} with "
        f"{_share('induction_score')}. With random weights no head exceeds "
        f"{_share('induction_score_random_weights')}: {verdict}."
    )


def _of_the_previous_token() -> str:
    earlier = "no earlier layer has"
    if _value("previous_head_before_induction"):
        earlier = "an earlier layer has"
    return (
        f"{_value('previous_head')} looks most at the token just before, with "
        f"{_share('previous_score')} (random weights: {_share('previous_score_random_weights')}). "
        f"Induction needs such a head before it: {earlier} one above "
        f"{config()['thresholds']['previous']}."
    )


def _of_ablation() -> str:
    top = config()["ablation"]["heads"]
    ratio, rises = _value("ablation_ratio"), _value("ablation_rise_ratio")
    verdict = "the picture of these heads does not show what copying needs"
    if ratio > 2:
        verdict = "copying needs these heads more than any of the random sets"
    elif rises is not None and rises > 2:
        verdict = (
            f"copying needs these heads, with a rise {written(rises)} times that of the random "
            "sets in the mean, but one of the sets nearly as much"
        )
    return (
        f"The loss is {_quantity('loss_first_copy')} on a random sequence and "
        f"{_quantity('loss_second_copy')} on its copy. Without the {top} heads of the highest "
        f"induction scores it is {_quantity('loss_without_induction_heads')} there, without {top} "
        f"random others {_quantity('loss_without_random_heads')}. That is {written(ratio)} times "
        f"the largest of these: {verdict}."
    )


def _of_the_circuit() -> str:
    verdict = "copying does not hang on this single head"
    if _value("loss_without_previous_head") > 2 * _value("loss_second_copy"):
        verdict = "copying needs this head too, as it must if induction heads read what it writes"
    sets = _value("random_sets_with_previous_head")
    return (
        "Without the strongest previous-token head before the strongest induction head alone, the "
        f"loss on the copy is {_quantity('loss_without_previous_head')}: {verdict}. {sets} of "
        f"{config()['ablation']['draws']} random sets {'contains' if sets == 1 else 'contain'} "
        "this head."
    )


#### the page


def introduction(heads: int, model: str, texts: int) -> str:
    """Return the page's first sentences: what it shows, the controls, the causal test."""
    top = config()["ablation"]["heads"]
    return (
        f"All {heads} attention heads of {model} on {texts} texts. Choose a head in the grid, then "
        "point at a token to see which earlier tokens it reads. Controls: with random weights no "
        f"head has an induction score above {_share('induction_score_random_weights')}, and on "
        f"one token repeated {written(_value('sink_rate_one_token'))} % of the heads have a sink. "
        "Causal test: the loss on the second copy of a random sequence is "
        f"{written(_value('loss_second_copy'))} nats per token, without the {top} induction heads "
        f"{written(_value('loss_without_induction_heads'))}, without the previous-token head "
        f"before them {written(_value('loss_without_previous_head'))}, without {top} random heads "
        f"{written(_value('loss_without_random_heads'))} in the mean."
    )
