"""What the representation analysis plans and observes: the data that its other modules share.

Depth d of L + 1 is the residual stream that enters layer d; depth L leaves the last layer. The
output of layer l is depth l + 1. In every array the sequences B come first.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from lab.config import Config
from lab.representation_analysis.probe_measured import ProbeObservations

PARTS = ("attention", "mlp")  # what a layer adds to the stream, in this order in arrays

# Kinds of tokens; a code in `ids` is a kind's place here.
KINDS = ("word start", "inside a word", "digit", "punctuation", "blank")

# The tokens and the model that CKA is of.
RAW, WITHOUT_FIRST, WITHOUT_OUTLIERS = "raw", "without_first", "without_outliers"
RANDOM_WEIGHTS, SHUFFLED = "random_weights", "shuffled"
PAIRS = (RAW, WITHOUT_FIRST, WITHOUT_OUTLIERS, RANDOM_WEIGHTS, SHUFFLED)

# What is done to the one largest number; beside these "other_0", …
BASE, ZEROED, MEAN = "base", "zeroed", "mean"


@dataclass(frozen=True)
class AnalysisPlan:
    """The settings that the other modules need.

    count, length: sequences and their tokens; test_count, test_length: those of the interventions;
    ablated: how many of these have their writes replaced; every: the lens looks at every so
    manieth token; pair: layers whose outputs CKA compares; dimensions: control dimensions.
    """

    count: int
    length: int
    test_count: int
    test_length: int
    ablated: int
    every: int
    pair: tuple[int, int]
    dimensions: int

    @classmethod
    def from_config(cls, config: Config) -> AnalysisPlan:
        """Return the plan that a config describes."""
        first, second = config["cka"]["layers"]
        return cls(
            count=config["sequences"]["count"],
            length=config["sequences"]["length"],
            test_count=config["test"]["count"],
            test_length=config["test"]["length"],
            ablated=config["test"]["ablated"],
            every=config["lens"]["every"],
            pair=(first, second),
            dimensions=config["interventions"]["dimensions"],
        )

    @property
    def others(self) -> tuple[str, ...]:
        """Return the names of the interventions on control dimensions."""
        return tuple(f"other_{number}" for number in range(self.dimensions))


@dataclass(frozen=True)
class Stream:
    """The residual stream of one model.

    norms: of every token at each depth, [B, L + 1, T]; of each layer's output, over all of its
    tokens and dimensions: the largest |x| `top`, its `top_position` and `top_dimension`, and the
    `median` of |x|, [B, L] each; hits: (sequence, layer, position, dimension) of every number that
    is massive, [hits, 4].
    """

    norms: np.ndarray
    top: np.ndarray
    top_position: np.ndarray
    top_dimension: np.ndarray
    median: np.ndarray
    hits: np.ndarray


@dataclass(frozen=True)
class Writes:
    """What attention (0) and MLP (1) of each layer add to the stream.

    norms: [B, 2, L, T]; cosine: of the two, [B, L, T]; stream_cosine: of the stream before and
    behind each layer, [B, L, T]; attribution: to the logit of the next token over the mean logit,
    the final norm's scale as it was, [B, 2, L, T - 1]; embedding: the same of depth 0, target: that
    logit itself, [B, T - 1] each.
    """

    norms: np.ndarray
    cosine: np.ndarray
    stream_cosine: np.ndarray
    attribution: np.ndarray
    embedding: np.ndarray
    target: np.ndarray


@dataclass(frozen=True)
class Lens:
    """The logit lens at P tokens of each sequence.

    agrees: whether its first choice is the model's, 0 or 1; kl: KL(model || lens) in nats;
    [B, L + 1, P] each.
    """

    agrees: np.ndarray
    kl: np.ndarray


@dataclass(frozen=True)
class Similarity:
    """Linear CKA. matrices: of every pair of depths, by RAW and WITHOUT_OUTLIERS,
    [L + 1, L + 1].

    pair: of the planned pair, by PAIRS; left_out: the same without each sequence, [B]; ends: of
    depth 0 and L without outliers, [1 + B]: of all, then without each sequence; outliers: tokens
    that are one, [B, T].
    """

    matrices: Mapping[str, np.ndarray]
    pair: Mapping[str, float]
    left_out: Mapping[str, np.ndarray]
    ends: np.ndarray
    outliers: np.ndarray


@dataclass(frozen=True)
class Target:
    """The one number to change: in the output of `layer`, at the first token.

    mean: its mean over sequences that it was chosen on; others: control dimensions.
    """

    layer: int
    dimension: int
    mean: float
    others: tuple[int, ...]


@dataclass(frozen=True)
class Interventions:
    """Token losses on the test sequences, in nats.

    losses: by BASE, ZEROED, MEAN and the plan's `others`, [B', T' - 1]; ablated: with each write
    replaced by its mean, [A, 2, L, T' - 1], of the first A sequences.
    """

    target: Target
    losses: Mapping[str, np.ndarray]
    ablated: np.ndarray


@dataclass(frozen=True)
class Observations:
    """All that a run measured. ids, kinds: [B, T]; test_ids: [B', T']."""

    plan: AnalysisPlan
    ids: np.ndarray
    kinds: np.ndarray
    test_ids: np.ndarray
    stream: Stream
    random_stream: Stream
    writes: Writes
    lens: Lens
    similarity: Similarity
    interventions: Interventions
    probes: ProbeObservations

    @property
    def layers(self) -> int:
        """Return the number of layers L."""
        return int(self.stream.top.shape[1])
