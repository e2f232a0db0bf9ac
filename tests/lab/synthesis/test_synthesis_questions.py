"""Questions: each rule has numbers that give one answer, numbers that give another, and none."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.contract import ContractError, Measurement
from lab.synthesis import evidence, questions
from lab.synthesis.questions import Option, Posed, Question, faults, grade, pose
from tests.lab.synthesis import track

ASKED, _ = questions.read()
NAMES = [question.id for question in ASKED]


def sample(*values: float) -> Measurement:
    return Measurement.of_sample(values, "nats")


def question(
    rule: str, of: str | None = "F-1.a", cuts: tuple[float, ...] = (), options: int = 3
) -> Question:
    compared = rule in ("largest", "smallest")
    labels = [
        Option(f"option {i}", f"why {i}", f"F-1.x{i}" if compared else None, float(i))
        for i in range(options)
    ]
    why = "because {F-1.a}" if rule == "number" else ""
    return Question("q", "t", "Which?", rule, None if compared else of, cuts, tuple(labels), why)


def right(found: Posed | None) -> str | None:
    return None if found is None else found.choices[int(found.right)]


def posed(asked: Question, **measured: Measurement) -> Posed | None:
    return pose(asked, {"F-1": measured})


# The rules


def test_largest_and_smallest_follow_the_numbers_and_a_tie_stays_open() -> None:
    found = {f"x{i}": sample(value, value) for i, value in enumerate((2.0, 5.0, 1.0))}
    assert right(posed(question("largest"), **found)) == "option 1"
    assert right(posed(question("smallest"), **found)) == "option 2"
    assert right(posed(question("largest"), **{**found, "x2": sample(6.0)})) == "option 2"
    assert posed(question("largest"), **{**found, "x2": sample(5.0)}) is None
    assert posed(question("largest"), **{**found, "x2": Measurement.of_estimate(None, "")}) is None


@pytest.mark.parametrize(("value", "wanted"), [(-1, 0), (0, 1), (4.9, 1), (5, 2), (1e9, 2)])
def test_a_bracket_holds_its_lower_cut(value: float, wanted: int) -> None:
    found = posed(question("bracket", cuts=(0, 5)), a=Measurement.of_estimate(value, ""))
    assert right(found) == f"option {wanted}"
    # a ladder keeps its order
    assert found is not None and found.choices == ("option 0", "option 1", "option 2")


def test_an_interval_across_a_cut_cannot_tell() -> None:
    asked = question("interval", cuts=(0,), options=3)
    assert right(posed(asked, a=sample(-1.0, -1.1, -0.9))) == "option 0"
    assert right(posed(asked, a=sample(1.0, 1.1, 0.9))) == "option 1"
    assert right(posed(asked, a=sample(0.1, -0.2, 0.4))) == "option 2"
    assert right(posed(asked, a=Measurement.of_estimate(5.0, ""))) == "option 2", (
        "a number without its error"
    )
    assert right(posed(asked, a=Measurement.of_exact(5))) == "option 1"


def test_equals_wants_value_and_type() -> None:
    assert right(posed(question("equals"), a=Measurement.of_exact(2.0))) == "option 2"
    assert posed(question("equals"), a=Measurement.of_exact(7.0)) is None
    assert posed(question("equals"), a=Measurement.of_exact(True)) is None


def test_a_number_may_be_off_by_its_interval_or_a_tenth() -> None:
    narrow = posed(
        question("number", options=0), a=Measurement.of_estimate(4.0, "nats", stderr=0.01, n=100)
    )
    assert narrow is not None and narrow.tolerance == pytest.approx(0.4)
    wide = posed(question("number", options=0), a=sample(3.0, 4.0, 5.0))
    assert wide is not None and wide.tolerance == pytest.approx(4.302653 * 1 / 3**0.5, rel=1e-6)
    assert grade(wide, "6.4") and not grade(wide, "6.6") and "because 4.000" in wide.explanation


def test_operations_give_what_they_say_and_pair_by_seed() -> None:
    found = {"F-1": {"a": sample(3.0, 5.0), "b": sample(1.0, 2.0), "c": Measurement.of_exact(0)}}
    paired = evidence.calculate(found, "F-1.a - F-1.b")
    assert paired.values == (2.0, 3.0) and paired.stderr == pytest.approx(0.5)
    assert evidence.calculate(found, "F-1.a / F-1.b").value == pytest.approx(4 / 1.5)
    assert evidence.calculate(found, "F-1.a / F-1.b").stderr is None
    assert evidence.calculate(found, "F-1.a / F-1.c").value is None
    for wrong in ("F-1.a + F-1.b", "F-1.a -F-1.b", "a", ""):
        with pytest.raises(ContractError, match=r"wanted FEATURE\.name"):
            evidence.calculate(found, wrong)
    with pytest.raises(ContractError, match="F-1 has no measurement 'd'; it has a, b, c"):
        evidence.calculate(found, "F-1.d")
    with pytest.raises(ContractError, match="no result of F-2"):
        evidence.calculate(found, "F-2.a")


# The questions of the track


@pytest.mark.parametrize("asked", ASKED, ids=NAMES)
def test_another_run_gets_another_answer(asked: Question) -> None:
    """The property that makes a question worth asking: it cannot be answered without a run."""
    answers = set()
    for place, value in [
        (p, v) for p in asked.deciding for v in (-30.0, -0.2, 0.0, 0.05, 0.3, 1.0, 1.7, 20.0, 300.0)
    ]:
        spread = Measurement.of_sample((value, value * 1.0001, value * 0.9999), "x")
        found = pose(asked, track.measured({place: spread}))
        answers.add(None if found is None else found.answer)
    if asked.rule == "equals":
        changed = [
            {asked.deciding[0]: Measurement.of_exact(option.equal)} for option in asked.options
        ]
        answers |= {found.answer for c in changed if (found := pose(asked, track.measured(c)))}
    assert len(answers - {None}) >= 2, answers


@pytest.mark.parametrize("asked", ASKED, ids=NAMES)
def test_the_explanation_states_the_numbers_and_turns_with_them(asked: Question) -> None:
    def told(factor: float) -> str:
        every = track.measured()
        place = asked.deciding[0]
        feature, _, name = place.partition(".")
        met = every[feature][name]
        if met.exact:
            return ""
        changed = Measurement.of_sample([value * factor for value in met.values or ()], met.unit)
        found = pose(asked, track.measured({place: changed}))
        return "" if found is None else found.explanation

    first = pose(asked, track.measured())
    assert first is not None
    for name in asked.deciding:
        assert f"{name} = " in first.explanation
    assert "{" not in first.explanation + first.text + "".join(first.choices)
    assert not told(1.0) or told(1.0) != told(1.5)


def test_right_answers_stand_in_different_places_on_every_machine() -> None:
    found = [pose(asked, track.measured()) for asked in ASKED]
    places = Counter(int(item.right) for item in found if item and item.choices)
    assert len(places) >= 3 and max(places.values()) < 0.6 * sum(places.values()), places
    for asked in ASKED:
        assert sorted(questions.shuffled(asked)) == list(range(len(asked.options)))
    free = [asked for asked in ASKED if asked.options and asked.rule != "bracket"]
    moved = [
        asked for asked in free if questions.shuffled(asked) != tuple(range(len(asked.options)))
    ]
    assert len(moved) > len(free) / 2
    assert questions.shuffled(ASKED[1]) == questions.shuffled(
        replace(ASKED[1], ask="Another text?")
    )


def test_every_topic_is_asked_about_and_every_feature_decides() -> None:
    topics = Counter(asked.topic for asked in ASKED)
    wanted = {"forward and backward pass", "loss landscape", "optimizer state", "batch and rate"}
    assert wanted <= set(topics) and min(topics.values()) >= 2 and len(ASKED) >= 12
    assert {name.partition(".")[0] for asked in ASKED for name in asked.deciding} == set(
        track.FEATURES
    )


# Files and faults


@pytest.mark.parametrize(
    ("changed", "fault"),
    [
        ({"rule": "guess"}, "rule 'guess'"),
        ({"cuts": ()}, "2 options; wanted 1"),
        ({"cuts": (1.0, 0.0)}, "2 options; wanted 3"),
        ({"of": None}, "`of` is missing"),
        ({"options": ()}, "0 options; wanted 2"),
        ({"of": "nothing"}, "it uses no measurement"),
    ],
)
def test_each_fault_is_found(changed: dict, fault: str) -> None:
    good = question("bracket", cuts=(0.0,), options=2)
    assert list(faults(good)) == []
    assert any(fault in text for text in faults(replace(good, **changed)))


def test_a_file_with_a_fault_is_refused(tmp_path: Path) -> None:
    place = tmp_path / "bad.yaml"
    text = questions.TRACK_A.read_text("utf-8")
    for old, new, message in (
        ("rule: largest", "rule: biggest", "rule 'biggest'"),
        ("cuts: [0.4, 0.6, 0.8]", "cuts: [0.4, 0.6]", "staircase: 4 options; wanted 3"),
        ("id: staircase", "id: memorised", "memorised stands there twice"),
        ("topic: batch", "subject: batch", "KeyError 'topic'"),
        ("questions:", "questions: [", "cannot be read as YAML"),
    ):
        place.write_text(text.replace(old, new, 1), "utf-8")
        with pytest.raises(ContractError, match=message):
            questions.read(place)


# Grading


CHOICE = Posed("q", "t", "Which?", ("one", "two", "three"), 1, None, "", "So.")
NUMBER = Posed("q", "t", "How many?", (), 1250.0, 125.0, "nats/token", "So.")


@pytest.mark.parametrize(
    ("answer", "wanted"), [("b", True), ("B) ", True), ("b.", True), ("a", False), ("c\n", False)]
)
def test_a_letter_is_graded(answer: str, wanted: bool) -> None:
    assert grade(CHOICE, answer) is wanted


@pytest.mark.parametrize(
    ("answer", "wanted"),
    [("1250", True), ("1,300", True), ("1.3e3", True), (" 1250 nats/token\n", True),
     ("1376", False), ("nan", False), ("-inf", False), ("1375", True)],
)  # fmt: skip
def test_a_number_is_graded(answer: str, wanted: bool) -> None:
    assert grade(NUMBER, answer) is wanted


@pytest.mark.parametrize("asked", [CHOICE, NUMBER], ids=["choice", "number"])
@pytest.mark.parametrize(
    "answer", ["d", "", "two", "ab", "1 2", "\x00", "ü", "0x10", "1" * 500 + "x", "\x1b[31mb"]
)
def test_what_is_no_answer_is_refused_in_words(asked: Posed, answer: str) -> None:
    with pytest.raises(ValueError, match=r"is no number|is none of a, b, c") as caught:
        grade(asked, answer)
    assert len(str(caught.value)) < 120 and str(caught.value).isprintable()


@given(st.text(max_size=40))
def test_any_text_is_graded_or_refused(answer: str) -> None:
    for asked in (CHOICE, NUMBER):
        try:
            assert grade(asked, answer) in {True, False}
        except ValueError as error:
            assert str(error).isprintable()
