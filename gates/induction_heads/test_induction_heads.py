"""Gate of FEAT-021: were these models trained, and does each number and picture follow from them?

Every number from the stored arrays (gates/induction_heads/arrays.py), and the arrays from the
stored weights by a numpy model (gates/induction_heads/model.py). That copying is learnt, at which
step, and which head is needed for it are findings: the plan predicts them, this gate does not
check them. It checks that the controls differ from the runs in one thing each.
"""

from __future__ import annotations

import math

import pytest

from gates.induction_heads import arrays, model, report
from gates.induction_heads.arrays import CONDITIONS, MEASUREMENTS
from gates.shared import outputs, standard, stored
from gates.shared.standard import (  # noqa: F401 - pytest collects the three checks here
    test_figures_were_drawn_from_their_data,
    test_files_are_those_of_the_result,
    test_report_was_made_from_the_result,
)
from gates.shared.stored import config

SEEDS = range(3)
TABLES = ("steps", "ends", "groups", "heads")
FIGURES = ("loss", "scores", "ablation")
FILMS = ("film_induction_heads", "film_previous_token_heads")
IN_FINDINGS = (
    "learnt_step",
    "induction_step",
    "previous_token_step",
    "fall_steps",
    "seeds_learnt",
    "seeds_learnt_no_repeats",
    "seeds_learnt_one_layer",
    "chance_loss",
    "unordered_loss",
    "second_copy_loss",
    "second_copy_loss_no_repeats",
    "second_copy_loss_one_layer",
    "first_copy_loss",
    "induction_score_no_repeats",
    "induction_score_one_layer",
    "chance_induction_score",
    "ablation_induction_heads",
    "ablation_previous_token_heads",
    "ablation_previous_token_head",
    "ablation_other_heads",
    "ablation_ratio",
)
STARTED = 300  # seconds that starting the processes of the trainings may take
NEAR_CHANCE = 0.1  # nats/token


#### the plan


def test_every_measurement_is_judged() -> None:
    standard.assert_all_judged([*MEASUREMENTS, "training_seconds"])


def test_runs_are_those_of_the_plan() -> None:
    folders = sorted(path.name for path in stored.artifact("runs").iterdir())
    assert folders == sorted(arrays.all_names())
    assert len(set(arrays.plan()["seeds"])) == len(SEEDS)


def test_runs_have_the_planned_shape() -> None:
    plan = arrays.plan()
    steps = list(range(0, plan["steps"] + 1, plan["every"]))
    assert model.stored_steps()[-1] == plan["steps"] == steps[-1]
    for condition in CONDITIONS:
        layers = 1 if condition == "one_layer" else 2
        for name in arrays.names(condition):
            curve = arrays.load(name, "curve")
            assert curve["steps"].tolist() == steps
            assert curve["induction"].shape == (len(steps), layers, plan["heads"])
            embedding = arrays.load(name, "weights")["embedding"]
            expected = (len(model.stored_steps()), plan["vocabulary"], plan["width"])
            assert embedding.shape == expected, f"{name}: {embedding.shape}"


def test_no_fixed_distance_is_right() -> None:
    periods = arrays.plan()["periods"]
    drawn = stored.arrays("evaluation")["periods"].tolist()
    assert 3 < periods["shortest"] < periods["longest"]
    assert 2 * periods["longest"] <= arrays.plan()["length"]
    assert all(periods["shortest"] <= period <= periods["longest"] for period in drawn)
    share = max(drawn.count(period) for period in set(drawn)) / len(drawn)
    assert share < 0.5, f"{share} of the sequences have the same period"


def test_sequences_repeat_and_are_random_otherwise() -> None:
    held_out = stored.arrays("evaluation")
    plan = arrays.plan()
    film_periods = [plan["film_period"]] * plan["film"]
    pairs = (
        (held_out["ids"], held_out["periods"].tolist()),
        (held_out["film"], film_periods),
    )
    for ids, periods in pairs:
        assert len(ids) == len(periods)
        assert ids.min() >= 0 and ids.max() < plan["vocabulary"]
        for row, period in zip(ids, periods, strict=True):
            assert (row[period:] == row[:-period]).all(), f"no repeat after {period} tokens"
        pieces = [tuple(row[:period].tolist()) for row, period in zip(ids, periods, strict=True)]
        assert len(set(pieces)) > len(pieces) / 2, "the same sequence again and again"
    assert len(held_out["ids"]) == plan["evaluation"]


