"""The sentences of the activation study, made from its measurements."""

from __future__ import annotations

from collections.abc import Mapping

from lab.activation_extraction.numbers import IDENTITY
from lab.contract import Measurement
from lab.present.numbers import number, quantity

SEEN = 0.01  # share of the stream's length: what a wrong place must be off by
SAME = 1e-6  # nats
WRONG = 0.1  # nats


def findings(measurements: Mapping[str, Measurement]) -> tuple[str, ...]:
    """Return what the numbers say."""
    return (
        _of_identity(measurements),
        _of_hidden_states(measurements),
        _of_lens(measurements),
        _of_families(measurements),
        _of_forms(measurements),
        _of_statistics(measurements),
        _of_guards(measurements),
    )


def _shown(measurements: Mapping[str, Measurement], name: str) -> str:
    return number(measurements[name].value, 3)


def _of_identity(m: Mapping[str, Measurement]) -> str:
    verdict = "the sum is the stream"
    if m["residual_error"].number >= IDENTITY:
        verdict = "the sum is NOT the stream"
    control = "which shows in every layer"
    if m["misplaced_error"].number <= SEEN:
        control = "which does NOT show in every layer"
    return (
        f"After each layer the stream differs from what entered plus both writes by at most "
        f"{_shown(m, 'residual_error')} of its length: {verdict}. Read behind the input norm, it "
        f"would be off by at least {_shown(m, 'misplaced_error')}, {control}."
    )


def _of_hidden_states(m: Mapping[str, Measurement]) -> str:
    verdict = "the last one alone is behind the final norm"
    if m["hidden_states_error"].value != 0 or m["final_norm_error"].value != 0:
        verdict = "they are NOT the stream"
    return (
        f"transformers' hidden states differ from what enters the layers by "
        f"{_shown(m, 'hidden_states_error')}, the last one from what leaves the last layer by "
        f"{_shown(m, 'last_hidden_state_gap')} and from its norm by "
        f"{_shown(m, 'final_norm_error')}: {verdict}."
    )


def _of_lens(m: Mapping[str, Measurement]) -> str:
    verdict = "the lens is the model"
    if m["lens_kl_last"].number >= SAME:
        verdict = "the lens is NOT the model"
    trap = "wrong"
    if m["double_norm_kl"].number <= WRONG:
        trap = "hardly noticed"
    unchanged = "recording left the logits the same bit for bit"
    if m["logits_change"].value != 0:
        unchanged = f"recording CHANGED the logits by up to {_shown(m, 'logits_change')}"
    return (
        f"The lens of the last layer is {_shown(m, 'lens_kl_last')} nats from the model's own "
        f"prediction: {verdict}. Normed twice it is {quantity(m['double_norm_kl'])} away: {trap}. "
        f"And {unchanged}."
    )


def _of_families(m: Mapping[str, Measurement]) -> str:
    return (
        f"All identities hold in {_shown(m, 'families_with_identity')} of "
        f"{_shown(m, 'families')} families: off by at most {_shown(m, 'residual_error_families')} "
        f"in float32 and {_shown(m, 'residual_error_families_float64')} in float64. Without "
        f"attention's write the same sum is off by at least "
        f"{_shown(m, 'families_without_attention')}."
    )


def _of_forms(m: Mapping[str, Measurement]) -> str:
    verdict = "A layer that was made silent writes nothing"
    if m["silent_write"].value != 0:
        verdict = f"A layer that was made silent WRITES up to {_shown(m, 'silent_write')}"
    return (
        f"In other forms of the model the sum is off by {_shown(m, 'residual_error_nf4')} (NF4), "
        f"{_shown(m, 'residual_error_adapter')} (with an adapter) and "
        f"{_shown(m, 'residual_error_bfloat16')} (bfloat16, which keeps 8 bits). {verdict}; every "
        f"other layer writes {_shown(m, 'silent_least_other_write')} or more."
    )


def _of_statistics(m: Mapping[str, Measurement]) -> str:
    return (
        f"Running statistics differ from those of kept tensors by at most "
        f"{_shown(m, 'statistics_error')} of their size, and {_shown(m, 'extremes_misplaced')} "
        f"extremes are elsewhere. For 2,048 tokens they take "
        f"{quantity(m['statistics_bytes_2048'])}, the tensors {quantity(m['tensor_bytes_2048'])}."
    )


def _of_guards(m: Mapping[str, Measurement]) -> str:
    refusals = [name for name in m if name.endswith("_refused")]
    refused = sum(m[name].value is True for name in refusals)
    return (
        f"{refused} of {len(refusals)} misuses are refused, {_shown(m, 'hooks_left')} hooks are "
        f"left after a pass that raised, and a pass that was ended early computed "
        f"{_shown(m, 'stop_layers_run')} of {_shown(m, 'layers_recorded')} layers."
    )
