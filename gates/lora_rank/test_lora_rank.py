"""Gate of FEAT-007: were the ranks really compared, and does each number follow?

Three levels: every number, table and figure from the stored arrays (gates/lora_rank/arrays.py);
every trial's description, adapter and curves against the plan and the data
(gates/shared/trials.py); samples drawn by the nonce from the base model: the evaluations, spectra
by full decompositions, the first gradients, the full update (gates/lora_rank/model.py).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest

from gates.lora_rank import arrays, model, plan
from gates.lora_rank.arrays import RECOMPUTED, SIDES
from gates.shared import outputs, standard, trials, trials_model
from gates.shared.standard import (  # noqa: F401 - pytest collects the three checks here
    LOSS_TOLERANCE,
    TOKEN_TOLERANCE,
    test_figures_were_drawn_from_their_data,
    test_files_are_those_of_the_result,
    test_report_was_made_from_the_result,
)
from gates.shared.stored import cached, config, supervised

EVALUATED = 4  # trials whose evaluation is done again
HITS_TOLERANCE = 0.02  # share of tokens whose most likely token may change
TABLES = ("settings", "updates", "kinds of layer", "cuts")
FIGURES = ("loss_by_rank", "first_step", "energy", "overlap")
IN_FINDINGS = ("rank_gap", "alpha_2r_gap", "rslora_gap", "energy_rank_r64", "energy_rank_full")
SLOPES = {"alpha_fixed": 0.0, "alpha_2r": 1.0, "rslora": 0.5}


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


def test_bars_show_what_each_part_keeps() -> None:
    (bars,) = outputs.read_json("figures/cut.json")["series"]
    expected = arrays.recompute()["bars"]
    assert bars["x"] == plan.full_parts()[1:]
    assert outputs.same(bars["y"], expected["y"], 1e-5)
    assert outputs.same(bars["band"], [expected["low"], expected["high"]], 1e-5)


def test_sentences_say_what_the_numbers_do() -> None:
    numbers = arrays.recompute()["numbers"]
    standard.assert_findings_state({name: numbers[name] for name in IN_FINDINGS})
    findings = " ".join(outputs.result()["findings"])
    assert ("are equivalent within" in findings) == (numbers["rank_equivalence_p"] < 0.05)
    best = numbers["full_kept_rank_8"]["value"]
    random = numbers["full_kept_random_8"]["value"]
    assert ("few directions are enough" in findings) == (best >= 0.5 and best - random >= 0.1)


# The trials


def test_comparison_was_of_the_planned_size() -> None:
    assert len(config()["seeds"]) >= 3
    assert tuple(config()["ranks"]) == arrays.RANKS
    assert outputs.measurement("loss_full")["n"] >= 256
    assert config()["training"]["steps"] >= 20


def test_trials_are_those_of_the_plan() -> None:
    unplanned = set(trials.own()) - set(plan.all_trial_names())
    assert not unplanned, f"stored trials that the plan does not name: {sorted(unplanned)}"
    for setting in plan.adapter_settings():
        for seed in config()["seeds"]:
            stored = trials.trial(plan.trial_name(setting, seed), plan.earlier_features())
            assert stored == plan.planned_trial(setting, seed)


def test_trials_have_everything_else_in_common() -> None:
    trials.assert_one_sweep_context(plan.all_trial_names(), plan.earlier_features(), config())


def test_every_trial_is_whole() -> None:
    trials.assert_no_faults(plan.all_trial_names(), plan.earlier_features())


def test_evaluations_agree_with_the_weights() -> None:
    features = plan.earlier_features()
    names = ["base", *trials_model.draw_trials(plan.all_trial_names(), EVALUATED)]
    examples = trials_model.draw_examples(features)
    recomputed = trials_model.evaluate(names, features)
    for name in names:
        trials_model.assert_agree(name, examples, recomputed[name], features)


def test_first_steps_of_a_trial_were_made() -> None:
    features = plan.earlier_features()
    (name,) = trials_model.draw_trials(trials.own(), 1)
    trials_model.assert_replayed(name, trials_model.replay(name, features), features)


# The directions


def test_spectra_are_those_of_the_adapters() -> None:
    stored = _stored_updates()
    for (trial, layer), expected in zip(
        model.drawn_updates(), model.recomputed_updates(), strict=True
    ):
        label = f"{trial}, layer {layer}"
        _assert_spectrum(
            label, stored["values"][f"{trial} {layer}"], expected["values"], tolerance=1e-3
        )
        norms = (
            ("norm of W inside", stored["inside_norms"][f"{trial} {layer}"], "inside_norm"),
            ("norm of W", stored["weight_norms"][layer], "weight_norm"),
        )
        for what, actual, key in norms:
            assert math.isclose(actual, expected[key], rel_tol=0.01), (
                f"{label}: {what} {actual}, recomputed {expected[key]}"
            )


def _assert_spectrum(
    label: str, actual: Sequence[float], expected: Sequence[float], *, tolerance: float
) -> None:
    """Check singular values, to a share of the largest; beyond the expected ones all are 0."""
    assert len(actual) >= len(expected), label
    for value, recomputed in zip(actual, expected, strict=False):
        assert abs(value - recomputed) < tolerance * expected[0], (
            f"{label}: singular value {value}, recomputed {recomputed}"
        )
    beyond = actual[len(expected) :]
    assert all(value == 0.0 for value in beyond), f"{label}: more directions than there are"


def _stored_updates() -> dict[str, Any]:
    """Return the stored values and norms of the drawn updates, by "trial layer"."""

    def compute() -> dict[str, Any]:
        updates = arrays.load(plan.UPDATES)
        columns: dict[str, Any] = {"weight_norms": updates["weight_norms"].tolist()}
        for column in ("values", "inside_norms"):
            columns[column] = {}
            for trial, layer in model.drawn_updates():
                value = updates[f"{trial}.{column}"][layer]
                columns[column][f"{trial} {layer}"] = value.tolist()
        return columns

    return dict(cached("lora updates stored", [plan.UPDATES], compute))


def test_overlaps_are_those_of_the_adapters() -> None:
    recomputed = model.recomputed_first_step()["overlaps"]
    stored = _stored(plan.OVERLAPS)
    for side, expected in recomputed.items():
        actual = [stored[side][model.drawn_seed()][layer] for layer in model.drawn_layers()]
        for layer, (one, other) in enumerate(zip(actual, expected, strict=True)):
            difference = max(abs(a - b) for a, b in zip(one, other, strict=True))
            assert difference < 0.02, f"{side}, drawn layer {layer}: φ is off by {difference}"


def test_random_directions_overlap_as_chance_has_it() -> None:
    """E φ(i, i) = i/d, to within six standard errors of the mean.

    A squared cosine has the standard deviation √2/d.
    """
    null = _stored(plan.OVERLAPS)["null"]  # [seeds, L, k]
    shapes = plan.shapes()
    for i in range(len(null[0][0])):
        ratios = []
        for seed in null:
            for layer, (_, width) in zip(seed, shapes, strict=True):
                ratios.append(layer[i] * width / (i + 1))
        mean = sum(ratios) / len(ratios)
        assert abs(mean - 1) < 6 * math.sqrt(2 / len(ratios)), (
            f"φ({i + 1}, {i + 1}) is {mean} times chance"
        )


@pytest.mark.parametrize("side", SIDES)
def test_overlaps_are_shares(side: str) -> None:
    for seed in _stored(plan.OVERLAPS)[side]:
        for layer in seed:
            assert all(0 <= overlap <= 1 + 1e-4 for overlap in layer)


def _stored(path: str) -> dict[str, Any]:
    """Return the arrays of a file as lists."""

    def compute() -> dict[str, Any]:
        return {name: array.tolist() for name, array in arrays.load(path).items()}

    return dict(cached(f"lora stored {path}", [path], compute))


# The first step


def test_first_steps_follow_from_the_real_gradient() -> None:
    recomputed = model.recomputed_first_step()
    stored = _stored(plan.FIRST_STEP)
    seed = model.drawn_seed()
    for name in ("gradient_norms", "adapter_gradient_norms"):
        assert outputs.same(stored[name][seed], recomputed[name], 0.01), name
    for actual, expected in zip(stored["descent"][seed], recomputed["descent"], strict=True):
        assert outputs.same(actual, expected, 0.01), "first steps along the gradient"


def test_trials_began_with_that_gradient() -> None:
    """At the start dL/dA is 0, so a trial's recorded norm of its first step is that of dL/dB."""
    norms = _stored(plan.FIRST_STEP)["adapter_gradient_norms"]  # [seeds, 3, ranks]
    ranks = config()["ranks"]
    # setting -> (convention, rank), the indices of its norm
    indices = {f"r{r}": (0, j) for j, r in enumerate(ranks)}
    indices["alpha_2r"] = (1, len(ranks) - 1)
    indices["rslora"] = (2, len(ranks) - 1)
    for setting, (i, j) in indices.items():
        for seed, trial in enumerate(plan.trial_names(setting)):
            actual = norms[seed][i][j]
            recorded = _first_recorded_step(trial)["grad_norm"]
            assert math.isclose(actual, recorded, rel_tol=0.02), (
                f"{trial}: |dL/dB| {actual}, recorded at step 0: {recorded}"
            )


