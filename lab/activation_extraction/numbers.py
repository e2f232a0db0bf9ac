"""The numbers of the activation study, from its arrays alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from lab.activation_extraction.measured import (
    FORMS,
    STATISTICS,
    ActivationObservations,
    Counted,
    FamilyArrays,
    ModelArrays,
    Stream,
)
from lab.contract import Measurement

IDENTITY = 1e-6  # of the stream's length: what float32 may leave
IDENTITY_FLOAT64 = 1e-12
LONG = 2048  # tokens for which the bytes are stated
KEPT = 4  # tensors per layer: both writes, resid_mid, resid_post, which is the next resid_pre
EXTREMES = 3  # numbers and places that a statistic keeps, beside two vectors and six sums


def measurements(observations: ActivationObservations) -> dict[str, Measurement]:
    """Return all measurements."""
    return {
        **identities(observations.model),
        **lens(observations.model),
        **forms(observations),
        **statistics(observations),
        **families(observations.families),
        **guards(observations),
    }


def identities(model: ModelArrays) -> dict[str, Measurement]:
    """Return what must be 0, or float noise, and the control that must not."""
    stream = model.stream
    following = stream["resid_pre"][1:]
    misplaced = residual_errors({**stream, "resid_pre": model.normed})  # [L, T]
    return {
        "residual_error": _share(residual_errors(stream).max()),
        "mid_error": _share(mid_errors(stream).max()),
        "chain_error": _distance(stream["resid_post"][:-1], following),
        "misplaced_error": _share(misplaced.max(axis=1).min()),
        "hidden_states_error": _distance(model.hidden_states[:-1], stream["resid_pre"]),
        "last_hidden_state_gap": _distance(model.hidden_states[-1], stream["resid_post"][-1]),
        "final_norm_error": _distance(model.hidden_states[-1], model.final_normed),
    }


def lens(model: ModelArrays) -> dict[str, Measurement]:
    """Return what the lens says at the last layer, once normed and twice."""
    logits = model.logits
    once = divergences(logits.plain, logits.lens)  # [S, P]
    twice = divergences(logits.plain, logits.double)
    return {
        "logits_change": Measurement.of_exact(_largest(logits.recorded, logits.plain), "logits"),
        "lens_error_last": Measurement.of_exact(_largest(logits.lens, logits.plain), "logits"),
        "lens_kl_last": Measurement.of_exact(float(np.abs(once).max()), "nats"),
        "double_norm_kl": Measurement.of_sample(twice.mean(axis=1).tolist(), "nats"),
        "double_norm_layers": Measurement.of_exact(
            int((model.double_kl.mean(axis=(1, 2)) > model.lens_kl.mean(axis=(1, 2))).sum()),
            "layers",
        ),
    }


def forms(observations: ActivationObservations) -> dict[str, Measurement]:
    """Return the identity in the model's other forms, and how far each is from the model."""
    numbers = {}
    for name in FORMS:
        stream = observations.forms[name]
        numbers[f"residual_error_{name}"] = _share(residual_errors(stream).max())
        numbers[f"change_{name}"] = _share(form_change(observations, name))
    writes = silent_writes(observations)
    numbers["silent_write"] = Measurement.of_exact(float(writes[observations.silent_layer]))
    others = np.delete(writes, observations.silent_layer)
    numbers["silent_least_other_write"] = Measurement.of_exact(float(others.min()))
    return numbers


def form_change(observations: ActivationObservations, form: str) -> float:
    """Return ‖y' − y‖ / ‖y‖ of the last layer's output, over all tokens, of a form's y'."""
    changed = observations.forms[form]["resid_post"][-1].astype(np.float64)
    usual = observations.model.stream["resid_post"][-1][: len(changed)]
    return float(np.linalg.norm(changed - usual) / np.linalg.norm(usual.astype(np.float64)))


def silent_writes(observations: ActivationObservations) -> np.ndarray:
    """Return the largest |a| or |m| of each layer of the form "silent", [L]."""
    stream = observations.forms["silent"]
    writes = np.stack([stream["attn_out"], stream["mlp_out"]])
    largest: np.ndarray = np.abs(writes).max(axis=(0, 2, 3))
    return largest


def statistics(observations: ActivationObservations) -> dict[str, Measurement]:
    """Return how far the running statistics are off, and what they cost."""
    counted = observations.statistics
    layers, _, width = observations.model.stream["resid_post"].shape
    of_one = 8 * (2 * width + 4 * EXTREMES + 6)
    errors = [max(statistic_errors(each).values()) for each in counted.values()]
    misplaced = [(each.streamed["places"] != each.reference["places"]) for each in counted.values()]
    return {
        "statistics_error": _share(max(errors)),
        "extremes_misplaced": Measurement.of_exact(
            int(sum(wrong.any(axis=2).sum() for wrong in misplaced)), "extremes"
        ),
        "tensor_bytes_2048": Measurement.of_exact(KEPT * layers * LONG * width * 4, "bytes"),
        "statistics_bytes_2048": Measurement.of_exact(KEPT * layers * of_one, "bytes"),
    }


def statistic_errors(counted: Counted) -> dict[str, float]:
    """Return each statistic's largest difference as a share of its largest size in that layer."""
    errors = {}
    for name in STATISTICS:
        if name == "places":
            continue
        true = counted.reference[name].reshape(len(counted.reference[name]), -1)
        actual = counted.streamed[name].reshape(true.shape)
        sizes = np.abs(true).max(axis=1)
        errors[name] = float((np.abs(actual - true).max(axis=1) / sizes).max())
    return errors


