"""Questions: each rule has numbers that give one answer, numbers that give another, and none."""

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.contract import ContractError, Measurement
from lab.synthesis import evidence, questions
from lab.synthesis.questions import (
    Option,
    PosedQuestion,
    QuizQuestion,
    find_problems,
    grade_answer,
    pose,
)
from lab.synthesis.tracks import TRACKS
from tests.lab.synthesis import track

QUESTIONS = {name: questions.read_questions(item.questions)[0] for name, item in TRACKS.items()}
EVERY_QUESTION = []  # (track, question) of all tracks
for _name, _questions in QUESTIONS.items():
    EVERY_QUESTION += [pytest.param(_name, item, id=f"{_name}-{item.id}") for item in _questions]
TOPICS = {
    "track-a": {
        "forward and backward pass",
        "loss landscape",
        "optimizer state",
        "batch and rate",
    },
    "track-b": {
        "queries, keys and values",
        "scores",
        "multi-head and grouped-query attention",
        "position encoding",
    },
    "track-c": {
        "residual stream",
        "massive activations",
        "attention and MLP",
        "logit lens",
        "similarity of layers",
        "probing",
    },
}


def sample(*values: float) -> Measurement:
    return Measurement.of_sample(values, "nats")


def question(rule: str, *, bin_edges: tuple[float, ...] = (), options: int = 3) -> QuizQuestion:
    """Return a question about F-1.a, or about F-1.x0, F-1.x1, … where it compares options."""
    compares_options = rule in ("largest", "smallest")
    choices = []
    for i in range(options):
        name = f"F-1.x{i}" if compares_options else None
        choices.append(Option(f"option {i}", f"why {i}", of=name, equal=float(i)))
    return QuizQuestion(
        id="q",
        topic="t",
        ask="Which?",
        rule=rule,
        of=None if compares_options else "F-1.a",
        bin_edges=bin_edges,
        options=tuple(choices),
        why="because {F-1.a}" if rule == "number" else "",
    )


def right_choice(posed: PosedQuestion | None) -> str | None:
    if posed is None:
        return None
    return posed.choices[int(posed.solution)]


def pose_on(asked_question: QuizQuestion, **measurements: Measurement) -> PosedQuestion | None:
    return pose(asked_question, {"F-1": measurements})


#### the rules


def test_largest_and_smallest_follow_the_numbers_and_a_tie_stays_open() -> None:
    largest = question("largest")
    samples = {"x0": sample(2.0, 2.0), "x1": sample(5.0, 5.0), "x2": sample(1.0, 1.0)}
    unmeasured = Measurement.of_estimate(None, "")
    assert right_choice(pose_on(largest, **samples)) == "option 1"
    assert right_choice(pose_on(question("smallest"), **samples)) == "option 2"
    assert right_choice(pose_on(largest, **{**samples, "x2": sample(6.0)})) == "option 2"
    assert pose_on(largest, **{**samples, "x2": sample(5.0)}) is None
    assert pose_on(largest, **{**samples, "x2": unmeasured}) is None


@pytest.mark.parametrize(("value", "expected"), [(-1, 0), (0, 1), (4.9, 1), (5, 2), (1e9, 2)])
def test_a_bracket_holds_its_lower_edge(value: float, expected: int) -> None:
    bracket = question("bracket", bin_edges=(0, 5))
    posed = pose_on(bracket, a=Measurement.of_estimate(value, ""))
    assert right_choice(posed) == f"option {expected}"
    # brackets keep their order
    assert posed is not None
    assert posed.choices == ("option 0", "option 1", "option 2")


def test_an_interval_across_an_edge_cannot_tell() -> None:
    interval = question("interval", bin_edges=(0,), options=3)
    without_stderr = Measurement.of_estimate(5.0, "")
    assert right_choice(pose_on(interval, a=sample(-1.0, -1.1, -0.9))) == "option 0"
    assert right_choice(pose_on(interval, a=sample(1.0, 1.1, 0.9))) == "option 1"
    assert right_choice(pose_on(interval, a=sample(0.1, -0.2, 0.4))) == "option 2"
    assert right_choice(pose_on(interval, a=without_stderr)) == "option 2"
    assert right_choice(pose_on(interval, a=Measurement.of_exact(5))) == "option 1"


def test_equals_compares_value_and_type() -> None:
    equals = question("equals")
    assert right_choice(pose_on(equals, a=Measurement.of_exact(2.0))) == "option 2"
    assert pose_on(equals, a=Measurement.of_exact(7.0)) is None
    assert pose_on(equals, a=Measurement.of_exact(value=True)) is None


