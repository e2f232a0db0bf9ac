"""Tables of the reproduction's report."""

from __future__ import annotations

from lab.result import Table
from lab.synthesis.reproduction.measured import Outcome, ReproductionObservations


def tables(observations: ReproductionObservations) -> tuple[Table, ...]:
    """Return all tables; the rows that did not reproduce come first."""
    return (
        rows_table(observations),
        features_table(observations),
        draw_table(observations),
    )


def rows_table(observations: ReproductionObservations) -> Table:
    """Return every row with its promise and its outcome."""
    rows = []
    for feature, row in observations.rows:
        promise = "bit-equal"
        if not row.is_promised:
            promise = f"within {row.tolerance:g}: {row.reason}"
        rows.append(
            (
                feature,
                row.quantity,
                row.file,
                row.values,
                promise,
                row.difference,
                str(row.outcome),
            )
        )
    columns = ("feature", "quantity", "file", "values", "promise", "difference", "outcome")
    return Table("Rows, those that did not reproduce first", columns, tuple(rows))


def features_table(observations: ReproductionObservations) -> Table:
    """Return the drawn features with what their replays took."""
    rows = []
    for one in observations.replayed:
        rows.append(
            (
                one.feature,
                one.title,
                str(one.way),
                one.commit,
                len(one.rows),
                one.count(Outcome.DIFFERENT),
                one.seconds,
                one.seconds_whole,
                "; ".join(one.changes) or "none",
            )
        )
    columns = (
        "feature",
        "title",
        "computed again by",
        "commit",
        "rows",
        "not reproduced",
        "seconds",
        "seconds of the whole run",
        "changes of the machine",
    )
    return Table("Features that were computed again", columns, tuple(rows))


def draw_table(observations: ReproductionObservations) -> Table:
    """Return all features in the order of the draw."""
    drawn = {candidate.feature for candidate in observations.draw.drawn}
    rows = []
    for place, candidate in enumerate(observations.draw.candidates, start=1):
        way = candidate.reason if candidate.way is None else str(candidate.way)
        rows.append((place, candidate.feature, way, candidate.feature in drawn))
    return Table("The draw", ("place", "feature", "can be computed again by", "drawn"), tuple(rows))
