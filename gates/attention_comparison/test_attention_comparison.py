"""Gate of FEAT-012: was attention really compared, and do the numbers follow?

Two levels: every number, table, figure and the page from the stored arrays
(gates/attention_comparison/arrays.py, shown.py, page.py); the arrays from base model, adapters and
snapshots for models, prompts, heads and examples drawn by the nonce
(gates/attention_comparison/model.py). The control: the base against itself is exactly 0.
"""

from __future__ import annotations

import math

import pytest

from gates.attention_comparison import arrays, model, page, shown
from gates.attention_comparison.arrays import RECOMPUTED, STATISTICS
from gates.shared import attention_page, outputs, standard, stored, trials
from gates.shared.standard import (
    assert_token_losses_agree,
    test_figures_were_drawn_from_their_data,  # noqa: F401
    test_files_are_those_of_the_result,  # noqa: F401
    test_report_was_made_from_the_result,  # noqa: F401
)
from gates.shared.stored import cached, config

# What another order of arithmetic may change: a share of the value, and a floor in its own unit.
# bfloat16 on a GPU keeps 8 bits of a number.
FLOOR = {"float32": 2e-6, "bfloat16": 2e-3}
RELATIVE = {"float32": 0.02, "bfloat16": 0.2}
PAGE_LEVELS = {"float32": 1.0, "bfloat16": 8.0}  # a share is rounded to half a level


def test_every_measurement_is_judged() -> None:
    standard.assert_all_judged((*RECOMPUTED, "replay_gap"))


@pytest.mark.parametrize("name", RECOMPUTED)
def test_measurement_follows_from_what_was_stored(name: str) -> None:
    outputs.assert_agrees(name, shown.recomputed()["numbers"][name])


def test_report_states_what_was_recomputed() -> None:
    numbers = shown.recomputed()["numbers"]
    standard.assert_report_states({name: numbers[name] for name in RECOMPUTED})


def test_run_was_of_the_planned_size() -> None:
    settings = config()
    kinds = [prompt["kind"] for prompt in arrays.prompts()]
    assert kinds.count("task") >= 12 and kinds.count("text") >= 12
    assert kinds.count("repeated") >= 4
    assert len(settings["seeds"]) >= 3
    assert settings["draws"] >= 2
    assert len(arrays.steps()) >= 10
    assert arrays.steps()[-1] == settings["training"]["steps"]
    assert settings["loss_examples"] >= 48
    assert settings["ablation"]["draws"] >= 5 and settings["ablation"]["heads"] >= 10


# The adapters


def test_adapters_are_the_trials_that_the_config_names() -> None:
    settings = config()
    names = []
    for seed in settings["seeds"]:
        trial = {
            "lora": {"use_rslora": False, **settings["lora"]},
            "training": settings["training"],
            "examples": settings["examples"],
            "shuffled": False,
            "seed": seed,
        }
        names.append(trials.name_of(trial))
    assert arrays.heads()["trials"] == names
    trials.assert_no_faults(names, arrays.features())


def test_nothing_was_trained_where_it_could_be_taken_over() -> None:
    if arrays.features():
        assert trials.own() == [], f"trained here: {trials.own()}"


def test_repeated_training_ends_at_the_stored_adapter() -> None:
    replay = model.replay()
    outputs.assert_agrees("replay_gap", replay["gap"])
    # Another kind of processor rounds differently, and twenty steps let that grow.
    assert replay["gap"] < 0.01, f"the last snapshot is {replay['gap']} from the stored adapter"
    assert replay["losses"] < 0.05, f"training losses differ by a share of {replay['losses']}"
    limit = 1e-6 if replay["gap"] == 0 else 0.3
    for group in ("snapshots", "snapshots_random"):
        assert replay[group] <= limit, f"{group}: the last differs by a share of {replay[group]}"


def test_random_updates_have_the_norms_of_the_trained_ones() -> None:
    for group, worst in model.norms().items():
        assert worst < 1e-4, f"{group}: a norm differs by a share of {worst}"


# The arrays, from the weights


def test_prompts_are_what_they_claim() -> None:
    assert model.texts_hold() == {"task": True, "text": True, "repeated": True}


def _assert_close(what: str, gap: float, size: float) -> None:
    dtype = config()["dtype"]
    limit = RELATIVE[dtype] * size + FLOOR[dtype]
    assert gap < limit, f"{what}: stored and recomputed differ by {gap} in the mean, of {size}"


def test_base_statistics_agree_with_the_weights() -> None:
    for name, (gap, size) in model.differences()["base"].items():
        _assert_close(f"base, {name}", gap, size)


def test_drawn_models_agree_with_the_weights() -> None:
    for label, gaps in model.differences()["models"].items():
        assert set(gaps) == {"divergence", *STATISTICS}
        for name, (gap, size) in gaps.items():
            _assert_close(f"{label}, {name}", gap, size)


def test_norms_agree_with_the_tensors() -> None:
    worst = model.differences()["norms"]
    assert max(worst.values()) < 1e-3, worst


