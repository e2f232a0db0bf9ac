"""Gate of FEAT-005: were these runs made, and does each number, table and figure follow from them?

Two levels: every number from the stored arrays (gates/loss_curves/arrays.py), and the arrays from
the base model and the adapters for a sample drawn by the nonce (gates/shared/trials_model.py,
gates/loss_curves/model.py). Which detector fires on which run is a finding, and so is which batch
size learns more: the plan predicts them, this gate does not check them.
"""

from __future__ import annotations

import math

import pytest

from gates.loss_curves import arrays, model, report
from gates.loss_curves.arrays import MEASUREMENTS, POINTS, RATES, RUNS_ALONG_UPDATE, SHAPES, SIZES
from gates.shared import outputs, standard, trials, trials_model
from gates.shared.standard import (  # noqa: F401 - pytest collects the three checks here
    test_figures_were_drawn_from_their_data,
    test_files_are_those_of_the_result,
    test_report_was_made_from_the_result,
)
from gates.shared.stored import config

# trials of the comparison of batch sizes that are evaluated again, beside the base and one shape
EVALUATED = 2
TABLES = ("shapes", "seeds", "significance", "gradients")
FIGURES = ("held_out", "training", "staircase", "batch_size", "line")
IN_FINDINGS = (
    "runs_told_apart",
    "eval_loss_overfitting",
    "overfit_rise",
    "divergence_rise",
    "eval_loss_diverging",
    "base_loss",
    "batch_effect_low",
    "batch_effect_high",
)


#### the plan


def test_every_measurement_is_judged() -> None:
    standard.assert_all_judged(MEASUREMENTS)


def test_run_was_of_the_planned_size() -> None:
    settings = config()
    seeds = settings["seeds"]
    assert len(trials.rows("evaluation")) >= 256
    assert len(seeds) >= 3 and len(set(seeds)) == len(seeds)
    assert tuple(settings["batches"]) == SIZES
    assert all(settings["examples"] % size == 0 for size in SIZES), (
        "batches do not see the same tokens"
    )


def test_rates_of_the_comparison_differ() -> None:
    low, high = (config()["rates"][rate] for rate in RATES)
    assert 0 < low < high


def test_every_trial_is_there_and_no_other() -> None:
    assert sorted({*arrays.grid(), *arrays.shapes().values()}) == trials.own()
    assert set(arrays.shapes()) == set(SHAPES)


@pytest.mark.parametrize("shape", SHAPES)
def test_shape_is_the_run_that_the_config_describes(shape: str) -> None:
    actual = trials.trial(arrays.shapes()[shape])
    expected = arrays.planned_shape(shape)
    for field in ("examples", "curve_every", "seed"):
        assert actual[field] == expected[field], (
            f"{field} is {actual[field]}; expected {expected[field]}"
        )
    for field, value in expected["training"].items():
        assert actual["training"][field] == value, (
            f"{field} is {actual['training'][field]}; expected {value}"
        )