def test_a_number_may_be_off_by_its_interval_or_a_tenth() -> None:
    number = question("number", options=0)
    narrow = pose_on(number, a=Measurement.of_estimate(4.0, "nats", stderr=0.01, n=100))
    assert narrow is not None
    assert narrow.tolerance == pytest.approx(0.4)
    wide = pose_on(number, a=sample(3.0, 4.0, 5.0))
    assert wide is not None
    assert wide.tolerance == pytest.approx(4.302653 * 1 / 3**0.5, rel=1e-6)
    assert grade_answer(wide, "6.4")
    assert not grade_answer(wide, "6.6")
    assert "because 4.000" in wide.explanation


def test_answer_and_explanation_state_a_number_in_one_unit() -> None:
    number = question("number", options=0)
    posed = pose_on(number, a=Measurement.of_exact(128.0 * 2**20, "bytes"))
    assert posed is not None
    assert (posed.answer, posed.unit) == ("128.0 MiB (± 13)", "bytes")
    assert "F-1.a = 128.0 MiB" in posed.explanation
    assert grade_answer(posed, "134217728 bytes")


def test_operations_give_what_they_say_and_pair_by_seed() -> None:
    measurements = {"a": sample(3.0, 5.0), "b": sample(1.0, 2.0), "c": Measurement.of_exact(0)}
    results = {"F-1": measurements}
    paired = evidence.calculate(results, "F-1.a - F-1.b")
    assert paired.values == (2.0, 3.0)
    assert paired.stderr == pytest.approx(0.5)
    quotient = evidence.calculate(results, "F-1.a / F-1.b")
    assert quotient.value == pytest.approx(4 / 1.5)
    assert quotient.stderr is None
    assert evidence.calculate(results, "F-1.a / F-1.c").value is None
    for wrong in ("F-1.a + F-1.b", "F-1.a -F-1.b", "a", ""):
        with pytest.raises(ContractError, match=r"expected FEATURE\.name"):
            evidence.calculate(results, wrong)
    with pytest.raises(ContractError, match="F-1 has no measurement 'd'; it has a, b, c"):
        evidence.calculate(results, "F-1.d")
    with pytest.raises(ContractError, match="no result of F-2"):
        evidence.calculate(results, "F-2.a")


#### the questions of the tracks


def answer_on(
    name: str, track_question: QuizQuestion, measured: str, measurement: Measurement
) -> str | None:
    """Return the answer where one measurement of the track is another."""
    posed = pose(track_question, track.measurements({measured: measurement}, name))
    if posed is None:
        return None
    return posed.answer


@pytest.mark.parametrize(("name", "track_question"), EVERY_QUESTION)
def test_another_run_gets_another_answer(name: str, track_question: QuizQuestion) -> None:
    """Check what makes a question worth asking: it cannot be answered without a run."""
    answers = set()
    for measured in track_question.rule_names:
        for value in (-30.0, -0.2, 0.0, 0.05, 0.3, 1.0, 1.7, 20.0, 300.0):
            values = (value, value * 1.0001, value * 0.9999)
            measurement = Measurement.of_sample(values, "x")
            answers.add(answer_on(name, track_question, measured, measurement))
    if track_question.rule == "equals":
        measured = track_question.rule_names[0]
        for option in track_question.options:
            measurement = Measurement.of_exact(option.equal)
            answers.add(answer_on(name, track_question, measured, measurement))
    assert len(answers - {None}) >= 2, answers


@pytest.mark.parametrize(("name", "track_question"), EVERY_QUESTION)
def test_the_explanation_states_the_numbers_and_changes_with_them(
    name: str, track_question: QuizQuestion
) -> None:
    # 1. It states every number that decided, and has no placeholder left.
    results = track.measurements(track=name)
    posed = pose(track_question, results)
    assert posed is not None
    for measured in track_question.rule_names:
        assert f"{measured} = " in posed.explanation
    assert "{" not in posed.explanation + posed.text + "".join(posed.choices)

    # 2. Another number, another explanation; an exact value cannot be scaled.
    def scaled_explanation(factor: float) -> str:
        measured = track_question.rule_names[0]
        measurement = evidence.find_measurement(results, measured)
        if measurement.exact:
            return ""
        values = [value * factor for value in measurement.values or ()]
        scaled = Measurement.of_sample(values, measurement.unit)
        posed_on_scaled = pose(track_question, track.measurements({measured: scaled}, name))
        if posed_on_scaled is None:
            return ""
        return posed_on_scaled.explanation

    same = scaled_explanation(1.0)
    assert not same or same != scaled_explanation(1.5)


