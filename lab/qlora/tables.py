"""The table of the report: what the model answers before and after training."""

from __future__ import annotations

from lab.contract import Table
from lab.qlora.measured import QloraObservations


def answers(observations: QloraObservations) -> Table:
    """Return each prompted function, its documentation, and the model's answers to it."""
    tokenizer = observations.loaded.tokenizer
    rows = []
    for example, before, after in observations.answered():
        text_before = tokenizer.decode(before, skip_special_tokens=True)
        text_after = tokenizer.decode(after, skip_special_tokens=True)
        rows.append((example.name, example.target, text_before, text_after))
    return Table("Answers", ("function", "documentation", "before", "after"), tuple(rows))
