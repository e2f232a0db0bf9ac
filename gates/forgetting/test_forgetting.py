"""Gate of FEAT-008: are the items right, were the models really scored, do the numbers follow?

Three levels: the answers of the items recomputed (gates/forgetting/items.py); every number, table
and figure from the stored arrays (gates/forgetting/arrays.py); the arrays from base model and
adapters for models, items and texts drawn by the nonce (gates/forgetting/model.py). The base
compared with itself is the control: nothing is forgotten, all is 0.
"""

from __future__ import annotations

import pytest

from gates.forgetting import arrays as forgetting
from gates.forgetting import items as forgetting_items
from gates.forgetting import model as forgetting_model
from gates.forgetting.arrays import BASE, RECOMPUTED, ROLES
from gates.shared import outputs, standard, trials
from gates.shared.standard import (
    test_figures_were_drawn_from_their_data,  # noqa: F401
    test_files_are_those_of_the_result,  # noqa: F401
    test_report_was_made_from_the_result,  # noqa: F401
)
from gates.shared.stored import cached, config

EXACT = 1e-6  # what float noise may leave of a 0
NOISE = 5  # standard deviations that no honest run exceeds: one in two million


def test_every_measurement_is_judged() -> None:
    standard.assert_all_judged(RECOMPUTED)


@pytest.mark.parametrize("name", RECOMPUTED)
def test_measurement_follows_from_what_was_stored(name: str) -> None:
    outputs.assert_agrees(name, forgetting.recomputed()["numbers"][name])


def test_report_states_what_was_recomputed() -> None:
    numbers = forgetting.recomputed()["numbers"]
    standard.assert_report_states({name: numbers[name] for name in RECOMPUTED})


def test_run_was_of_the_planned_size() -> None:
    rows = forgetting_items.items()
    for suite in forgetting_items.SUITES:
        count = sum(row["suite"] == suite for row in rows)
        assert count >= 100, f"{suite} has {count} items; expected at least 100"
    assert len(forgetting.adapters()) >= 8
    assert len(forgetting.texts()) >= 32
    assert set(config()["roles"]) == set(ROLES)


# The items and the adapters


def test_items_are_what_they_claim() -> None:
    def all_faults() -> list[str]:
        return list(forgetting_items.faults(forgetting_items.items()))

    faults = cached("forgetting items", forgetting_items.FILES, all_faults)
    assert not faults, f"{len(faults)} faults: {faults[:5]}"


def test_adapters_are_the_trials_that_the_config_names() -> None:
    document = outputs.read_json(forgetting.MODELS)
    models = document["models"]
    trial_names = {name: model["trial"] for name, model in models.items()}
    assert trial_names == forgetting.adapters()
    for name, model in models.items():
        expected = {"lora_dropout": 0.0, "use_rslora": False, "trial": model["trial"]}
        expected |= config()["adapters"][name]
        del expected["learning_rate"]
        assert model == expected
    assert document["matrices"] == forgetting_model.matrices()


def test_adapters_are_sound() -> None:
    trials.assert_no_faults(sorted(forgetting.adapters().values()), forgetting.features())


def test_nothing_was_trained_where_it_could_be_taken_over() -> None:
    if len(forgetting.features()) == len(forgetting.EARLIER):
        assert trials.own() == [], f"trained here: {trials.own()}"


# The arrays, from the weights


def test_stored_scores_agree_with_the_weights() -> None:
    for name, gaps in forgetting_model.differences()["models"].items():
        assert gaps["log_likelihoods"] < 0.05, (
            f"{name}: {gaps['log_likelihoods']} nats per choice in the mean"
        )
        assert gaps["losses"] < 0.05, f"{name}: {gaps['losses']} nats per token of the base's text"
        assert gaps["divergences"] < 0.02, (
            f"{name}: {gaps['divergences']} nats of divergence per token"
        )


def test_norms_agree_with_the_adapters() -> None:
    worst = forgetting_model.differences()["norms"]
    assert max(worst.values()) < 1e-3, worst


def test_similarities_agree_with_the_weights() -> None:
    worst = forgetting_model.differences()["similarities"]
    assert max(worst.values()) < 0.02, worst


def test_the_text_is_what_the_base_says() -> None:
    z = forgetting_model.differences()["own_text"]["z"]
    assert abs(z) < NOISE, (
        f"the loss of the text is {z} standard deviations from the base's entropy"
    )


def test_example_ids_are_those_of_the_text() -> None:
    def example_ids() -> dict[str, list[int]]:
        stored = forgetting.arrays()
        names = (BASE, *forgetting.adapters())
        return {name: stored[f"{name}.example_ids"].tolist() for name in names}

    rows = forgetting.texts()
    expected = []
    for i, row in enumerate(rows):
        expected += [i] * row["drawn"]
    by_model = cached("forgetting example_ids", (forgetting.SCORES,), example_ids)
    for name, actual in by_model.items():
        assert actual == expected, f"the arrays of {name} do not cover the drawn tokens"
    assert all(0 < row["drawn"] < len(row["ids"]) for row in rows)


def test_base_compared_with_itself_is_nothing() -> None:
    def extremes() -> dict[str, float]:
        stored = forgetting.arrays()
        return {
            "divergence": float(abs(stored[f"{BASE}.divergences"]).max()),
            "norm": float(abs(stored[f"{BASE}.norms"]).max()),
            "similarity": float(stored[f"{BASE}.similarities"].min()),
        }

    base = cached("forgetting base", (forgetting.SCORES,), extremes)
    assert base["divergence"] < EXACT, f"the base is {base['divergence']} nats from itself"
    assert base["norm"] == 0.0
    assert base["similarity"] > 1 - 1e-3, "a singular vector of the base is not one of its own"


def test_divergences_are_not_negative() -> None:
    def minima() -> dict[str, float]:
        stored = forgetting.arrays()
        return {name: float(stored[f"{name}.divergences"].min()) for name in forgetting.adapters()}

    least = cached("forgetting least divergence", (forgetting.SCORES,), minima)
    assert min(least.values()) > -EXACT, least


def test_loss_on_the_bases_text_rises_by_the_divergence() -> None:
    """Both have the same expectation, because the base wrote the text."""
    for name, (mean, stderr) in forgetting.recomputed()["divergence_gaps"].items():
        assert abs(mean) <= NOISE * stderr + 1e-4, (
            f"{name}: rise of the loss less KL is {mean} ± {stderr}"
        )


# The report


@pytest.mark.parametrize("index", [0, 1])
def test_table_follows_from_what_was_stored(index: int) -> None:
    standard.assert_table_agrees(index, forgetting.recomputed()["tables"][index])


@pytest.mark.parametrize("name", ["frontier", "divergence", "suites"])
def test_figure_shows_the_numbers(name: str) -> None:
    drawn = outputs.read_json(f"figures/{name}.json")["series"]
    by_label = {series["label"]: series for series in drawn}
    expected = forgetting.recomputed()["figures"][name]
    assert list(by_label) == list(expected)
    for label, (x, y, *band) in expected.items():
        assert outputs.same(by_label[label]["x"], x, 1e-5), label
        assert outputs.same(by_label[label]["y"], y, 1e-5), label
        assert outputs.same(by_label[label]["band"] or [], band, 1e-5), label


def test_sentences_name_what_the_numbers_say() -> None:
    findings = " ".join(outputs.result()["findings"])
    expected = forgetting.recomputed()["findings"]
    assert f": {', '.join(expected['forgot']) or 'none'}." in findings
    frontier = ", ".join(expected["frontier"])
    assert f"Pareto frontier: {frontier}. For every other adapter, one of these" in findings
