"""FEAT-014's numbers, tables and figures, recomputed from the stored arrays.

Code of its own, in numpy and float64.
"""

from __future__ import annotations

import math
from typing import Any

from gates.shared import outputs, stored
from gates.shared.stored import cached, config

FAMILIES = (
    "llama",
    "qwen2",
    "qwen3",
    "mistral",
    "gemma2",
    "gemma3_text",
    "olmo2",
    "phi3",
    "gpt2",
    "gpt_neox",
)
FORMS = ("bfloat16", "nf4", "adapter", "silent")
STREAM = ("resid_pre", "attn_out", "resid_mid", "mlp_out", "resid_post")
COUNTED = ("resid_post", "attn_out", "mlp_out")
STATISTICS = (
    "mean",
    "variance",
    "mean_norm",
    "mean_norm_without_first",
    "mean_median",
    "largest",
    "places",
)
GUARDS = {  # what guards.json says -> its unit
    "layers_recorded": "layers",
    "stop_layers_run": "layers",
    "checkpointing_refused": "",
    "second_pass_refused": "",
    "missing_pass_refused": "",
    "change_in_place_refused": "",
    "missing_position_refused": "",
    "hooks_left": "hooks",
}
UNITS = {
    "residual_error": "share",
    "mid_error": "share",
    "chain_error": "",
    "misplaced_error": "share",
    "hidden_states_error": "",
    "last_hidden_state_gap": "",
    "final_norm_error": "",
    "logits_change": "logits",
    "lens_error_last": "logits",
    "lens_kl_last": "nats",
    "double_norm_kl": "nats",
    "double_norm_layers": "layers",
    **{f"residual_error_{form}": "share" for form in FORMS},
    **{f"change_{form}": "share" for form in FORMS},
    "silent_write": "",
    "silent_least_other_write": "",
    "statistics_error": "share",
    "extremes_misplaced": "extremes",
    "tensor_bytes_2048": "bytes",
    "statistics_bytes_2048": "bytes",
    "families": "families",
    "families_with_identity": "families",
    "families_with_mid": "families",
    "residual_error_families": "share",
    "residual_error_families_float64": "share",
    "mid_error_families": "share",
    "chain_error_families": "",
    "lens_error_families": "logits",
    "families_without_attention": "share",
    **GUARDS,
    "stopped_error": "",
}
NAMES = tuple(UNITS)
FILES = (
    "artifacts/model.safetensors",
    "artifacts/logits.safetensors",
    "artifacts/statistics.safetensors",
    "artifacts/forms.safetensors",
    "artifacts/guards.json",
    *(f"artifacts/families/{name}.safetensors" for name in FAMILIES),
)
IDENTITY, IDENTITY_FLOAT64 = 1e-6, 1e-12


def recomputed() -> dict[str, Any]:
    """Return {"numbers", "tables", "figures"} as the gate computes them."""
    key = f"activation extraction {config()['stop_layer']} {config()['silent_layer']}"
    document: dict[str, Any] = cached(key, FILES, _recompute)
    return document


def values() -> dict[str, Any]:
    """Return name -> value of every measurement."""
    numbers = recomputed()["numbers"]
    return {
        name: number["value"] if isinstance(number, dict) else number
        for name, number in numbers.items()
    }


def guards() -> dict[str, Any]:
    """Return what the run says that the extractor refused and left behind."""
    document: dict[str, Any] = outputs.read_json("artifacts/guards.json")
    return document


