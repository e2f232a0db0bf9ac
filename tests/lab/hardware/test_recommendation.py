"""The recommendation and its flips: other needs, prices and budgets give other answers."""

from dataclasses import replace

import pytest

from lab.hardware.catalogue import read_catalogue
from lab.hardware.decision import decide
from lab.hardware.decision_report import decision_findings
from lab.hardware.feasibility import THIS_MACHINE, machines_of
from lab.hardware.flips import DECADES, dropped, flips, levers
from lab.hardware.recommendation import Verdict, need_estimates, recommend, upgrade_path
from tests.lab.hardware.machine import small_machine


@pytest.fixture(scope="module")
def catalogue():
    return read_catalogue()


def answer(catalogue, machine=None):
    machines = machines_of(catalogue, machine or small_machine())
    return recommend(catalogue, need_estimates(catalogue, machines), THIS_MACHINE)


def with_thresholds(catalogue, **changes):
    return replace(catalogue, thresholds=catalogue.thresholds.model_copy(update=changes))


def with_need(catalogue, index, **changes):
    needs = list(catalogue.needs)
    needs[index] = needs[index].model_copy(update=changes)
    return replace(catalogue, needs=tuple(needs))


def without_rents(catalogue):
    prices = {
        name: price.model_copy(update={"rent_hour": None})
        for name, price in catalogue.prices.items()
    }
    return replace(catalogue, prices=prices)


def test_everything_fits_here(catalogue):
    small = replace(catalogue, needs=catalogue.needs[:2])
    result = answer(small)
    assert result.verdict is Verdict.STAY
    assert result.options == ()
    assert result.chosen is None
    assert len(result.met_here) == 2


def test_a_few_large_runs_are_rented(catalogue):
    result = answer(catalogue)
    assert result.verdict is Verdict.BURST
    assert result.chosen is result.options[0]
    assert {offer.need for offer in result.chosen.rented} == {
        need.name for need in catalogue.needs[2:]
    }


def test_many_large_runs_pay_for_a_card(catalogue):
    result = answer(with_need(catalogue, 2, runs_per_month=150))
    assert result.verdict is Verdict.UPGRADE
    assert result.chosen.device == result.device
    allowed = [one for one in result.options[1:] if one.is_allowed]
    assert result.chosen.total == min(one.total for one in allowed)
    # with what it leaves to rent it saves the stated share of renting everything
    assert result.chosen.total <= 0.8 * result.options[0].total


def test_a_purchase_must_save_enough(catalogue):
    many = with_need(catalogue, 2, runs_per_month=150)
    assert answer(with_thresholds(many, upgrade_saving=0.99)).verdict is Verdict.BURST


def test_without_a_budget_to_rent_a_card_is_bought(catalogue):
    result = answer(with_thresholds(catalogue, rent_budget=0))
    assert result.verdict is Verdict.UPGRADE
    assert result.chosen.rented == ()


def test_without_any_budget_the_needs_must_change(catalogue):
    result = answer(with_thresholds(catalogue, rent_budget=0, purchase_budget=0))
    assert result.verdict is Verdict.CHANGE
    assert result.chosen is None
    assert not any(option.is_allowed for option in result.options)


def test_a_need_that_nothing_meets_must_change(catalogue):
    result = answer(with_need(catalogue, 3, method="full"))
    assert result.verdict is Verdict.CHANGE
    assert all(option.unmet == (catalogue.needs[3].name,) for option in result.options)


def test_a_machine_has_only_so_many_hours(catalogue):
    busy = with_need(catalogue, 0, runs_per_month=5000)
    assert catalogue.needs[0].name in answer(catalogue).met_here
    assert catalogue.needs[0].name not in answer(busy).met_here


def test_a_run_that_takes_too_long_is_not_met(catalogue):
    hasty = with_need(catalogue, 0, hours_per_run=0.01)
    assert catalogue.needs[0].name not in answer(hasty).met_here


def test_a_larger_machine_meets_more(catalogue):
    patient = with_need(catalogue, 2, hours_per_run=1000, runs_per_month=0.1)
    assert len(answer(patient, small_machine(64)).met_here) == 3
    assert len(answer(patient, small_machine(4)).met_here) < 3


