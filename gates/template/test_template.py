"""Gate of FEAT-004: does the template's copy run, repeat itself, refuse misuse, and tell the truth?

The losses are recomputed from the stored logits and tokens of all three runs; all counts from the
stored files.
"""

from __future__ import annotations

import ast
import math
from typing import Any

import pytest

from gates.shared import outputs
from gates.shared.documents import stated_numbers
from gates.shared.standard import (  # noqa: F401 - collected here as this gate's own
    assert_all_judged,
    assert_report_states,
    assert_table_agrees,
    test_figures_were_drawn_from_their_data,
    test_files_are_those_of_the_result,
    test_report_was_made_from_the_result,
)

RUNS = ("template", "repeated", "other_seed")
ARRAYS = tuple(f"artifacts/{run}/artifacts/arrays.safetensors" for run in RUNS)
SOURCE = "artifacts/source/first_experiment.py"
COUNTS = (
    "runs",
    "runs_ended_well",
    "misuses",
    "misuses_refused",
    "files_with_right_digest",
    "files_listed",
    "source_lines",
    "same_seed_same_numbers",
    "values_shared_with_other_seed",
)
OWN = ("vocabulary", "chance_loss", "loss", "control_loss")
TOLERANCE = 1e-4  # relative; the run computes its losses in float32, this gate in float64


def recomputed() -> dict[str, dict[str, Any]]:
    """Return run -> measurement of the template -> what it must be, from the stored arrays."""

    def compute() -> dict[str, dict[str, Any]]:
        return {run: _recompute_run(run) for run in RUNS}

    return dict(outputs.cached("template losses", ARRAYS, compute))


def _recompute_run(run: str) -> dict[str, Any]:
    import numpy as np
    from safetensors.numpy import load_file

    arrays = load_file(outputs.out() / f"artifacts/{run}/artifacts/arrays.safetensors")
    logits = arrays["logits"].astype(np.float64)  # [n, T, V]
    tokens = arrays["tokens"]  # [n, T]

    # Loss = log of the sum of exp(logits), minus the logit of the next token. The logits of a
    # random model are small, so exp cannot overflow.
    log_sums = np.log(np.exp(logits).sum(-1))  # [n, T]
    next_tokens = tokens[:, 1:, None]  # [n, T - 1, 1]
    picked = np.take_along_axis(logits[:, :-1], next_tokens, 2)[..., 0]  # [n, T - 1]
    losses = log_sums[:, :-1] - picked  # [n, T - 1]

    sequences = len(logits)
    chance = math.log(logits.shape[-1])
    control = {"value": chance, "n": sequences, "values": [chance] * sequences}
    return {
        "vocabulary": logits.shape[-1],
        "chance_loss": chance,
        "loss": outputs.sample(losses.mean(1).tolist()),
        "control_loss": control,
        "largest_error": float(np.abs(losses - arrays["losses"]).max()),
        "largest_control_error": float(np.abs(arrays["control_losses"] - chance).max()),
    }


def recount() -> dict[str, Any]:
    """Return every count of this feature, from the stored files."""
    folder = outputs.out() / "artifacts"

    # 1. Runs and misuses.
    run_folders = [path for path in folder.iterdir() if path.name != "source" and path.is_dir()]
    misuses = outputs.read_json("artifacts/refusals.json")
    refused = 0
    for attempt in misuses:
        refused += attempt["exit_code"] == 2 and attempt["error"].startswith("error: ")

    # 2. Files of the first run.
    stated = outputs.result("artifacts/template")["files"]
    right = sum(outputs.digest_of(folder / "template" / f) == d for f, d in stated.items())
    files = [path for path in (folder / "template").rglob("*") if path.is_file()]

    # 3. What the seed changes.
    measurements = {run: outputs.result(f"artifacts/{run}")["measurements"] for run in RUNS}
    losses = {run: set(recomputed()[run]["loss"]["values"]) for run in RUNS}
    return {
        "runs": len(run_folders),
        "runs_ended_well": len(list(folder.glob("*/report.md"))),
        "misuses": len(misuses),
        "misuses_refused": refused,
        "files_with_right_digest": right,
        "files_listed": len(files) - len(outputs.UNLISTED),
        "source_lines": (outputs.out() / SOURCE).read_text("utf-8").count("\n"),
        "same_seed_same_numbers": measurements["template"] == measurements["repeated"],
        "values_shared_with_other_seed": len(losses["template"] & losses["other_seed"]),
    }


def test_every_measurement_is_judged() -> None:
    assert_all_judged([*COUNTS, *(f"template_{name}" for name in OWN)])


