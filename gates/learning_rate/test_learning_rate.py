"""Gate of FEAT-006: were the trials really made, at the rates they claim, does each number follow?

Three levels: every number, table and figure from the stored arrays (gates/learning_rate/arrays.py);
every trial's description, adapter and curves against the plan and the data
(gates/shared/trials.py); a sample drawn by the nonce from the base model and the adapters, and one
trial's first steps repeated (gates/shared/trials_model.py).
"""

from __future__ import annotations

import math
from typing import Any

import pytest

from gates.learning_rate import arrays, laws, plan
from gates.learning_rate.arrays import RECOMPUTED
from gates.shared import outputs, standard, trials, trials_model
from gates.shared.standard import (  # noqa: F401 - pytest collects the three checks here
    test_figures_were_drawn_from_their_data,
    test_files_are_those_of_the_result,
    test_report_was_made_from_the_result,
)
from gates.shared.stored import config

EVALUATED = 6  # trials whose evaluation is done again
ADAM_LIMIT = 3.17  # rates a step: (1 − β1)/√(1 − β2), Kingma and Ba 2015, section 2.1
TABLES = ("runs", "neighbouring rates", "optimum of each seed")
FIGURES = ("loss_by_rate", "training_loss", "instability")


def test_every_measurement_is_judged() -> None:
    standard.assert_all_judged(RECOMPUTED)


@pytest.mark.parametrize("name", RECOMPUTED)
def test_measurement_follows_from_what_was_stored(name: str) -> None:
    outputs.assert_agrees(name, arrays.recompute()["numbers"][name])


def test_report_states_what_was_recomputed() -> None:
    numbers = arrays.recompute()["numbers"]
    standard.assert_report_states({name: numbers[name] for name in RECOMPUTED})


@pytest.mark.parametrize("index", range(len(TABLES)), ids=TABLES)
def test_table_follows_from_what_was_stored(index: int) -> None:
    standard.assert_table_agrees(index, arrays.recompute()["tables"][index])


@pytest.mark.parametrize("name", FIGURES)
def test_figure_shows_what_was_stored(name: str) -> None:
    actual = outputs.read_json(f"figures/{name}.json")["series"]
    expected = arrays.recompute()["figures"][name]
    assert len(actual) == len(expected), f"{len(actual)} series, recomputed {len(expected)}"
    for series, (x, y) in zip(actual, expected, strict=True):
        assert outputs.same(series["x"], x, 1e-9), series["label"]
        assert outputs.same(series["y"], y, 1e-5), series["label"]


def test_bands_reach_from_seed_to_seed() -> None:
    series = outputs.read_json("figures/training_loss.json")["series"]
    actual = [one["band"] for one in series]
    assert outputs.same(actual, arrays.recompute()["seed_ranges"], 1e-5)


def test_sentences_name_the_winner_and_the_formula() -> None:
    numbers = arrays.recompute()["numbers"]
    winner_finding, formula_finding = outputs.result()["findings"][:2]
    mantissa, exponent = f"{numbers['best_rate']:e}".split("e")
    best = f"{float(mantissa):g}e{int(exponent)}"
    assert f"{best} won" in winner_finding

    def log_distance(rate: float) -> float:
        return abs(math.log(rate / numbers["formula_rate"]))

    nearest = min(config()["rates"], key=log_distance)
    assert ("did win" in formula_finding) == (nearest == numbers["best_rate"])
    assert ("did not win" in formula_finding) == (nearest != numbers["best_rate"])


# The trials


def test_sweep_was_of_the_planned_size() -> None:
    assert len(config()["seeds"]) >= 3
    assert len(config()["rates"]) >= 4
    assert outputs.measurement("eval_loss_base")["n"] >= 256
    assert config()["training"]["steps"] >= 20
    assert config()["second"]["lora_alpha"] == config()["lora"]["lora_alpha"], (
        "alpha was changed together with the rank"
    )


