"""Measurements of the site: pure functions of what was read, and of the files that were written."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from lab.result import Measurement
from lab.synthesis.site.article import placeholders
from lab.synthesis.site.links import internal_links
from lab.synthesis.site.measured import Row, Sources, StoredTrial, Trials

LOSS = "nats/token"
Pair = tuple[StoredTrial, StoredTrial]


def measurements(sources: Sources, trials: Trials, site: Path) -> dict[str, Measurement]:
    """Return all measurements."""
    return _of_sources(sources) | _of_site(site) | _of_trials(trials) | _of_answers(trials)


def _of_sources(sources: Sources) -> dict[str, Measurement]:
    """Return what is shown of the results."""
    exact = Measurement.of_exact
    outcomes = sources.outcomes
    measured = {
        (feature.id, name) for feature in sources.features for name in feature.result.measurements
    }
    names: list[tuple[str, str]] = []
    for concept in sources.concepts:
        names += placeholders(concept.source)
    given = {feature.id for feature in sources.features}
    answered = sum(bool(given.intersection(q.experiments)) for q in sources.questions)
    missed_share = None
    if sources.scores:
        missed_share = outcomes["MISSED"] / len(sources.scores)
    return {
        "features": exact(len(sources.features), "features"),
        "features_absent": exact(len(sources.absent), "features"),
        "predictions": exact(len(sources.scores), "predictions"),
        "predictions_held": exact(outcomes["HELD"], "predictions"),
        "predictions_missed": exact(outcomes["MISSED"], "predictions"),
        "predictions_inconclusive": exact(outcomes["INCONCLUSIVE"], "predictions"),
        "missed_share": exact(missed_share, ""),
        "questions": exact(len(sources.questions), "questions"),
        "questions_with_a_finding": exact(answered, "questions"),
        "concepts": exact(len(sources.concepts), "documents"),
        "placeholders": exact(len(names), "placeholders"),
        "placeholders_filled": exact(sum(name in measured for name in names), "placeholders"),
    }


def _of_site(site: Path) -> dict[str, Measurement]:
    """Return what was written, and whether every link within it leads somewhere."""
    files = [path for path in site.rglob("*") if path.is_file()]
    pages = {path.name: path.read_text("utf-8") for path in files if path.suffix == ".html"}
    names = {path.relative_to(site).as_posix() for path in files}
    links: list[str] = []
    for name, page in pages.items():
        links += internal_links(name, page)
    broken = sum(link.partition("#")[0] not in names for link in links)
    exact = Measurement.of_exact
    return {
        "pages": exact(len(pages), "pages"),
        "figures_shown": exact(len(files) - len(pages), "figures"),
        "links": exact(len(links), "links"),
        "links_broken": exact(broken, "links"),
        "site_bytes": exact(sum(path.stat().st_size for path in files), "bytes"),
    }


def _of_trials(trials: Trials) -> dict[str, Measurement]:
    """Return the size of the grid, the best cell, and how far seeds and rates are apart."""
    exact = Measurement.of_exact
    cells = trials.cells
    places = len(trials.rows) * len(trials.rates)
    best = best_cell(trials)
    best_loss = Measurement.of_estimate(None, LOSS)
    if best:
        best_loss = Measurement.of_sample([trial.held_out for trial in cells[best]], LOSS)
    by_rate: dict[Row, list[float]] = {}
    for cell in cells.values():
        losses = [trial.held_out for trial in cell]
        by_rate.setdefault(cell[0].row, []).append(statistics.fmean(losses))
    between_rates = [max(means) - min(means) for means in by_rate.values() if len(means) > 1]
    stable_ranks = [trial.stable_rank for trial in trials.trials]
    return {
        "trials": exact(len(trials.trials), "trials"),
        "trials_scored_for_forgetting": exact(
            sum(trial.forgetting is not None for trial in trials.trials), "trials"
        ),
        "cells_measured": exact(len(cells), "cells"),
        "cells_not_measured": exact(places - len(cells), "cells"),
        "best_cell": exact(best),
        "best_cell_loss": best_loss,
        "seed_range_median": _median(list(seed_ranges(trials).values()), LOSS),
        "rate_range_median": _median(between_rates, LOSS),
        "stable_rank_median": _median(stable_ranks, ""),
    }


def _median(values: Sequence[float], unit: str) -> Measurement:
    """Return the median over cells, rows or trials: a summary of these, without an interval."""
    if not values:
        return Measurement.of_estimate(None, unit)
    return Measurement.of_estimate(statistics.median(values), unit, n=len(values))


def seed_ranges(trials: Trials) -> dict[str, float]:
    """Return cell -> largest minus smallest held-out loss of its seeds, where there are several."""
    ranges = {}
    for name, cell in trials.cells.items():
        losses = [trial.held_out for trial in cell]
        if len(losses) > 1:
            ranges[name] = max(losses) - min(losses)
    return ranges


def best_cell(trials: Trials) -> str | None:
    """Return the cell of true answers and at least two seeds with the lowest mean held-out loss."""
    means = {}
    for name, cell in trials.cells.items():
        if len(cell) > 1 and not cell[0].row.shuffled:
            means[name] = statistics.fmean(trial.held_out for trial in cell)
    return min(means, key=means.__getitem__, default=None)


def _of_answers(trials: Trials) -> dict[str, Measurement]:
    """Return how often answers agree: with the base's, between two seeds, between two rates."""
    exact = Measurement.of_exact
    changed = 0
    right = 0
    for trial in trials.trials:
        for answer, base, prompt in zip(
            trial.answers, trials.base_answers, trials.prompts, strict=True
        ):
            changed += answer != base
            right += trials.texts[answer] == prompt.expected
    return {
        "answers": exact(len(trials.trials) * len(trials.prompts), "answers"),
        "answers_unlike_base": exact(changed, "answers"),
        "answers_like_documentation": exact(right, "answers"),
        "seed_answers_equal_share": _equal_share(list(seed_pairs(trials)), len(trials.prompts)),
        "rate_answers_equal_share": _equal_share(list(rate_pairs(trials)), len(trials.prompts)),
    }


def seed_pairs(trials: Trials) -> Iterator[Pair]:
    """Yield every two trials that differ in the seed alone."""
    for cell in trials.cells.values():
        yield from itertools.combinations(cell, 2)


def rate_pairs(trials: Trials) -> Iterator[Pair]:
    """Yield every two trials that differ in the learning rate alone."""
    by_row: dict[tuple[Row, int], list[StoredTrial]] = {}
    for trial in sorted(trials.trials, key=lambda trial: trial.rate):
        by_row.setdefault((trial.row, trial.seed), []).append(trial)
    for row in by_row.values():
        yield from itertools.combinations(row, 2)


def _equal_share(pairs: Iterable[Pair], prompts: int) -> Measurement:
    """Return in which share of the pairs the two answers are the same, a value per prompt."""
    pairs = list(pairs)
    if not pairs or not prompts:
        return Measurement.of_estimate(None, "")
    shares = []
    for i in range(prompts):
        shares.append(statistics.fmean(a.answers[i] == b.answers[i] for a, b in pairs))
    return Measurement.of_sample(shares, "")
