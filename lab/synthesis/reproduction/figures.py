"""The figure of the reproduction's report."""

from __future__ import annotations

from lab import present
from lab.present.numbers import count, number
from lab.synthesis.reproduction.measured import Outcome, ReproductionObservations

FLOOR = 1e-17  # where rows without a difference are shown: a log axis has no 0
LABELS = {
    Outcome.EQUAL: f"bit-equal, shown at {FLOOR:g}",
    Outcome.WITHIN: "within tolerance",
    Outcome.DIFFERENT: "not reproduced",
}


def figures(observations: ReproductionObservations) -> list[present.Figure]:
    """Return all figures; none, if no feature could be computed again."""
    if not observations.rows:
        return []
    return [differences_figure(observations)]


def differences_figure(observations: ReproductionObservations) -> present.Figure:
    """Show the difference of each row beside what is allowed where its bits are not promised."""
    rows = [row for _, row in observations.rows]
    series = []
    for outcome, label in LABELS.items():
        shown = [(n, row) for n, row in enumerate(rows, start=1) if row.outcome is outcome]
        if shown:
            x = [place for place, _ in shown]
            y = [max(row.difference, FLOOR) for _, row in shown]
            series.append(present.Series(label, x, y, kind="points"))
    tolerances = [(n, row.tolerance) for n, row in enumerate(rows, start=1) if row.tolerance > 0]
    if tolerances:
        x, y = [place for place, _ in tolerances], [tolerance for _, tolerance in tolerances]
        series.append(present.Series("tolerance on another machine", x, y, kind="points"))
    outcomes = [row.outcome for row in rows]
    features = ", ".join(one.feature for one in observations.replayed)
    largest = max(row.difference for row in rows)
    return present.Figure(
        name="reproduction_differences",
        title="What was computed again, against what was stored",
        caption=(
            f"{count(len(rows), 'row')} of {features}: {outcomes.count(Outcome.EQUAL)} bit-equal, "
            f"{outcomes.count(Outcome.WITHIN)} within tolerance, "
            f"{outcomes.count(Outcome.DIFFERENT)} not reproduced. The largest difference is "
            f"{number(largest)}, relative to the largest value of its row."
        ),
        x_label="row of the table",
        y_label="difference, relative to the largest value",
        series=tuple(series),
        y_scale="log",
    )
