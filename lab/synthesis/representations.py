"""FEAT-016, representations self-assessment: the one of track C. `assess` does the work."""

from __future__ import annotations

from lab.contract import Context, Experiment, Outcome, main
from lab.synthesis.assessment import assess
from lab.synthesis.tracks import TRACKS

EXPERIMENT = Experiment(
    title="Representations self-assessment",
    question=(
        "Which statements about what the layers write would you have made wrongly before this "
        "track, which of its own predictions were wrong, and what is the smallest experiment that "
        "would have taught you something?"
    ),
    hypothesis=(
        "More than half of what was predicted before the track holds on its numbers and at least "
        "one prediction does not. The comparison that needs the fewest tokens to be decided is "
        "one that a single pass of the model decides, not an intervention: that takes a pass for "
        "each write that is changed."
    ),
    method=(
        "Nothing is trained and no model is run. Each question states a rule and no answer: which "
        "of some measurements is the largest, between which limits a number or its 95 % interval "
        "is, or the number itself. The rules are applied to the results of the track's two "
        "features as they were verified; a question that the numbers leave open is not asked. "
        "Each prediction of the plan is scored again by the plan's own rule: with the 95 % "
        "interval of an estimate, HELD on the claimed side, MISSED on the other, else "
        "INCONCLUSIVE. The minimum interesting experiment is the comparison of two settings that "
        "would have needed the fewest tokens to be decided, given the effect and the standard "
        "deviation between texts that were measured; what is read once, to fit a probe or to take "
        "a mean, is counted too. All of it is one model: an interval says what other texts would "
        "show, not what a model trained with another seed would. It is a plan made after the fact "
        "from few texts, not a second test."
    ),
    headline=(
        "predictions_missed",
        "predictions_held",
        "questions",
        "blind_score",
        "minimum_experiment",
        "minimum_experiment_answer",
    ),
)


def run(ctx: Context) -> Outcome:
    """Assess track C."""
    return assess(ctx, TRACKS["track-c"])


if __name__ == "__main__":
    main(EXPERIMENT, run)
