"""Gate of FEAT-009: does every answer follow from the given results, every score from the plan?

Nothing was trained, so everything is computed again: the rules of questions.json on the inputs'
results, the plan's predictions by the rule of docs/prd-format.md, the comparisons by their effects
and spreads. What the questions ask is not judged, only that they are decided by numbers, cover
their topics and could have come out otherwise.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

from gates.shared import deciding as self_assessment
from gates.shared import outputs
from gates.shared.deciding import COUNTED, EFFECT, FIELDS, Results
from gates.shared.documents import shows

# and more, as one likes
TOPICS = {"forward and backward pass", "loss landscape", "optimizer state", "batch and rate"}
QUESTIONS_AT_LEAST = 12
FILES = ("questions.json", "candidates.json", "predictions.json")


def features() -> list[str]:
    """Give the features that the run was given, by name."""
    entries = json.loads(Path(os.environ["PHASES_INPUTS"]).read_text("utf-8"))
    return sorted(name for name, entry in entries.items() if entry["kind"] == "feature")


def results() -> Results:
    """Give the measurements of the features that were given."""
    given = outputs.inputs()
    texts = {name: (given[name] / "result.json").read_text("utf-8") for name in features()}
    return {name: json.loads(text)["measurements"] for name, text in texts.items()}


def asked() -> list[dict[str, Any]]:
    """Give the questions with their rules, as they were stored."""
    found: list[dict[str, Any]] = outputs.read_json("questions.json")["asked"]
    return found


def posed() -> dict[str, dict[str, Any]]:
    """Give id -> the question as it was posed."""
    return {item["id"]: item for item in outputs.read_json("questions.json")["posed"]}


def candidates() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = outputs.read_json("candidates.json")
    return found


def claims() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = outputs.read_json("predictions.json")
    return found


def again() -> dict[str, Any]:
    """Give everything that was decided anew: answers by id, outcomes, sizes, counts."""
    return dict(outputs.cached("self-assessment", FILES, _again))


def _again() -> dict[str, Any]:
    given = results()
    return {
        "answers": {
            question["id"]: self_assessment.decide(question, given) for question in asked()
        },
        "outcomes": [self_assessment.score(claim, given[claim["feature"]]) for claim in claims()],
        "sized": [self_assessment.sized(candidate, given) for candidate in candidates()],
        "counted": self_assessment.counted(asked(), candidates(), claims(), given),
    }


def table(title: str) -> list[dict[str, Any]]:
    """Give the rows of a table of the result, by column."""
    (found,) = [item for item in outputs.result()["tables"] if item["title"].startswith(title)]
    return [dict(zip(found["columns"], row, strict=True)) for row in found["rows"]]


@pytest.mark.integrity
def test_files_are_those_of_the_result() -> None:
    outputs.assert_files_match()


@pytest.mark.integrity
def test_report_was_made_from_the_result() -> None:
    outputs.assert_report_matches()


@pytest.mark.integrity
def test_figures_were_drawn_from_their_data() -> None:
    outputs.assert_figures_match()


def test_every_measurement_is_judged() -> None:
    assert set(outputs.result()["measurements"]) == {*COUNTED, EFFECT}


@pytest.mark.parametrize("name", COUNTED)
def test_number_follows_from_the_results(name: str) -> None:
    outputs.assert_agrees(name, again()["counted"][name])


def test_effect_is_the_one_that_was_measured() -> None:
    sizes = again()["sized"]
    effect = sizes[self_assessment.minimum(sizes)]["effect"]
    outputs.assert_agrees(EFFECT, {field: effect.get(field) for field in ("value", "stderr", "n")})


# What the answers rest on


def test_sources_are_the_results_that_were_given() -> None:
    entries = json.loads(Path(os.environ["PHASES_INPUTS"]).read_text("utf-8"))
    stored = outputs.read_json("sources.json")
    assert sorted(stored) == features()
    for name, source in stored.items():
        assert source["receipt"] == entries[name].get("receipt", "none"), f"{name}: another receipt"
        digest = outputs.digest_of(outputs.inputs()[name] / "result.json")
        assert source["result"] == f"sha256:{digest}", f"{name}: another result"
    assert outputs.result()["environment"]["receipts"] == {
        name: source["receipt"] for name, source in stored.items()
    }


def test_predictions_are_those_of_the_plan() -> None:
    plan = json.loads(outputs.inputs()["plan"].read_text("utf-8"))
    planned = [
        {"feature": feature["id"], **{name: claim.get(name) for name in (*FIELDS, "margin")}}
        for phase in plan["phases"]
        for feature in phase["features"]
        if feature["id"] in features()
        for claim in feature.get("predictions", [])
    ]
    stored = [{name: claim[name] for name in ("feature", *FIELDS, "margin")} for claim in claims()]
    key = "feature"
    assert sorted(stored, key=lambda c: (c[key], c["id"])) == sorted(
        planned, key=lambda c: (c[key], c["id"])
    )


def test_every_feature_made_a_prediction_and_is_asked_about() -> None:
    predicted = {claim["feature"] for claim in claims()}
    used = {
        name.split(".")[0] for question in asked() for name in self_assessment.deciding(question)
    }
    assert predicted == used == set(features()), (
        f"predicted {sorted(predicted)}, asked about {sorted(used)}"
    )


# The questions


def test_questions_cover_the_topics() -> None:
    topics = [question["topic"] for question in asked()]
    assert len(topics) >= QUESTIONS_AT_LEAST
    assert {topic for topic in topics if topics.count(topic) >= 2} >= TOPICS
    assert len({question["id"] for question in asked()}) == len(topics)


def test_only_a_run_decides() -> None:
    """Each option can be the right one: another number, another answer."""
    for question in asked():
        name, options = question["id"], question["options"]
        assert self_assessment.deciding(question), f"{name} is decided by no measurement"
        labels = [option["label"] for option in options]
        assert len(set(labels)) == len(labels), f"{name}: two options are the same"
        if question["rule"] in ("largest", "smallest"):
            assert len({option["of"] for option in options}) == len(options), (
                f"{name}: one number decides two options"
            )
        elif question["rule"] == "equals":
            assert len({repr(option["equal"]) for option in options}) == len(options), (
                f"{name}: an option twice"
            )
        elif question["rule"] != "number":
            assert question["cuts"] == sorted(set(question["cuts"])), (
                f"{name}: cuts {question['cuts']}"
            )
            assert len(options) == len(question["cuts"]) + (
                2 if question["rule"] == "interval" else 1
            )


def test_answers_follow_from_the_numbers() -> None:
    answers = again()["answers"]
    assert sorted(posed()) == sorted(name for name, found in answers.items() if found is not None)
    for question in asked():
        found, shown = answers[question["id"]], posed().get(question["id"])
        if found is None or shown is None:
            continue
        if question["rule"] == "number":
            assert outputs.same(
                [shown["right"], shown["tolerance"]], [found["value"], found["tolerance"]], 1e-9
            )
            assert not shown["choices"]
        else:
            assert len(shown["choices"]) == len(question["options"]), (
                f"{question['id']}: choices are missing"
            )
            labels = [option["label"] for option in question["options"]]
            right, wanted = shown["choices"][shown["right"]], labels[found["right"]]
            assert _fits(wanted, right), (
                f"{question['id']}: {right!r} is called right, the numbers say {wanted!r}"
            )
            assert all(any(_fits(label, choice) for choice in shown["choices"]) for label in labels)


def _fits(template: str, text: str) -> bool:
    """Say whether a text is a template with its {…} filled by anything."""
    parts = re.split(r"\{[^}]*\}", " ".join(template.split()))
    return re.fullmatch(".*".join(map(re.escape, parts)), text) is not None


def test_explanations_state_the_numbers_that_decided() -> None:
    assert list(self_assessment.misstated(outputs.read_json("questions.json"), results())) == []


def test_the_right_answer_does_not_stand_in_one_place() -> None:
    free = [item for item in posed().values() if len(item["choices"]) > 2]
    assert len({item["right"] for item in free}) > 1, "every right answer has the same letter"


def test_tables_show_the_questions_and_the_answers() -> None:
    questions, answers = table("Questions"), table("Answers")
    stored = list(posed().values())
    assert [row["question"] for row in questions] == [item["text"] for item in stored]
    assert [row["topic"] for row in questions] == [item["topic"] for item in stored]
    assert [row["why"] for row in answers] == [item["explanation"] for item in stored]
    for item, asked_row, row in zip(stored, questions, answers, strict=True):
        if item["choices"]:
            letters = [f"{'abcdefgh'[i]}) {choice}" for i, choice in enumerate(item["choices"])]
            assert row["answer"] == letters[item["right"]] and asked_row["choices"] == " · ".join(
                letters
            )
        else:
            assert shows(row["answer"], item["right"]), f"{item['id']}: answer {row['answer']!r}"


# The retrospective


def test_retrospective_tells_how_each_prediction_fared() -> None:
    rows, outcomes = table("Retrospective: what was predicted"), again()["outcomes"]
    assert len(rows) == len(outcomes)
    given = results()
    for row, claim, outcome in zip(rows, claims(), outcomes, strict=True):
        assert (row["feature"], row["prediction"], row["outcome"]) == (
            claim["feature"],
            claim["claim"],
            outcome,
        )
        met = given[claim["feature"]].get(claim["measurement"])
        if (
            met is not None
            and " is " in row["measured"]
            and row["measured"].startswith(claim["measurement"])
        ):
            assert shows(row["measured"].split(" is ", 1)[1], met["value"]), row["measured"]
    told = " ".join(outputs.result()["findings"])
    for claim, outcome in zip(claims(), outcomes, strict=True):
        sentence = f"{claim['feature']} claimed that {claim['claim']};"
        assert (sentence in told) == (outcome != "HELD"), f"{sentence} and its outcome is {outcome}"


def test_retrospective_tells_what_each_experiment_found() -> None:
    rows = {row["feature"]: row for row in table("Retrospective: what each experiment")}
    assert sorted(rows) == features()
    for name, row in rows.items():
        result = json.loads((outputs.inputs()[name] / "result.json").read_text("utf-8"))
        assert (row["question"], row["hypothesis"]) == (result["question"], result["hypothesis"])
        assert row["found"] == " ".join(result["findings"])


def test_candidates_are_shown_as_they_were_sized() -> None:
    rows = table("The minimum interesting experiment")
    for row, candidate, found in zip(rows, candidates(), again()["sized"], strict=True):
        assert (row["comparison"], row["question"]) == (candidate["name"], candidate["question"])
        assert row["answer"] == self_assessment.verdict(candidate, found)
        assert shows(row["effect"], found["effect"]["value"]), row["effect"]
        assert row["training examples"] == found["examples"]
        assert row["seeds that are enough"] == (found["seeds"] or "more than can be said")
    first = outputs.result()["findings"][0]
    assert repr(outputs.value("minimum_experiment")) in first
    assert (
        outputs.read_json("sources.json")[outputs.value("minimum_experiment_feature")]["receipt"]
        in first
    )


# The figures


def test_figure_shows_how_the_predictions_fared() -> None:
    series = {
        item["label"]: item for item in outputs.read_json("figures/predictions.json")["series"]
    }
    pairs = list(zip((claim["feature"] for claim in claims()), again()["outcomes"], strict=True))
    assert set(series) == {"held", "missed", "inconclusive"}
    for label, shown in series.items():
        assert sorted(shown["x"]) == features()
        assert shown["y"] == [pairs.count((name, label.upper())) for name in shown["x"]], label


def test_figure_shows_the_comparisons() -> None:
    pairs = [(c["name"], s["effect"]) for c, s in zip(candidates(), again()["sized"], strict=True)]
    known = [(name, effect) for name, effect in pairs if self_assessment.number(effect["value"])]
    (series,) = outputs.read_json("figures/candidates.json")["series"]
    assert series["x"] == [name for name, _ in known]
    assert outputs.same(series["y"], [float(effect["value"]) for _, effect in known], 1e-9)
    ends = [
        self_assessment.ends(effect) or (effect["value"], effect["value"]) for _, effect in known
    ]
    for edge, band in enumerate(series["band"]):
        assert outputs.same(band, [float(pair[edge]) for pair in ends], 1e-6)