@pytest.mark.parametrize("seed", SEEDS)
def test_controls_start_from_the_same_weights(seed: int) -> None:
    repeats, no_repeats, one_layer = (
        arrays.load(arrays.names(condition)[seed], "weights") for condition in CONDITIONS
    )
    assert set(no_repeats) == set(repeats)
    for name, array in repeats.items():
        assert (array[0] == no_repeats[name][0]).all(), f"{name}: another start"
        assert (array[-1] != no_repeats[name][-1]).any(), f"{name}: the same end"
    first_layer = [name for name in one_layer if name != "unembedding"]
    for name in first_layer:
        assert (repeats[name][0] == one_layer[name][0]).all(), f"{name}: another start"


#### what every honest run satisfies


def test_untrained_models_are_at_chance() -> None:
    for name in arrays.all_names():
        loss = float(arrays.load(name, "curve")["second"][0])
        chance = math.log(arrays.plan()["vocabulary"])
        assert abs(loss - chance) < NEAR_CHANCE, f"{name} starts at {loss}; chance is {chance}"


def test_without_repeats_nothing_is_learnt() -> None:
    chance = math.log(arrays.plan()["vocabulary"])
    for name in arrays.names("no_repeats"):
        lowest = float(arrays.load(name, "curve")["second"].min())
        assert lowest > chance - NEAR_CHANCE, f"{name} reaches {lowest}; chance is {chance}"


@pytest.mark.parametrize("condition", CONDITIONS)
def test_patterns_are_attention(condition: str) -> None:
    import numpy as np

    for name in arrays.names(condition):
        patterns = arrays.load(name, "patterns")["patterns"]
        assert patterns.min() >= 0
        assert np.allclose(patterns.sum(-1), 1, atol=1e-4), f"{name}: a row does not sum to 1"
        assert not np.triu(patterns, 1).any(), f"{name}: attention to the future"


#### numbers, tables and figures, from the arrays


@pytest.mark.parametrize("name", MEASUREMENTS)
def test_measurement_follows_from_what_was_stored(name: str) -> None:
    outputs.assert_agrees(name, arrays.measurements()[name])


def test_time_is_that_of_the_trainings() -> None:
    seconds = outputs.read_json("artifacts/seconds.json")
    outputs.assert_agrees("training_seconds", seconds["all"])
    runs = seconds["runs"]
    assert sorted(runs) == sorted(arrays.all_names())
    longest, total = max(runs.values()), sum(runs.values())
    workers = config()["workers"]
    assert min(runs.values()) > 0
    assert max(longest, total / workers) <= seconds["all"] <= total + STARTED


def test_report_states_what_was_recomputed() -> None:
    standard.assert_report_states({name: arrays.measurements()[name] for name in MEASUREMENTS})


def test_findings_state_what_was_recomputed() -> None:
    standard.assert_findings_state({name: arrays.measurements()[name] for name in IN_FINDINGS})


@pytest.mark.parametrize("index", range(len(TABLES)), ids=TABLES)
def test_table_follows_from_what_was_stored(index: int) -> None:
    standard.assert_table_agrees(index, report.tables()[index])


@pytest.mark.parametrize("name", FIGURES)
def test_figure_shows_what_was_stored(name: str) -> None:
    series = outputs.read_json(f"figures/{name}.json")["series"]
    actual = [[one["x"], one["y"]] for one in series]
    assert outputs.same(actual, report.figures()[name], 1e-5)


@pytest.mark.parametrize("name", FILMS)
def test_film_shows_what_was_stored(name: str) -> None:
    panels = outputs.read_json(f"figures/{name}.json")["panels"]
    actual = [[panel["label"], panel["values"]] for panel in panels]
    assert outputs.same(actual, report.films()[name], 1e-5)


#### the arrays, from the weights


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("condition", CONDITIONS)
def test_end_agrees_with_the_weights(condition: str, seed: int) -> None:
    model.assert_agrees(arrays.names(condition)[seed], len(model.stored_steps()) - 1)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("condition", CONDITIONS)
def test_drawn_step_agrees_with_the_weights(condition: str, seed: int) -> None:
    name = arrays.names(condition)[seed]
    model.assert_agrees(name, model.draw_checkpoint(name))


@pytest.mark.parametrize("seed", SEEDS)
def test_ablations_agree_with_the_weights(seed: int) -> None:
    model.assert_ablations_agree(arrays.names("repeats")[seed])
