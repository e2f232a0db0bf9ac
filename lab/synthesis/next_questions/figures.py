"""The figure of what to ask next: what each experiment costs against what it tells."""

from __future__ import annotations

from lab import present
from lab.present.numbers import count
from lab.synthesis.next_questions import wording
from lab.synthesis.next_questions.measured import Kind, NextQuestions

LABELS = {
    Kind.MISSED: "a prediction that missed",
    Kind.OPEN: "one that is not decided",
    Kind.UNREPEATED: "one that was measured once",
    Kind.WIDE: "a wide interval",
}


def figures(asked: NextQuestions) -> list[present.Figure]:
    """Return the figure; none where nothing can be asked."""
    affordable = asked.affordable
    if not affordable:
        return []
    series = []
    for kind, label in LABELS.items():
        points = [one for one in affordable if one.kind == kind]
        if points:
            minutes = [_rounded(60 * one.hours) for one in points]
            bits = [_rounded(one.bits) for one in points]
            series.append(present.Series(label, minutes, bits, kind="points"))
    best = affordable[0]
    caption = (
        f"{count(len(affordable), 'experiment')}: up tells more, left costs less; what costs and "
        "tells the same is one point. Most per hour tells the one on "
        f"{best.name}: {wording.duration(best.hours)}. Bits are expected before the run: 1 where "
        "nothing is known of a yes or no, or an interval is halved."
    )
    return [
        present.Figure(
            name="next_questions",
            title="What next experiments cost and tell",
            caption=caption,
            x_label="minutes on this machine",
            y_label="bits that the answer tells",
            series=tuple(series),
            x_scale="log",
        )
    ]


def _rounded(value: float) -> float:
    """Return a number to two digits: these estimates have no more."""
    return float(f"{value:.2g}")