@dataclass(frozen=True)
class FamilyRow:
    """The largest errors of one family.

    float32, float64: of the identity; mid, lens: in float64, None where there is no resid_mid;
    chain: in both; without_attention: a control, of y = x + m.
    """

    float32: float
    float64: float
    mid: float | None
    chain: float
    lens: float
    without_attention: float

    @property
    def has_identity(self) -> bool:
        """Return whether all identities hold to float noise."""
        sums = self.float32 < IDENTITY and self.float64 < IDENTITY_FLOAT64
        mid = self.mid is None or self.mid < IDENTITY_FLOAT64
        return sums and mid and self.chain == 0


def first_lengths(observations: ActivationObservations, name: str) -> np.ndarray:
    """Return the mean length of the first token's vector in each layer, [L].

    From the two means: n·(all − others) + others, of n tokens in a text.
    """
    streamed = observations.statistics[name].streamed
    others = streamed["mean_norm_without_first"]
    length = observations.model.ids.shape[1]
    first: np.ndarray = length * (streamed["mean_norm"] - others) + others
    return first


def families(arrays: Mapping[str, FamilyArrays]) -> dict[str, Measurement]:
    """Return the worst family of each identity, and how many satisfy them all."""
    rows = [family_row(family) for family in arrays.values()]
    mids = [row.mid for row in rows if row.mid is not None]
    exact = Measurement.of_exact
    return {
        "families": exact(len(rows), "families"),
        "families_with_identity": exact(sum(row.has_identity for row in rows), "families"),
        "families_with_mid": exact(len(mids), "families"),
        "residual_error_families": _share(max(row.float32 for row in rows)),
        "residual_error_families_float64": _share(max(row.float64 for row in rows)),
        "mid_error_families": _share(max(mids)),
        "chain_error_families": exact(max(row.chain for row in rows)),
        "lens_error_families": exact(max(row.lens for row in rows), "logits"),
        "families_without_attention": _share(min(row.without_attention for row in rows)),
    }


def family_row(arrays: FamilyArrays) -> FamilyRow:
    """Return the errors of one family."""
    narrow, wide = arrays.float32, arrays.float64
    without = {**wide, "attn_out": np.zeros_like(wide["attn_out"])}
    chains = [_largest(each["resid_post"][:-1], each["resid_pre"][1:]) for each in (narrow, wide)]
    return FamilyRow(
        float32=float(residual_errors(narrow).max()),
        float64=float(residual_errors(wide).max()),
        mid=float(mid_errors(wide).max()) if "resid_mid" in wide else None,
        chain=max(chains),
        lens=_largest(arrays.lens, arrays.logits),
        without_attention=float(residual_errors(without).max()),
    )


def guards(observations: ActivationObservations) -> dict[str, Measurement]:
    """Return what was recorded, refused and left behind."""
    found = observations.guards
    exact = Measurement.of_exact
    layer = observations.stop_layer
    return {
        "layers_recorded": exact(found.layers_recorded, "layers"),
        "stop_layers_run": exact(found.stop_layers_run, "layers"),
        "checkpointing_refused": exact(found.checkpointing_refused),
        "second_pass_refused": exact(found.second_pass_refused),
        "missing_pass_refused": exact(found.missing_pass_refused),
        "change_in_place_refused": exact(found.change_in_place_refused),
        "missing_position_refused": exact(found.missing_position_refused),
        "hooks_left": exact(found.hooks_left, "hooks"),
        "stopped_error": _distance(
            observations.model.stopped, observations.model.stream["resid_post"][layer]
        ),
    }


# Errors


def residual_errors(stream: Stream) -> np.ndarray:
    """Return ‖y − (x + a + m)‖ / ‖y‖ of every token, [L, T] or [L, B, T].

    In float64, so that what is left is the model's own rounding, in whatever order it adds.
    """
    x, a, m, y = (
        stream[name].astype(np.float64)
        for name in ("resid_pre", "attn_out", "mlp_out", "resid_post")
    )
    errors: np.ndarray = np.linalg.norm(y - (x + a + m), axis=-1) / np.linalg.norm(y, axis=-1)
    return errors


def mid_errors(stream: Stream) -> np.ndarray:
    """Return ‖mid − (x + a)‖ / ‖mid‖ of every token, [L, T] or [L, B, T]."""
    x, a, mid = (stream[name].astype(np.float64) for name in ("resid_pre", "attn_out", "resid_mid"))
    errors: np.ndarray = np.linalg.norm(mid - (x + a), axis=-1) / np.linalg.norm(mid, axis=-1)
    return errors


def divergences(own: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return KL(own || other) of logits [S, P, V] in nats, [S, P]."""
    own_log, other_log = log_softmax(own), log_softmax(other)
    kl: np.ndarray = (np.exp(own_log) * (own_log - other_log)).sum(axis=-1)
    return kl


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Return log-probabilities in float64."""
    wide = logits.astype(np.float64)
    wide -= wide.max(axis=-1, keepdims=True)
    result: np.ndarray = wide - np.log(np.exp(wide).sum(axis=-1, keepdims=True))
    return result


def _largest(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.abs(one.astype(np.float64) - other).max())


def _distance(one: np.ndarray, other: np.ndarray) -> Measurement:
    return Measurement.of_exact(_largest(one, other))


def _share(value: float) -> Measurement:
    return Measurement.of_exact(float(value), "share")