@pytest.mark.parametrize("name", TRACKS)
def test_right_answers_have_different_places_on_every_machine(name: str) -> None:
    # 1. No place has most of the right answers.
    places: Counter[int] = Counter()
    for track_question in QUESTIONS[name]:
        posed = pose(track_question, track.measurements(track=name))
        if posed is not None and posed.choices:
            places[int(posed.solution)] += 1
    assert len(places) >= 3, places
    assert max(places.values()) < 0.6 * sum(places.values()), places

    # 2. An order has every option once, and is mostly not the file's.
    unordered, moved = 0, 0
    for track_question in QUESTIONS[name]:
        order = questions.shuffled(track_question)
        file_order = tuple(range(len(track_question.options)))
        assert sorted(order) == list(file_order)
        if track_question.options and track_question.rule != "bracket":
            unordered += 1
            moved += order != file_order
    assert moved > unordered / 2

    # 3. It depends on the options, not on the question's text.
    some_question = QUESTIONS[name][1]
    other_text = replace(some_question, ask="Another text?")
    assert questions.shuffled(some_question) == questions.shuffled(other_text)


@pytest.mark.parametrize("name", TRACKS)
def test_every_topic_is_asked_about_and_every_feature_decides(name: str) -> None:
    topics = Counter(track_question.topic for track_question in QUESTIONS[name])
    assert TOPICS[name] <= set(topics)
    assert min(topics.values()) >= 2
    assert len(QUESTIONS[name]) >= 12
    features = set()
    for track_question in QUESTIONS[name]:
        names = track_question.rule_names
        features.update(measured.partition(".")[0] for measured in names)
    assert features == set(track.TRACK_FEATURES[name])


#### files and problems


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"rule": "guess"}, "rule 'guess'"),
        ({"bin_edges": ()}, "2 options; expected 1"),
        ({"bin_edges": (1.0, 0.0)}, "2 options; expected 3"),
        ({"of": None}, "`of` is missing"),
        ({"options": ()}, "0 options; expected 2"),
        ({"of": "nothing"}, "it uses no measurement"),
    ],
)
def test_each_problem_is_named(changes: dict[str, Any], problem: str) -> None:
    valid = question("bracket", bin_edges=(0.0,), options=2)
    assert list(find_problems(valid)) == []
    assert any(problem in text for text in find_problems(replace(valid, **changes)))


def test_a_file_with_a_problem_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    text = TRACKS["track-a"].questions.read_text("utf-8")
    for old, new, message in (
        ("rule: largest", "rule: biggest", "rule 'biggest'"),
        (
            "bin_edges: [0.4, 0.6, 0.8]",
            "bin_edges: [0.4, 0.6]",
            "staircase: got 4 options; expected 3",
        ),
        ("id: staircase", "id: memorised", "the id memorised is used twice"),
        ("topic: batch", "subject: batch", "KeyError 'topic'"),
        ("questions:", "questions: [", "cannot be read as YAML"),
    ):
        path.write_text(text.replace(old, new, 1), "utf-8")
        with pytest.raises(ContractError, match=message):
            questions.read_questions(path)


#### grading


CHOICE = PosedQuestion(
    id="q",
    topic="t",
    text="Which?",
    choices=("one", "two", "three"),
    solution=1,
    tolerance=None,
    unit="",
    explanation="So.",
)
NUMBER = PosedQuestion(
    id="q",
    topic="t",
    text="How many?",
    choices=(),
    solution=1250.0,
    tolerance=125.0,
    unit="nats/token",
    explanation="So.",
)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [("b", True), ("B) ", True), ("b.", True), ("a", False), ("c\n", False)],
)
def test_a_letter_is_graded(answer: str, *, expected: bool) -> None:
    assert grade_answer(CHOICE, answer) is expected


@pytest.mark.parametrize(
    ("answer", "expected"),
    [("1250", True), ("1,300", True), ("1.3e3", True), (" 1250 nats/token\n", True),
     ("1376", False), ("nan", False), ("-inf", False), ("1375", True)],
)  # fmt: skip
def test_a_number_is_graded(answer: str, *, expected: bool) -> None:
    assert grade_answer(NUMBER, answer) is expected


@pytest.mark.parametrize("posed", [CHOICE, NUMBER], ids=["choice", "number"])
@pytest.mark.parametrize(
    "answer", ["d", "", "two", "ab", "1 2", "\x00", "ü", "0x10", "1" * 500 + "x", "\x1b[31mb"]
)
def test_what_is_no_answer_is_refused_in_words(posed: PosedQuestion, answer: str) -> None:
    with pytest.raises(ValueError, match=r"is no number|is none of a, b, c") as refusal:
        grade_answer(posed, answer)
    message = str(refusal.value)
    assert len(message) < 120
    assert message.isprintable()


@given(st.text(max_size=40))
def test_any_text_is_graded_or_refused(answer: str) -> None:
    for posed in (CHOICE, NUMBER):
        try:
            assert grade_answer(posed, answer) in {True, False}
        except ValueError as error:
            assert str(error).isprintable()
