"""Findings of the site: sentences that change with its numbers."""

from __future__ import annotations

from collections.abc import Mapping

from lab.present.numbers import count, number, quantity
from lab.result import Measurement
from lab.synthesis.site.measured import Sources, Trials


def findings(
    sources: Sources, trials: Trials, measurements: Mapping[str, Measurement]
) -> tuple[str, ...]:
    """Return the sentences that the numbers support."""
    values = {name: measurement.value for name, measurement in measurements.items()}
    total = count(len(sources.scores), "prediction")
    sentences = [
        f"Of {total} of {count(len(sources.features), 'feature')}, "
        f"{values['predictions_missed']} missed, {values['predictions_held']} held and "
        f"{values['predictions_inconclusive']} could not be decided."
    ]
    if trials.trials:
        sentences += _of_trials(measurements)
    else:
        sentences.append("No result that was given has stored trials: the explorer is empty.")
    verdict = "each leads somewhere"
    if values["links_broken"]:
        verdict = f"{values['links_broken']} lead nowhere"
    sentences.append(
        f"The site has {count(int(measurements['pages'].number), 'page')} with "
        f"{count(int(measurements['figures_shown'].number), 'figure')} and "
        f"{count(int(measurements['links'].number), 'link')}, of which {verdict}; "
        f"{values['placeholders_filled']} of {values['placeholders']} numbers of the concept texts "
        "are filled in."
    )
    return tuple(sentences)


def _of_trials(measurements: Mapping[str, Measurement]) -> list[str]:
    shown = {name: quantity(measurement) for name, measurement in measurements.items()}
    values = {name: measurement.value for name, measurement in measurements.items()}
    sentences = []
    if values["best_cell"] is not None:
        trial_count = count(int(measurements["trials"].number), "trial")
        sentences.append(
            f"Of {values['cells_measured']} cells with {trial_count}, "
            f"{values['best_cell']} has the lowest held-out loss: {shown['best_cell_loss']} over "
            f"its seeds. {values['cells_not_measured']} cells of the grid were not measured."
        )
    if values["seed_answers_equal_share"] is not None:
        sentences.append(
            "Two trials that differ in the seed alone give the same greedy answer in a share of "
            f"{shown['seed_answers_equal_share']} of the cases, two that differ in the learning "
            f"rate alone in {shown['rate_answers_equal_share']}; n counts prompts."
        )
        sentences.append(
            f"The held-out loss spans {shown['seed_range_median']} between the seeds of a cell in "
            f"the median, {shown['rate_range_median']} between the rates of a row."
        )
    sentences.append(
        f"{values['answers_unlike_base']} of {values['answers']} answers of adapters differ from "
        f"the base's; {values['answers_like_documentation']} are the line of the documentation, "
        "word by word."
    )
    sentences.append(
        f"The median stable rank of the updates over the trials is "
        f"{number(values['stable_rank_median'], 3)}."
    )
    return sentences
