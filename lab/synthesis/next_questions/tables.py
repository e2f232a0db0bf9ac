"""Tables of what to ask next."""

from __future__ import annotations

from lab.present.numbers import number
from lab.result import Table
from lab.synthesis.next_questions import wording
from lab.synthesis.next_questions.measured import NextQuestions

GIB = 2**30


def tables(questions: NextQuestions) -> tuple[Table, ...]:
    """Return the ranked experiments, those out of reach, and what no experiment follows from.

    A table without a row is left out.
    """
    every = (ranked_table(questions), far_table(questions), unplanned_table(questions))
    return tuple(table for table in every if table.rows)


def ranked_table(questions: NextQuestions) -> Table:
    """Return the experiments that are within reach, the best first."""
    rows = []
    for place, candidate in enumerate(questions.affordable, start=1):
        cost = candidate.cost
        assert cost is not None  # those within reach have one
        rows.append(
            (
                place,
                wording.question(candidate),
                wording.prediction(candidate),
                wording.reason(candidate),
                wording.duration(candidate.hours),
                f"{number(cost.bytes / GIB, 2)} GiB",
                cost.source,
                number(candidate.bits, 2),
                number(candidate.bits_per_hour, 2),
            )
        )
    return Table(
        "What to ask next: most told per hour first",
        (
            "rank",
            "question",
            "prediction",
            "because",
            "time",
            "memory",
            "cost by",
            "bits",
            "bits per hour",
        ),
        tuple(rows),
    )


def far_table(questions: NextQuestions) -> Table:
    """Return the experiments that no number of repeats within reach decides."""
    rows = []
    for candidate in questions.candidates:
        if candidate.cost is None:
            rows.append((wording.question(candidate), wording.reason(candidate)))
    return Table(
        "Out of reach: no number of repeats that can be paid decides it",
        ("question", "because"),
        tuple(rows),
    )


def unplanned_table(questions: NextQuestions) -> Table:
    """Return the predictions that did not hold and from which no experiment follows."""
    rows = []
    for one in questions.unplanned:
        rows.append((one.feature, one.id, one.outcome, one.reason))
    return Table(
        "Did not hold, and no experiment follows",
        ("feature", "prediction", "outcome", "because"),
        tuple(rows),
    )