def _first_recorded_step(trial: str) -> dict[str, float]:
    """Return a trial's first loss and gradient norm."""

    def compute() -> dict[str, float]:
        steps = trials.load(trial, "steps", plan.earlier_features())
        return {field: float(steps[field][0]) for field in ("loss", "grad_norm")}

    files = trials.files([trial], ["steps.safetensors"])
    return dict(cached(f"lora started {trial}", files, compute))


@pytest.mark.parametrize("name", plan.CONVENTIONS)
def test_slope_is_the_derived_one(name: str) -> None:
    slope = arrays.recompute()["numbers"][f"first_step_slope_{name}"]["value"]
    assert abs(slope - SLOPES[name]) < 0.2, f"slope {slope}, derived {SLOPES[name]}"


# The full fine-tuning


@pytest.mark.parametrize("of", ["full", "part"])
def test_full_evaluation_agrees_with_the_update(of: str) -> None:
    part = "full"
    if of == "part":
        part = model.drawn_part()
    recomputed = model.recomputed_full()["evaluations"][part]
    tolerances = {
        "losses": TOKEN_TOLERANCE,
        "entropies": TOKEN_TOLERANCE,
        "hits": HITS_TOLERANCE,
    }
    for column, tolerance in tolerances.items():
        pairs = zip(model.stored_tokens(part, column), recomputed[column], strict=True)
        changes = [stored - expected for stored, expected in pairs]
        mean = sum(changes) / len(changes)
        size = sum(map(abs, changes)) / len(changes)
        assert abs(mean) < LOSS_TOLERANCE, (
            f"{part}, {column}: stored minus recomputed is {mean} in the mean"
        )
        assert size < tolerance, (
            f"{part}, {column}: stored and recomputed differ by {size} per token"
        )


