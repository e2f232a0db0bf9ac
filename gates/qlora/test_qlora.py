"""Gate of FEAT-001: was the QLoRA run really made, do its numbers follow, does it beat its control?

Two levels: every number from the stored arrays (gates/qlora/arrays.py), and the arrays from the
base model and the adapters for a sample drawn by the nonce (gates/qlora/model.py). What cannot be
recomputed is bounded (gates/qlora/measurements.py).
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from typing import Any

import pytest

from gates.qlora import arrays, measurements, model
from gates.qlora.arrays import EVALUATIONS, RUNS
from gates.qlora.measurements import BOUNDED, RECOMPUTED
from gates.shared import outputs, standard, stored
from gates.shared.standard import (  # noqa: F401 - pytest collects them here
    LOSS_TOLERANCE,
    TOKEN_TOLERANCE,
    test_figures_were_drawn_from_their_data,
    test_files_are_those_of_the_result,
    test_report_was_made_from_the_result,
)
from gates.shared.stored import config

# nats per token between the run and its control; shuffled answers teach their format too
MARGIN = 0.2
HIT_TOLERANCE = 0.02  # share of tokens whose most likely token changes


def test_every_measurement_is_judged() -> None:
    standard.assert_all_judged(RECOMPUTED + BOUNDED)


@pytest.mark.parametrize("name", RECOMPUTED)
def test_measurement_follows_from_what_was_stored(name: str) -> None:
    outputs.assert_agrees(name, arrays.measurements()[name])


def test_report_states_what_was_recomputed() -> None:
    standard.assert_report_states({name: arrays.measurements()[name] for name in RECOMPUTED})


def test_run_was_of_the_planned_size() -> None:
    assert outputs.value("train_examples") >= 200
    assert outputs.value("eval_examples") >= 256
    assert outputs.value("steps") >= 50


# The base model and the data


def test_model_is_the_one_given() -> None:
    path = outputs.inputs()["smollm2-135m"] / "model.safetensors"
    digest = stored.cached("qlora base digest", (), lambda: outputs.digest_of(path))
    assert outputs.result()["environment"]["model_sha256"] == digest


def test_no_evaluation_data_in_the_training_data() -> None:
    train, evaluation = stored.rows("train"), stored.rows("evaluation")

    def targets(rows: list[dict[str, Any]]) -> list[str]:
        return [" ".join(row["messages"][-1]["content"].casefold().split()) for row in rows]

    assert not {row["group"] for row in train} & {row["group"] for row in evaluation}, (
        "a package is on both sides"
    )
    assert not set(targets(train)) & set(targets(evaluation)), "an answer is on both sides"
    assert len(set(targets(train))) == len(train), "an answer was trained twice"
    assert len(set(targets(evaluation))) == len(evaluation), "an answer is evaluated twice"


@pytest.mark.parametrize("name", arrays.SETS)
def test_loss_counts_the_answer_and_nothing_else(name: str) -> None:
    rows = stored.rows(name)
    for row in rows:
        first = next(i for i, label in enumerate(row["labels"]) if label != -100)
        assert 0 < first < len(row["ids"]), f"{row['name']}: prompt or answer is empty"
        assert row["labels"] == [-100] * first + row["ids"][first:], (
            f"{row['name']}: labels are not the answer's ids"
        )
    texts = model.decoded()[name]
    for row, (prompt, answer) in zip(rows, texts, strict=True):
        assert answer == row["messages"][-1]["content"], (
            f"{row['name']}: the answer's ids say {answer!r}"
        )
        assert row["messages"][0]["content"] in prompt, (
            f"{row['name']}: the prompt's ids say {prompt!r}"
        )


def test_control_has_the_same_prompts_and_answers_otherwise_assigned() -> None:
    train = stored.rows("train")
    control = stored.rows("control")

    def split(row: dict[str, Any]) -> tuple[tuple[int, ...], tuple[int, ...]]:
        first = row["labels"].count(-100)
        return tuple(row["ids"][:first]), tuple(row["ids"][first:])

    prompts, answers = zip(*map(split, train), strict=True)
    control_prompts, control_answers = zip(*map(split, control), strict=True)
    assert prompts == control_prompts, "the prompts differ"
    assert Counter(answers) == Counter(control_answers), "the answers differ"
    unmoved = sum(a == b for a, b in zip(answers, control_answers, strict=True))
    assert unmoved == 0, f"{unmoved} answers of the control stayed where they were"


# The adapters


def test_adapters_have_the_shapes_of_all_linear_layers() -> None:
    rank = config()["lora"]["r"]
    shapes = arrays.base_shapes()
    expected: dict[str, list[int]] = {}
    for name in arrays.linear_names():
        module = "base_model.model." + name.removesuffix(".weight")
        rows, columns = shapes[name]
        expected[f"{module}.lora_A.weight"] = [rank, columns]
        expected[f"{module}.lora_B.weight"] = [rows, rank]
    for run in ("initial", *RUNS):
        tensors = stored.header(stored.artifact(f"adapter_{run}/adapter_model.safetensors"))
        actual = {name: entry["shape"] for name, entry in tensors.items()}
        assert actual == expected, f"adapter_{run}"


def test_training_began_at_the_base_and_moved_every_layer() -> None:
    norms = arrays.adapter_norms()
    assert max(norms["initial"]) == 0.0, "the initial B is not 0: the run did not begin at the base"
    for run in RUNS:
        assert min(norms[run]) > 0.0, f"adapter_{run}: some B is still 0: a layer was not trained"
    assert norms["true"] != norms["shuffled"], "run and control have the same adapter"


def test_step_0_is_the_base() -> None:
    tolerance = LOSS_TOLERANCE
    if config()["dtype"] == "float32":
        tolerance = 1e-6
    assert abs(outputs.value("step_0_difference")) < tolerance
    first = model.losses()["first"]
    assert abs(first["initial"] - first["base"]) < 1e-6, (
        f"initial adapter {first['initial']}, base {first['base']}"
    )
    assert abs(first["initial"] - outputs.value("first_loss")) < LOSS_TOLERANCE


# The evaluations, from the weights


@pytest.mark.parametrize("name", EVALUATIONS)
def test_evaluation_agrees_with_the_weights(name: str) -> None:
    stored_tokens = arrays.tokens_of(name, model.sampled_examples())
    recomputed = model.losses()["evaluations"][name]
    for field in ("losses", "entropies", "hits"):
        standard.assert_token_losses_agree(stored_tokens[field], recomputed[field], field)
    pairs = zip(stored_tokens["hits"], recomputed["hits"], strict=True)
    changed = sum(abs(a - b) for a, b in pairs) / len(recomputed["hits"])
    assert changed < HIT_TOLERANCE, f"hits: stored and recomputed differ for {changed} of tokens"


def test_run_beats_its_control() -> None:
    gap = arrays.measurements()["control_gap"]
    low = gap["value"] - 1.97 * gap["stderr"]  # t(0.975) for some 250 degrees of freedom
    assert low >= MARGIN, f"control_gap {gap['value']} ± {gap['stderr']}: not surely {MARGIN} nats"


def test_both_runs_learnt() -> None:
    for name in ("improvement", "improvement_shuffled"):
        gain = arrays.measurements()[name]
        assert gain["value"] - 1.97 * gain["stderr"] > 0, (
            f"{name} {gain['value']} ± {gain['stderr']}"
        )


@pytest.mark.parametrize("when", ["before", "after"])
def test_answers_are_greedy(when: str) -> None:
    worst = max(model.losses()["margins"][when])
    assert worst < TOKEN_TOLERANCE, (
        f"a generated token was {worst} nats less likely than the most likely one"
    )


def test_report_shows_the_stored_answers() -> None:
    table = outputs.result()["tables"][0]
    names = [generation["name"] for generation in outputs.read_json(model.GENERATIONS)]
    assert [list(row[2:]) for row in table["rows"]] == model.decoded()["generations"]
    assert [row[0] for row in table["rows"]] == names


# The training curves


@pytest.mark.parametrize("run", RUNS)
def test_curve_is_that_of_the_frozen_data(run: str) -> None:
    steps = arrays.training(run)
    rows = stored.rows({"true": "train", "shuffled": "control"}[run])
    size = config()["training"]["batch_size"]
    counts = zip(steps["supervised_tokens"], steps["total_tokens"], strict=True)
    for step, (supervised, total) in enumerate(counts):
        batch = [rows[i % len(rows)] for i in range(step * size, (step + 1) * size)]
        assert supervised == sum(stored.supervised(row) for row in batch), f"step {step}"
        assert total == sum(len(row["ids"]) for row in batch), f"step {step}"


@pytest.mark.parametrize("run", RUNS)
def test_curve_is_possible(run: str) -> None:
    steps = arrays.training(run)
    vocabulary = arrays.base_shapes()["model.embed_tokens.weight"][0]
    assert all(0 < loss < 20 for loss in steps["loss"])
    assert all(0 <= entropy <= math.log(vocabulary) for entropy in steps["entropy"])
    for accuracy, count in zip(steps["token_accuracy"], steps["supervised_tokens"], strict=True):
        assert 0 <= accuracy <= 1
        assert math.isclose(accuracy * count, round(accuracy * count), abs_tol=1e-6), (
            "not a share of whole tokens"
        )
    assert all(norm > 0 for norm in steps["grad_norm"])
    assert all(seconds > 0 for seconds in steps["seconds"])


@pytest.mark.parametrize("run", RUNS)
def test_learning_rate_is_the_schedule_of_the_config(run: str) -> None:
    plan = config()["training"]
    steps, warmup, peak = plan["steps"], plan["warmup_steps"], plan["learning_rate"]
    assert plan["schedule"] == "cosine"
    expected = [peak * (t + 1) / warmup for t in range(warmup)]
    for step in range(warmup, steps):
        progress = (step - warmup) / (steps - warmup)
        expected.append(peak * (1 + math.cos(math.pi * progress)) / 2)
    for stored_rate, rate in zip(arrays.training(run)["learning_rate"], expected, strict=True):
        assert math.isclose(stored_rate, rate, rel_tol=1e-9), (
            f"learning rate {stored_rate}, the schedule says {rate}"
        )


def test_loss_figure_shows_the_curves() -> None:
    series = {entry["label"]: entry for entry in outputs.read_json("figures/loss.json")["series"]}
    for run in RUNS:
        training, losses = series[f"training, {run} answers"], arrays.training(run)["loss"]
        assert training["y"] == losses
        assert training["x"] == list(range(1, len(losses) + 1))
        points = arrays.curve(run, config()["data"]["curve"])
        held_out = series[f"held out, {run} answers"]
        assert held_out["x"] == [x for x, _ in points]
        assert outputs.same(held_out["y"], [y for _, y in points], 1e-5)


def test_gradient_norm_figure_shows_the_norms() -> None:
    series = outputs.read_json("figures/gradient_norm.json")["series"]
    norms = {entry["label"]: entry["y"] for entry in series}
    assert norms == {f"{run} answers": arrays.training(run)["grad_norm"] for run in RUNS}
    assert all(entry["x"] == list(range(1, len(entry["y"]) + 1)) for entry in series)


def test_memory_figure_shows_what_follows_from_the_shapes() -> None:
    bars = outputs.read_json("figures/memory.json")["series"][0]
    shown = dict(zip(bars["x"], bars["y"], strict=True))
    for part in ("adapters", "gradients", "optimizer", "activations", "logits"):
        expected = arrays.measurements()[f"memory_{part}"] / 2**20
        assert outputs.same(shown[part], expected, 1e-9), part


@pytest.mark.integrity
def test_memory_figure_shows_the_parts_of_the_peak() -> None:
    bars = outputs.read_json("figures/memory.json")["series"][0]
    expected = {}
    for part in (*arrays.PARTS, "activations", "logits", "other"):
        expected[part] = outputs.value(f"memory_{part}") / 2**20
    expected["runtime"] = measurements.runtime() / 2**20
    assert sorted(bars["x"]) == sorted(expected)
    assert outputs.same(bars["y"], [expected[part] for part in bars["x"]], 1e-9)
    assert outputs.same(sum(bars["y"]), outputs.value("memory_peak") / 2**20, 1e-9)


# The weights in four bits


def test_quantisation_agrees_with_the_weights() -> None:
    recomputed = model.quantisation()
    stored_layers = arrays.layers(model.sampled_layers())
    for layer, expected in zip(stored_layers, recomputed["layers"], strict=True):
        for kind in ("nf4", "fp4"):
            error = layer[f"{kind}_error"]
            assert math.isclose(error, expected[kind], rel_tol=1e-3), (
                f"{kind}: stored {error}, recomputed {expected[kind]}"
            )
        assert math.isclose(layer["distinct_values"], expected["distinct"], rel_tol=1e-6)
        assert expected["bytes"] == expected["expected_bytes"], (
            "bits_per_parameter counts other bytes than bitsandbytes stores"
        )
    for kind in ("nf4", "fp4"):
        error = outputs.value(f"gaussian_{kind}_error")
        expected = recomputed["gaussian"][kind]
        assert math.isclose(error, expected, rel_tol=0.01), (
            f"Gaussian {kind}: {error}, another Gaussian matrix gives {expected}"
        )


@pytest.mark.parametrize("prefix", ["", "gaussian_"])
def test_nf4_beats_fp4_as_it_must(prefix: str) -> None:
    ratio = arrays.measurements()[f"{prefix}nf4_fp4_ratio"]
    assert 0.70 <= ratio <= 0.80, f"NF4 error / FP4 error is {ratio}"


def test_default_weights_sit_on_a_grid() -> None:
    assert outputs.value("gaussian_distinct_values") > 31, (
        "the control must show what no grid looks like"
    )
    distinct = outputs.value("distinct_values")
    findings = " ".join(outputs.result()["findings"])
    assert ("already sit on a 4-bit grid" in findings) == (distinct <= 16)


# Memory and time: bounded


def test_memory_weights_hold_what_the_shapes_say() -> None:
    measurements.assert_weights_have_their_shapes()


def test_memory_adds_up() -> None:
    measurements.assert_memory_adds_up()


def test_memory_is_possible() -> None:
    measurements.assert_memory_is_possible()


def test_activations_are_possible() -> None:
    measurements.assert_activations_are_possible()


def test_stages_are_one_after_the_other() -> None:
    stages = arrays.stages()
    assert all(stage["begin"] <= stage["end"] for stage in stages)
    assert all(a["end"] <= b["begin"] for a, b in itertools.pairwise(stages))
    assert stages[-1]["end"] < 4 * 3600


def test_training_took_as_long_as_its_steps() -> None:
    steps = sum(sum(arrays.training(run)["seconds"]) for run in RUNS)
    stage = outputs.value("seconds_training")
    assert steps <= stage <= 1.2 * steps + 5, f"the steps took {steps} s, the stage {stage} s"
    # 6 operations per weight and token would be a full fine-tuning; no machine of this lab does
    # 10^15 per second
    weights = sum(math.prod(shape) for shape in arrays.base_shapes().values())
    assert outputs.value("tokens_per_second_total") * 4 * weights < 1e15
