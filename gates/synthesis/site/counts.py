"""Every measurement of the site, recomputed from the inputs and from the site's files."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Iterable, Iterator
from typing import Any

from gates.shared import outputs
from gates.synthesis.site import explorer, given, measured_trials, pages

Pair = tuple[str, str]  # names of two trials
OF_SITE = ("pages", "figures_shown", "links", "links_broken", "site_bytes")
OF_SOURCES = (
    "features",
    "features_absent",
    "predictions",
    "predictions_held",
    "predictions_missed",
    "predictions_inconclusive",
    "missed_share",
    "questions",
    "questions_with_a_finding",
    "concepts",
    "placeholders",
    "placeholders_filled",
)
OF_TRIALS = (
    "trials",
    "trials_scored_for_forgetting",
    "cells_measured",
    "cells_not_measured",
    "best_cell",
    "best_cell_loss",
    "seed_range_median",
    "rate_range_median",
    "stable_rank_median",
)
OF_ANSWERS = (
    "answers",
    "answers_unlike_base",
    "answers_like_documentation",
    "seed_answers_equal_share",
    "rate_answers_equal_share",
)
NAMES = (*OF_SOURCES, *OF_SITE, *OF_TRIALS, *OF_ANSWERS)


def of_sources() -> dict[str, Any]:
    """Return what was given."""
    outcomes = given.outcomes()
    total = sum(outcomes.values())
    features = set(given.features())
    names: list[tuple[str, str]] = []
    for source in given.concepts().values():
        names += given.placeholders(source)
    return {
        "features": len(features),
        "features_absent": len(given.absent()),
        "predictions": total,
        "predictions_held": outcomes["HELD"],
        "predictions_missed": outcomes["MISSED"],
        "predictions_inconclusive": outcomes["INCONCLUSIVE"],
        "missed_share": outcomes["MISSED"] / total if total else None,
        "questions": len(given.questions()),
        "questions_with_a_finding": sum(
            bool(features & set(item["experiments"])) for item in given.questions()
        ),
        "concepts": len(given.concepts()),
        "placeholders": len(names),
        "placeholders_filled": sum(given.measured(*name) is not None for name in names),
    }


def of_site() -> dict[str, Any]:
    """Return what was written."""
    names = pages.files()
    made = [name for name in names if name.endswith(".html")]
    links = internal_links()
    broken = [target for _, target in links if target.partition("#")[0] not in names]
    site = outputs.out() / pages.SITE
    return {
        "pages": len(made),
        "figures_shown": len(names) - len(made),
        "links": len(links),
        "links_broken": len(broken),
        "site_bytes": sum((site / name).stat().st_size for name in names),
    }


def internal_links() -> list[tuple[str, str]]:
    """Return (page, target) of every link and image that stays in the site."""
    links = []
    for name in pages.files():
        if not name.endswith(".html"):
            continue
        found = pages.targets(name)
        for target in (*found["links"], *found["images"]):
            if target.startswith("#"):
                links.append((name, name + target))
            elif ":" not in target:
                links.append((name, target))
    return links


def of_trials() -> dict[str, Any]:
    """Return the grid, its best cell, and how far seeds and rates are apart."""
    trials, cells = measured_trials.recomputed(), explorer.cells()
    ranges: list[float] = []
    by_row: dict[tuple[Any, ...], list[float]] = {}
    candidates = {}
    for name, cell in cells.items():
        losses = [trial["held_out"] for trial in cell]
        by_row.setdefault(explorer.row_of(cell[0]), []).append(statistics.fmean(losses))
        if len(losses) > 1:
            ranges.append(max(losses) - min(losses))
            if not cell[0]["shuffled"]:
                candidates[name] = statistics.fmean(losses)
    best = min(candidates, key=lambda name: candidates[name], default=None)
    best_loss: dict[str, Any] = {"value": None}
    if best is not None:
        by_seed = sorted(cells[best], key=lambda trial: trial["seed"])
        best_loss = outputs.sample([trial["held_out"] for trial in by_seed])
    between_rates = [max(means) - min(means) for means in by_row.values() if len(means) > 1]
    return {
        "trials": len(trials),
        "trials_scored_for_forgetting": sum(
            trial["forgetting"] is not None for trial in trials.values()
        ),
        "cells_measured": len(cells),
        "cells_not_measured": len(explorer.rows()) * len(explorer.rates()) - len(cells),
        "best_cell": best,
        "best_cell_loss": best_loss,
        "seed_range_median": _median(ranges),
        "rate_range_median": _median(between_rates),
        "stable_rank_median": _median([trial["stable_rank"] for trial in trials.values()]),
    }


def _median(values: list[float]) -> dict[str, Any]:
    if not values:
        return {"value": None, "n": None}
    return {"value": statistics.median(values), "stderr": None, "n": len(values)}


def of_answers() -> dict[str, Any]:
    """Return how often stored answers agree."""
    stored, examples = measured_trials.answers(), measured_trials.prompts()
    texts = measured_trials.texts() if stored["trials"] else {}
    unlike = alike = 0
    for name, of_trial in stored["trials"].items():
        unlike += sum(answer != base for answer, base in zip(of_trial, stored["base"], strict=True))
        targets = [example["messages"][-1]["content"] for example in examples]
        alike += sum(text == target for text, target in zip(texts[name], targets, strict=True))
    return {
        "answers": sum(map(len, stored["trials"].values())),
        "answers_unlike_base": unlike,
        "answers_like_documentation": alike,
        "seed_answers_equal_share": _equal_share(_pairs("seed"), stored["trials"]),
        "rate_answers_equal_share": _equal_share(_pairs("rate"), stored["trials"]),
    }


def _pairs(key: str) -> Iterator[Pair]:
    """Yield every two trials that differ in the seed alone, or in the rate alone."""
    other = {"seed": "rate", "rate": "seed"}[key]
    groups: dict[tuple[Any, ...], list[str]] = {}
    for name, trial in measured_trials.recomputed().items():
        groups.setdefault((explorer.row_of(trial), trial[other]), []).append(name)
    for names in groups.values():
        yield from itertools.combinations(names, 2)


def _equal_share(pairs: Iterable[Pair], answers: dict[str, list[list[int]]]) -> dict[str, Any]:
    pairs = list(pairs)
    if not pairs:
        return {"value": None}
    shares = []
    for i in range(len(measured_trials.prompts())):
        equal = [answers[one][i] == answers[two][i] for one, two in pairs]
        shares.append(sum(equal) / len(equal))
    return outputs.sample(shares)
