"""Gate of FEAT-007: were the ranks really compared, and does each number follow?

Three levels: every number, table and figure from the stored arrays (gates/lora_rank/arrays.py); every
trial's description, adapter and curves against the plan and the data (gates/shared/trials.py); samples
drawn by the nonce from the base model: the evaluations, spectra by full decompositions, the first
gradients, the full update (gates/lora_rank/model.py).
"""

from __future__ import annotations

import math
from typing import Any

import pytest

from gates.lora_rank import arrays as lora_ranks
from gates.lora_rank import model as lora_ranks_model
from gates.lora_rank import plan
from gates.lora_rank.arrays import RECOMPUTED, SIDES
from gates.shared import outputs, trials, trials_model
from gates.shared.stored import cached

AGAIN = 4  # trials whose evaluation is done again
TABLES = ("settings", "updates", "kinds of layer", "cuts")
FIGURES = ("loss_by_rank", "first_step", "energy", "overlap")
SLOPES = {"alpha_fixed": 0.0, "alpha_2r": 1.0, "rslora": 0.5}
# nats: what float32 in another order, or bfloat16 on a GPU, may change
LOSS_TOLERANCE, TOKEN_TOLERANCE = 0.01, 0.05


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
    outputs.assert_agrees(name, lora_ranks.found()["numbers"][name])


@pytest.mark.parametrize("place", range(len(TABLES)), ids=TABLES)
def test_table_follows_from_what_was_stored(place: int) -> None:
    shown, again = outputs.result()["tables"][place]["rows"], lora_ranks.found()["tables"][place]
    assert len(shown) == len(again), f"{len(shown)} rows, recomputed {len(again)}"
    for row, right in zip(shown, again, strict=True):
        assert outputs.same(row, right, 1e-5), f"row {row}, recomputed {right}"


@pytest.mark.parametrize("name", FIGURES)
def test_figure_shows_what_was_stored(name: str) -> None:
    shown, again = (
        outputs.read_json(f"figures/{name}.json")["series"],
        lora_ranks.found()["figures"][name],
    )
    assert len(shown) == len(again), f"{len(shown)} series, recomputed {len(again)}"
    for series, (x, y) in zip(shown, again, strict=True):
        assert outputs.same(series["x"], x, 1e-9), series["label"]
        assert outputs.same(series["y"], y, 1e-5), series["label"]


def test_bars_show_what_each_part_keeps() -> None:
    (bars,), right = outputs.read_json("figures/cut.json")["series"], lora_ranks.found()["bands"]
    assert bars["x"] == plan.parts()[1:]
    assert outputs.same(bars["y"], right["y"], 1e-5)
    assert outputs.same(bars["band"], [right["low"], right["high"]], 1e-5)


def test_sentences_say_what_the_numbers_do() -> None:
    numbers, told = lora_ranks.found()["numbers"], " ".join(outputs.result()["findings"])
    assert ("are equivalent within" in told) == (numbers["rank_equivalence_p"] < 0.05)
    kept, control = (numbers[f"full_kept_{of}_8"]["value"] for of in ("rank", "random"))
    assert ("few directions are enough" in told) == (kept >= 0.5 and kept - control >= 0.1)


# The trials


def test_comparison_was_of_the_planned_size() -> None:
    config = plan.config()
    assert len(config["seeds"]) >= 3
    assert tuple(config["ranks"]) == lora_ranks.RANKS
    assert outputs.measurement("loss_full")["n"] >= 256
    assert config["training"]["steps"] >= 20


def test_trials_are_those_of_the_plan() -> None:
    assert set(trials.own()) <= set(plan.names()), "a trial is stored that nobody asked for"
    for setting in plan.adapters():
        for seed in plan.config()["seeds"]:
            assert trials.trial(plan.name(setting, seed), plan.features()) == plan.planned(
                setting, seed
            )


def test_trials_have_everything_else_in_common() -> None:
    config, every = plan.config(), []
    for name in plan.names():
        told = trials.description(name, plan.features())
        every.append(
            {key: value for key, value in told.items() if key not in {"identity", "trial"}}
        )
    assert all(told == every[0] for told in every), "trials were made on different benches"
    assert all(every[0][key] == config[key] for key in ("dtype", "device", "threads")), every[0]
    assert outputs.result()["environment"]["sweep_context"] == every[0]


def test_every_trial_is_whole() -> None:
    bad = {
        name: found for name, found in trials.faults(plan.names(), plan.features()).items() if found
    }
    assert not bad, f"{len(bad)} trials have faults, such as {next(iter(bad.items()))}"


def test_evaluations_agree_with_the_weights() -> None:
    known = plan.features()
    names = ["base", *trials_model.drawn(plan.names(), AGAIN)]
    examples, again = trials_model.drawn_examples(known), trials_model.again(names, known)
    for name in names:
        trials_model.assert_agree(name, examples, again[name], known)


