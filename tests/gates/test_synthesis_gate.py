"""The gate of the self-assessments passes what follows from the results and sees every lie.

The runner finds it able to fail for each track. What it says of a forgery is tested on track A.
"""

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from gates.synthesis import words
from lab import present
from lab.contract import Measurement, Result
from lab.synthesis.minimum_experiment import read_candidates
from lab.synthesis.questions import read_questions
from lab.synthesis.tracks import TRACKS
from tests.gates.conftest import (
    INTEGRITY_CHECKS,
    ROOT,
    assert_judges_every_measurement,
    failing,
    run_experiment,
)
from tests.lab.synthesis import track

GATE = "synthesis/test_synthesis.py"
MODULE = "lab.synthesis.experiment"
CONFIG = "lab/synthesis/experiment.yaml"
MODULE_B = "lab.synthesis.attention"
CONFIG_B = "lab/synthesis/attention.yaml"
MODULE_C = "lab.synthesis.representations"
CONFIG_C = "lab/synthesis/representations.yaml"

WORDS = "test_questions_and_candidates_are_those_that_were_reviewed"
TEXTS = "test_what_is_asked_and_explained_are_the_words_of_the_questions"

# edits a copy of the outputs: (its folder, its parsed result.json)
Edit = Callable[[Path, dict[str, Any]], None]


@pytest.fixture(scope="module")
def inputs_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return track.write_inputs(tmp_path_factory.mktemp("track"))


