"""The experiment on induction heads with a lie.

`python -m tests.gates.induction_forgery LIE PICKLE`, and then the experiment's own arguments.
What was measured is changed before anything is stored, so that numbers, tables, sentences, figures
and digests follow from the lie as the lab's own code makes them. PICKLE keeps the honest
observations, so that only the first run trains.
"""

from __future__ import annotations

import pickle
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from lab.contract import Context, main
from lab.induction_heads import experiment, training
from lab.induction_heads.measured import CONDITIONS, InductionObservations, Run

SEEN = ("first", "second", "accuracy", "induction", "previous", "patterns")


def honest(observed: InductionObservations) -> InductionObservations:
    """Return what was measured."""
    return observed


def with_runs(observed: InductionObservations, *runs: Run) -> InductionObservations:
    """Return the observations with other runs; two-layer ones with the ablations they give."""
    changed = {}
    for run in runs:
        key = (run.condition, run.seed)
        changed[key] = replace(run, seconds=observed.runs[key].seconds)
    ablations = dict(observed.ablations)
    for run in runs:
        if run.condition == "repeats":
            ablations[run.seed] = training.ablate(observed.plan, run)
    return replace(observed, runs={**observed.runs, **changed}, ablations=ablations)


def unstored(observed: InductionObservations) -> np.ndarray:
    """Return which evaluated steps have no stored weights."""
    return np.array(observed.plan.steps_evaluated) % observed.plan.checkpoint_every > 0


def course_invented(observed: InductionObservations) -> InductionObservations:
    """Invent a sudden fall at the last stored step but one, where no weights are stored."""
    run = observed.runs["repeats", 1]
    second = run.second.copy()
    late = np.array(observed.plan.steps_evaluated) > observed.plan.checkpoint_every
    second[unstored(observed) & ~late] = second[0]
    second[unstored(observed) & late] = second[-1]
    return with_runs(observed, replace(run, second=second))


def course_shifted(observed: InductionObservations) -> InductionObservations:
    """Let copying be learnt one evaluation earlier than it was."""
    run = observed.runs["repeats", 2]
    moved = {}
    for name in ("first", "second", "accuracy", "induction", "previous"):
        array = getattr(run, name).copy()
        steps = np.flatnonzero(unstored(observed))
        array[steps] = array[steps + 1]
        moved[name] = array
    return with_runs(observed, replace(run, **moved))


def film_invented(observed: InductionObservations) -> InductionObservations:
    """Show the last pattern before it was there."""
    run = observed.runs["repeats", 0]
    patterns = run.patterns.copy()
    patterns[unstored(observed)] = patterns[-1]
    return with_runs(observed, replace(run, patterns=patterns))


def _resting(run: Run, evaluated: int, stored: int) -> Run:
    """Return a run that learnt nothing from an evaluated and stored step on."""
    changed: dict[str, Any] = {}
    for name in SEEN:
        array = getattr(run, name).copy()
        array[evaluated:] = array[evaluated]
        changed[name] = array
    weights = {name: array.copy() for name, array in run.weights.items()}
    for array in weights.values():
        array[stored:] = array[stored]
    return replace(run, weights=weights, **changed)


def controls_untrained(observed: InductionObservations) -> InductionObservations:
    """Leave one control of each kind where it started."""
    runs = observed.runs
    return with_runs(
        observed,
        _resting(runs["no_repeats", 1], 0, 0),
        _resting(runs["one_layer", 2], 0, 0),
    )


def control_stopped(observed: InductionObservations) -> InductionObservations:
    """End the training without repeats at the last stored step but one."""
    stored = len(observed.runs["no_repeats", 0].weights["embedding"]) - 2
    evaluated = stored * observed.plan.checkpoint_every // observed.plan.every
    return with_runs(observed, _resting(observed.runs["no_repeats", 0], evaluated, stored))


def control_at_another_rate(observed: InductionObservations) -> InductionObservations:
    """Train a one-layer model at a hundredth of the rate."""
    plan = replace(observed.plan, learning_rate=observed.plan.learning_rate / 100)
    return with_runs(observed, training.train(plan, "one_layer", 1))


def seed_copied(observed: InductionObservations) -> InductionObservations:
    """Let the third seed be the first once more."""
    runs = [replace(observed.runs[condition, 0], seed=2) for condition in CONDITIONS]
    return with_runs(observed, *runs)


def seed_chosen(observed: InductionObservations) -> InductionObservations:
    """Take another seed than the one that is named."""
    return with_runs(observed, replace(training.train(observed.plan, "repeats", 9), seed=1))


def nothing_learnt(observed: InductionObservations) -> InductionObservations:
    """Let the runs without repeats be those with repeats: a report with "never" everywhere."""
    runs = []
    for seed in observed.plan.seeds:
        runs.append(replace(observed.runs["no_repeats", seed], condition="repeats"))
    return with_runs(observed, *runs)


def head_made_needless(observed: InductionObservations) -> InductionObservations:
    """Let the most needed head cost nothing."""
    ablation = observed.ablations[1]
    single = ablation.single.copy()
    needed = np.unravel_index(single.mean(-1).argmax(), single.shape[:2])
    single[needed] = ablation.whole
    return replace(observed, ablations={**observed.ablations, 1: replace(ablation, single=single)})


LIES: dict[str, Callable[[InductionObservations], InductionObservations]] = {
    lie.__name__: lie
    for lie in (
        honest,
        course_invented,
        course_shifted,
        film_invented,
        controls_untrained,
        control_stopped,
        control_at_another_rate,
        seed_copied,
        seed_chosen,
        nothing_learnt,
        head_made_needless,
    )
}


def conduct(lie: str, kept: Path) -> None:
    """Conduct the experiment with the arguments that are left, and tell a lie."""
    measure = experiment.measure

    def lying(ctx: Context) -> InductionObservations:
        if not kept.exists():
            kept.write_bytes(pickle.dumps(measure(ctx)))
        return LIES[lie](pickle.loads(kept.read_bytes()))

    experiment.measure = lying
    main(experiment.EXPERIMENT, experiment.run)


if __name__ == "__main__":
    name, file = sys.argv[1:3]
    del sys.argv[1:3]
    conduct(name, Path(file))