def test_losses_agree_with_the_weights() -> None:
    found = model.differences()
    pairs = {"a snapshot": found["losses"]}
    for name in ("ablation_base", "ablation_tuned"):
        pairs[f"{name}, all heads"], pairs[f"{name}, set {model.drawn_set()}"] = found[name]
    for what, (actual, recomputed) in pairs.items():
        assert_token_losses_agree(actual, recomputed, what)


def test_base_against_itself_is_exactly_nothing() -> None:
    def largest() -> float:
        return float(abs(stored.arrays("arrays")["adapter_off.divergence"]).max())

    assert cached("attention comparison control", (arrays.ARRAYS,), largest) == 0.0


def test_values_are_possible() -> None:
    ranges = model.ranges()
    low, high = ranges["divergence"]
    assert low >= 0 and high <= math.log(2) + 1e-9
    for name in ("sink", "entropy", "induction"):
        low, high = ranges[name]
        assert low >= -1e-5 and high <= 1 + 1e-5, f"{name} is from {low} to {high}"
    longest = max(len(prompt["ids"]) for prompt in arrays.prompts())
    for name in ("distance", "distance_without_sink"):
        low, high = ranges[name]
        assert low >= 0 and high <= longest, f"{name} is from {low} to {high}"


def test_ablated_heads_are_those_that_moved_most() -> None:
    def order() -> list[int]:
        movement = stored.arrays("arrays")["tuned.divergence"][0].mean(1).tolist()
        return sorted(range(len(movement)), key=lambda head: -movement[head])

    heads = arrays.heads()
    settings = config()["ablation"]
    furthest = cached("attention comparison order", (arrays.ARRAYS,), order)
    assert heads["moved"] == furthest[: settings["heads"]]
    assert len(heads["random"]) == settings["draws"]
    others = set(furthest[settings["heads"] :])
    for drawn in heads["random"]:
        assert len(set(drawn)) == len(drawn) == settings["heads"]
        assert set(drawn) <= others, "a random set has a head that moved most"
    assert len({tuple(drawn) for drawn in heads["random"]}) > 1


# The page and the report


def test_page_is_that_of_the_lab() -> None:
    attention_page.assert_frame_is_that_of_the_lab(page.NAME)


def test_page_shows_the_numbers() -> None:
    assert page.problems() == []


def test_page_shows_the_patterns() -> None:
    found = model.differences()
    for name in ("page_base", "page"):
        assert found[name] <= PAGE_LEVELS[config()["dtype"]], f"{name}: {found[name]} levels"


@pytest.mark.parametrize("index", range(5))
def test_table_follows_from_what_was_stored(index: int) -> None:
    standard.assert_table_agrees(index, shown.recomputed()["tables"][index])


@pytest.mark.parametrize("name", ["layers", "ablation", "over_time"])
def test_figure_shows_the_numbers(name: str) -> None:
    drawn = outputs.read_json(f"figures/{name}.json")["series"]
    by_label = {series["label"]: series for series in drawn}
    expected = shown.recomputed()["series"][name]
    assert list(by_label) == list(expected)
    for label, (x, y, *band) in expected.items():
        assert outputs.same(by_label[label]["x"], x, 1e-5), label
        assert outputs.same(by_label[label]["y"], y, 1e-5), label
        assert outputs.same(by_label[label]["band"] or [], band, 1e-5), label


@pytest.mark.parametrize("name", ["moved", "heads_over_time"])
def test_heatmap_shows_the_numbers(name: str) -> None:
    drawn = outputs.read_json(f"figures/{name}.json")
    expected = shown.recomputed()["panels"][name]
    assert [panel["label"] for panel in drawn["panels"]] == list(expected)
    assert drawn["low"] == 0 and drawn["high"] is None
    for panel in drawn["panels"]:
        assert outputs.same(panel["values"], expected[panel["label"]], 1e-5), panel["label"]


STATED = (
    "js_tuned",
    "js_seeds",
    "js_random",
    "js_task",
    "js_text",
    "random_ratio",
    "heads_above_seeds",
    "heads_above_random",
    "heads_moved",
    "js_most_moved",
    "movement_depth",
    "seed_rank_correlation",
    "ablation_moved_tuned",
    "ablation_random_tuned",
    "ablation_excess_tuned",
    "ablation_moved_base",
    "ablation_excess_base",
    "ablation_interaction",
    "loss_base",
    "loss_tuned",
    "attention_lag",
    "attention_half_step",
    "attention_peak_step",
    "loss_half_step",
    "first_step_moved",
    "first_step_loss",
    "early_late_correlation",
    "loss_attention_correlation",
)


def test_findings_state_what_was_recomputed() -> None:
    numbers = shown.recomputed()["numbers"]
    standard.assert_findings_state({name: numbers[name] for name in STATED})


def test_findings_draw_the_conclusions_of_the_numbers() -> None:
    numbers = shown.recomputed()["numbers"]
    findings = " ".join(outputs.result()["findings"])
    assert numbers["most_moved_head"] in findings
    for phrase in shown.words(numbers):
        assert phrase in findings, f"no finding says: {phrase}"
