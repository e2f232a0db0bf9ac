"""Tables of the site's own report."""

from __future__ import annotations

import statistics

from lab.result import Table
from lab.synthesis.site.measured import Sources, Trials, mean_loss


def tables(sources: Sources, trials: Trials) -> tuple[Table, ...]:
    """Return all tables; without trials there are none of them."""
    if not trials.trials:
        return (predictions_table(sources),)
    return predictions_table(sources), cells_table(trials), answers_table(trials)


def predictions_table(sources: Sources) -> Table:
    """Return how the predictions of each feature fared."""
    rows = []
    for feature in sources.features:
        outcomes = feature.outcomes
        rows.append(
            (
                feature.id,
                feature.result.title,
                len(feature.scores),
                outcomes["MISSED"],
                outcomes["HELD"],
                outcomes["INCONCLUSIVE"],
                feature.receipt,
            )
        )
    columns = (
        "feature",
        "title",
        "predictions",
        "missed",
        "held",
        "inconclusive",
        "receipt",
    )
    return Table("What was predicted, by feature", columns, tuple(rows))


def cells_table(trials: Trials) -> Table:
    """Return the cells of the grid that were measured, the lowest held-out loss first."""
    rows = []
    by_loss = sorted(trials.cells.items(), key=lambda item: mean_loss(item[1]))
    for name, cell in by_loss:
        losses = [trial.held_out for trial in cell]
        stable_rank = statistics.fmean(trial.stable_rank for trial in cell)
        rows.append((name, len(cell), mean_loss(cell), max(losses) - min(losses), stable_rank))
    columns = ("cell", "seeds", "held-out loss", "largest − smallest", "stable rank")
    return Table("Measured cells", columns, tuple(rows))


def answers_table(trials: Trials) -> Table:
    """Return how many different answers each prompt got."""
    rows = []
    for i, prompt in enumerate(trials.prompts):
        answers = [trial.answers[i] for trial in trials.trials]
        unlike = sum(answer != trials.base_answers[i] for answer in answers)
        base = trials.texts[trials.base_answers[i]]
        rows.append((prompt.text, prompt.expected, base, len(set(answers)), unlike))
    columns = ("prompt", "documentation", "base", "different answers", "unlike the base")
    return Table("Answers of all trials", columns, tuple(rows))
