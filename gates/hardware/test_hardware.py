"""Gate of FEAT-017: does each number follow from what was measured, and could it be measured so?

Every number, table, figure and sentence again, by code of its own (gates/hardware/trainings.py and,
of the decision, deciding.py). What trainings hold: their tensors counted to the byte from configs
that are those of the plan, and peaks that no training can be below. One held-out training again,
in a process of this gate's own (rerun.py). Receipts read again from the inputs.

What this gate cannot see:

- Peaks. The one of AGAIN is held against this gate's own, to about a tenth. All others, and those
  of the lab's loop, are the experiment's word between bounds: one who writes what the closed form
  gives, and never trains, is not found.
- Times. A step cannot be faster than its products at the machine's stated speed, that speed is
  within a wide margin of what the gate itself reaches, and steps of one training are alike. Within
  this, seconds of steps and of the products beside them are the experiment's word, and so is
  `time_error_max`.
- Whether devices, prices and needs are true. They are the user's; rows of known names are held
  against datasheets to a tenth, prices against nothing. Whether the stored files are those in
  lab/hardware, the runner's digest of the code says.
- Memory of a machine that is not this one.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from gates.hardware import decision, plan, stated, trainings, trainings_shown
from gates.hardware.decision import (  # noqa: F401 - pytest collects the checks of the decision
    test_decision_follows_from_what_was_stored,
    test_figure_of_costs,
    test_figure_of_what_fits,
    test_machine_of_the_decision_is_that_of_the_environment,
    test_recommendation_and_its_reasons_are_stated_word_by_word,
    test_table_of_the_decision,
    test_what_the_user_stated_is_valid,
)
from gates.shared import outputs, standard
from gates.shared.documents import agree
from gates.shared.standard import (  # noqa: F401 - pytest collects the three checks here
    test_figures_were_drawn_from_their_data,
    test_files_are_those_of_the_result,
    test_report_was_made_from_the_result,
)
from gates.shared.stored import cached, config

BOUND = 0.15  # of what a training adds to the loaded process
MOST = 3.0  # a peak, as a multiple of the counted tensors: more is no training of this plan
AGAIN = "base_lora"  # held out, and the cheapest of the model's own shape: this gate trains it too
CLOSE, CLOSE_BYTES = 0.08, 15e6  # of its memory; the two were within 2 % where this was built
ALIKE = 8.0  # the slowest timed step of a training, as a multiple of the fastest
FASTER = 1.5  # than the best timing of its own products no step can be
SPEEDS = 30.0  # between this gate's product and the stated one: other work, another machine
SAME_MEMORY = 0.02
ESTIMATES = {  # name → unit
    "memory_error_max": "",
    "memory_error_loop": "",
    "memory_error_mean": "",
    "memory_error_constant": "",
    "memory_workspace": "bytes",
    "memory_runtime": "bytes",
    "memory_kept_factor": "times",
    "time_error_max": "",
    "time_error_mean": "",
    "time_error_constant": "",
    "time_products": "times",
    "time_passes": "passes",
    "time_operations": "operations",
    "gemm_float32": "GFLOP/s",
    "gemm_adapter": "GFLOP/s",
    "gemm_head": "GFLOP/s",
    "attention_rate": "GFLOP/s",
    "bandwidth": "GB/s",
    "dequantised_rate": "billion weights/s",
    "experiments_seconds": "s",
    "experiments_cpu_seconds": "s",
    "experiments_peak": "bytes",
}
EXACT = {
    "configurations": "configurations",
    "held_out": "configurations",
    **{f"{name}_count_error": "" for name in trainings.COUNTED},
    "parameters": "parameters",
    "linear_parameters": "parameters",
    "logits_over_weights": "times",
    "qlora_8b_gigabytes": "GB",
    "full_8b_gigabytes": "GB",
    "experiments": "experiments",
}
UNITS = ESTIMATES | EXACT
NAMES = tuple(UNITS)
TITLES = (
    trainings_shown.MEMORY,
    trainings_shown.TIME,
    trainings_shown.RATES,
    trainings_shown.EXPERIMENTS,
)


def recomputed() -> dict[str, Any]:
    """Return numbers, predictions, tables, figures and sentences of the measured half."""
    value: dict[str, Any] = cached("trainings", ("result.json", *trainings.FILES), _recompute)
    return value


def _recompute() -> dict[str, Any]:
    computed = trainings.recompute()
    return computed | {
        "tables": trainings_shown.tables(computed),
        "figures": trainings_shown.figures(computed),
        "findings": trainings_shown.findings(computed["numbers"]),
    }


def test_every_measurement_is_judged() -> None:
    standard.assert_all_judged((*NAMES, *decision.NAMES))


@pytest.mark.parametrize("name", NAMES)
def test_measurement_follows_from_what_was_stored(name: str) -> None:
    expected = recomputed()["numbers"][name]
    if not isinstance(expected, dict):
        expected = {"value": expected, "stderr": None, "n": None}
    outputs.assert_agrees(name, expected)
    stored = outputs.measurement(name)
    assert bool(stored.get("exact")) is (name in EXACT)
    assert stored["unit"] == UNITS[name]
    assert stored.get("values") is None


# The plan


def test_run_was_of_the_planned_size() -> None:
    assert config()["shapes"] == plan.SHAPES
    assert config()["runs"] == plan.RUNS
    assert (config()["steps"], config()["repeats"]) == (plan.STEPS, plan.REPEATS)
    assert config()["model"] == plan.MODEL
    environment = outputs.result()["environment"]
    assert (environment["profile"], environment["seed"]) == ("cpu", 0)


def test_trainings_are_those_of_the_settings() -> None:
    rows = config()["runs"]
    runs = trainings.trainings()
    assert [one.name for one in runs] == [row["name"] for row in rows]
    for one, row in zip(runs, rows, strict=True):
        stored = one.raw["plan"]
        for field in ("role", "shape"):
            assert stored[field] == row[field], one.name
        for field in plan.SETTINGS:
            assert one.setup[field] == row[field], one.name
        assert {name: one.setup[name] for name in plan.FIXED} == plan.FIXED
        assert set(one.setup) == {*plan.SETTINGS, *plan.FIXED}
        assert stored["steps"] == config()["steps"] == len(one.raw["seconds"])
        assert len(one.raw["products"]) == config()["steps"]
        assert (one.raw["tokens"], one.raw["supervised_tokens"]) == (one.tokens, one.supervised)


def test_shapes_are_those_of_the_model() -> None:
    """Each config is that of the model with the changes of the settings."""
    base = outputs.read_json("artifacts/configs/base.json")
    if config()["model"] in outputs.inputs():
        path = outputs.inputs()[config()["model"]] / "config.json"
        assert base == json.loads(path.read_text("utf-8"))
    folder = outputs.out() / "artifacts" / "configs"
    assert {path.stem for path in folder.iterdir()} == set(config()["shapes"])
    for name, change in config()["shapes"].items():
        assert outputs.read_json(f"artifacts/configs/{name}.json") == base | change, name


# Memory


@pytest.mark.parametrize("name", trainings.COUNTED)
def test_tensors_are_counted_to_the_byte(name: str) -> None:
    for one in trainings.trainings():
        beside = trainings.beside_the_formula(one).get(name, 0)
        assert one.raw[name] == trainings.counted(one)[name] + beside, one.name


def test_peaks_are_those_of_trainings() -> None:
    for one in trainings.trainings():
        least = trainings.increment(one)
        weights = one.raw["weights"]
        if one.setup["method"] == "full":
            weights += one.raw["trained"]
        assert one.increment > least, f"{one.name} held less than its tensors"
        assert one.increment < MOST * least + 100e6, one.name
        # a heap of freed memory may be filled with what is loaded
        assert one.raw["loaded"] - one.raw["started"] > 0.9 * weights - 20e6, one.name
        assert one.raw["peak_kept"] > 0.9 * one.raw["peak"], one.name
        assert one.increment_kept < MOST * least + 100e6, one.name
        for name in ("started", "loaded", "peak", "peak_kept"):
            assert one.raw[name] % 1024 == 0, f"{one.name}: the kernel counts {name} in KiB"
        assert 50e6 < one.raw["started"] < 4e9, one.name


def test_memory_of_one_training_is_that_of_this_gate() -> None:
    """The only independent look at a peak: other adapters, another loss, the same sizes."""
    one = next(one for one in trainings.trainings() if one.name == AGAIN)
    ours = cached("rerun", ("artifacts/configs/base.json",), lambda: _added(one))
    assert abs(one.increment - ours) < CLOSE * ours + CLOSE_BYTES, f"{one.increment}; ours {ours}"


def _added(one: trainings.Training) -> int:
    """Return what a plain step of a training adds to a process of this gate's own."""
    training = {
        "config": outputs.read_json(f"artifacts/configs/{one.raw['plan']['shape']}.json"),
        "batch": one.setup["batch"],
        "sequence": one.setup["sequence"],
        "supervised": one.supervised // one.setup["batch"],
        "rank": one.setup["rank"],
    }
    script = Path(__file__).parent / "rerun.py"
    process = subprocess.run(
        [sys.executable, "-I", str(script), json.dumps(training)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    return int(process.stdout)


def test_model_predicts_what_it_was_not_fitted_to() -> None:
    numbers = recomputed()["numbers"]
    assert numbers["memory_error_max"]["value"] < BOUND
    assert numbers["memory_error_constant"] > BOUND, "a constant would meet the bound too"


# Time


def test_timings_are_of_the_stated_work() -> None:
    amounts = trainings.amounts(trainings.shapes()["base"])
    stored = trainings.timings()
    assert list(stored) == list(amounts)
    for name, one in stored.items():
        assert one["amount"] == amounts[name], name
        assert len(one["seconds"]) == config()["repeats"], name
        assert min(one["seconds"]) > 0, name
        assert len(set(one["seconds"])) > 1, f"{name}: no two repetitions take equally long"


def test_no_step_is_faster_than_its_products() -> None:
    stored = trainings.timings()["layer"]
    best = stored["amount"] / min(stored["seconds"])
    for one in trainings.trainings():
        sizes = one.sizes
        product = 2.0 * trainings.PRODUCT_ROWS * sizes.d * sizes.m
        fastest = max(best, product / min(one.raw["products"]))
        beside = product / statistics.median(one.raw["products"])
        assert 1 / SPEEDS < beside / best < SPEEDS, f"{one.name}: products beside its steps"
        per_weight = 6 if one.setup["method"] == "full" else 4
        least = per_weight * one.tokens * sizes.linear / (FASTER * fastest)
        assert min(one.raw["seconds"]) > least, one.name
        assert max(one.raw["seconds"]) < ALIKE * min(one.raw["seconds"]), one.name
        assert len(set(one.raw["seconds"])) == len(one.raw["seconds"]), one.name


def test_stated_speed_is_one_of_this_machine() -> None:
    stored = trainings.timings()["layer"]
    stated_rate = stored["amount"] / min(stored["seconds"])
    ours = cached("speed", ("artifacts/timings.json",), _product_rate)
    assert 1 / SPEEDS < stated_rate / ours < SPEEDS


def _product_rate() -> float:
    """Return this gate's own FLOP/s of a product of the stated kind."""
    import numpy as np

    sizes = trainings.shapes()["base"]
    a = np.ones((trainings.PRODUCT_ROWS, sizes.d), dtype=np.float32)
    b = np.ones((sizes.d, sizes.m), dtype=np.float32)
    seconds = []
    for _ in range(5):
        began = time.perf_counter()
        _ = a @ b
        seconds.append(time.perf_counter() - began)
    return 2.0 * trainings.PRODUCT_ROWS * sizes.d * sizes.m / min(seconds)


def test_losses_are_those_of_untrained_models() -> None:
    """Texts are random: a model without weights of its own guesses among all tokens."""
    for one in trainings.trainings():
        guess = math.log(one.sizes.vocabulary)
        # two steps for memory, one to warm up, and the timed ones
        assert len(one.raw["losses"]) == 3 + config()["steps"], one.name
        for loss in one.raw["losses"]:
            assert loss > 0.5 * guess, one.name
            if one.raw["plan"]["shape"] != "base":
                assert loss < 1.5 * guess, one.name
        assert len(set(one.raw["losses"])) > 2, one.name


# This machine, and the receipts


def test_machine_of_the_decision_is_the_measured_one() -> None:
    stored = stated.machine()
    for part, numbers in recomputed()["machine"].items():
        assert set(stored[part]) == set(numbers)
        for name, value in numbers.items():
            assert outputs.same(stored[part][name], float(value), 1e-5), f"{part} {name}"


def test_memory_of_the_machine_is_its_own() -> None:
    """On a machine of the same name; elsewhere it is at least what trainings held."""
    stored = stated.machine()["memory_bytes"]
    assert stored > max(one.raw["peak"] for one in trainings.trainings())
    if outputs.result()["environment"]["platform"] == platform.platform():
        assert abs(stored / _memory() - 1) < SAME_MEMORY


def _memory() -> int:
    """Return the bytes of this machine, or of its container if that has less."""
    sizes = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        path = Path("/sys/fs/cgroup") / name
        text = path.read_text("utf-8").strip() if path.is_file() else ""
        if text.isdigit():
            sizes.append(int(text))
    return min(sizes)


def test_receipts_are_those_of_the_inputs() -> None:
    entries = json.loads(Path(os.environ["PHASES_INPUTS"]).read_text("utf-8"))
    features = {name: one for name, one in entries.items() if one.get("kind") == "feature"}
    rows = outputs.read_json("artifacts/receipts.json")
    assert [row["feature"] for row in rows] == sorted(features)
    for row in rows:
        folder = Path(features[row["feature"]]["path"])
        content = (folder / "receipt.json").read_bytes()
        digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
        assert row["digest"] == digest == features[row["feature"]]["receipt"]
        products = json.loads(content)["predicate"]["runDetails"]["byproducts"]
        process = next(one["content"] for one in products if one["name"] == "process")
        title = json.loads((folder / "result.json").read_text("utf-8"))["title"]
        assert row["title"] == title
        assert row["seconds"] == process["seconds"]
        assert row["cpu_seconds"] == process["cpuSeconds"]
        assert row["peak_bytes"] == process["peakMemoryBytes"]


# The report


def test_report_states_what_was_recomputed() -> None:
    standard.assert_report_states(recomputed()["numbers"])


def test_findings_are_stated_word_by_word() -> None:
    expected = recomputed()["findings"]
    findings = outputs.result()["findings"]
    assert len(findings) == len(expected) + len(decision.recomputed()["findings"])
    for actual, text in zip(findings[-len(expected) :], expected, strict=True):
        assert agree(actual, text), f"{actual!r}; expected {text!r}"


@pytest.mark.parametrize("title", TITLES)
def test_table_of_the_trainings(title: str) -> None:
    tables = [table for table in outputs.result()["tables"] if table["title"] == title]
    assert len(tables) == 1
    columns, rows = recomputed()["tables"][title]
    assert tables[0]["columns"] == columns
    assert len(tables[0]["rows"]) == len(rows)
    for actual, expected in zip(tables[0]["rows"], rows, strict=True):
        assert len(actual) == len(expected)
        assert all(map(decision.same_cell, actual, expected)), f"{actual}; expected {expected}"


def test_no_other_tables() -> None:
    titles = [table["title"] for table in outputs.result()["tables"]]
    assert titles == [*decision.TITLES, *TITLES]


@pytest.mark.parametrize("name", ["memory", "time", "parts"])
def test_figure_shows_the_numbers(name: str) -> None:
    figure = outputs.read_json(f"figures/{name}.json")
    expected = recomputed()["figures"][name]
    for field in ("title", "x_label", "y_label"):
        assert figure[field] == expected[field], field
    assert agree(figure["caption"], expected["caption"])
    assert figure["x_scale"] == figure["y_scale"] == expected["scale"]
    assert [line["label"] for line in figure["series"]] == list(expected["lines"])
    for line in figure["series"]:
        x, y = expected["lines"][line["label"]]
        assert outputs.same(line["x"], x, 1e-5), line["label"]
        assert outputs.same(line["y"], [float(value) for value in y], 1e-5), line["label"]
        assert line["kind"] == expected["kinds"][line["label"]]
        assert (line["band"], line["group"]) == (None, None)
        assert line["style"] == ("dashed" if line["label"] == "equal" else "solid")


def test_figures_of_the_result_are_those_that_were_drawn() -> None:
    """The report shows titles and captions of the result."""
    shown = outputs.result()["figures"]
    drawn = [path.stem for path in (outputs.out() / "figures").glob("*.json")]
    assert sorted(one["name"] for one in shown) == sorted(drawn)
    for one in shown:
        figure = outputs.read_json(f"figures/{one['name']}.json")
        assert one == {name: figure[name] for name in ("name", "title", "caption")}
