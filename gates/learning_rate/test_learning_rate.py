"""Gate of FEAT-006: were the runs really made, at the rates they claim, and do the numbers follow?

Three levels: every number, table and figure from the stored arrays (gates/learning_rate/arrays.py);
every run's description, adapter and curves against the plan and the data (gates/shared/trials.py); a
sample drawn by the nonce from the base model and the adapters, and one run's first steps done
again (gates/shared/trials_model.py).
"""

from __future__ import annotations

import math
from typing import Any

import pytest

from gates.learning_rate import arrays as learning_rates
from gates.learning_rate import laws as learning_rates_laws
from gates.learning_rate import plan
from gates.learning_rate.arrays import RECOMPUTED
from gates.shared import outputs, trials, trials_model

AGAIN = 6  # runs whose evaluation is done again
TABLES = ("runs", "neighbouring rates", "optimum of each seed")
FIGURES = ("loss_by_rate", "training_loss", "instability")


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
    found, judged = set(outputs.result()["measurements"]), set(RECOMPUTED)
    assert found == judged, (
        f"not judged: {sorted(found - judged)}; missing: {sorted(judged - found)}"
    )


@pytest.mark.parametrize("name", RECOMPUTED)
def test_measurement_follows_from_what_was_stored(name: str) -> None:
    outputs.assert_agrees(name, learning_rates.found()["numbers"][name])


@pytest.mark.parametrize("place", range(len(TABLES)), ids=TABLES)
def test_table_follows_from_what_was_stored(place: int) -> None:
    shown, again = (
        outputs.result()["tables"][place]["rows"],
        learning_rates.found()["tables"][place],
    )
    assert len(shown) == len(again), f"{len(shown)} rows, recomputed {len(again)}"
    for row, right in zip(shown, again, strict=True):
        assert outputs.same(row, right, 1e-5), f"row {row}, recomputed {right}"


@pytest.mark.parametrize("name", FIGURES)
def test_figure_shows_what_was_stored(name: str) -> None:
    shown, again = (
        outputs.read_json(f"figures/{name}.json")["series"],
        learning_rates.found()["figures"][name],
    )
    assert len(shown) == len(again), f"{len(shown)} series, recomputed {len(again)}"
    for series, (x, y) in zip(shown, again, strict=True):
        assert outputs.same([float(v) for v in series["x"]], x, 1e-9), series["label"]
        assert outputs.same(series["y"], y, 1e-5), series["label"]


def test_bands_reach_from_seed_to_seed() -> None:
    shown, again = (
        outputs.read_json("figures/training_loss.json")["series"],
        learning_rates.found()["bands"],
    )
    assert outputs.same([series["band"] for series in shown], again, 1e-5)


def test_sentences_name_the_winner_and_the_formula() -> None:
    numbers, told = learning_rates.found()["numbers"], outputs.result()["findings"]
    mantissa, exponent = f"{numbers['best_rate']:e}".split("e")
    best = f"{float(mantissa):g}e{int(exponent)}"
    assert f"{best} won" in told[0]
    nearest = min(
        plan.config()["rates"], key=lambda rate: abs(math.log(rate / numbers["formula_rate"]))
    )
    assert ("did win" in told[1]) == (nearest == numbers["best_rate"])
    assert ("did not win" in told[1]) == (nearest != numbers["best_rate"])


# The runs


def test_sweep_was_of_the_planned_size() -> None:
    config = plan.config()
    assert len(config["seeds"]) >= 3
    assert len(config["rates"]) >= 4
    assert outputs.measurement("eval_loss_base")["n"] >= 256
    assert config["training"]["steps"] >= 20
    assert config["second"]["lora_alpha"] == config["lora"]["lora_alpha"], (
        "alpha was changed together with the rank"
    )


