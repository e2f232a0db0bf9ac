"""An experiment that only decides, for a machine that is stated: what FEAT-017 does at its end."""

import sys

from lab.contract import Context, Experiment, Outcome, main
from lab.hardware.decision_outcome import decision_outcome
from tests.lab.hardware.machine import small_machine

EXPERIMENT = Experiment(
    title="Hardware decision",
    question="Which machine is enough for what is needed?",
    hypothesis="A small machine is enough for small models, and for nothing else.",
    method="Everything is computed from the files that the user edits.",
    headline=("recommendation", "needs_met_here"),
    packages=(),
)


def run(ctx: Context) -> Outcome:
    """Decide for the small machine."""
    return decision_outcome(ctx.out, small_machine())


if __name__ == "__main__":
    sys.exit(main(EXPERIMENT, run))
