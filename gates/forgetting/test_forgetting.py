"""Gate of FEAT-008: are the items right, the models really scored, and do the numbers follow?

Three levels: the items' answers worked out again (gates/forgetting/items.py); every number, table
and figure from the stored arrays (gates/forgetting/arrays.py); the arrays from base model and adapters for
models, items and texts drawn by the nonce (gates/forgetting/model.py). The base compared with
itself is the control: nothing is forgotten, all is 0.
"""

from __future__ import annotations

from typing import Any

import pytest

from gates.forgetting import arrays as forgetting
from gates.forgetting import items as forgetting_items
from gates.forgetting import model as forgetting_model
from gates.forgetting.arrays import BASE, RECOMPUTED, ROLES
from gates.shared import outputs, trials
from gates.shared.stored import cached

EXACT = 1e-6  # what float noise may leave of a 0
NOISE = 5  # standard deviations that no honest run exceeds: one in two million


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
    outputs.assert_agrees(name, forgetting.found()["numbers"][name])


def test_run_was_of_the_planned_size() -> None:
    rows = forgetting_items.items()
    for suite in forgetting_items.SUITES:
        assert sum(row["suite"] == suite for row in rows) >= 100, (
            f"{suite} has fewer than 100 items"
        )
    assert len(forgetting.adapters()) >= 8
    assert len(forgetting.texts()) >= 32
    assert set(forgetting.config()["roles"]) == set(ROLES)


# The items and the adapters


def test_items_are_what_they_claim() -> None:
    found = cached(
        "forgetting items", forgetting_items.FILES, lambda: list(forgetting_items.faults(_items()))
    )
    assert not found, f"{len(found)} faults: {found[:5]}"


def _items() -> list[dict[str, Any]]:
    return forgetting_items.items()


def test_adapters_are_the_trials_that_the_config_names() -> None:
    named = outputs.read_json(forgetting.MODELS)
    assert {
        name: model["trial"] for name, model in named["models"].items()
    } == forgetting.adapters()
    for name, model in named["models"].items():
        settings = forgetting.config()["adapters"][name]
        wanted = {"lora_dropout": 0.0, "use_rslora": False, **settings, "trial": model["trial"]}
        assert model == {key: value for key, value in wanted.items() if key != "learning_rate"}
    assert named["matrices"] == forgetting_model.matrices()


def test_adapters_are_sound() -> None:
    found = trials.faults(sorted(forgetting.adapters().values()), forgetting.features())
    assert not any(found.values()), {name: faults for name, faults in found.items() if faults}


def test_nothing_was_trained_where_it_could_be_taken_over() -> None:
    if len(forgetting.features()) == len(forgetting.EARLIER):
        assert trials.own() == [], f"trained here: {trials.own()}"


# The arrays, from the weights


def test_stored_scores_agree_with_the_weights() -> None:
    for name, found in forgetting_model.again()["models"].items():
        assert found["log_likelihoods"] < 0.05, (
            f"{name}: {found['log_likelihoods']} nats per choice in the mean"
        )
        assert found["losses"] < 0.05, (
            f"{name}: {found['losses']} nats per token of the base's text"
        )
        assert found["divergences"] < 0.02, (
            f"{name}: {found['divergences']} nats of divergence per token"
        )


def test_norms_agree_with_the_adapters() -> None:
    worst = forgetting_model.again()["norms"]
    assert max(worst.values()) < 1e-3, worst


def test_similarities_agree_with_the_weights() -> None:
    worst = forgetting_model.again()["similarities"]
    assert max(worst.values()) < 0.02, worst


def test_the_text_is_what_the_base_says() -> None:
    z = forgetting_model.again()["own_text"]["z"]
    assert abs(z) < NOISE, (
        f"the loss of the text is {z} standard deviations from the base's entropy"
    )


def test_owners_are_those_of_the_text() -> None:
    rows = forgetting.texts()
    wanted = [i for i, row in enumerate(rows) for _ in range(row["drawn"])]
    found = cached("forgetting example_ids", (forgetting.SCORES,), _owners)
    assert all(example_ids == wanted for example_ids in found.values()), (
        "an array does not cover the drawn tokens"
    )
    assert all(0 < row["drawn"] < len(row["ids"]) for row in rows)


def _owners() -> dict[str, list[int]]:
    stored = forgetting.arrays()
    return {name: stored[f"{name}.example_ids"].tolist() for name in (BASE, *forgetting.adapters())}


def test_base_compared_with_itself_is_nothing() -> None:
    found = cached("forgetting base", (forgetting.SCORES,), _base)
    assert found["divergence"] < EXACT, f"the base is {found['divergence']} nats from itself"
    assert found["norm"] == 0.0
    assert found["similarity"] > 1 - 1e-3, "a singular vector of the base is not one of its own"


def _base() -> dict[str, float]:
    stored = forgetting.arrays()
    return {
        "divergence": float(abs(stored[f"{BASE}.divergences"]).max()),
        "norm": float(abs(stored[f"{BASE}.norms"]).max()),
        "similarity": float(stored[f"{BASE}.similarities"].min()),
    }


def test_divergences_are_not_negative() -> None:
    def least() -> dict[str, float]:
        stored = forgetting.arrays()
        return {name: float(stored[f"{name}.divergences"].min()) for name in forgetting.adapters()}

    found = cached("forgetting least divergence", (forgetting.SCORES,), least)
    assert min(found.values()) > -EXACT, found


def test_loss_on_the_bases_text_rises_by_the_divergence() -> None:
    """Both have the same expectation, because the base wrote the text."""
    for name, (mean, stderr) in forgetting.found()["facts"]["apart"].items():
        assert abs(mean) <= NOISE * stderr + 1e-4, (
            f"{name}: rise of the loss less KL is {mean} ± {stderr}"
        )


# What is shown


@pytest.mark.parametrize("number", [0, 1])
def test_table_follows_from_what_was_stored(number: int) -> None:
    shown = outputs.result()["tables"][number]["rows"]
    wanted = forgetting.found()["tables"][number]
    assert len(shown) == len(wanted)
    for met, right in zip(shown, wanted, strict=True):
        assert outputs.same(met, right, 1e-4), f"the table says {met}, recomputed {right}"


@pytest.mark.parametrize("name", ["frontier", "divergence", "suites"])
def test_figure_shows_the_numbers(name: str) -> None:
    shown = {
        series["label"]: series for series in outputs.read_json(f"figures/{name}.json")["series"]
    }
    wanted = forgetting.found()["figures"][name]
    assert list(shown) == list(wanted)
    for label, (x, y) in wanted.items():
        assert outputs.same(shown[label]["x"], x, 1e-5) and outputs.same(
            shown[label]["y"], y, 1e-5
        ), label


def test_sentences_name_what_the_numbers_say() -> None:
    told, facts = " ".join(outputs.result()["findings"]), forgetting.found()["facts"]
    assert f": {', '.join(facts['forgot']) or 'none'}." in told
    assert f"Nobody beats {', '.join(facts['best'])}:" in told
