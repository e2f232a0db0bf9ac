"""The tracks: what of a self-assessment and of the quiz is each track's own. All else is shared."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Units:
    """What the comparisons of a track are repeated over, and what they cost, in words.

    repeat: one repetition ("seed"); costs: what is counted of it ("training examples"), the last
    word of which names the measurement; effect, difference: what a comparison's effect is, and what
    is compared, with its unit; title: of their figure; fewest: what of is said to be needed there.
    """

    repeat: str = "seed"
    costs: str = "training examples"
    effect: str = "Mean paired difference"
    difference: str = "difference of loss (nats/token)"
    title: str = "Comparisons of two settings, one difference per seed"
    fewest: str = "runs"

    @property
    def repeats(self) -> str:
        """The repetitions: "seeds"."""
        return f"{self.repeat}s"

    @property
    def repeats_name(self) -> str:
        """The measurement of how many are enough: "minimum_experiment_seeds"."""
        return f"minimum_experiment_{self.repeats}"

    @property
    def costs_name(self) -> str:
        """The measurement of what these cost: "minimum_experiment_examples"."""
        return f"minimum_experiment_{self.costs.split()[-1]}"


@dataclass(frozen=True)
class Track:
    """One track.

    questions: the YAML file of its questions, and of its candidates for the minimum interesting
    experiment; phase: the phase of the plan that makes its results; figure_prefix: of the names of
    its figures, because the figures of all tracks are published into one folder; units: of its
    candidates.
    """

    questions: Path
    phase: int
    figure_prefix: str = ""
    units: Units = Units()


TRACKS = {
    "track-a": Track(FOLDER / "track_a.yaml", phase=2),
    "track-b": Track(FOLDER / "track_b.yaml", phase=3, figure_prefix="attention_"),
    "track-c": Track(
        FOLDER / "track_c.yaml",
        phase=4,
        figure_prefix="representations_",
        units=Units(
            repeat="text",
            costs="tokens",
            effect="Difference",
            difference="difference (nats/token or share)",
            title="Comparisons of two settings, errors by leaving out one text at a time",
            fewest="tokens",
        ),
    ),
}
