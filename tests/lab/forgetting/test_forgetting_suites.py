"""The four suites: the same everywhere, large enough, balanced, right by the gate's own solvers."""

from dataclasses import asdict

import pytest

from gates.forgetting import items as forgetting_items
from lab.forgetting import suites
from lab.forgetting.suites import SUITES, SuiteError
from lab.forgetting.suites.draft import Draft, near


def every_item():
    items = []
    for name in SUITES:
        for item in suites.build(name, 100):
            items.append(asdict(item) | {"choices": list(item.choices)})
    return items


def test_the_gate_finds_no_fault_in_them():
    assert list(forgetting_items.faults(every_item())) == []


def test_another_draw_of_the_generators_is_right_too():
    """Not only the items that the fixed seed gives."""
    import random

    for name in ("lab_math", "lab_reasoning", "lab_code"):
        for seed in range(20):
            for draft in SUITES[name](random.Random(seed)):
                item = suites._item(name, draft, 0)
                assert list(forgetting_items._of_answer(asdict(item))) == []


@pytest.mark.parametrize("name", SUITES)
def test_a_suite_is_the_same_each_time_and_has_a_hundred_items(name):
    first = suites.build(name, 100)
    assert first == suites.build(name, 100)
    assert len({item.prompt for item in first}) == 100
    assert [sum(item.gold == index for item in first) for index in range(4)] == [25] * 4


def test_more_items_than_there_are_is_an_error():
    with pytest.raises(SuiteError, match="lab_math has 104 items; expected at least 105"):
        suites.build("lab_math", 105)


def test_a_draft_with_a_wrong_end_that_is_right_is_refused():
    with pytest.raises(SuiteError, match="expected 4 different ones"):
        suites._item("suite", Draft("kind", "1 + 1 =", "2", ("2", "3", "4")), 0)


def test_near_numbers_are_three_others():
    for value in range(200):
        numbers = near(value, 7)
        assert len(set(numbers)) == 3
        assert str(value) not in numbers
        assert all(int(number) >= 0 for number in numbers)


@pytest.mark.parametrize(
    ("field", "change", "fault"),
    [
        ("prompt", lambda item: "2 + 2 =", "is 4"),
        ("gold", lambda item: (item["gold"] + 1) % 4, "stated"),
        ("choices", lambda item: ["1", "1", "2", "3"], "expected four different ones"),
    ],
)
def test_a_wrong_item_is_seen_by_the_gate(field, change, fault):
    items = every_item()
    items[3] |= {field: change(items[3])}
    assert any(fault in message for message in forgetting_items.faults(items))


def test_a_changed_fact_is_seen_by_the_gate():
    items = every_item()
    fact = next(item for item in items if item["suite"] == "lab_knowledge")
    fact["choices"][(fact["gold"] + 1) % 4] = "Atlantis"
    assert any("other facts" in message for message in forgetting_items.faults(items))


def test_the_gate_runs_nothing_that_an_item_says():
    for expression in (
        "__import__('os').getcwd()",
        "open('x')",
        "(1).bit_length()",
        "2 ** 99",
        "[].append(1)",
    ):
        with pytest.raises((AssertionError, KeyError)):
            forgetting_items._code(f"assert {expression} ==")
