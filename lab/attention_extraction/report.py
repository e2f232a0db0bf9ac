"""The sentences of the extraction study, made from its measurements."""

from __future__ import annotations

from collections.abc import Mapping

from lab.attention_extraction.numbers import EPSILON, PARITY
from lab.contract import Measurement
from lab.present.numbers import number, quantity


def findings(measurements: Mapping[str, Measurement]) -> tuple[str, ...]:
    """Return what the numbers say."""
    m = measurements

    def shown(name: str, digits: int = 3) -> str:
        return number(m[name].value, digits)

    unchanged = "logits stayed the same bit for bit"
    if m["logits_change"].value != 0:
        unchanged = f"LOGITS CHANGED by up to {shown('logits_change')}"
    verdict = "rounding alone"
    if m["parity_float32"].number >= PARITY or m["parity_orders"].number < 4:
        verdict = "MORE THAN ROUNDING"
    # A difference below float64's own epsilon counts as that: the orders are then a lower bound.
    orders = f"{shown('parity_orders')} orders of magnitude"
    if m["parity_float64"].number < EPSILON:
        orders = f"at least {orders}"
    fetched = "mostly not fetched"
    if m["sink_value_ratio"].number >= 0.5:
        fetched = "FETCHED as much as from other tokens"
    alike = "more alike"
    if m["gqa_gap"].number <= 0:
        alike = "NOT more alike"
    return (
        f"Recorded weights differ from eager attention by at most {shown('parity_float32')} in "
        f"float32 and {shown('parity_float64')} in float64, {orders} less: {verdict}; "
        f"{unchanged}.",
        f"{shown('families_in_parity')} of {shown('families')} families are within "
        f"{number(PARITY, 2)}, sliding windows and soft-capping included; the worst differs by "
        f"{shown('parity_families')}.",
        f"In other forms the same model differs by {shown('parity_nf4')} (NF4), "
        f"{shown('parity_adapter')} (with an adapter) and {shown('parity_bfloat16')} (bfloat16, in "
        "which eager attention and sdpa round differently in every layer).",
        f"{shown('query_heads')} query heads share {shown('key_heads')} key heads: head h reads "
        f"key head h // {shown('group_size')}. The tiled order would be wrong by up to "
        f"{shown('tiled_error')} of a weight. Heads of a group are {alike} than others: cosine "
        f"{shown('gqa_same_group_cosine')} against {shown('gqa_other_group_cosine')}, sink "
        f"column left out.",
        f"Without the scale {shown('score_scale')} the scores would spread "
        f"{shown('score_deviation_unscaled')} instead of {shown('score_deviation_scaled')}, "
        f"and rows of attention keep {shown('entropy_unscaled')} of the largest entropy instead "
        f"of {shown('entropy_scaled')}.",
        f"Adding a constant to all positions changes weights by at most {shown('shift_change')}, "
        f"stretching them by up to {shown('stretch_change')}: RoPE sees distances.",
        f"The value at the first token is {shown('sink_value_ratio')} times as long as the "
        f"median value: what the sink is given is {fetched}.",
        f"{m['previous_token_head'].value} gives {shown('previous_token_share')} to the "
        f"previous token; without the rotation of q and k "
        f"{shown('previous_token_share_unrotated')}.",
        f"All patterns of one text of 2,048 tokens are {quantity(m['full_pattern_bytes_2048'])}, "
        f"their statistics {quantity(m['statistics_bytes_2048'])}.",
    )
