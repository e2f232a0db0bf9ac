"""What the activation study observes: arrays of the real model, of its forms, of ten families."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

# What is recorded, as a block computes it.
STREAM = ("resid_pre", "attn_out", "resid_mid", "mlp_out", "resid_post")
WITHOUT_MID = tuple(name for name in STREAM if name != "resid_mid")
COUNTED = ("resid_post", "attn_out", "mlp_out")  # of which statistics are taken
STATISTICS = (  # of each layer; the last two: of the three largest |x|
    "mean",
    "variance",
    "mean_norm",
    "mean_norm_without_first",
    "mean_median",
    "largest",
    "places",
)
FORMS = ("bfloat16", "nf4", "adapter", "silent")

Stream = Mapping[str, np.ndarray]  # name of STREAM -> [L, T, D]; of families [L, B, T, D]


@dataclass(frozen=True)
class Logits:
    """Logits of every text at the chosen positions, each [S, P, V].

    plain: of the model alone; recorded: of the model inside the extractor; lens: of the last
    layer's resid_post; double: the lens of transformers' last hidden state, normed twice.
    """

    plain: np.ndarray
    recorded: np.ndarray
    lens: np.ndarray
    double: np.ndarray


@dataclass(frozen=True)
class ModelArrays:
    """S texts of T tokens through the real model, L layers of width D.

    ids: [S, T]; stream: of the first text; normed: [L, T, D], the output of each layer's input
    norm; hidden_states: [L + 1, T, D], those of transformers; final_normed: [T, D], the final norm
    of the last layer's resid_post; stopped: [T, D], resid_post of the layer after which another
    pass was ended; lens_kl, double_kl: [L, S, P], nats between the model's own prediction and the
    lens of each layer, of the stream and of the stream behind the final norm.
    """

    ids: np.ndarray
    stream: Stream
    normed: np.ndarray
    hidden_states: np.ndarray
    final_normed: np.ndarray
    stopped: np.ndarray
    logits: Logits
    lens_kl: np.ndarray
    double_kl: np.ndarray


@dataclass(frozen=True)
class Counted:
    """Statistics of one name over all texts, by STATISTICS: [L, …] each.

    streamed: by the extractor, over two passes; reference: by their definition, from tensors.
    """

    streamed: Mapping[str, np.ndarray]
    reference: Mapping[str, np.ndarray]


@dataclass(frozen=True)
class FamilyArrays:
    """A tiny random model of one family; in float32 the second of B texts is behind padding.

    ids, mask: [B, T]; float32, float64: what was recorded; logits, lens: [B, T, V] in float64, of
    the model and of the last layer's resid_post.
    """

    ids: np.ndarray
    mask: np.ndarray
    float32: Stream
    float64: Stream
    logits: np.ndarray
    lens: np.ndarray


@dataclass(frozen=True)
class Guards:
    """Whether the extractor refuses what it must, and leaves nothing behind.

    layers_recorded: of the real model; stop_layers_run: that ran in a pass ended after
    `stop_layer`; the others: whether an error came when layers are computed twice, when a second
    pass runs without clear(), when no pass ran, when a tensor was changed in place after it was
    recorded, and when a position does not exist; hooks_left: after a pass that raised.
    """

    layers_recorded: int
    stop_layers_run: int
    checkpointing_refused: bool
    second_pass_refused: bool
    missing_pass_refused: bool
    change_in_place_refused: bool
    missing_position_refused: bool
    hooks_left: int


@dataclass(frozen=True)
class ActivationObservations:
    """Everything that the numbers are made from.

    statistics: name of COUNTED -> both sides; forms: name of FORMS -> the first tokens of the first
    text in another form of the model; silent_layer: of the form "silent", whose output projections
    are 0.
    """

    model: ModelArrays
    statistics: Mapping[str, Counted]
    forms: Mapping[str, Stream]
    silent_layer: int
    stop_layer: int
    families: Mapping[str, FamilyArrays]
    guards: Guards