def _recompute() -> dict[str, Any]:
    model = _wide("model")
    logits = _wide("logits")
    counted = _wide("statistics")
    forms = {form: part_of(_wide("forms"), form) for form in FORMS}
    rows = [_family_row(family) for family in FAMILIES]
    errors = {form: _sum_errors(stream).max(axis=1) for form, stream in forms.items()}
    errors["float32"] = _sum_errors(model).max(axis=1)
    errors["misplaced"] = _sum_errors(model | {"resid_pre": model["normed"]}).max(axis=1)
    changes = {form: _change(model, stream) for form, stream in forms.items()}
    numbers = {
        **_identities(model, errors),
        **_lens(model, logits),
        **{f"residual_error_{form}": float(errors[form].max()) for form in FORMS},
        **{f"change_{form}": changes[form] for form in FORMS},
        **_silence(forms["silent"]),
        **_statistics(model, counted),
        **_families(rows),
        **{name: guards()[name] for name in GUARDS},
        "stopped_error": _largest(model["stopped"], model["resid_post"][config()["stop_layer"]]),
    }
    lengths = _lengths(model, counted)
    kl = {name: model[name].mean(axis=(1, 2)).tolist() for name in ("lens_kl", "double_kl")}
    layer_columns = [*lengths.values(), errors["float32"].tolist(), *kl.values()]
    return {
        "numbers": numbers,
        "tables": [
            [[layer, *row] for layer, row in enumerate(zip(*layer_columns, strict=True))],
            [[family, *_cells(row)] for family, row in zip(FAMILIES, rows, strict=True)],
            [[form, float(errors[form].max()), changes[form]] for form in FORMS],
        ],
        "figures": {
            "identity": {
                "read behind the input norm": errors["misplaced"].tolist(),
                "bfloat16": errors["bfloat16"].tolist(),
                "NF4": errors["nf4"].tolist(),
                "float32": errors["float32"].tolist(),
            },
            "lengths": {
                "stream": lengths["stream"],
                "attention's write": lengths["attention"],
                "MLP's write": lengths["mlp"],
                "stream, first token": lengths["first"],
            },
            "lens": {"of the stream": kl["lens_kl"], "normed twice": kl["double_kl"]},
        },
    }


#### numbers


def _identities(model: dict[str, Any], errors: dict[str, Any]) -> dict[str, Any]:
    import numpy as np

    mid = model["resid_mid"]
    missing = mid - (model["resid_pre"] + model["attn_out"])
    hidden = model["hidden_states"]
    return {
        "residual_error": float(errors["float32"].max()),
        "mid_error": float(
            np.sqrt((missing**2).sum(-1) / np.maximum((mid**2).sum(-1), 1e-300)).max()
        ),
        "chain_error": _largest(model["resid_post"][:-1], model["resid_pre"][1:]),
        "misplaced_error": float(errors["misplaced"].min()),
        "hidden_states_error": _largest(hidden[:-1], model["resid_pre"]),
        "last_hidden_state_gap": _largest(hidden[-1], model["resid_post"][-1]),
        "final_norm_error": _largest(hidden[-1], model["final_normed"]),
    }


def _lens(model: dict[str, Any], logits: dict[str, Any]) -> dict[str, Any]:
    once = _divergences(logits["plain"], logits["lens"])
    twice = _divergences(logits["plain"], logits["double"])
    worse = model["double_kl"].mean((1, 2)) > model["lens_kl"].mean((1, 2))
    return {
        "logits_change": _largest(logits["recorded"], logits["plain"]),
        "lens_error_last": _largest(logits["lens"], logits["plain"]),
        "lens_kl_last": float(abs(once).max()),
        "double_norm_kl": outputs.sample([float(row.mean()) for row in twice]),
        "double_norm_layers": int(worse.sum()),
    }


def _silence(stream: dict[str, Any]) -> dict[str, Any]:
    writes = []
    for attention, mlp in zip(stream["attn_out"], stream["mlp_out"], strict=True):
        writes.append(float(max(abs(attention).max(), abs(mlp).max())))
    silent = config()["silent_layer"]
    return {
        "silent_write": writes[silent],
        "silent_least_other_write": min(writes[:silent] + writes[silent + 1 :]),
    }


def _statistics(model: dict[str, Any], counted: dict[str, Any]) -> dict[str, Any]:
    errors, elsewhere = [], 0
    for name in COUNTED:
        sides = [part_of(counted, f"{name}.{side}") for side in ("streamed", "reference")]
        for statistic in STATISTICS:
            ours, true = (side[statistic] for side in sides)
            for layer in range(len(true)):
                gap = abs(ours[layer] - true[layer])
                if statistic == "places":
                    elsewhere += int((gap.sum(-1) > 0).sum())
                else:
                    errors.append(float(gap.max() / abs(true[layer]).max()))
    layers, _, width = model["resid_post"].shape
    # Two vectors of float64, six sums, three extremes of four numbers; tensors of float32.
    of_one = 16 * width + 8 * 6 + 3 * 4 * 8
    return {
        "statistics_error": max(errors),
        "extremes_misplaced": elsewhere,
        "tensor_bytes_2048": 4 * layers * 2048 * width * 4,
        "statistics_bytes_2048": 4 * layers * of_one,
    }