def test_runs_are_those_of_the_plan() -> None:
    stored, known = trials.own(), plan.features()
    assert set(stored) <= set(plan.names()), "a run is stored that nobody asked for"
    for setting in (*plan.first(), *plan.second(), plan.control()):
        for seed in plan.config()["seeds"]:
            wanted = plan.planned(setting, seed)
            assert trials.trial(plan.name(setting, seed), known) == wanted


def test_runs_have_everything_else_in_common() -> None:
    known, config, every = plan.features(), plan.config(), {}
    for name in plan.names():
        told = trials.description(name, known)
        every[name] = {
            key: value for key, value in told.items() if key not in {"identity", "trial"}
        }
    sweep_context = next(iter(every.values()))
    assert all(told == sweep_context for told in every.values()), (
        "runs were made on different benches"
    )
    assert all(sweep_context[key] == config[key] for key in ("dtype", "device", "threads")), (
        sweep_context
    )
    assert outputs.result()["environment"]["sweep_context"] == sweep_context


def test_every_run_is_whole() -> None:
    bad = {
        name: found for name, found in trials.faults(plan.names(), plan.features()).items() if found
    }
    assert not bad, f"{len(bad)} runs have faults, such as {next(iter(bad.items()))}"


def test_no_evaluation_data_in_the_training_data() -> None:
    known = plan.features()
    train, evaluation = trials.rows("train", known), trials.rows("evaluation", known)

    def answers(rows: list[dict[str, Any]]) -> set[str]:
        return {" ".join(row["messages"][-1]["content"].casefold().split()) for row in rows}

    assert not answers(train) & answers(evaluation), "an answer is on both sides"
    assert not {row["group"] for row in train} & {row["group"] for row in evaluation}, (
        "a package is on both sides"
    )


def test_adapters_moved_as_far_as_their_rates_allow() -> None:
    """Adam moves no number by more than (1 − β1)/√(1 − β2) = 3.17 rates a step.

    Kingma and Ba 2015, section 2.1.
    """
    for name, (least, most, rates, drift, both) in learning_rates_laws.moved().items():
        assert least > 0, f"{name}: some B is still 0: a layer was not trained"
        assert most <= 3.17 * rates, f"{name}: B holds {most}, with rates that sum to {rates}"
        assert drift <= 3.17 * both, (
            f"{name}: A is {drift} away from that of the smallest rate, rates sum to {both}"
        )


def test_every_run_has_an_adapter_of_its_own() -> None:
    digests = learning_rates_laws.adapters().values()
    assert len(set(digests)) == len(digests), "two runs have the same adapter"


def test_seeds_start_alike_at_every_rate() -> None:
    """B starts at 0 and batches are the seed's, so the first loss knows neither rate nor rank."""
    starts = learning_rates_laws.first_losses()
    for seed, found in starts.items():
        assert max(found) - min(found) < 1e-3, (
            f"seed {seed}: first losses from {min(found)} to {max(found)}"
        )
    assert len({round(found[0], 6) for found in starts.values()}) == len(starts), (
        "two seeds saw the same first batch"
    )


# The evaluations, from the weights


def test_evaluations_agree_with_the_weights() -> None:
    known = plan.features()
    names = ["base", *trials_model.drawn(plan.names(), AGAIN)]
    examples, again = trials_model.drawn_examples(known), trials_model.again(names, known)
    for name in names:
        trials_model.assert_agree(name, examples, again[name], known)


def test_first_steps_of_a_run_were_made() -> None:
    known = plan.features()
    (name,) = trials_model.drawn([name for name in plan.names() if name in trials.own()], 1)
    trials_model.assert_replayed(name, trials_model.replayed(name, known), known)


def test_true_answers_beat_shuffled_ones() -> None:
    gap = learning_rates.found()["numbers"]["by_example"]
    low = gap["value"] - 1.97 * gap["stderr"]  # t(0.975) for some 250 degrees of freedom
    assert low > 0, (
        f"shuffled minus true: {gap['value']} ± {gap['stderr']} by example: the control was not "
        "beaten"
    )
