"""FEAT-009, training-dynamics self-assessment: the one of track A. `assess` does the work."""

from __future__ import annotations

from lab.contract import Context, Experiment, Outcome, main
from lab.synthesis.assessment import assess
from lab.synthesis.tracks import TRACKS

EXPERIMENT = Experiment(
    title="Training-dynamics self-assessment",
    question=(
        "Which statements about training dynamics would you have made wrongly before this track, "
        "which of its own predictions were wrong, and what is the smallest experiment that would "
        "have taught you something?"
    ),
    hypothesis=(
        "At least half of what was predicted before the track holds on its numbers and at least "
        "one prediction does not; the comparison that needs the fewest runs to be decided is true "
        "answers against shuffled ones, because the labels change more than any setting does."
    ),
    method=(
        "Nothing is trained. Each question states a rule and no answer: which of some measurements "
        "is the largest, between which limits a number or its 95 % interval is, or the number "
        "itself. The rules are applied to the results of the track's four features as they were "
        "verified; a question that the numbers leave open is not asked. Each prediction of the "
        "plan is scored again by the plan's own rule: with the 95 % interval of an estimate, HELD "
        "on the claimed side, MISSED on the other, else INCONCLUSIVE. The minimum interesting "
        "experiment is the comparison of two settings that would have needed the fewest training "
        "examples to be decided, given the effect and the standard deviation between seeds that "
        "were measured; it is a plan made after the fact from few seeds, not a second test."
    ),
    headline=(
        "minimum_experiment",
        "minimum_experiment_answer",
        "minimum_experiment_examples",
        "predictions_missed",
        "predictions_held",
        "questions",
    ),
)


def run(ctx: Context) -> Outcome:
    """Assess track A."""
    return assess(ctx, TRACKS["track-a"])


if __name__ == "__main__":
    main(EXPERIMENT, run)