def test_first_steps_of_a_trial_were_made() -> None:
    (name,) = trials_model.drawn(trials.own(), 1)
    trials_model.assert_replayed(
        name, trials_model.replayed(name, plan.features()), plan.features()
    )


# The directions


def test_spectra_are_those_of_the_adapters() -> None:
    stored = _of_updates()
    for (trial, i), right in zip(
        lora_ranks_model.drawn_updates(), lora_ranks_model.updates(), strict=True
    ):
        values, inside, place = (
            stored["values"][f"{trial} {i}"],
            stored["inside"][f"{trial} {i}"],
            f"{trial}, layer {i}",
        )
        top = right["values"][0]
        assert len(values) >= len(right["values"]), place
        for met, wanted in zip(values, right["values"], strict=False):
            assert math.isclose(met, wanted, abs_tol=1e-3 * top), (
                f"{place}: singular value {met}, recomputed {wanted}"
            )
        assert all(met == 0.0 for met in values[len(right["values"]) :]), (
            f"{place}: more directions than there are"
        )
        assert math.isclose(inside, right["inside"], rel_tol=0.01), (
            f"{place}: W inside {inside}, {right['inside']}"
        )
        met = stored["weights"][i]
        assert math.isclose(met, right["weight"], rel_tol=0.01), (
            f"layer {i}: norm {met}, recomputed {right['weight']}"
        )


def _of_updates() -> dict[str, Any]:
    def compute() -> dict[str, Any]:
        found = lora_ranks.arrays(plan.UPDATES)
        wanted = lora_ranks_model.drawn_updates()
        parts = {
            part: {f"{trial} {i}": found[f"{trial}.{part}"][i].tolist() for trial, i in wanted}
            for part in ("values", "inside")
        }
        return {**parts, "weights": found["weights"].tolist()}

    return dict(cached("lora updates stored", [plan.UPDATES], compute))


def test_overlaps_are_those_of_the_adapters() -> None:
    again, stored = lora_ranks_model.first()["overlaps"], _stored(plan.OVERLAPS)
    for side, right in again.items():
        met = [
            stored[side][lora_ranks_model.drawn_seed()][i] for i in lora_ranks_model.drawn_layers()
        ]
        for layer, (some, wanted) in enumerate(zip(met, right, strict=True)):
            far = max(abs(a - b) for a, b in zip(some, wanted, strict=True))
            assert far < 0.02, f"{side}, drawn layer {layer}: φ is off by {far}"


def test_random_directions_overlap_as_chance_has_it() -> None:
    """E φ(i, i) = i/d, to within six standard errors of the mean.

    A squared cosine has the deviation √2/d.
    """
    null, shapes = _stored(plan.OVERLAPS)["null"], plan.shapes()
    for i in range(len(null[0][0])):
        found = [
            layer[i] * width / (i + 1)
            for seed in null
            for layer, (_, width) in zip(seed, shapes, strict=True)
        ]
        mean = sum(found) / len(found)
        assert abs(mean - 1) < 6 * math.sqrt(2 / len(found)), (
            f"φ({i + 1}, {i + 1}) is {mean} times chance"
        )


@pytest.mark.parametrize("side", SIDES)
def test_overlaps_are_shares(side: str) -> None:
    assert all(
        0 <= x <= 1 + 1e-4 for seed in _stored(plan.OVERLAPS)[side] for layer in seed for x in layer
    )


def _stored(path: str) -> dict[str, Any]:
    def compute() -> dict[str, Any]:
        return {name: array.tolist() for name, array in lora_ranks.arrays(path).items()}

    return dict(cached(f"lora stored {path}", [path], compute))


# The first step


def test_first_steps_follow_from_the_real_gradient() -> None:
    again, stored, seed = (
        lora_ranks_model.first(),
        _stored(plan.FIRST),
        lora_ranks_model.drawn_seed(),
    )
    assert outputs.same(stored["gradient"][seed], again["gradient"], 0.01), (
        "gradient norms of the layers"
    )
    assert outputs.same(stored["adapter_gradient"][seed], again["adapter_gradient"], 0.01), (
        "norms of dL/dB"
    )
    for met, right in zip(stored["along"][seed], again["along"], strict=True):
        assert outputs.same(met, right, 0.01), "first steps along the gradient"


def test_trials_began_with_that_gradient() -> None:
    """At the start dL/dA is 0, so a trial's recorded norm of its first step is that of dL/dB."""
    stored, config = _stored(plan.FIRST)["adapter_gradient"], plan.config()
    last = len(config["ranks"]) - 1
    places = {f"r{r}": (0, j) for j, r in enumerate(config["ranks"])} | {
        "alpha_2r": (1, last),
        "rslora": (2, last),
    }
    for setting, (i, j) in places.items():
        for seed, trial in enumerate(plan.row(setting)):
            met, right = stored[seed][i][j], _started(trial)["grad_norm"]
            assert math.isclose(met, right, rel_tol=0.02), (
                f"{trial}: |dL/dB| {met}, recorded at step 0: {right}"
            )


