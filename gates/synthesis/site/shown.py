"""What the site's own report must show: findings, tables and figures, recomputed."""

from __future__ import annotations

import statistics
from typing import Any

from gates.synthesis.site import explorer, given, measured_trials
from gates.synthesis.site.stated import count, number, quantity

Numbers = dict[str, dict[str, Any]]  # name -> measurement as result.json has it
OUTCOMES = ("HELD", "MISSED", "INCONCLUSIVE")


def findings(numbers: Numbers) -> list[str]:
    """Return the sentences that these measurements make."""
    values = {name: measurement["value"] for name, measurement in numbers.items()}
    texts = {name: quantity(measurement) for name, measurement in numbers.items()}
    sentences = [
        f"Of {count(values['predictions'], 'prediction')} of "
        f"{count(values['features'], 'feature')}, {values['predictions_missed']} missed, "
        f"{values['predictions_held']} held and {values['predictions_inconclusive']} could not be "
        "decided."
    ]
    if values["trials"]:
        sentences += _of_trials(values, texts)
    else:
        sentences.append("No result that was given has stored trials: the explorer is empty.")
    broken = values["links_broken"]
    verdict = f"{broken} lead nowhere" if broken else "each leads somewhere"
    sentences.append(
        f"The site has {count(values['pages'], 'page')} with "
        f"{count(values['figures_shown'], 'figure')} and {count(values['links'], 'link')}, of "
        f"which {verdict}; {values['placeholders_filled']} of {values['placeholders']} numbers of "
        "the concept texts are filled in."
    )
    return sentences


def _of_trials(values: dict[str, Any], texts: dict[str, str]) -> list[str]:
    sentences = []
    if values["best_cell"] is not None:
        sentences.append(
            f"Of {values['cells_measured']} cells with {count(values['trials'], 'trial')}, "
            f"{values['best_cell']} has the lowest held-out loss: {texts['best_cell_loss']} over "
            f"its seeds. {values['cells_not_measured']} cells of the grid were not measured."
        )
    if values["seed_answers_equal_share"] is not None:
        sentences.append(
            "Two trials that differ in the seed alone give the same greedy answer in a share of "
            f"{texts['seed_answers_equal_share']} of the cases, two that differ in the learning "
            f"rate alone in {texts['rate_answers_equal_share']}; n counts prompts."
        )
        sentences.append(
            f"The held-out loss spans {texts['seed_range_median']} between the seeds of a cell in "
            f"the median, {texts['rate_range_median']} between the rates of a row."
        )
    sentences.append(
        f"{values['answers_unlike_base']} of {values['answers']} answers of adapters differ from "
        f"the base's; {values['answers_like_documentation']} are the line of the documentation, "
        "word by word."
    )
    sentences.append(
        "The median stable rank of the updates over the trials is "
        f"{number(values['stable_rank_median'], 3)}."
    )
    return sentences


def tables() -> dict[str, list[list[Any]]]:
    """Return title -> rows of every table."""
    expected = {"What was predicted, by feature": _predictions_rows()}
    if measured_trials.recomputed():
        expected["Measured cells"] = _cell_rows()
        expected["Answers of all trials"] = _answer_rows()
    return expected


def _predictions_rows() -> list[list[Any]]:
    rows = []
    for feature in given.features():
        outcomes = [score["outcome"] for score in given.scores(feature)]
        counts = [outcomes.count(outcome) for outcome in ("MISSED", "HELD", "INCONCLUSIVE")]
        receipt = given.entries()[feature].get("receipt", "none")
        title = given.result(feature)["title"]
        rows.append([feature, title, len(outcomes), *counts, receipt])
    return rows


def _cell_rows() -> list[list[Any]]:
    rows = []
    for name, cell in explorer.cells().items():
        losses = [trial["held_out"] for trial in cell]
        stable_rank = statistics.fmean(trial["stable_rank"] for trial in cell)
        spread = max(losses) - min(losses)
        rows.append([name, len(cell), explorer.mean_loss(cell), spread, stable_rank])
    return sorted(rows, key=lambda row: row[2])


def _answer_rows() -> list[list[Any]]:
    stored, texts = measured_trials.answers(), measured_trials.texts()
    rows = []
    for i, example in enumerate(measured_trials.prompts()):
        answers = [tuple(of_trial[i]) for of_trial in stored["trials"].values()]
        base = tuple(stored["base"][i])
        prompt, target = example["messages"][0]["content"], example["messages"][-1]["content"]
        unlike = sum(answer != base for answer in answers)
        rows.append([prompt, target, texts["base"][i], len(set(answers)), unlike])
    return rows


def figures() -> dict[str, dict[str, Any]]:
    """Return figure -> its caption and, by label, the x and y of its series."""
    expected = {}
    outcomes = given.outcomes()
    if sum(outcomes.values()):
        expected["predictions"] = _predictions_figure()
    ranges, means = [], []
    widest = ("", 0.0)
    for name, cell in explorer.cells().items():
        losses = [trial["held_out"] for trial in cell]
        if len(losses) > 1:
            ranges.append(max(losses) - min(losses))
            means.append(statistics.fmean(losses))
            widest = max(widest, (name, ranges[-1]), key=lambda pair: pair[1])
    if ranges:
        expected["seed_ranges"] = {
            "caption": (
                f"{count(len(ranges), 'cell')} with several seeds; the widest, {widest[0]}, spans "
                f"{number(widest[1])} nats/token, the median {number(statistics.median(ranges))}."
            ),
            "series": {"cells": [means, ranges]},
        }
    return expected


def _predictions_figure() -> dict[str, Any]:
    outcomes = given.outcomes()
    features = [name for name in given.features() if given.scores(name)]
    series = {}
    for outcome in OUTCOMES:
        counts = []
        for name in features:
            counts.append(sum(score["outcome"] == outcome for score in given.scores(name)))
        series[outcome.lower()] = [[name.removeprefix("FEAT-") for name in features], counts]
    return {
        "caption": (
            f"{count(sum(outcomes.values()), 'prediction')}: {outcomes['HELD']} held, "
            f"{outcomes['MISSED']} missed, {outcomes['INCONCLUSIVE']} inconclusive. A miss is a "
            "finding."
        ),
        "series": series,
    }
