"""FEAT-014's words, written again from the recomputed numbers: findings, captions, titles, labels.

Whole sentences are compared, so that a verdict, a label or a number in another place is seen.
"""

from __future__ import annotations

from typing import Any

from gates.activation_extraction import arrays
from gates.shared.documents import written
from gates.shared.stored import config

TABLES = (
    (
        "Layers: mean length of a token's vector, and what the lens says",
        [
            "layer",
            "stream",
            "attention's write",
            "MLP's write",
            "stream, first token",
            "error of the sum",
            "lens (nats)",
            "lens, normed twice (nats)",
        ],
    ),
    (
        "Families: largest errors",
        [
            "family",
            "sum, float32",
            "sum, float64",
            "resid_mid, float64",
            "lens (logits)",
            "sum without attention",
        ],
    ),
    (
        "The model in other forms",
        ["form", "error of the sum", "change of the last layer's output"],
    ),
)
FIGURES = ("identity", "lengths", "lens")


def mebibytes(count: int) -> str:
    """Return bytes as people read them: 540.0 MiB."""
    for name, size in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if count >= size:
            return f"{written(count / size, 4)} {name}"
    return f"{count} bytes"


def findings() -> list[str]:
    """Return the findings, in their order."""
    v = arrays.values()
    return [
        _of_identity(v),
        _of_hidden_states(v),
        _of_lens(v),
        _of_families(v),
        _of_forms(v),
        _of_statistics(v),
        _of_guards(v),
    ]


def _of_identity(v: dict[str, Any]) -> str:
    verdict = "is the stream" if v["residual_error"] < 1e-6 else "is NOT the stream"
    seen = "shows" if v["misplaced_error"] > 0.01 else "does NOT show"
    return (
        f"After each layer the stream differs from what entered plus both writes by at most "
        f"{written(v['residual_error'])} of its length: the sum {verdict}. Read behind the input "
        f"norm, it would be off by at least {written(v['misplaced_error'])}, which {seen} in every "
        "layer."
    )


def _of_hidden_states(v: dict[str, Any]) -> str:
    is_stream = v["hidden_states_error"] == 0 and v["final_norm_error"] == 0
    verdict = "they are NOT the stream"
    if is_stream:
        verdict = "the last one alone is behind the final norm"
    return (
        f"transformers' hidden states differ from what enters the layers by "
        f"{written(v['hidden_states_error'])}, the last one from what leaves the last layer by "
        f"{written(v['last_hidden_state_gap'])} and from its norm by "
        f"{written(v['final_norm_error'])}: {verdict}."
    )


def _of_lens(v: dict[str, Any]) -> str:
    sample = arrays.recomputed()["numbers"]["double_norm_kl"]
    verdict = "is the model" if v["lens_kl_last"] < 1e-6 else "is NOT the model"
    trap = "wrong" if v["double_norm_kl"] > 0.1 else "hardly noticed"
    unchanged = "left the logits the same bit for bit"
    if v["logits_change"] != 0:
        unchanged = f"CHANGED the logits by up to {written(v['logits_change'])}"
    return (
        f"The lens of the last layer is {written(v['lens_kl_last'])} nats from the model's own "
        f"prediction: the lens {verdict}. Normed twice it is {written(sample['value'], 4)} ± "
        f"{written(sample['stderr'], 2)} nats (n = {sample['n']}) away: {trap}. And recording "
        f"{unchanged}."
    )


def _of_families(v: dict[str, Any]) -> str:
    return (
        f"All identities hold in {v['families_with_identity']} of {v['families']} families: off "
        f"by at most {written(v['residual_error_families'])} in float32 and "
        f"{written(v['residual_error_families_float64'])} in float64. Without attention's write "
        f"the same sum is off by at least {written(v['families_without_attention'])}."
    )


def _of_forms(v: dict[str, Any]) -> str:
    silence = "writes nothing"
    if v["silent_write"] != 0:
        silence = f"WRITES up to {written(v['silent_write'])}"
    return (
        f"In other forms of the model the sum is off by {written(v['residual_error_nf4'])} (NF4), "
        f"{written(v['residual_error_adapter'])} (with an adapter) and "
        f"{written(v['residual_error_bfloat16'])} (bfloat16, which keeps 8 bits). A layer that was "
        f"made silent {silence}; every other layer writes "
        f"{written(v['silent_least_other_write'])} or more."
    )


def _of_statistics(v: dict[str, Any]) -> str:
    return (
        f"Running statistics differ from those of kept tensors by at most "
        f"{written(v['statistics_error'])} of their size, and {v['extremes_misplaced']} extremes "
        f"are elsewhere. For 2,048 tokens they take {mebibytes(v['statistics_bytes_2048'])}, the "
        f"tensors {mebibytes(v['tensor_bytes_2048'])}."
    )


def _of_guards(v: dict[str, Any]) -> str:
    refusals = [value for name, value in v.items() if name.endswith("_refused")]
    return (
        f"{refusals.count(True)} of {len(refusals)} misuses are refused, {v['hooks_left']} hooks "
        f"are left after a pass that raised, and a pass that was ended early computed "
        f"{v['stop_layers_run']} of {v['layers_recorded']} layers."
    )


def figures() -> dict[str, dict[str, Any]]:
    """Return figure -> title, caption, axes, scale of y, and styles of its lines."""
    lines = arrays.recomputed()["figures"]
    v = arrays.values()
    stream, first = lines["lengths"]["stream"], lines["lengths"]["stream, first token"]
    longest = max(range(len(first)), key=lambda layer: (first[layer], -layer))
    once, twice = lines["lens"].values()
    return {
        "identity": {
            "title": "Is the stream what entered plus both writes?",
            "caption": (
                "Largest error of a token in each layer, as a share of the stream's length: at "
                f"most {written(max(lines['identity']['float32']))} in float32, at least "
                f"{written(min(lines['identity']['read behind the input norm']))} where the "
                "stream is read behind the input norm, a control."
            ),
            "x_label": "layer",
            "y_label": "error (share of the length)",
            "y_scale": "log",
            "styles": ["solid"] * 4,
        },
        "lengths": {
            "title": "How long are the stream and what is written to it?",
            "caption": (
                "Mean length of a token's vector, the first token left out; the first token's "
                f"stream is drawn apart: it is longest after layer {longest}, "
                f"{written(first[longest] / stream[longest])} times as long as the others."
            ),
            "x_label": "layer",
            "y_label": "mean length",
            "y_scale": "log",
            "styles": ["solid"] * 3 + ["dashed"],
        },
        "lens": {
            "title": "How far is the lens from the model's own prediction?",
            "caption": (
                f"Mean KL over {_tokens_of_lens()} tokens. Of the last layer's stream it is "
                f"{written(once[-1])} nats. The stream behind the final norm, which transformers "
                "gives as its last hidden state, is normed twice by the lens: "
                f"{written(twice[-1])} nats at the last layer, and more than the right lens in "
                f"{v['double_norm_layers']} of {len(once)} layers."
            ),
            "x_label": "layer",
            "y_label": "KL (nats)",
            "y_scale": "linear",
            "styles": ["solid"] * 2,
        },
    }


def _tokens_of_lens() -> int:
    return int(config()["texts"]["count"]) * len(config()["positions"])