def test_batches_see_the_same_examples() -> None:
    for name in arrays.grid():
        of = trials.trial(name)
        training = of["training"]
        assert training["steps"] * training["batch_size"] == of["examples"]
        assert of["examples"] == config()["examples"]
        assert training["warmup_steps"] == max(1, training["steps"] // 10)
        assert not of["shuffled"] and of["curve_every"] == 0


def test_no_evaluation_data_in_the_training_data() -> None:
    groups = []
    answers = []
    for kind in ("train", "evaluation"):
        rows = trials.rows(kind)
        texts = {" ".join(row["messages"][-1]["content"].casefold().split()) for row in rows}
        assert len(texts) == len(rows), f"{kind}: an answer occurs twice"
        groups.append({row["group"] for row in rows})
        answers.append(texts)
    assert not groups[0] & groups[1], "a package is on both sides"
    assert not answers[0] & answers[1], "an answer is on both sides"


#### numbers, tables and figures, from the arrays


@pytest.mark.parametrize("name", MEASUREMENTS)
def test_measurement_follows_from_what_was_stored(name: str) -> None:
    outputs.assert_agrees(name, arrays.measurements()[name])


def test_report_states_what_was_recomputed() -> None:
    standard.assert_report_states({name: arrays.measurements()[name] for name in MEASUREMENTS})


def test_findings_state_what_was_recomputed() -> None:
    standard.assert_findings_state({name: arrays.measurements()[name] for name in IN_FINDINGS})


@pytest.mark.parametrize("index", range(len(TABLES)), ids=TABLES)
def test_table_follows_from_what_was_stored(index: int) -> None:
    actual = outputs.result()["tables"][index]["rows"]
    if TABLES[index] == "gradients":
        actual = [row[1:] for row in actual]  # the first column is words
    expected = report.tables()[index]
    assert outputs.same(actual, expected, 1e-5), f"rows {actual}, recomputed {expected}"


@pytest.mark.parametrize("name", FIGURES)
def test_figure_shows_what_was_stored(name: str) -> None:
    series = outputs.read_json(f"figures/{name}.json")["series"]
    actual = [[one["x"], one["y"]] for one in series]
    assert outputs.same(actual, report.figures()[name], 1e-5)


#### the trials


def test_trials_have_no_faults() -> None:
    trials.assert_no_faults(trials.own())


def evaluated_trials() -> list[str]:
    shape = trials_model.draw_trials(list(arrays.shapes().values()), 1)
    return ["base", *shape, *trials_model.draw_trials(arrays.grid(), EVALUATED)]


@pytest.mark.parametrize("index", range(2 + EVALUATED))
def test_evaluation_agrees_with_the_weights(index: int) -> None:
    name = evaluated_trials()[index]
    recomputed = trials_model.evaluate(evaluated_trials())[name]
    trials_model.assert_agree(name, trials_model.draw_examples(), recomputed)


def test_first_steps_were_really_made() -> None:
    (name,) = trials_model.draw_trials(arrays.grid(), 1)
    trials_model.assert_replayed(name, trials_model.replay(name))


def test_base_on_the_repeated_examples_agrees_with_the_weights() -> None:
    losses = model.compare_repeated_base()
    standard.assert_token_losses_agree(losses["stored"], losses["recomputed"], "repeated_base")


#### losses along updates


def test_line_goes_as_far_as_planned() -> None:
    alphas = model.stored_alphas()
    plan = config()["line"]
    assert len(alphas) == plan["points"] and alphas == sorted(alphas)
    assert alphas[0] == plan["first"] <= -0.5
    assert alphas[-1] == plan["last"] >= 2
    assert 0.0 in alphas and 1.0 in alphas


@pytest.mark.parametrize("run", RUNS_ALONG_UPDATE)
def test_line_passes_through_the_base_and_the_trained_model(run: str) -> None:
    alphas = model.stored_alphas()
    rows = model.stored_update_losses(run)
    for alpha, trial in ((0.0, "base"), (1.0, arrays.shapes()[run])):
        on_line = rows[alphas.index(alpha)]
        evaluated = model.stored_curve_losses(trial)
        standard.assert_token_losses_agree(on_line, evaluated, f"t = {alpha:g}")


@pytest.mark.parametrize("run", RUNS_ALONG_UPDATE)
def test_line_agrees_with_the_weights(run: str) -> None:
    index = model.draw_alpha_index(run)
    standard.assert_token_losses_agree(
        model.stored_update_losses(run)[index],
        model.recompute_update_losses(run),
        f"t = {model.stored_alphas()[index]:g}",
    )


#### gradients


@pytest.mark.parametrize("point", POINTS)
def test_products_can_be_those_of_gradients(point: str) -> None:
    gram = model.stored_products(point)
    count = config()["noise"]["examples"]
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
    point, i, j = model.draw_gradients()
    gram = model.stored_products(point)
    stored = (gram[i][i], gram[i][j], gram[j][j])
    recomputed = model.recompute_products()
    # A product is compared with the lengths of its gradients: it may itself be near 0.
    sizes = (recomputed[0], math.sqrt(recomputed[0] * recomputed[2]), recomputed[2])
    for actual, expected, size in zip(stored, recomputed, sizes, strict=True):
        assert abs(actual - expected) <= model.TOLERANCE * size, (
            f"{point}, examples {i}, {j}: got {actual}; expected {expected}"
        )
