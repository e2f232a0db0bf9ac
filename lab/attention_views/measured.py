"""What the attention views plan and observe: the data that their other modules share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from lab.config import Config

# The sets of token sequences, and what each is there for.
NATURAL = "natural"  # running text
RANDOM_TOKENS = "random_tokens"  # is it about content?
ONE_TOKEN = "one_token"  # control of the sink: no key differs from another
REPEATED = "repeated"  # a random sequence twice: what induction heads are measured on
NATURAL_UNTRAINED = "natural_random_weights"  # controls: the same on a model with random weights
REPEATED_UNTRAINED = "repeated_random_weights"
SETS = (NATURAL, RANDOM_TOKENS, ONE_TOKEN, REPEATED, NATURAL_UNTRAINED, REPEATED_UNTRAINED)

# What is switched off: nothing, the induction heads, the previous-token head before them; beside
# these "random_0", …
NOTHING, INDUCTION, PREVIOUS = "nothing", "induction", "previous"

Head = tuple[int, int]  # layer, head


@dataclass(frozen=True)
class OwnText:
    """A text of the user's; `text` is its content."""

    label: str
    text: str


@dataclass(frozen=True)
class ViewPlan:
    """The settings that the other modules need.

    count, length: sequences of each set and their tokens; repeats, period: sequences of a repeated
    random sequence and its length S (1 + 2·S tokens); shown_period: of the one that is drawn; top:
    heads that are switched off; draws: random sets of as many others; induction_threshold,
    previous_threshold: scores above which a head is called so; early, late: layers before `early`
    and from `late` on are compared.
    """

    count: int
    length: int
    repeats: int
    period: int
    shown_period: int
    top: int
    draws: int
    induction_threshold: float
    previous_threshold: float
    early: int
    late: int
    texts: tuple[OwnText, ...]

    @classmethod
    def from_config(cls, config: Config) -> ViewPlan:
        """Return the plan that a config describes; files of texts are not read here."""
        own = tuple(OwnText(entry["label"], entry["text"]) for entry in config["texts"])
        return cls(
            count=config["sequences"]["count"],
            length=config["sequences"]["length"],
            repeats=config["repeated"]["count"],
            period=config["repeated"]["period"],
            shown_period=config["repeated"]["shown_period"],
            top=config["ablation"]["heads"],
            draws=config["ablation"]["draws"],
            induction_threshold=config["thresholds"]["induction"],
            previous_threshold=config["thresholds"]["previous"],
            early=config["layers"]["early"],
            late=config["layers"]["late"],
            texts=own,
        )

    @property
    def ablations(self) -> tuple[str, ...]:
        """Return what is switched off, in order; the random sets come last."""
        return (NOTHING, INDUCTION, PREVIOUS, *self.random_sets)

    @property
    def random_sets(self) -> tuple[str, ...]:
        """Return the names of the random sets of heads."""
        return tuple(f"random_{draw}" for draw in range(self.draws))


@dataclass(frozen=True)
class SetStatistics:
    """Statistics of one set of sequences, [B, L, H, T] each (see `attention.AttentionStatistics`).

    second: the share on key 1; previous: on the token before; induction, duplicate: on the token
    behind the last occurrence and on that occurrence, of repeated sequences only.
    """

    sink: np.ndarray
    second: np.ndarray
    entropy: np.ndarray
    distance: np.ndarray
    previous: np.ndarray
    induction: np.ndarray | None = None
    duplicate: np.ndarray | None = None


@dataclass(frozen=True)
class ShownText:
    """A text of the page: its tokens [T] as ids and texts, and patterns [L, H, T, T].

    period: of a repeated random sequence; None: no induction score.
    """

    key: str
    label: str
    note: str
    ids: np.ndarray
    tokens: Sequence[str]
    patterns: np.ndarray
    period: int | None = None


@dataclass(frozen=True)
class ViewObservations:
    """All that a run measured.

    ids: set -> [B, T]; also "ablation", the sequences of the causal test; norms: of the residual
    entering each layer, on NATURAL, [B, L, T]; heads: what was switched off in each ablation;
    losses: ablation -> nats per token of positions 1 to 2·S, [B, 2·S]; texts: those of the page.
    """

    plan: ViewPlan
    model: str
    statistics: Mapping[str, SetStatistics]
    ids: Mapping[str, np.ndarray]
    norms: np.ndarray
    heads: Mapping[str, Sequence[Head]]
    losses: Mapping[str, np.ndarray]
    texts: Sequence[ShownText]

    @property
    def shape(self) -> tuple[int, int]:
        """Return (layers, heads)."""
        _, layers, heads, _ = self.statistics[NATURAL].sink.shape
        return layers, heads
