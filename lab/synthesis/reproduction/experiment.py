"""FEAT-019, reproduction: three earlier features, drawn after the fact, computed again in part.

run(ctx)
    draw_features       three of all features, by the hash of this attempt's STARTED entry
    replay_feature      each with the code of its receipt's commit, in a process of its own: first
                        steps and a drawn sample, or all of it where it takes seconds
    compare             bit by bit where that is promised, else within a stated tolerance
    store               draw, machine, rows and recomputed arrays under artifacts/
    numbers, tables, report, figures    made from what was observed
"""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path

from lab.contract import Context, Experiment, Outcome, main
from lab.present.write import as_json
from lab.synthesis.reproduction import figures, numbers, report, tables
from lab.synthesis.reproduction.measured import ReproductionObservations

EXPERIMENT = Experiment(
    title="Reproduction",
    question=(
        "Does the code that a receipt names still compute what the record says that it computed?"
    ),
    hypothesis=(
        "On the machine of the receipts, with the same libraries and as many threads, everything "
        "but times is the same bit by bit: seeds decide every draw, and no result depends on what "
        "ran beside it. On another machine float32 sums differ in their order and by less than "
        "one percent."
    ),
    method=(
        "Three features are drawn by the hash of this attempt's STARTED entry, which did not exist "
        "when code and plan were committed. Each is computed again with the code of the commit "
        "that its receipt names, in a process that can import no other: the first steps of its "
        "training and a drawn sample of what it measured, through the functions that measured it, "
        "or all of it where that takes seconds. Before it runs, the code's digest is compared with "
        "the receipt's. A row is one array, compared bit by bit with the stored one; where machine "
        "or libraries are others than the receipt's, and for times, a tolerance is stated beside "
        "its reason. A row that does not reproduce is a finding, and comes first. What a commit "
        "cannot replay is listed and counts as not replayable, never as reproduced."
    ),
    headline=(
        "rows_not_reproduced",
        "rows_bit_equal",
        "rows_promised",
        "rows",
        "features_reproduced",
        "largest_difference",
        "replayable_share",
    ),
    packages=("torch", "transformers", "peft", "bitsandbytes"),
)


def run(ctx: Context) -> Outcome:
    """Draw, compute again, compare, and return numbers, tables, findings and figures."""
    observations = measure(ctx)
    store(ctx.out / "artifacts", observations)
    return Outcome(
        numbers.measurements(observations),
        tables=tables.tables(observations),
        findings=report.findings(observations),
        figures=figures.figures(observations),
    )


def measure(ctx: Context) -> ReproductionObservations:
    """Draw the features and compute each again; rows and arrays are written below artifacts/."""
    from lab.synthesis.reproduction.drawing import draw_features
    from lab.synthesis.reproduction.receipts import this_machine
    from lab.synthesis.reproduction.replaying import replay_feature

    ctx.progress(0, 1, "receipts and code")
    draw = draw_features(ctx)
    machine = this_machine()
    replayed = []
    for number, candidate in enumerate(draw.drawn):
        ctx.progress(number, len(draw.drawn), f"{candidate.feature} by {candidate.way}")
        with tempfile.TemporaryDirectory() as scratch:
            one = replay_feature(ctx, candidate, draw.started, machine, Path(scratch))
        replayed.append(one)
    ctx.progress(len(draw.drawn), len(draw.drawn), "compared")
    return ReproductionObservations(draw, replayed, machine)


def store(artifacts: Path, observations: ReproductionObservations) -> None:
    """Write the draw and the machine; rows and arrays are there already."""
    draw = dataclasses.asdict(observations.draw)
    (artifacts / "draw.json").write_bytes(as_json(draw))
    (artifacts / "machine.json").write_bytes(as_json(dict(observations.machine)))


if __name__ == "__main__":
    main(EXPERIMENT, run)