def test_runs_are_those_of_the_plan() -> None:
    unplanned = set(trials.own()) - set(plan.all_trial_names())
    assert not unplanned, f"stored trials that the plan does not name: {sorted(unplanned)}"
    for setting in plan.all_settings():
        for seed in config()["seeds"]:
            stored = trials.trial(plan.trial_name(setting, seed), plan.earlier_features())
            assert stored == plan.planned_trial(setting, seed)


def test_runs_have_everything_else_in_common() -> None:
    trials.assert_one_sweep_context(plan.all_trial_names(), plan.earlier_features(), config())


def test_every_run_is_whole() -> None:
    trials.assert_no_faults(plan.all_trial_names(), plan.earlier_features())


def test_no_evaluation_data_in_the_training_data() -> None:
    train = trials.rows("train", plan.earlier_features())
    evaluation = trials.rows("evaluation", plan.earlier_features())

    def answers(rows: list[dict[str, Any]]) -> set[str]:
        return {" ".join(row["messages"][-1]["content"].casefold().split()) for row in rows}

    assert not answers(train) & answers(evaluation), "an answer is on both sides"
    train_groups = {row["group"] for row in train}
    evaluation_groups = {row["group"] for row in evaluation}
    assert not train_groups & evaluation_groups, "a package is on both sides"


def test_adapters_moved_as_far_as_their_rates_allow() -> None:
    """Adam moves no number by more than ADAM_LIMIT rates a step."""
    for name, move in laws.adapter_moves().items():
        rate_sum = move["rate_sum"]
        both = move["rate_sum_of_both"]
        assert move["least_b"] > 0, f"{name}: some B is still 0: a layer was not trained"
        assert move["most_b"] <= ADAM_LIMIT * rate_sum, (
            f"{name}: B contains {move['most_b']}, with rates that sum to {rate_sum}"
        )
        assert move["a_drift"] <= ADAM_LIMIT * both, (
            f"{name}: A is {move['a_drift']} away from that of the smallest rate, rates sum to "
            f"{both}"
        )


def test_every_run_has_an_adapter_of_its_own() -> None:
    digests = laws.adapter_digests().values()
    assert len(set(digests)) == len(digests), "two trials have the same adapter"


def test_seeds_start_alike_at_every_rate() -> None:
    """B starts at 0 and batches are the seed's: neither rate nor rank changes the first loss."""
    by_seed = laws.first_losses()
    for seed, losses in by_seed.items():
        assert max(losses) - min(losses) < 1e-3, (
            f"seed {seed}: first losses from {min(losses)} to {max(losses)}"
        )
    starts = {round(losses[0], 6) for losses in by_seed.values()}
    assert len(starts) == len(by_seed), "two seeds saw the same first batch"


# The evaluations, from the weights


def test_evaluations_agree_with_the_weights() -> None:
    features = plan.earlier_features()
    names = ["base", *trials_model.draw_trials(plan.all_trial_names(), EVALUATED)]
    examples = trials_model.draw_examples(features)
    recomputed = trials_model.evaluate(names, features)
    for name in names:
        trials_model.assert_agree(name, examples, recomputed[name], features)


def test_first_steps_of_a_run_were_made() -> None:
    features = plan.earlier_features()
    own_names = set(trials.own())
    candidates = [name for name in plan.all_trial_names() if name in own_names]
    (name,) = trials_model.draw_trials(candidates, 1)
    trials_model.assert_replayed(name, trials_model.replay(name, features), features)


def test_true_answers_beat_shuffled_ones() -> None:
    gap = arrays.recompute()["gap_by_example"]
    low = gap["value"] - 1.97 * gap["stderr"]  # t(0.975) for some 250 degrees of freedom
    assert low > 0, (
        f"shuffled minus true: {gap['value']} ± {gap['stderr']} by example: the control was not "
        "beaten"
    )