def test_the_upgrade_path_grows_in_price_and_in_needs(catalogue):
    machines = machines_of(catalogue, small_machine())
    path = upgrade_path(catalogue, need_estimates(catalogue, machines), THIS_MACHINE)
    assert path[0].device == THIS_MACHINE
    assert [step.purchase for step in path] == sorted(step.purchase for step in path)
    reached = set()
    for step in path:
        assert set(step.met) - reached
        reached |= set(step.met)
    assert reached == {need.name for need in catalogue.needs}


def test_a_flip_is_where_the_answer_changes(catalogue):
    machines = machines_of(catalogue, small_machine())
    estimates = need_estimates(catalogue, machines)
    current = recommend(catalogue, estimates, THIS_MACHINE)
    found, idle = flips(catalogue, estimates, THIS_MACHINE, current)
    by_name = {lever.name: lever for lever in levers(catalogue, estimates, THIS_MACHINE)}
    assert {flip.lever for flip in found} | set(idle) == set(by_name)
    assert {"months that the needs last", "all rents"} <= {flip.lever for flip in found}
    for flip in found:
        lever = by_name[flip.lever]
        away = 1e-6 if flip.flips_at > flip.value else -1e-6
        beyond = recommend(*lever.changed(flip.flips_at * (1 + away)), THIS_MACHINE)
        before = recommend(*lever.changed(flip.flips_at * (1 - away)), THIS_MACHINE)
        assert before.answer == current.answer, flip
        assert beyond.answer == (flip.verdict, flip.device) != current.answer, flip


def test_a_lever_without_a_flip_changes_nothing(catalogue):
    machines = machines_of(catalogue, small_machine())
    estimates = need_estimates(catalogue, machines)
    current = recommend(catalogue, estimates, THIS_MACHINE)
    _, idle = flips(catalogue, estimates, THIS_MACHINE, current)
    for lever in levers(catalogue, estimates, THIS_MACHINE):
        if lever.name in idle:
            for power in range(-DECADES, DECADES + 1):
                value = min(lever.value * 10.0**power, lever.largest)
                other = recommend(*lever.changed(value), THIS_MACHINE)
                assert other.answer == current.answer, lever.name


def test_needs_that_decide_alone_are_named(catalogue):
    one = replace(catalogue, needs=catalogue.needs[:3])
    machines = machines_of(one, small_machine())
    estimates = need_estimates(one, machines)
    current = recommend(one, estimates, THIS_MACHINE)
    (change,) = dropped(one, estimates, THIS_MACHINE, current)
    assert (change.need, change.verdict) == (one.needs[2].name, Verdict.STAY)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda c: replace(c, needs=c.needs[:2]), "Recommendation: stay. This machine meets all 2"),
        (
            lambda c: c,
            "Recommendation: burst to the cloud: rent a GPU for what this machine does not meet",
        ),
        (
            lambda c: with_thresholds(c, rent_budget=1),
            "Recommendation: upgrade: buy RTX 3060 12GB. This machine meets 2 of 4 needs. Renting",
        ),
        (
            lambda c: with_thresholds(c, rent_budget=0, purchase_budget=0),
            "and is not allowed: it is above the budget to buy.",
        ),
        (
            lambda c: with_need(c, 3, method="full"),
            'Nothing that can be rented meets "a large model now and then".',
        ),
        (
            lambda c: replace(without_rents(c), needs=(c.needs[0], c.needs[3])),
            "The cheapest purchase, RTX 3090, with what it leaves to rent, costs 2,0",
        ),
    ],
)
def test_the_answer_says_why(catalogue, change, sentence):
    findings = decision_findings(decide(change(catalogue), small_machine()))
    assert sentence in findings[0]


def test_numbers_that_are_0_are_not_said_to_change_nothing(catalogue):
    without_money = with_thresholds(catalogue, rent_budget=0.0, purchase_budget=0.0)
    decision = decide(without_money, small_machine())
    said = next(text for text in decision_findings(decision) if "changed alone" in text)
    assert said.endswith("Not tried, as 0 has no multiple: budget to buy, budget to rent.")