def _started(trial: str) -> dict[str, float]:
    """Give a trial's first loss and gradient norm."""

    def compute() -> dict[str, float]:
        found = trials.load(trial, "steps", plan.features())
        return {part: float(found[part][0]) for part in ("loss", "grad_norm")}

    return dict(
        cached(f"lora started {trial}", trials.files([trial], ["steps.safetensors"]), compute)
    )


@pytest.mark.parametrize("name", plan.CONVENTIONS)
def test_slope_is_the_derived_one(name: str) -> None:
    slope = lora_ranks.found()["numbers"][f"first_step_slope_{name}"]["value"]
    assert abs(slope - SLOPES[name]) < 0.2, f"slope {slope}, derived {SLOPES[name]}"


# The full fine-tuning


@pytest.mark.parametrize("of", ["full", "part"])
def test_full_evaluation_agrees_with_the_update(of: str) -> None:
    part = "full" if of == "full" else lora_ranks_model.drawn_part()
    again = lora_ranks_model.full()["evaluations"][part]
    for what, size in (("losses", TOKEN_TOLERANCE), ("entropies", TOKEN_TOLERANCE), ("hits", 0.02)):
        pairs = list(zip(lora_ranks_model.stored_tokens(part, what), again[what], strict=True))
        shift = sum(a - b for a, b in pairs) / len(pairs)
        spread = sum(abs(a - b) for a, b in pairs) / len(pairs)
        assert abs(shift) < LOSS_TOLERANCE, (
            f"{part}, {what}: stored minus recomputed is {shift} in the mean"
        )
        assert spread < size, f"{part}, {what}: stored and recomputed differ by {spread} per token"


def test_full_spectrum_is_that_of_the_update() -> None:
    stored = _stored(plan.TUNED)["values"]
    for layer, (met, right) in enumerate(
        zip(stored, lora_ranks_model.full()["values"], strict=True)
    ):
        far = max(abs(a - b) for a, b in zip(met, right, strict=False))
        assert far < 1e-3 * right[0], f"layer {layer}: a singular value is off by {far}"
        assert all(a == 0.0 for a in met[len(right) :]), (
            f"layer {layer}: more directions than there are"
        )


def test_full_run_began_as_it_must() -> None:
    """The first seed's batches and the same base; then one step of Adam on every linear layer."""
    stored, again = _stored(plan.TUNED), lora_ranks_model.full()
    assert math.isclose(stored["grad_norm"][0], again["grad_norm"], rel_tol=0.01)
    for step, (met, right) in enumerate(zip(stored["loss"], again["loss"], strict=False)):
        assert math.isclose(met, right, rel_tol=0.01), (
            f"step {step}: loss {met}, done again {right}"
        )
    first = _started(plan.row(f"r{plan.config()['ranks'][0]}")[0])
    assert math.isclose(stored["loss"][0], first["loss"], rel_tol=1e-2)


def test_full_run_kept_to_its_schedule() -> None:
    """Adam moves no number by more than (1 − β1)/√(1 − β2) = 3.17 rates a step.

    Kingma and Ba 2015, section 2.1.
    """
    stored, plan_of = _stored(plan.TUNED), plan.config()
    training = plan_of["training"] | {"learning_rate": plan_of["full"]["learning_rate"]}
    wanted = [trials.rate(step, training) for step in range(training["steps"])]
    assert outputs.same(stored["learning_rate"], wanted, 1e-9)
    least, most = lora_ranks_model.full()["moved"]
    assert least > 0, "a layer was not trained"
    assert most <= 3.17 * sum(wanted) * 1.01, (
        f"a weight moved by {most}, with rates that sum to {sum(wanted)}"
    )


def test_full_run_saw_the_examples_of_the_first_seed() -> None:
    stored, known = _stored(plan.TUNED), plan.features()
    of = plan.planned(f"r{plan.config()['ranks'][0]}", plan.config()["seeds"][0])
    size = of["training"]["batch_size"]
    batches = _counts(known, of)
    for step, met in enumerate(stored["supervised_tokens"]):
        wanted = sum(batches[i % len(batches)] for i in range(step * size, (step + 1) * size))
        assert met == wanted, f"step {step}: {met} supervised tokens, the data say {wanted}"


def _counts(known: list[str], of: dict[str, Any]) -> list[int]:
    mine = [path for path in ("artifacts/train.jsonl",) if (outputs.out() / path).is_file()]

    def compute() -> list[int]:
        rows = trials.used(of, trials.rows("train", known))
        return [sum(label != -100 for label in row["labels"][1:]) for row in rows]

    return list(cached("lora counts", mine, compute))


def test_random_directions_keep_less_than_the_best_ones() -> None:
    """The control: of the same update, as many directions of no choice must do less."""
    numbers = lora_ranks.found()["numbers"]
    best, chance = numbers["full_kept_rank_8"]["value"], numbers["full_kept_random_8"]["value"]
    assert chance < best, f"random directions keep {chance}, the best ones {best}"
