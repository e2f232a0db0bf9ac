"""Gate of FEAT-001: was the QLoRA run really made, do its numbers follow, does it beat its control?

Two levels: every number from the stored arrays (gates/qlora/arrays.py), and the arrays from the
base model and the adapters for a sample drawn by the nonce (gates/qlora/model.py). What nobody can
compute again is bounded.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from typing import Any

import pytest

from gates.qlora import arrays as qlora_arrays
from gates.qlora import measurements as qlora_measurements
from gates.qlora import model as qlora_model
from gates.qlora.arrays import EVALUATIONS, RUNS
from gates.qlora.measurements import BOUNDED, RECOMPUTED
from gates.shared import outputs, stored
from gates.shared.stored import config

# nats: what float32 in another order, or bfloat16 on a GPU, may change in a mean loss
LOSS_TOLERANCE = 0.01
TOKEN_TOLERANCE = 0.05  # nats: the same for the mean size of a single token's change
# nats per token between the run and its control; shuffled answers teach their format too
MARGIN = 0.2


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
    found, judged = set(outputs.result()["measurements"]), set(RECOMPUTED + BOUNDED)
    assert found == judged, (
        f"not judged: {sorted(found - judged)}; missing: {sorted(judged - found)}"
    )


@pytest.mark.parametrize("name", RECOMPUTED)
def test_measurement_follows_from_what_was_stored(name: str) -> None:
    outputs.assert_agrees(name, qlora_arrays.numbers()[name])


def test_run_was_of_the_planned_size() -> None:
    assert outputs.value("train_examples") >= 200
    assert outputs.value("eval_examples") >= 256
    assert outputs.value("steps") >= 50


# The base model and the data


def test_model_is_the_one_given() -> None:
    path = outputs.inputs()["smollm2-135m"] / "model.safetensors"
    given = stored.cached("qlora base digest", (), lambda: outputs.digest_of(path))
    assert outputs.result()["environment"]["model_sha256"] == given


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


@pytest.mark.parametrize("name", qlora_arrays.SETS)
def test_loss_counts_the_answer_and_nothing_else(name: str) -> None:
    rows = stored.rows(name)
    for row in rows:
        first = next(i for i, label in enumerate(row["labels"]) if label != -100)
        assert 0 < first < len(row["ids"]), f"{row['name']}: prompt or answer is empty"
        assert row["labels"] == [-100] * first + row["ids"][first:], (
            f"{row['name']}: labels are not the answer's ids"
        )
    texts = qlora_model.decoded()[name]
    for row, (prompt, answer) in zip(rows, texts, strict=True):
        assert answer == row["messages"][-1]["content"], (
            f"{row['name']}: the answer's ids say {answer!r}"
        )
        assert row["messages"][0]["content"] in prompt, (
            f"{row['name']}: the prompt's ids say {prompt!r}"
        )


def test_control_has_the_same_prompts_and_answers_otherwise_assigned() -> None:
    train, control = stored.rows("train"), stored.rows("control")

    def split(row: dict[str, Any]) -> tuple[tuple[int, ...], tuple[int, ...]]:
        first = row["labels"].count(-100)
        return tuple(row["ids"][:first]), tuple(row["ids"][first:])

    true, shuffled = [split(row) for row in train], [split(row) for row in control]
    assert [prompt for prompt, _ in true] == [prompt for prompt, _ in shuffled], (
        "the prompts differ"
    )
    assert Counter(answer for _, answer in true) == Counter(answer for _, answer in shuffled), (
        "the answers differ"
    )
    kept = sum(a == b for (_, a), (_, b) in zip(true, shuffled, strict=True))
    assert kept == 0, f"{kept} answers of the control stayed where they were"


# The adapters


def test_adapters_have_the_shapes_of_all_linear_layers() -> None:
    rank, shapes = config()["lora"]["r"], qlora_arrays.base_shapes()
    wanted: dict[str, list[int]] = {}
    for name in qlora_arrays.linear_names():
        module = "base_model.model." + name.removesuffix(".weight")
        rows, columns = shapes[name]
        wanted |= {
            f"{module}.lora_A.weight": [rank, columns],
            f"{module}.lora_B.weight": [rows, rank],
        }
    for run in ("initial", *RUNS):
        found = stored.header(stored.artifact(f"adapter_{run}/adapter_model.safetensors"))
        assert {name: entry["shape"] for name, entry in found.items()} == wanted, f"adapter_{run}"


def test_training_began_at_the_base_and_moved_every_layer() -> None:
    norms = qlora_arrays.adapter_norms()
    assert max(norms["initial"]) == 0.0, "the initial B is not 0: the run did not begin at the base"
    for run in RUNS:
        assert min(norms[run]) > 0.0, f"adapter_{run}: some B is still 0: a layer was not trained"
    assert norms["true"] != norms["shuffled"], "run and control have the same adapter"


def test_step_0_is_the_base() -> None:
    assert abs(outputs.value("step_0_difference")) < (
        1e-6 if config()["dtype"] == "float32" else LOSS_TOLERANCE
    )
    first = qlora_model.losses()["first"]
    assert abs(first["initial"] - first["base"]) < 1e-6, (
        f"initial adapter {first['initial']}, base {first['base']}"
    )
    assert abs(first["initial"] - outputs.value("first_loss")) < LOSS_TOLERANCE


# The evaluations, from the weights


@pytest.mark.parametrize("name", EVALUATIONS)
def test_evaluation_agrees_with_the_weights(name: str) -> None:
    stored, again = (
        qlora_arrays.tokens_of(name, qlora_model.sampled_examples()),
        qlora_model.losses(),
    )
    for what, sizes in (
        ("losses", TOKEN_TOLERANCE),
        ("entropies", TOKEN_TOLERANCE),
        ("hits", 0.02),
    ):
        pairs = list(zip(stored[what], again["evaluations"][name][what], strict=True))
        shift = sum(a - b for a, b in pairs) / len(pairs)
        size = sum(abs(a - b) for a, b in pairs) / len(pairs)
        assert abs(shift) < LOSS_TOLERANCE, (
            f"{what}: stored minus recomputed is {shift} in the mean"
        )
        assert size < sizes, f"{what}: stored and recomputed differ by {size} per token"


def test_run_beats_its_control() -> None:
    gap = qlora_arrays.numbers()["control_gap"]
    low = gap["value"] - 1.97 * gap["stderr"]  # t(0.975) for some 250 degrees of freedom
    assert low >= MARGIN, f"control_gap {gap['value']} ± {gap['stderr']}: not surely {MARGIN} nats"


def test_both_runs_learnt() -> None:
    for name in ("improvement", "improvement_shuffled"):
        gain = qlora_arrays.numbers()[name]
        assert gain["value"] - 1.97 * gain["stderr"] > 0, (
            f"{name} {gain['value']} ± {gain['stderr']}"
        )


@pytest.mark.parametrize("when", ["before", "after"])
def test_answers_are_greedy(when: str) -> None:
    worst = max(qlora_model.losses()["margins"][when])
    assert worst < TOKEN_TOLERANCE, (
        f"a generated token was {worst} nats less likely than the most likely one"
    )


def test_report_shows_the_stored_answers() -> None:
    table = outputs.result()["tables"][0]
    spoken = qlora_model.decoded()["spoken"]
    assert [list(row[2:]) for row in table["rows"]] == spoken
    assert [row[0] for row in table["rows"]] == [
        s["name"] for s in outputs.read_json(qlora_model.SPOKEN)
    ]


# The training curves


@pytest.mark.parametrize("run", RUNS)
def test_curve_is_that_of_the_frozen_data(run: str) -> None:
    found = qlora_arrays.training(run)
    rows, size = (
        stored.rows("train" if run == "true" else "control"),
        config()["training"]["batch_size"],
    )
    for step, (supervised, total) in enumerate(
        zip(found["supervised_tokens"], found["total_tokens"], strict=True)
    ):
        batch = [rows[i % len(rows)] for i in range(step * size, (step + 1) * size)]
        assert supervised == sum(stored.supervised(row) for row in batch), f"step {step}"
        assert total == sum(len(row["ids"]) for row in batch), f"step {step}"


@pytest.mark.parametrize("run", RUNS)
def test_curve_is_possible(run: str) -> None:
    found, vocabulary = (
        qlora_arrays.training(run),
        qlora_arrays.base_shapes()["model.embed_tokens.weight"][0],
    )
    assert all(0 < loss < 20 for loss in found["loss"])
    assert all(0 <= entropy <= math.log(vocabulary) for entropy in found["entropy"])
    for accuracy, count in zip(found["token_accuracy"], found["supervised_tokens"], strict=True):
        assert 0 <= accuracy <= 1
        assert math.isclose(accuracy * count, round(accuracy * count), abs_tol=1e-6), (
            "not a share of whole tokens"
        )
    assert all(norm > 0 for norm in found["grad_norm"])
    assert all(seconds > 0 for seconds in found["seconds"])


@pytest.mark.parametrize("run", RUNS)
def test_learning_rate_is_the_schedule_of_the_config(run: str) -> None:
    plan = config()["training"]
    steps, warmup, peak = plan["steps"], plan["warmup_steps"], plan["learning_rate"]
    assert plan["schedule"] == "cosine"
    wanted = [peak * (t + 1) / warmup for t in range(warmup)]
    wanted += [
        peak * (1 + math.cos(math.pi * (t - warmup) / (steps - warmup))) / 2
        for t in range(warmup, steps)
    ]
    for met, right in zip(qlora_arrays.training(run)["learning_rate"], wanted, strict=True):
        assert math.isclose(met, right, rel_tol=1e-9), (
            f"learning rate {met}, the schedule says {right}"
        )


def test_loss_figure_shows_the_curves() -> None:
    shown = {series["label"]: series for series in outputs.read_json("figures/loss.json")["series"]}
    for run in RUNS:
        assert shown[f"training, {run} answers"]["y"] == qlora_arrays.training(run)["loss"]
        points = qlora_arrays.curve(run, config()["data"]["curve"])
        held_out = shown[f"held out, {run} answers"]
        assert held_out["x"] == [x for x, _ in points]
        assert outputs.same(held_out["y"], [y for _, y in points], 1e-5)


def test_other_figures_show_the_numbers() -> None:
    norms = {
        series["label"]: series["y"]
        for series in outputs.read_json("figures/gradient_norm.json")["series"]
    }
    assert norms == {f"{run} answers": qlora_arrays.training(run)["grad_norm"] for run in RUNS}
    bars = outputs.read_json("figures/memory.json")["series"][0]
    wanted = {
        part: outputs.value(f"memory_{part}") / 2**20 for part in (*qlora_arrays.PARTS, "rest")
    }
    assert outputs.same(bars["y"], [wanted[part] for part in bars["x"]], 1e-9)


# The weights in four bits


def test_quantisation_agrees_with_the_weights() -> None:
    stored, again = qlora_arrays.layers(qlora_model.sampled_layers()), qlora_model.quantisation()
    for layer, right in zip(stored, again["layers"], strict=True):
        for kind in ("nf4", "fp4"):
            met = layer[f"{kind}_error"]
            assert math.isclose(met, right[kind], rel_tol=1e-3), (
                f"{kind}: stored {met}, recomputed {right[kind]}"
            )
        assert math.isclose(layer["distinct_values"], right["distinct"], rel_tol=1e-6)
        assert right["bytes"] == right["expected_bytes"], (
            "bits_per_parameter counts other bytes than bitsandbytes stores"
        )
    for kind in ("nf4", "fp4"):
        met, right = outputs.value(f"gaussian_{kind}_error"), again["gaussian"][kind]
        assert math.isclose(met, right, rel_tol=0.01), (
            f"Gaussian {kind}: {met}, another Gaussian matrix gives {right}"
        )


@pytest.mark.parametrize("prefix", ["", "gaussian_"])
def test_nf4_beats_fp4_as_it_must(prefix: str) -> None:
    ratio = qlora_arrays.numbers()[f"{prefix}nf4_fp4_ratio"]
    assert 0.70 <= ratio <= 0.80, f"NF4 error / FP4 error is {ratio}"


def test_default_weights_sit_on_a_grid() -> None:
    assert outputs.value("gaussian_distinct_values") > 31, (
        "the control must show what no grid looks like"
    )
    distinct, told = outputs.value("distinct_values"), " ".join(outputs.result()["findings"])
    assert ("already sit on a 4-bit grid" in told) == (distinct <= 16)


# Memory and time: bounded


def test_memory_weights_hold_what_the_shapes_say() -> None:
    qlora_measurements.assert_weights_have_their_shapes()


def test_memory_adds_up() -> None:
    qlora_measurements.assert_memory_adds_up()


def test_memory_is_possible() -> None:
    qlora_measurements.assert_memory_is_possible()


def test_stages_are_one_after_the_other() -> None:
    stages = qlora_arrays.stages()
    assert all(stage["begin"] <= stage["end"] for stage in stages)
    assert all(a["end"] <= b["begin"] for a, b in itertools.pairwise(stages))
    assert stages[-1]["end"] < 4 * 3600


def test_training_took_as_long_as_its_steps() -> None:
    steps = sum(sum(qlora_arrays.training(run)["seconds"]) for run in RUNS)
    stage = outputs.value("seconds_training")
    assert steps <= stage <= 1.2 * steps + 5, f"the steps took {steps} s, the stage {stage} s"
    # 6 operations per weight and token would be a full fine-tuning; no machine of this lab does
    # 10^15 per second
    weights = sum(math.prod(shape) for shape in qlora_arrays.base_shapes().values())
    assert outputs.value("tokens_per_second_total") * 4 * weights < 1e15
