"""The tracks: what of a self-assessment and of the quiz is each track's own. All else is shared."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Track:
    """One track.

    questions: the YAML file of its questions, and of its candidates for the minimum interesting
    experiment; phase: the phase of the plan that makes its results; figure_prefix: of the names of
    its figures, because the figures of all tracks are published into one folder.
    """

    questions: Path
    phase: int
    figure_prefix: str = ""


TRACKS = {
    "track-a": Track(FOLDER / "track_a.yaml", phase=2),
    "track-b": Track(FOLDER / "track_b.yaml", phase=3, figure_prefix="attention_"),
}