@pytest.fixture(scope="module")
def outputs(inputs_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_experiment(MODULE, CONFIG, inputs_file, tmp_path_factory.mktemp("outputs") / "out")


def forge(outputs: Path, target: Path, edit: Edit) -> Path:
    """Copy outputs, edit files and result, and seal all of it anew, as a careful forger would."""
    shutil.copytree(outputs, target)
    document = json.loads((target / "result.json").read_text())
    edit(target, document)
    result = Result.from_json(document | {"files": {}, "figures": []})
    figures = []
    for path in sorted((target / "figures").glob("*.json")):
        fields = json.loads(path.read_text())
        fields["series"] = tuple(present.Series(**series) for series in fields["series"])
        figures.append(present.Figure(**fields))
    present.write(target, result, figures)
    return target


@pytest.fixture(scope="module")
def inputs_file_b(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return track.write_inputs(tmp_path_factory.mktemp("track-b"), track="track-b")


@pytest.fixture(scope="module")
def outputs_b(inputs_file_b: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("outputs-b") / "out"
    return run_experiment(MODULE_B, CONFIG_B, inputs_file_b, out)


@pytest.fixture(scope="module")
def inputs_file_c(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return track.write_inputs(tmp_path_factory.mktemp("track-c"), track="track-c")


@pytest.fixture(scope="module")
def outputs_c(inputs_file_c: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("outputs-c") / "out"
    return run_experiment(MODULE_C, CONFIG_C, inputs_file_c, out)


@pytest.mark.parametrize("suffix", ["", "_b", "_c"], ids=["track-a", "track-b", "track-c"])
def test_the_runner_finds_the_gate_able_to_fail_and_every_measurement_judged(
    request: pytest.FixtureRequest, gates_dir: Path, suffix: str
) -> None:
    outputs: Path = request.getfixturevalue(f"outputs{suffix}")
    inputs_file: Path = request.getfixturevalue(f"inputs_file{suffix}")
    assert_judges_every_measurement(GATE, outputs, inputs_file, gates_dir)


def test_the_gate_has_the_words_of_every_track() -> None:
    """A changed question or a new track: review it, then write what is expected into words.json."""
    expected = {}
    for name, of in TRACKS.items():
        questions, document = read_questions(of.questions)
        candidates = read_candidates(document["candidates"])
        expected[name] = words.digests(map(asdict, questions), map(asdict, candidates))
    text = json.dumps(expected, indent=2) + "\n"
    assert (ROOT / "gates/synthesis/words.json").read_text() == text, text


def edit_json(name: str, change: Callable[[Any], None]) -> Edit:
    """Return an edit of one of the JSON files beside the result."""

    def edit(folder: Path, document: dict[str, Any]) -> None:
        content = json.loads((folder / name).read_text())
        change(content)
        (folder / name).write_text(json.dumps(content))

    return edit


def change_nothing(folder: Path, document: dict[str, Any]) -> None:
    """Change nothing: the control, which must pass."""


def exchange_solution(content: dict[str, Any]) -> None:
    question = next(item for item in content["posed_questions"] if item["choices"])
    question["solution"] = (question["solution"] + 1) % len(question["choices"])


def reverse_labels(content: dict[str, Any]) -> None:
    """Pose a question anew with its labels, and their reasons, in the order against the bins."""
    question = next(item for item in content["questions"] if item["rule"] == "bracket")
    posed = next(item for item in content["posed_questions"] if item["id"] == question["id"])
    labels = [option["label"] for option in question["options"]]
    whys = [option["why"] for option in question["options"]]
    right = labels.index(posed["choices"][posed["solution"]])
    posed["explanation"] = posed["explanation"].replace(whys[right], whys[-1 - right])
    posed["choices"] = labels[::-1]
    for option, label, why in zip(question["options"], labels[::-1], whys[::-1], strict=True):
        option["label"], option["why"] = label, why


def explain_another_option(content: dict[str, Any]) -> None:
    question = next(item for item in content["questions"] if item["rule"] == "bracket")
    posed = next(item for item in content["posed_questions"] if item["id"] == question["id"])
    for option in question["options"]:
        label = posed["choices"][posed["solution"]]
        if option["label"] == label:
            other = question["options"][question["options"].index(option) - 1]["why"]
            posed["explanation"] = posed["explanation"].replace(option["why"], other)


def ask_otherwise(content: dict[str, Any]) -> None:
    posed = content["posed_questions"][0]
    posed["text"] = posed["text"].replace("?", " not?", 1)


def leave_a_question_out(content: dict[str, Any]) -> None:
    last = content["questions"].pop()["id"]
    kept = [item for item in content["posed_questions"] if item["id"] != last]
    content["posed_questions"] = kept


def exchange_answers(content: list[dict[str, Any]]) -> None:
    for item in content:
        item["if_positive"], item["if_negative"] = item["if_negative"], item["if_positive"]


def conclude_the_opposite(folder: Path, document: dict[str, Any]) -> None:
    candidates = json.loads((folder / "candidates.json").read_text())
    name = document["measurements"]["minimum_experiment"]["value"]
    candidate = next(item for item in candidates if item["name"] == name)
    answer = document["measurements"]["minimum_experiment_answer"]["value"]
    (other,) = {candidate["if_positive"], candidate["if_negative"]} - {answer}
    document["findings"][0] = document["findings"][0].replace(
        f"Answer: {answer}", f"Answer: {other}"
    )


def call_a_miss_open(folder: Path, document: dict[str, Any]) -> None:
    document["findings"] = [
        text.replace("Missed, and therefore learned", "Still open") for text in document["findings"]
    ]


def exchange_rule(content: dict[str, Any]) -> None:
    question = next(item for item in content["questions"] if item["rule"] == "largest")
    question["rule"] = "smallest"


def exchange_number(content: dict[str, Any]) -> None:
    question = next(item for item in content["posed_questions"] if not item["choices"])
    question["explanation"] = question["explanation"].replace(" = ", " = 1", 1)


def exchange_claim(content: list[dict[str, Any]]) -> None:
    next(item for item in content if item["id"] == "rate")["value"] = 0.001


def exchange_receipt(content: dict[str, Any]) -> None:
    content["FEAT-006"]["receipt"] = "sha256:" + 64 * "f"


def count_miss_as_hit(folder: Path, document: dict[str, Any]) -> None:
    document["measurements"]["predictions_held"]["value"] += 1
    document["measurements"]["predictions_missed"]["value"] -= 1


def hide_miss(folder: Path, document: dict[str, Any]) -> None:
    document["findings"] = [text for text in document["findings"] if not text.startswith("Missed")]


def find_rows(document: dict[str, Any], title: str) -> list[list[Any]]:
    tables = [table for table in document["tables"] if table["title"].startswith(title)]
    rows: list[list[Any]] = tables[0]["rows"]
    return rows


def show_another_outcome(folder: Path, document: dict[str, Any]) -> None:
    rows = find_rows(document, "Retrospective: what was predicted")
    row = next(row for row in rows if "MISSED" in row)
    row[row.index("MISSED")] = "HELD"


def edit_figure(name: str, part: str, old: str, new: str) -> Edit:
    """Return an edit of one of a figure's texts."""

    def change(content: dict[str, Any]) -> None:
        assert old in content[part]
        content[part] = content[part].replace(old, new)

    return edit_json(f"figures/{name}.json", change)


def show_another_choice(folder: Path, document: dict[str, Any]) -> None:
    rows = find_rows(document, "Answers")
    row = next(row for row in rows if str(row[1]).startswith("b)"))
    row[1] = "a)" + row[1][2:]


@pytest.mark.parametrize(
    ("edit", "check"),
    [
        (change_nothing, None),
        (edit_json("questions.json", exchange_solution), "test_answers_follow_from_the_numbers"),
        pytest.param(
            edit_json("questions.json", exchange_rule),
            "test_answers_follow_from_the_numbers",
            marks=pytest.mark.soak,
        ),
        (
            edit_json("questions.json", exchange_number),
            "test_explanations_state_the_numbers_that_decided",
        ),
        (edit_json("predictions.json", exchange_claim), "test_predictions_are_those_of_the_plan"),
        (
            edit_json("sources.json", exchange_receipt),
            "test_sources_are_the_results_that_were_given",
        ),
        (
            edit_json("candidates.json", lambda content: content.reverse()),
            "test_candidates_are_shown_as_they_were_evaluated",
        ),
        (count_miss_as_hit, "test_number_follows_from_the_results[predictions_missed]"),
        (edit_json("questions.json", reverse_labels), WORDS),
        (edit_json("questions.json", leave_a_question_out), WORDS),
        (edit_json("candidates.json", exchange_answers), WORDS),
        (edit_json("questions.json", explain_another_option), TEXTS),
        (edit_json("questions.json", ask_otherwise), TEXTS),
        (conclude_the_opposite, "test_first_finding_gives_the_answer_that_the_effect_gives"),
        (call_a_miss_open, "test_findings_tell_each_prediction_that_did_not_hold"),
        (hide_miss, "test_findings_tell_each_prediction_that_did_not_hold"),
        pytest.param(
            show_another_outcome,
            "test_retrospective_tells_how_each_prediction_fared",
            marks=pytest.mark.soak,
        ),
        (show_another_choice, "test_tables_show_the_questions_and_the_answers"),
        (
            edit_figure("predictions", "caption", " held", " hit"),
            "test_figure_of_the_predictions_says_what_it_shows",
        ),
        (
            edit_figure("candidates", "caption", "interval over seeds", "interval over runs"),
            "test_figure_of_the_comparisons_says_what_it_shows",
        ),
    ],
)
def test_a_forger_who_seals_everything_anew_is_seen(
    outputs: Path, inputs_file: Path, tmp_path: Path, *, edit: Edit, check: str | None
) -> None:
    out = forge(outputs, tmp_path / "out", edit)
    failed = failing(GATE, out, inputs_file)
    assert not INTEGRITY_CHECKS.intersection(failed)
    if check is None:
        assert failed == []
    else:
        assert check in failed


def test_topics_that_are_not_asked_about_are_seen_on_each_track(
    outputs_b: Path, inputs_file_b: Path, tmp_path: Path
) -> None:
    def rename_topic(content: dict[str, Any]) -> None:
        for question in [*content["questions"], *content["posed_questions"]]:
            if question["topic"] == "position encoding":
                question["topic"] = "loss landscape"

    out = forge(outputs_b, tmp_path / "out", edit_json("questions.json", rename_topic))
    assert "test_questions_cover_the_topics" in failing(GATE, out, inputs_file_b)


def test_texts_and_tokens_are_named_as_such(
    outputs_c: Path, inputs_file_c: Path, tmp_path: Path
) -> None:
    """Nothing is trained on track C: a report that speaks of seeds is another one."""

    def speak_of_seeds(folder: Path, document: dict[str, Any]) -> None:
        finding = document["findings"][0]
        assert " texts or " in finding and "seed" not in finding
        document["findings"][0] = finding.replace("texts", "seeds")

    def count_training_examples(folder: Path, document: dict[str, Any]) -> None:
        document["measurements"]["minimum_experiment_tokens"]["unit"] = "training examples"

    lies = {
        "test_first_finding_gives_the_answer_that_the_effect_gives": speak_of_seeds,
        "test_what_would_have_been_enough_follows_from_the_results[costs]": count_training_examples,
    }
    for number, (check, edit) in enumerate(lies.items()):
        out = forge(outputs_c, tmp_path / str(number), edit)
        assert check in failing(GATE, out, inputs_file_c)


def test_features_of_no_track_are_refused(outputs: Path, inputs_file: Path, tmp_path: Path) -> None:
    entries = json.loads(inputs_file.read_text())
    del entries["FEAT-008"]
    (tmp_path / "inputs.json").write_text(json.dumps(entries))
    failed = failing(GATE, outputs, tmp_path / "inputs.json", "-m", "not integrity")
    assert "test_questions_cover_the_topics" in failed


def test_answers_made_from_other_results_are_seen(outputs: Path, tmp_path: Path) -> None:
    changes = {"FEAT-006.control_gap": Measurement.of_sample([-0.5, -0.52, -0.49], "nats/token")}
    other_inputs = track.write_inputs(tmp_path / "other", changes)
    failed = failing(GATE, outputs, other_inputs, "-m", "not integrity")
    assert "test_sources_are_the_results_that_were_given" in failed
    assert "test_number_follows_from_the_results[predictions_held]" in failed


def test_one_seed_leaves_everything_open_and_passes(tmp_path: Path) -> None:
    """What the smoke profile gives: effects without spread; nothing is decided and it says so."""
    changes = {}
    for feature, measurements in track.measurements().items():
        for name, measurement in measurements.items():
            if measurement.values:
                one_value = Measurement.of_sample(measurement.values[:1], measurement.unit)
                changes[f"{feature}.{name}"] = one_value
    inputs_file = track.write_inputs(tmp_path / "track", changes)
    out = run_experiment(MODULE, CONFIG, inputs_file, tmp_path / "out")
    result = json.loads((out / "result.json").read_text())
    assert result["measurements"]["candidates_decided"]["value"] == 0
    assert result["measurements"]["minimum_experiment_seeds"]["value"] is None
    assert "was decided by these runs" in result["findings"][0]
    assert failing(GATE, out, inputs_file) == []
