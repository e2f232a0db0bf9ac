"""Gate of FEAT-005: were these runs made, and does each number, table and figure follow from them?

Two levels: every number from the stored arrays (gates/loss_curves/arrays.py), and the arrays from the base
model and the adapters for a sample drawn by the nonce (gates/shared/trials_model.py,
gates/loss_curves/model.py). Which detector fires on which run is a finding, and so is which batch
size learns more: the plan predicts them, this gate does not ask.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest

from gates.loss_curves import arrays as loss_curves
from gates.loss_curves import model as loss_curves_model
from gates.loss_curves import report as loss_curve_report
from gates.loss_curves.arrays import LINES, NAMES, POINTS, RATES, SHAPES, SIZES
from gates.shared import outputs, trials, trials_model

# trials of the comparison of batch sizes that are evaluated again, beside the base and one shape
EVALUATED = 2


@pytest.mark.integrity
def test_files_are_those_of_the_result() -> None:
    outputs.assert_files_match()


@pytest.mark.integrity
def test_report_was_made_from_the_result() -> None:
    outputs.assert_report_matches()


@pytest.mark.integrity
def test_figures_were_drawn_from_their_data() -> None:
    outputs.assert_figures_match()


# What was planned


def test_every_measurement_is_judged() -> None:
    found, judged = set(outputs.result()["measurements"]), set(NAMES)
    assert found == judged, (
        f"not judged: {sorted(found - judged)}; missing: {sorted(judged - found)}"
    )


def test_run_was_of_the_planned_size() -> None:
    settings = loss_curves.config()
    assert len(trials.rows("evaluation")) >= 256
    assert len(settings["seeds"]) >= 3 and len(set(settings["seeds"])) == len(settings["seeds"])
    assert tuple(settings["batches"]) == SIZES
    assert all(settings["examples"] % size == 0 for size in SIZES), (
        "batches do not see the same tokens"
    )


def test_every_trial_is_there_and_no_other() -> None:
    assert sorted({*loss_curves.grid(), *loss_curves.shapes().values()}) == trials.own()
    assert set(loss_curves.shapes()) == set(SHAPES)


@pytest.mark.parametrize("shape", SHAPES)
def test_shape_is_the_run_that_the_config_describes(shape: str) -> None:
    met, planned = trials.trial(loss_curves.shapes()[shape]), loss_curves.planned_shape(shape)
    for field in ("examples", "curve_every", "seed"):
        assert met[field] == planned[field], f"{field} is {met[field]}, planned {planned[field]}"
    for field, value in planned["training"].items():
        assert met["training"][field] == value, (
            f"{field} is {met['training'][field]}, planned {value}"
        )


def test_batches_see_the_same_examples() -> None:
    for name in loss_curves.grid():
        of = trials.trial(name)
        assert (
            of["training"]["steps"] * of["training"]["batch_size"]
            == of["examples"]
            == loss_curves.config()["examples"]
        )
        assert of["training"]["warmup_steps"] == max(1, of["training"]["steps"] // 10)
        assert not of["shuffled"] and of["curve_every"] == 0


def test_no_evaluation_data_in_the_training_data() -> None:
    sides = [trials.rows(kind) for kind in ("train", "evaluation")]
    groups = [{row["group"] for row in side} for side in sides]
    answers = [
        {" ".join(row["messages"][-1]["content"].casefold().split()) for row in side}
        for side in sides
    ]
    assert not groups[0] & groups[1], "a package is on both sides"
    assert not answers[0] & answers[1], "an answer is on both sides"
    assert [len(side) for side in answers] == [len(side) for side in sides], (
        "an answer is there twice"
    )


# The numbers, from the arrays


@pytest.mark.parametrize("name", NAMES)
def test_measurement_follows_from_what_was_stored(name: str) -> None:
    outputs.assert_agrees(name, loss_curves.numbers()[name])


@pytest.mark.parametrize("place", range(4))
def test_table_follows_from_what_was_stored(place: int) -> None:
    rows, wanted = outputs.result()["tables"][place]["rows"], loss_curve_report.tables()[place]
    shown = [row[1:] for row in rows] if place == 3 else rows  # its first column is words
    assert outputs.same(shown, wanted, 1e-5), f"the table shows {shown}, recomputed {wanted}"


@pytest.mark.parametrize("figure", ["held_out", "training", "staircase", "batch_size", "line"])
def test_figure_shows_what_was_stored(figure: str) -> None:
    shown = [series["y"] for series in outputs.read_json(f"figures/{figure}.json")["series"]]
    assert outputs.same(shown, loss_curve_report.series()[figure], 1e-5)


# The trials


def test_trials_have_no_faults() -> None:
    found = {name: faults for name, faults in trials.faults(trials.own()).items() if faults}
    assert not found, f"{found}"


def evaluated_again() -> list[str]:
    shape = trials_model.drawn(list(loss_curves.shapes().values()), 1)
    return ["base", *shape, *trials_model.drawn(loss_curves.grid(), EVALUATED)]


@pytest.mark.parametrize("place", range(2 + EVALUATED))
def test_evaluation_agrees_with_the_weights(place: int) -> None:
    name = evaluated_again()[place]
    found = trials_model.again(evaluated_again())[name]
    trials_model.assert_agree(name, trials_model.drawn_examples(), found)


def test_first_steps_were_really_made() -> None:
    name = trials_model.drawn(loss_curves.grid(), 1)[0]
    trials_model.assert_replayed(name, trials_model.replayed(name))


def test_base_on_the_repeated_examples_agrees_with_the_weights() -> None:
    found = loss_curves_model.repeated_again()
    assert_alike(found["stored"], found["again"], "repeated_base")


# Lines and gradients


def assert_alike(met: Sequence[float], wanted: Sequence[float], what: str) -> None:
    """Check token losses to what float32 in another order or bfloat16 may do.

    That is 0.01 in the mean and 0.05 per token.
    """
    changes = [a - b for a, b in zip(met, wanted, strict=True)]
    assert abs(sum(changes)) / len(changes) < 0.01, (
        f"{what}: off by {sum(changes) / len(changes)} in the mean"
    )
    assert sum(map(abs, changes)) / len(changes) < 0.05, f"{what}: tokens differ"


def test_line_goes_as_far_as_planned() -> None:
    at, plan = loss_curves_model.line_at(), loss_curves.config()["line"]
    assert len(at) == plan["points"] and at == sorted(at)
    assert at[0] == plan["first"] <= -0.5 and at[-1] == plan["last"] >= 2
    assert 0.0 in at and 1.0 in at


@pytest.mark.parametrize("run", LINES)
def test_line_passes_through_the_base_and_the_trained_model(run: str) -> None:
    at, rows = loss_curves_model.line_at(), loss_curves_model.line_rows(run)
    for t, trial in ((0.0, "base"), (1.0, loss_curves.shapes()[run])):
        assert_alike(rows[at.index(t)], loss_curves_model.evaluated(trial), f"t = {t:g}")


@pytest.mark.parametrize("run", LINES)
def test_line_agrees_with_the_weights(run: str) -> None:
    place = loss_curves_model.drawn_place(run)
    met = loss_curves_model.line_rows(run)[place]
    assert_alike(
        met, loss_curves_model.line_again(run), f"t = {loss_curves_model.line_at()[place]:g}"
    )


@pytest.mark.parametrize("point", POINTS)
def test_products_can_be_those_of_gradients(point: str) -> None:
    gram, count = loss_curves_model.product_rows(point), loss_curves.config()["noise"]["examples"]
    assert len(gram) == count and all(len(row) == count for row in gram)
    for i in range(count):
        assert gram[i][i] > 0
        for j in range(i):
            assert math.isclose(gram[i][j], gram[j][i], rel_tol=1e-9, abs_tol=1e-12), (
                "not symmetric"
            )
            assert abs(gram[i][j]) <= (1 + 1e-9) * math.sqrt(gram[i][i] * gram[j][j]), (
                "longer than Cauchy-Schwarz allows"
            )


def test_products_agree_with_the_weights() -> None:
    point, i, j = loss_curves_model.drawn_gradients()
    gram, again = loss_curves_model.product_rows(point), loss_curves_model.products_again()
    scale = math.sqrt(again[0] * again[2])
    for met, right, size in zip(
        (gram[i][i], gram[i][j], gram[j][j]), again, (again[0], scale, again[2]), strict=True
    ):
        assert abs(met - right) <= loss_curves_model.TOLERANCE * size, (
            f"{point}, examples {i}, {j}: {met}, not {right}"
        )


def test_rates_of_the_comparison_differ() -> None:
    rates = [loss_curves.config()["rates"][rate] for rate in RATES]
    assert 0 < rates[0] < rates[1]
