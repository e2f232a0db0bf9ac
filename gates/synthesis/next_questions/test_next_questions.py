"""Gate of FEAT-020: does every next experiment, its cost and its rank follow from the results?

Nothing was trained, so everything is computed again: the outcome of each prediction, the candidates
that follow, their repeats by the measured spread, their cost by FEAT-017's models or the receipts,
the order, and every sentence.
"""

from __future__ import annotations

import math
from typing import Any

import pytest

from gates.shared import outputs, standard, stored
from gates.shared.documents import agree, written
from gates.shared.standard import (  # noqa: F401 - pytest collects them as this gate's own
    test_figures_were_drawn_from_their_data,
    test_files_are_those_of_the_result,
    test_report_was_made_from_the_result,
)
from gates.synthesis.next_questions import planned, proposing, sentences

NAMES = (
    "predictions",
    "predictions_missed",
    "predictions_inconclusive",
    "candidates",
    "candidates_missed",
    "candidates_open",
    "candidates_wide",
    "out_of_reach",
    "unplanned",
    "widest",
    "widest_relative",
    "best",
    "best_bits_per_hour",
    "cheapest_hours",
    "dearest_hours",
    "first_five_hours",
)
KEPT = ("module", "command", "config", "needs", "inputs", "outputs", "gate", "timeout_s")
TABLES = {
    "What to ask next: most told per hour first": (
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
    "Out of reach: no number of repeats that can be paid decides it": ("question", "because"),
    "Did not hold, and no experiment follows": ("feature", "prediction", "outcome", "because"),
}


def recomputed() -> dict[str, Any]:
    """Return everything that follows from the inputs, computed once per judgement."""
    return dict(stored.cached("next questions", [], proposing.recompute))


def candidates() -> list[dict[str, Any]]:
    """Return the recomputed candidates, the best first."""
    computed: list[dict[str, Any]] = recomputed()["candidates"]
    return computed


def payable() -> list[dict[str, Any]]:
    """Return those that are within reach."""
    return [candidate for candidate in candidates() if candidate["cost"] is not None]


def hours(candidate: dict[str, Any]) -> float:
    """Return the hours that a candidate takes."""
    return float(candidate["cost"]["seconds"]) / 3600


def test_every_measurement_is_judged() -> None:
    standard.assert_all_judged(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_number_follows_from_the_results(name: str) -> None:
    outputs.assert_agrees(name, recomputed()["measurements"][name])


def test_report_states_what_was_recomputed() -> None:
    standard.assert_report_states(recomputed()["measurements"])


def test_settings_are_those_that_were_reviewed() -> None:
    assert outputs.result()["environment"]["config"] == planned.settings()


def test_receipts_are_those_that_were_given() -> None:
    expected = {}
    for name, folder in proposing.features().items():
        expected[name] = proposing.receipt_digest(folder)
    assert outputs.result()["environment"]["receipts"] == expected


#### what is stored


def test_candidates_follow_from_the_results() -> None:
    actual = outputs.read_json("candidates.json")
    assert len(actual) == len(candidates())
    for rank, (one, expected) in enumerate(zip(actual, candidates(), strict=True), start=1):
        texts = {"question": one.pop("question"), "prediction": one.pop("prediction")}
        assert_alike(one, {"rank": rank, **expected}, f"candidate {rank}")
        for name, text in texts.items():
            said = getattr(sentences, name)(expected)
            assert agree(text, said), f"candidate {rank}: {name} {text!r}, expected {said!r}"


def assert_alike(actual: Any, expected: Any, what: str) -> None:
    """Check a JSON object field by field, its numbers to 1e-6."""
    if isinstance(expected, dict):
        assert isinstance(actual, dict), f"{what} is {actual}"
        assert set(actual) == set(expected), f"{what} has the fields {sorted(actual)}"
        for name, value in expected.items():
            assert_alike(actual[name], value, f"{what}, {name}")
    else:
        assert outputs.same(actual, expected, 1e-6), f"{what}: {actual}, recomputed {expected}"


def test_plan_entry_is_the_best_candidate() -> None:
    entry, listed = outputs.read_json("plan_entry.json"), proposing.planned_features()
    if not payable():
        assert entry == {}
        return
    best = payable()[0]
    (origin,) = [feature for feature in listed if feature["id"] == best["feature"]]
    # 1. What it takes over.
    free = max(int(feature["id"].split("-")[-1]) for feature in listed) + 1
    expected: dict[str, Any] = {name: origin[name] for name in KEPT if name in origin}
    expected["id"] = f"{best['feature'].split('-')[0]}-{free:03}"
    expected["title"] = f"{origin['title']}, asked again"
    # 2. What it costs.
    expected["expect"] = {
        "minutes": max(1, math.ceil(best["cost"]["seconds"] / 60)),
        "memory_gb": max(1, math.ceil(best["cost"]["bytes"] / 1e9)),
    }
    # 3. What it claims, and the words.
    (prediction,) = entry.pop("predictions")
    description = entry.pop("description")
    assert entry == expected
    how = sentences.circumstance(best)
    said = (
        f"{sentences.question(best)} As {best['feature']}, {how}: copy its config and change that."
    )
    assert agree(description, said), description
    assert prediction.pop("id") == f"{best['id']}-again"
    assert agree(prediction.pop("claim"), sentences.prediction(best))
    assert agree(prediction.pop("source"), f"{best['feature']}: {sentences.reason(best)}")
    assert_alike(prediction, best["expected"], "prediction")


#### what is shown


def test_findings_are_made_from_the_numbers() -> None:
    expected = said_findings()
    actual = outputs.result()["findings"]
    assert len(actual) == len(expected)
    for finding, said in zip(actual, expected, strict=True):
        assert agree(finding, said), f"{finding!r}; expected {said!r}"


def said_findings() -> list[str]:
    """Return the sentences that the recomputed numbers support."""
    numbers, within = recomputed()["measurements"], payable()
    said = []
    # 1. The first three, and what they take.
    for candidate, begin in zip(within, ("Ask next", "Then", "Then"), strict=False):
        cost = candidate["cost"]
        said.append(
            f"{begin}: {sentences.question(candidate)} Prediction: "
            f"{sentences.prediction(candidate)}. It takes {sentences.duration(hours(candidate))} "
            f"by the {cost['source']} and tells {written(candidate['bits'], 2)} bits."
        )
    if within:
        first, cheap, dear = (
            sentences.duration(numbers[f"{name}_hours"])
            for name in ("first_five", "cheapest", "dearest")
        )
        said.append(
            f"The first {plural(min(5, len(within)), 'experiment')} take {first} together; the "
            f"cheapest of all takes {cheap}, the dearest {dear}."
        )

    # 2. Whence they come.
    said.append(
        f"Of {plural(numbers['predictions'], 'prediction')}, {numbers['predictions_missed']} "
        f"missed and {numbers['predictions_inconclusive']} could not be decided. "
        f"{plural(numbers['candidates'], 'experiment')} follow: {numbers['candidates_missed']} "
        f"from misses, {numbers['candidates_open']} from what is open, "
        f"{numbers['candidates_wide']} from wide intervals; {numbers['out_of_reach']} of them out "
        f"of reach. From {plural(numbers['unplanned'], 'prediction')} none follows."
    )
    if numbers["widest"] is not None:
        percent = written(100 * numbers["widest_relative"], 2)
        said.append(
            f"The widest headline number is {numbers['widest']}: its interval reaches {percent} % "
            "of what is claimed of it, or of itself, to either side."
        )
    return said


def plural(n: int, noun: str) -> str:
    """Return a count with its noun."""
    return f"{n:,} {noun}" if n == 1 else f"{n:,} {noun}s"


def said_rows() -> list[list[list[Any]]]:
    """Return the rows of each table."""
    ranked, far = [], []
    for rank, candidate in enumerate(candidates(), start=1):
        texts = [sentences.question(candidate), sentences.reason(candidate)]
        if candidate["cost"] is None:
            far.append(texts)
            continue
        gib = written(candidate["cost"]["bytes"] / 2**30, 2)
        ranked.append(
            [
                rank,
                texts[0],
                sentences.prediction(candidate),
                texts[1],
                sentences.duration(hours(candidate)),
                f"{gib} GiB",
                candidate["cost"]["source"],
                written(candidate["bits"], 2),
                written(candidate["bits_per_hour"], 2),
            ]
        )
    return [ranked, far, recomputed()["unplanned"]]


def test_tables_are_made_from_the_candidates() -> None:
    filled = {title: rows for title, rows in zip(TABLES, said_rows(), strict=True) if rows}
    tables = outputs.result()["tables"]
    assert [table["title"] for table in tables] == list(filled)
    for table in tables:
        expected = filled[table["title"]]
        assert tuple(table["columns"]) == TABLES[table["title"]]
        assert len(table["rows"]) == len(expected), table["title"]
        for row, said in zip(table["rows"], expected, strict=True):
            for cell, text in zip(row, said, strict=True):
                alike = cell == text
                if isinstance(text, str):
                    alike = agree(cell, text)
                assert alike, f"{table['title']}: {cell!r}, expected {text!r}"


def test_figure_shows_what_the_first_cost() -> None:
    shown = payable()[:10]
    if not shown:
        assert outputs.result()["figures"] == []
        return
    figure = outputs.read_json("figures/next_questions.json")
    # 1. The bars.
    (bars,) = figure["series"]
    names = []
    for rank, candidate in enumerate(shown, start=1):
        names.append(f"{rank}: {candidate['feature']} {candidate['expected']['measurement']}")
    assert bars["x"] == names
    assert bars["y"] == [float(f"{60 * hours(candidate):.2g}") for candidate in shown]
    assert (bars["kind"], bars["label"]) == ("bar", "minutes")

    # 2. The words.
    bits = [candidate["bits"] for candidate in shown]
    caption = (
        f"The first of {plural(len(payable()), 'experiment')}, those first that tell most per "
        f"hour. Each is expected to tell {written(min(bits), 2)} to {written(max(bits), 2)} bits: "
        "1 where nothing is known of a yes or no, or an interval is halved."
    )
    assert agree(figure["caption"], caption), figure["caption"]
    assert [figure[part] for part in ("title", "x_label", "y_label")] == [
        "What the next experiments cost, in the order of their ranks",
        "rank and measurement",
        "minutes on this machine",
    ]
