"""Gate of FEAT-009, FEAT-013, FEAT-016: does every answer follow from the results, and every score?

Nothing was trained, so everything is computed again: the rules of questions.json on the inputs'
results, the plan's predictions by the rule of docs/prd-format.md, the comparisons by their effects
and standard deviations. What the questions ask, and which label belongs to which outcome, was
reviewed with this gate: words.json has a digest of each.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from gates.shared import deciding, outputs, standard
from gates.shared.deciding import CandidateResult
from gates.shared.documents import shows, stated_numbers
from gates.shared.standard import (  # noqa: F401 - pytest collects them as this gate's own
    test_figures_were_drawn_from_their_data,
    test_files_are_those_of_the_result,
    test_report_was_made_from_the_result,
)
from gates.synthesis import words

MIN_QUESTIONS = 12
LETTERS = "abcdefgh"
FILES = ("questions.json", "candidates.json", "predictions.json")


@dataclass(frozen=True)
class Track:
    """What a track's self-assessment must have.

    name: of its words in words.json; topics: at least these are asked about; figure_prefix: of the
    names of its figures; units: of its comparisons; comparisons: what their figure says.
    """

    name: str
    topics: frozenset[str]
    figure_prefix: str = ""
    units: deciding.Units = deciding.OVER_SEEDS
    comparisons: words.Comparisons = words.OVER_SEEDS


# features that are assessed -> the track
TRACKS = {
    ("FEAT-005", "FEAT-006", "FEAT-007", "FEAT-008"): Track(
        "track-a",
        frozenset(
            {"forward and backward pass", "loss landscape", "optimizer state", "batch and rate"}
        ),
    ),
    ("FEAT-010", "FEAT-011", "FEAT-012", "FEAT-021"): Track(
        "track-b",
        frozenset(
            {
                "queries, keys and values",
                "scores",
                "multi-head and grouped-query attention",
                "position encoding",
            }
        ),
        figure_prefix="attention_",
    ),
    ("FEAT-014", "FEAT-015"): Track(
        "track-c",
        frozenset(
            {
                "residual stream",
                "massive activations",
                "attention and MLP",
                "logit lens",
                "similarity of layers",
                "probing",
            }
        ),
        figure_prefix="representations_",
        units=deciding.OVER_TEXTS,
        comparisons=words.OVER_TEXTS,
    ),
}


def track() -> Track:
    """Return the track whose features are among the inputs."""
    assessed = tuple(features())
    assert assessed in TRACKS, f"{assessed} are the features of no track"
    return TRACKS[assessed]


def input_entries() -> dict[str, dict[str, Any]]:
    """Return name -> {"kind", "path", …} of what the run was given."""
    entries: dict[str, Any] = json.loads(Path(os.environ["PHASES_INPUTS"]).read_text("utf-8"))
    return entries


def features() -> list[str]:
    """Return the features among the inputs, in the order of their names."""
    entries = input_entries()
    return sorted(name for name, entry in entries.items() if entry["kind"] == "feature")


def feature_result(feature: str) -> dict[str, Any]:
    """Return the parsed result.json of a feature among the inputs."""
    text = (outputs.inputs()[feature] / "result.json").read_text("utf-8")
    result: dict[str, Any] = json.loads(text)
    return result


def results() -> dict[str, dict[str, Any]]:
    """Return feature -> its measurements."""
    return {feature: feature_result(feature)["measurements"] for feature in features()}


def questions() -> list[dict[str, Any]]:
    """Return the stored questions with their rules."""
    stored: list[dict[str, Any]] = outputs.read_json("questions.json")["questions"]
    return stored


def posed_questions() -> dict[str, dict[str, Any]]:
    """Return id -> the question as it was posed, in the order of asking."""
    return {item["id"]: item for item in outputs.read_json("questions.json")["posed_questions"]}


def candidates() -> list[dict[str, Any]]:
    """Return the stored candidates for the minimum interesting experiment."""
    stored: list[dict[str, Any]] = outputs.read_json("candidates.json")
    return stored


def predictions() -> list[dict[str, Any]]:
    """Return the stored predictions."""
    stored: list[dict[str, Any]] = outputs.read_json("predictions.json")
    return stored


def recomputed() -> dict[str, Any]:
    """Return everything that was decided anew: answers by id, outcomes, candidates, counts."""
    return dict(outputs.cached("self-assessment", FILES, recompute))


def recompute() -> dict[str, Any]:
    measurements = results()
    answers = {}
    for question in questions():
        answers[question["id"]] = deciding.decide_question(question, measurements)
    outcomes = []
    for prediction in predictions():
        feature = prediction["feature"]
        outcomes.append(deciding.score_prediction(prediction, measurements[feature]))
    candidate_results = []
    for candidate in candidates():
        candidate_results.append(vars(deciding.evaluate_candidate(candidate, measurements)))
    return {
        "answers": answers,
        "outcomes": outcomes,
        "candidates": candidate_results,
        "measurements": deciding.compute_measurements(
            questions(), candidates(), predictions(), measurements, track().units
        ),
    }


def candidate_results() -> list[CandidateResult]:
    """Return the recomputed result of each candidate."""
    return [CandidateResult(**fields) for fields in recomputed()["candidates"]]


def table(title: str) -> list[dict[str, Any]]:
    """Return the rows of the one table whose title begins so, each as column -> cell."""
    tables = [item for item in outputs.result()["tables"] if item["title"].startswith(title)]
    assert len(tables) == 1, f"got {len(tables)} tables {title!r}; expected 1"
    columns = tables[0]["columns"]
    return [dict(zip(columns, row, strict=True)) for row in tables[0]["rows"]]


def column(rows: Iterable[dict[str, Any]], name: str) -> list[Any]:
    """Return one field of each row."""
    return [row[name] for row in rows]


def test_every_measurement_is_judged() -> None:
    standard.assert_all_judged((*track().units.computed, deciding.EFFECT))


@pytest.mark.parametrize("name", deciding.SHARED_NAMES)
def test_number_follows_from_the_results(name: str) -> None:
    outputs.assert_agrees(name, recomputed()["measurements"][name])


@pytest.mark.parametrize("index", [0, 1], ids=["repeats", "costs"])
def test_what_would_have_been_enough_follows_from_the_results(index: int) -> None:
    name = track().units.names[index]
    outputs.assert_agrees(name, recomputed()["measurements"][name])
    unit = (track().units.repeats, track().units.costs)[index]
    assert outputs.measurement(name)["unit"] == unit, f"{name}: another unit than {unit}"


def test_report_states_what_was_recomputed() -> None:
    numbers = recomputed()["measurements"]
    standard.assert_report_states({name: numbers[name] for name in track().units.computed})


def test_effect_is_the_one_that_was_measured() -> None:
    comparisons = candidate_results()
    effect = comparisons[deciding.find_minimum(comparisons)].effect
    expected = {field: effect.get(field) for field in ("value", "stderr", "n")}
    outputs.assert_agrees(deciding.EFFECT, expected)


#### what the answers rest on


def test_sources_are_the_results_that_were_given() -> None:
    entries = input_entries()
    sources = outputs.read_json("sources.json")
    assert sorted(sources) == features()
    for name, source in sources.items():
        assert source["receipt"] == entries[name].get("receipt", "none"), f"{name}: another receipt"
        digest = outputs.digest_of(outputs.inputs()[name] / "result.json")
        assert source["result"] == f"sha256:{digest}", f"{name}: another result"
    receipts = {name: source["receipt"] for name, source in sources.items()}
    assert outputs.result()["environment"]["receipts"] == receipts


def test_predictions_are_those_of_the_plan() -> None:
    plan = json.loads(outputs.inputs()["plan"].read_text("utf-8"))
    fields = (*deciding.FIELDS, "margin")
    planned = []
    for phase in plan["phases"]:
        for feature in phase["features"]:
            if feature["id"] not in features():
                continue
            for prediction in feature.get("predictions", []):
                values = {name: prediction.get(name) for name in fields}
                planned.append({"feature": feature["id"], **values})
    stored = []
    for prediction in predictions():
        stored.append({name: prediction[name] for name in ("feature", *fields)})

    def key(prediction: dict[str, Any]) -> tuple[str, str]:
        return prediction["feature"], prediction["id"]

    assert sorted(stored, key=key) == sorted(planned, key=key)


def test_every_feature_made_a_prediction_and_is_asked_about() -> None:
    predicting = set(column(predictions(), "feature"))
    deciding_features: set[str] = set()
    for question in questions():
        deciding_features.update(name.split(".")[0] for name in deciding.rule_names(question))
    assert predicting == deciding_features == set(features()), (
        f"predicted {sorted(predicting)}, asked about {sorted(deciding_features)}"
    )


#### the questions


def test_questions_cover_the_topics() -> None:
    topics = column(questions(), "topic")
    assert len(topics) >= MIN_QUESTIONS
    assert {topic for topic in topics if topics.count(topic) >= 2} >= track().topics
    assert len(set(column(questions(), "id"))) == len(topics)


def test_questions_and_candidates_are_those_that_were_reviewed() -> None:
    stored, expected = words.digests(questions(), candidates()), words.reviewed(track().name)
    for kind, digests in expected.items():
        assert list(stored[kind]) == list(digests), f"other {kind} than those that were reviewed"
        changed = [name for name, digest in digests.items() if stored[kind][name] != digest]
        assert not changed, f"{kind} with other words or rules than were reviewed: {changed}"


def test_only_a_run_decides() -> None:
    """Each option can be the right one: another number, another answer."""
    for question in questions():
        name, options = question["id"], question["options"]
        assert deciding.rule_names(question), f"{name} is decided by no measurement"
        assert_distinct(column(options, "label"), f"{name}: labels")
        if question["rule"] in ("largest", "smallest"):
            assert_distinct(column(options, "of"), f"{name}: measurements")
        elif question["rule"] == "equals":
            assert_distinct(list(map(repr, column(options, "equal"))), f"{name}: values")
        elif question["rule"] != "number":
            edges = question["bin_edges"]
            assert edges == sorted(set(edges)), f"{name}: bin edges {edges}"
            extra = {"interval": 2}.get(question["rule"], 1)  # 2: "cannot tell" is an option
            assert len(options) == len(edges) + extra, f"{name}: {len(options)} options"


def assert_distinct(values: list[str], what: str) -> None:
    assert len(set(values)) == len(values), f"{what} {values} are not all different"


def test_answers_follow_from_the_numbers() -> None:
    answers = recomputed()["answers"]
    decided = sorted(name for name, answer in answers.items() if answer is not None)
    assert sorted(posed_questions()) == decided
    for question in questions():
        name = question["id"]
        answer, posed = answers[name], posed_questions().get(name)
        if answer is None or posed is None:
            continue
        if question["rule"] == "number":
            stored = [posed["solution"], posed["tolerance"]]
            expected = [answer["value"], answer["tolerance"]]
            assert outputs.same(stored, expected, 1e-9), f"{name}: {stored}, recomputed {expected}"
            assert not posed["choices"]
        else:
            labels = column(question["options"], "label")
            assert len(posed["choices"]) == len(labels), f"{name}: choices are missing"
            stored_choice = posed["choices"][posed["solution"]]
            expected_label = labels[answer["option"]]
            assert fits(expected_label, stored_choice), (
                f"{name}: {stored_choice!r} is called right, the numbers say {expected_label!r}"
            )
            for label in labels:
                assert any(fits(label, choice) for choice in posed["choices"]), f"{name}: {label!r}"


def fits(template: str, text: str) -> bool:
    """Return whether a text is a template with its {…} filled by anything."""
    parts = re.split(r"\{[^}]*\}", " ".join(template.split()))
    return re.fullmatch(".*".join(map(re.escape, parts)), text) is not None


def test_explanations_state_the_numbers_that_decided() -> None:
    document = outputs.read_json("questions.json")
    assert list(deciding.find_misstatements(document, results())) == []


def test_what_is_asked_and_explained_are_the_words_of_the_questions() -> None:
    measurements, problems = results(), []
    for question in questions():
        answer, posed = recomputed()["answers"][question["id"]], posed_questions()
        if answer is not None and question["id"] in posed:
            item, option = posed[question["id"]], answer.get("option")
            problems += words.misworded(question, item, option, measurements)
    assert problems == []


def test_right_answers_have_different_letters() -> None:
    posed = posed_questions().values()
    solutions = {item["solution"] for item in posed if len(item["choices"]) > 2}
    assert len(solutions) > 1, "every right answer has the same letter"


def test_tables_show_the_questions_and_the_answers() -> None:
    question_rows, answer_rows = table("Questions"), table("Answers")
    stored = list(posed_questions().values())
    assert column(question_rows, "question") == column(stored, "text")
    assert column(question_rows, "topic") == column(stored, "topic")
    assert column(answer_rows, "why") == column(stored, "explanation")
    for item, question_row, answer_row in zip(stored, question_rows, answer_rows, strict=True):
        answer = answer_row["answer"]
        if not item["choices"]:
            assert shows(answer, item["solution"], item["unit"]), f"{item['id']}: answer {answer!r}"
            continue
        choices = []
        for letter, choice in zip(LETTERS, item["choices"], strict=False):
            choices.append(f"{letter}) {choice}")
        assert answer == choices[item["solution"]]
        assert question_row["choices"] == " · ".join(choices)


#### the retrospective


def test_retrospective_tells_how_each_prediction_fared() -> None:
    rows, outcomes = table("Retrospective: what was predicted"), recomputed()["outcomes"]
    assert len(rows) == len(outcomes)
    measurements = results()
    for row, prediction, outcome in zip(rows, predictions(), outcomes, strict=True):
        # 1. The row is of this prediction and states its outcome.
        expected = (prediction["feature"], prediction["claim"], outcome)
        assert (row["feature"], row["prediction"], row["outcome"]) == expected
        # 2. A row that states the measurement, rather than an unclear lead, states its value.
        measurement = measurements[prediction["feature"]].get(prediction["measurement"])
        text = row["measured"]
        states_it = text.startswith(prediction["measurement"]) and " is " in text
        if measurement is not None and states_it:
            stated = text.split(" is ", 1)[1]
            assert shows(stated, measurement["value"], measurement["unit"]), text


def test_retrospective_gives_the_reasons_of_the_plan() -> None:
    plan = json.loads(outputs.inputs()["plan"].read_text("utf-8"))
    reasons = {}
    for phase in plan["phases"]:
        for feature in phase["features"]:
            for prediction in feature.get("predictions", []):
                reasons[feature["id"], prediction["id"]] = prediction.get("source", "")
    rows = table("Retrospective: what was predicted")
    for row, prediction in zip(rows, predictions(), strict=True):
        assert row["because"] == reasons[prediction["feature"], prediction["id"]], row


def test_first_finding_gives_the_answer_that_the_effect_gives() -> None:
    finding = outputs.result()["findings"][0]
    index = deciding.find_minimum(candidate_results())
    candidate, comparison = candidates()[index], candidate_results()[index]
    begin = f"{candidate['name']!r}: {candidate['question']} "
    parts = ["None of ", " was decided by these runs", f"{begin}("]
    if comparison.decided:
        units = track().units
        enough = (
            f"deviation between {units.repeats} that was measured, {comparison.seeds} "
            f"{units.repeats} or {comparison.examples:,} {units.costs} would have been enough. "
        )
        parts = [f"{begin}With the standard ", enough, f"Answer: {comparison.answer(candidate)} ("]
    for part in parts:
        assert part in finding, f"the first finding does not say {part!r}"
    stated = finding.rpartition(parts[-1])[2]
    assert shows(stated, comparison.effect["value"]), stated


def test_findings_tell_each_prediction_that_did_not_hold() -> None:
    numbers, findings = recomputed()["measurements"], outputs.result()["findings"]
    balance = (
        rf"Of {numbers['predictions']} predictions? registered before the track, "
        rf"{numbers['predictions_held']} held, {numbers['predictions_missed']} missed and "
        rf"{numbers['predictions_inconclusive']} could not be decided by these runs\."
    )
    assert re.fullmatch(balance, findings[1]), findings[1]
    begins = {"MISSED": "Missed, and therefore learned", "INCONCLUSIVE": "Still open"}
    sentences = []
    for outcome, begin in begins.items():
        for prediction, actual in zip(predictions(), recomputed()["outcomes"], strict=True):
            if actual == outcome:
                claim = f"{prediction['feature']} claimed that {prediction['claim']};"
                sentences.append(f"{begin}: {claim}")
    assert len(findings) == len(sentences) + 3
    for sentence, finding in zip(sentences, findings[2:-1], strict=True):
        assert finding.startswith(sentence), f"{finding!r} does not begin with {sentence!r}"


def test_last_finding_tells_what_the_questions_cover() -> None:
    numbers, finding = recomputed()["measurements"], outputs.result()["findings"][-1]
    covered = (
        rf"{numbers['questions']} questions? on {numbers['topics']} topics? are decided by "
        rf"{numbers['numbers_used']} measurements? of this track; guessing blindly gets "
    )
    match = re.match(covered, finding)
    assert match, finding
    percent = stated_numbers(finding[match.end() :])[0]
    assert abs(percent - 100 * numbers["blind_score"]) < 0.6, finding  # stated to two digits
    undecided = [name for name, answer in recomputed()["answers"].items() if answer is None]
    end = "The numbers leave none of them open."
    if undecided:
        end = f"do not decide these, which are not asked: {', '.join(undecided)}."
    assert finding.endswith(end), finding


def test_retrospective_tells_what_each_experiment_found() -> None:
    rows = {row["feature"]: row for row in table("Retrospective: what each experiment")}
    assert sorted(rows) == features()
    for name, row in rows.items():
        result = feature_result(name)
        assert (row["question"], row["hypothesis"]) == (result["question"], result["hypothesis"])
        assert row["found"] == " ".join(result["findings"])


def test_candidates_are_shown_as_they_were_evaluated() -> None:
    rows, units = table("The minimum interesting experiment"), track().units
    for row, candidate, comparison in zip(rows, candidates(), candidate_results(), strict=True):
        assert (row["comparison"], row["question"]) == (candidate["name"], candidate["question"])
        assert row["answer"] == comparison.answer(candidate)
        assert shows(row["effect"], comparison.effect["value"]), row["effect"]
        assert row[units.costs] == comparison.examples
        enough = comparison.seeds or "more than can be said"
        assert row[f"{units.repeats} that are enough"] == enough
    finding = outputs.result()["findings"][0]
    assert repr(outputs.value("minimum_experiment")) in finding
    feature = outputs.value("minimum_experiment_feature")
    assert outputs.read_json("sources.json")[feature]["receipt"] in finding


#### the figures


def test_figure_shows_how_the_predictions_fared() -> None:
    figure = outputs.read_json(f"figures/{track().figure_prefix}predictions.json")
    series = {item["label"]: item for item in figure["series"]}
    predicting = column(predictions(), "feature")
    pairs = list(zip(predicting, recomputed()["outcomes"], strict=True))
    assert set(series) == {"held", "missed", "inconclusive"}
    for label, bars in series.items():
        assert sorted(bars["x"]) == features()
        assert bars["y"] == [pairs.count((name, label.upper())) for name in bars["x"]], label


def test_figure_shows_the_comparisons() -> None:
    # 1. What can be shown: the effects that are numbers, each with its interval or a point.
    names, values, lows, highs = [], [], [], []
    for candidate, comparison in zip(candidates(), candidate_results(), strict=True):
        value = comparison.effect["value"]
        if not deciding.is_number(value):
            continue
        low, high = deciding.confidence_interval(comparison.effect) or (value, value)
        names.append(candidate["name"])
        values.append(float(value))
        lows.append(float(low))
        highs.append(float(high))

    # 2. What is shown.
    (series,) = outputs.read_json(f"figures/{track().figure_prefix}candidates.json")["series"]
    assert series["x"] == names
    assert outputs.same(series["y"], values, 1e-9)
    lower, upper = series["band"]
    assert outputs.same(lower, lows, 1e-6)
    assert outputs.same(upper, highs, 1e-6)


def test_figure_of_the_predictions_says_what_it_shows() -> None:
    outcomes = recomputed()["outcomes"]
    counts = [f"{outcomes.count(name)} {name.lower()}" for name in words.OUTCOMES]
    plural = "" if len(outcomes) == 1 else "s"
    expected = {
        "title": "What was predicted before the track, and what held",
        "caption": f"{len(outcomes)} prediction{plural}: {', '.join(counts)}. A miss is a finding.",
        "x_label": "feature",
        "y_label": "predictions",
    }
    assert figure_words("predictions") == expected


def test_figure_of_the_comparisons_says_what_it_shows() -> None:
    shown = [item for item in candidate_results() if deciding.is_number(item.effect["value"])]
    intervals = [item for item in shown if deciding.confidence_interval(item.effect)]
    minimum = candidates()[deciding.find_minimum(candidate_results())]["name"]
    said = track().comparisons
    caption = (
        f"{said.effect} with its 95 % interval over {track().units.repeats}, which "
        f"{len(intervals)} of {len(shown)} have; {sum(item.decided for item in shown)} exclude 0. "
        f"The fewest {said.fewest} are needed by {minimum!r}."
    )
    expected = {
        "title": said.title,
        "caption": caption,
        "x_label": "comparison",
        "y_label": said.difference,
    }
    assert figure_words("candidates") == expected


def figure_words(name: str) -> dict[str, str]:
    """Return title, caption and labels of one of the track's figures."""
    figure = outputs.read_json(f"figures/{track().figure_prefix}{name}.json")
    return {part: figure[part] for part in ("title", "caption", "x_label", "y_label")}