@pytest.mark.parametrize("name", COUNTS)
def test_count(name: str) -> None:
    outputs.assert_agrees(name, recount()[name])


@pytest.mark.parametrize("name", OWN)
def test_loss_of_the_template(name: str) -> None:
    outputs.assert_agrees(f"template_{name}", recomputed()["template"][name], rtol=TOLERANCE)


def test_report_states_the_numbers() -> None:
    own = {f"template_{name}": recomputed()["template"][name] for name in OWN}
    assert_report_states({**recount(), **own})


def test_findings_state_the_counts() -> None:
    counts = recount()
    first, second, third = outputs.result()["findings"]
    assert stated_numbers(first) == [
        counts["runs_ended_well"],
        counts["runs"],
        counts["misuses_refused"],
        counts["misuses"],
    ]
    assert ("gave the same numbers" in second) == counts["same_seed_same_numbers"]
    shared = counts["values_shared_with_other_seed"]
    assert stated_numbers(second) == ([shared] if shared else [])
    assert stated_numbers(third)[:2] == [counts["files_with_right_digest"], counts["files_listed"]]


def test_table_shows_the_three_runs() -> None:
    rows = []
    for name in OWN:
        values = [recomputed()[run][name] for run in RUNS]
        rows.append([name, *(v["value"] if isinstance(v, dict) else v for v in values)])
    assert_table_agrees(0, rows, rtol=TOLERANCE)


@pytest.mark.parametrize("run", RUNS)
def test_stored_losses_follow_from_the_logits(run: str) -> None:
    numbers = recomputed()[run]
    assert numbers["largest_error"] < TOLERANCE * numbers["chance_loss"]


@pytest.mark.parametrize("run", RUNS)
def test_control_has_the_loss_of_a_fair_guess(run: str) -> None:
    numbers = recomputed()[run]
    chance = numbers["chance_loss"]
    assert numbers["largest_control_error"] < TOLERANCE * chance
    assert abs(outputs.measurement("loss", f"artifacts/{run}")["value"] - chance) > 1e-6


@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize("name", OWN)
def test_own_result_of_each_run(run: str, name: str) -> None:
    outputs.assert_agrees(name, recomputed()[run][name], rtol=TOLERANCE, of=f"artifacts/{run}")


@pytest.mark.parametrize("run", RUNS)
@pytest.mark.integrity
def test_files_of_each_run_match(run: str) -> None:
    folder = f"artifacts/{run}"
    outputs.assert_files_match(folder)
    outputs.assert_report_matches(folder)
    outputs.assert_figures_match(folder)


@pytest.mark.parametrize("run", RUNS)
def test_each_run_keeps_the_contract(run: str) -> None:
    result = outputs.result(f"artifacts/{run}")
    assert result["experiment"] == "first_experiment"
    for part in ("question", "hypothesis", "method"):
        assert len(result[part].split()) >= 5, f"{part} says too little: {result[part]!r}"
    assert result["findings"]


def test_the_seed_decides() -> None:
    seeds = {run: outputs.result(f"artifacts/{run}")["environment"]["seed"] for run in RUNS}
    assert seeds["template"] == seeds["repeated"] != seeds["other_seed"]
    first, repeated, other = (outputs.digest_of(outputs.out() / path) for path in ARRAYS)
    assert first == repeated != other


def test_every_misuse_was_refused() -> None:
    misuses = outputs.read_json("artifacts/refusals.json")
    assert len(misuses) == 3
    for attempt in misuses:
        assert attempt["exit_code"] == 2 and attempt["error"].startswith("error: "), attempt


def test_figure_shows_both_seeds() -> None:
    first, other, chance = outputs.read_json("figures/two_seeds.json")["series"]
    for series, run in ((first, "template"), (other, "other_seed")):
        losses = recomputed()[run]["loss"]["values"]
        assert outputs.same(series["y"], losses, TOLERANCE)
        assert series["x"] == list(range(1, len(losses) + 1))
    assert chance["x"] == [1, len(first["y"])]
    assert outputs.same(chance["y"], [recomputed()["template"]["chance_loss"]] * 2, TOLERANCE)


def test_source_has_the_parts_of_an_experiment() -> None:
    tree = ast.parse((outputs.out() / SOURCE).read_text("utf-8"))
    functions = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    assert {"run", "findings"} <= functions
    texts: set[str | None] = set()
    for node in tree.body:
        match node:
            case ast.Assign(targets=[ast.Name(id="EXPERIMENT")], value=ast.Call(keywords=keywords)):
                texts |= {keyword.arg for keyword in keywords}
    assert {"title", "question", "hypothesis", "method", "headline"} <= texts