def test_full_spectrum_is_that_of_the_update() -> None:
    stored = _stored(plan.FULL_TRAINING)["values"]
    recomputed = model.recomputed_full()["values"]
    for layer, (actual, expected) in enumerate(zip(stored, recomputed, strict=True)):
        _assert_spectrum(f"layer {layer}", actual, expected, tolerance=1e-3)


def test_full_run_began_as_it_must() -> None:
    """The first seed's batches and the same base; then one step of Adam on every linear layer."""
    stored = _stored(plan.FULL_TRAINING)
    recomputed = model.recomputed_full()
    assert math.isclose(stored["grad_norm"][0], recomputed["grad_norm"], rel_tol=0.01)
    losses = zip(stored["loss"], recomputed["loss"], strict=False)
    for step, (actual, expected) in enumerate(losses):
        assert math.isclose(actual, expected, rel_tol=0.01), (
            f"step {step}: loss {actual}, recomputed {expected}"
        )
    first_trial = plan.trial_names(f"r{config()['ranks'][0]}")[0]
    recorded = _first_recorded_step(first_trial)["loss"]
    assert math.isclose(stored["loss"][0], recorded, rel_tol=1e-2)


def test_full_run_kept_to_its_schedule() -> None:
    """Adam moves no number by more than (1 − β1)/√(1 − β2) = 3.17 rates a step.

    Kingma and Ba 2015, section 2.1.
    """
    training = plan.full_training()
    expected = [trials.rate(step, training) for step in range(training["steps"])]
    assert outputs.same(_stored(plan.FULL_TRAINING)["learning_rate"], expected, 1e-9)
    least, most = model.recomputed_full()["moved"]
    assert least > 0, "a layer was not trained"
    assert most <= 3.17 * sum(expected) * 1.01, (
        f"a weight moved by {most}, with rates that sum to {sum(expected)}"
    )


def test_full_run_saw_the_examples_of_the_first_seed() -> None:
    stored = _stored(plan.FULL_TRAINING)["supervised_tokens"]
    size = plan.first_trial()["training"]["batch_size"]
    counts = _supervised_token_counts()
    for step, actual in enumerate(stored):
        batch = range(step * size, (step + 1) * size)
        expected = sum(counts[i % len(counts)] for i in batch)
        assert actual == expected, f"step {step}: {actual} supervised tokens; expected {expected}"


def _supervised_token_counts() -> list[int]:
    """Return the supervised tokens of each example of the first trial, in the order of use."""

    def compute() -> list[int]:
        rows = trials.rows("train", plan.earlier_features())
        examples = trials.used(plan.first_trial(), rows)
        return [supervised(example) for example in examples]

    return list(cached("lora counts", trials.frozen_files("train"), compute))


def test_random_directions_keep_less_than_the_best_ones() -> None:
    """The control: of the same update, as many random directions must do less."""
    numbers = arrays.recompute()["numbers"]
    best = numbers["full_kept_rank_8"]["value"]
    random = numbers["full_kept_random_8"]["value"]
    assert random < best, f"random directions keep {random}, the best ones {best}"
