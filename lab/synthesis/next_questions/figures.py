"""The figure of what to ask next: what the first experiments cost, in their order."""

from __future__ import annotations

from lab import present
from lab.present.numbers import count, number
from lab.synthesis.next_questions.measured import NextQuestions

BARS = 10  # experiments that are shown; more names would not be read


def figures(questions: NextQuestions) -> list[present.Figure]:
    """Return the figure; none where nothing can be asked."""
    shown = questions.affordable[:BARS]
    if not shown:
        return []
    names, minutes = [], []
    for place, candidate in enumerate(shown, start=1):
        names.append(f"{place}: {candidate.feature} {candidate.expected.measurement}")
        # These estimates have no more than two digits.
        minutes.append(float(f"{60 * candidate.hours:.2g}"))
    bits = [candidate.bits for candidate in shown]
    caption = (
        f"The first of {count(len(questions.affordable), 'experiment')}, those first that tell "
        f"most per hour. Each is expected to tell {number(min(bits), 2)} to {number(max(bits), 2)} "
        "bits: 1 where nothing is known of a yes or no, or an interval is halved."
    )
    return [
        present.Figure(
            name="next_questions",
            title="What the next experiments cost, in the order of their ranks",
            caption=caption,
            x_label="rank and measurement",
            y_label="minutes on this machine",
            series=(present.Series("minutes", names, minutes, kind="bar"),),
        )
    ]