def _family_row(family: str) -> dict[str, Any]:
    """Return the errors of one family; "mid" is None where both writes are added at once."""
    import numpy as np

    arrays = _wide(f"families/{family}")
    narrow, wide = part_of(arrays, "float32"), part_of(arrays, "float64")
    mid = None
    if "resid_mid" in wide:
        missing = wide["resid_mid"] - (wide["resid_pre"] + wide["attn_out"])
        mid = float((np.linalg.norm(missing, axis=-1) / _length(wide["resid_mid"])).max())
    chains = [_largest(one["resid_post"][:-1], one["resid_pre"][1:]) for one in (narrow, wide)]
    silenced = wide | {"attn_out": 0 * wide["attn_out"]}
    return {
        "float32": float(_sum_errors(narrow).max()),
        "float64": float(_sum_errors(wide).max()),
        "mid": mid,
        "chain": max(chains),
        "lens": _largest(arrays["lens"], arrays["logits"]),
        "without": float(_sum_errors(silenced).max()),
    }


def _families(rows: list[dict[str, Any]]) -> dict[str, Any]:
    mids = [row["mid"] for row in rows if row["mid"] is not None]
    right = 0
    for row in rows:
        sums = row["float32"] < IDENTITY and row["float64"] < IDENTITY_FLOAT64
        mid = row["mid"] is None or row["mid"] < IDENTITY_FLOAT64
        right += sums and mid and row["chain"] == 0
    return {
        "families": len(rows),
        "families_with_identity": right,
        "families_with_mid": len(mids),
        "residual_error_families": max(row["float32"] for row in rows),
        "residual_error_families_float64": max(row["float64"] for row in rows),
        "mid_error_families": max(mids),
        "chain_error_families": max(row["chain"] for row in rows),
        "lens_error_families": max(row["lens"] for row in rows),
        "families_without_attention": min(row["without"] for row in rows),
    }


def _cells(row: dict[str, Any]) -> list[Any]:
    mid = "no such place" if row["mid"] is None else row["mid"]
    return [row["float32"], row["float64"], mid, row["lens"], row["without"]]


def _lengths(model: dict[str, Any], counted: dict[str, Any]) -> dict[str, list[float]]:
    """Return the mean lengths by layer, in the table's order."""
    means = {}
    for name in COUNTED:
        means[name] = counted[f"{name}.streamed.mean_norm_without_first"]
    total = model["ids"].shape[1]
    everywhere = counted["resid_post.streamed.mean_norm"]
    first = total * everywhere - (total - 1) * means["resid_post"]
    return {
        "stream": means["resid_post"].tolist(),
        "attention": means["attn_out"].tolist(),
        "mlp": means["mlp_out"].tolist(),
        "first": first.tolist(),
    }


#### arrays


def _wide(name: str) -> dict[str, Any]:
    """Return the stored arrays in float64."""
    return {key: array.astype("float64") for key, array in stored.arrays(name).items()}


def part_of(arrays: dict[str, Any], prefix: str) -> dict[str, Any]:
    """Return name -> array of "prefix.name" -> array."""
    start = f"{prefix}."
    return {
        key.removeprefix(start): array for key, array in arrays.items() if key.startswith(start)
    }


def _length(vectors: Any) -> Any:
    import numpy as np

    return np.maximum(np.linalg.norm(vectors, axis=-1), 1e-300)


def _sum_errors(stream: dict[str, Any]) -> Any:
    """Return the length of y - x - a - m as a share of that of y, of every token [L, …]."""
    import numpy as np

    y = stream["resid_post"]
    missing = y - (stream["resid_pre"] + stream["attn_out"] + stream["mlp_out"])
    return np.linalg.norm(missing, axis=-1) / _length(y)


def _change(model: dict[str, Any], stream: dict[str, Any]) -> float:
    other = stream["resid_post"][-1]
    usual = model["resid_post"][-1, : len(other)]
    return math.sqrt(((other - usual) ** 2).sum() / (usual**2).sum())


def _divergences(own: Any, other: Any) -> Any:
    """Return KL(own || other) of logits [S, P, V] in nats."""
    import numpy as np

    logs = []
    for logits in (own, other):
        highest = logits.max(-1, keepdims=True)
        logs.append(logits - highest - np.log(np.exp(logits - highest).sum(-1, keepdims=True)))
    return (np.exp(logs[0]) * (logs[0] - logs[1])).sum(-1)


def _largest(one: Any, other: Any) -> float:
    return float(abs(one - other).max())
