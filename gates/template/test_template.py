"""Gate of FEAT-004: does the template's copy run, repeat itself, refuse misuse, and tell the truth?

The losses are computed again from the stored logits and tokens of all three runs; all counts from
the stored files.
"""

from __future__ import annotations

import ast
import math
from typing import Any

import pytest

from gates.shared import outputs

RUNS = ("template", "repeated", "other_seed")
ARRAYS = tuple(f"artifacts/{run}/artifacts/arrays.safetensors" for run in RUNS)
RESULTS = tuple(f"artifacts/{run}/result.json" for run in RUNS)
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
    """Give run -> measurement of the template -> what it must be, from the stored arrays."""
    return dict(
        outputs.cached("template losses", ARRAYS, lambda: {run: _losses(run) for run in RUNS})
    )


def _losses(run: str) -> dict[str, Any]:
    import numpy as np
    from safetensors.numpy import load_file

    arrays = load_file(outputs.out() / f"artifacts/{run}/artifacts/arrays.safetensors")
    logits, tokens = arrays["logits"].astype(np.float64), arrays["tokens"]  # [n, T, V], [n, T]
    # [n, T]; logits of a random model are small, so exp cannot overflow
    total = np.log(np.exp(logits).sum(-1))
    picked = np.take_along_axis(logits[:, :-1], tokens[:, 1:, None], 2)[..., 0]
    losses = total[:, :-1] - picked  # [n, T - 1]
    return {
        "vocabulary": logits.shape[-1],
        "chance_loss": math.log(logits.shape[-1]),
        "loss": outputs.sample(losses.mean(1).tolist()),
        "control_loss": {
            "value": math.log(logits.shape[-1]),
            "n": len(logits),
            "values": [math.log(logits.shape[-1])] * len(logits),
        },
        "worst": float(np.abs(losses - arrays["losses"]).max()),
        "worst_control": float(np.abs(arrays["control_losses"] - math.log(logits.shape[-1])).max()),
    }


def counted() -> dict[str, Any]:
    """Give every count of this feature, made anew from the stored files."""
    folder = outputs.out() / "artifacts"
    refused = outputs.read_json("artifacts/refusals.json")
    files = outputs.result("artifacts/template")["files"]
    measured = {run: outputs.result(f"artifacts/{run}")["measurements"] for run in RUNS}
    means = {run: set(recomputed()[run]["loss"]["values"]) for run in RUNS}
    return {
        "runs": len([path for path in folder.iterdir() if path.name != "source" and path.is_dir()]),
        "runs_ended_well": len(list(folder.glob("*/report.md"))),
        "misuses": len(refused),
        "misuses_refused": sum(
            t["exit_code"] == 2 and t["error"].startswith("error: ") for t in refused
        ),
        "files_with_right_digest": sum(
            outputs.digest_of(folder / "template" / f) == d for f, d in files.items()
        ),
        "files_listed": len([p for p in (folder / "template").rglob("*") if p.is_file()])
        - len(outputs.UNLISTED),
        "source_lines": (outputs.out() / SOURCE).read_text("utf-8").count("\n"),
        "same_seed_same_numbers": measured["template"] == measured["repeated"],
        "values_shared_with_other_seed": len(means["template"] & means["other_seed"]),
    }


@pytest.mark.integrity
def test_files_are_those_that_were_listed() -> None:
    outputs.assert_files_match()


@pytest.mark.integrity
def test_report_was_made_from_the_result() -> None:
    outputs.assert_report_matches()


@pytest.mark.integrity
def test_figures_show_their_data() -> None:
    outputs.assert_figures_match()


def test_every_measurement_is_judged() -> None:
    assert set(outputs.result()["measurements"]) == {*COUNTS, *(f"template_{name}" for name in OWN)}


@pytest.mark.parametrize("name", COUNTS)
def test_count(name: str) -> None:
    outputs.assert_agrees(name, counted()[name])


@pytest.mark.parametrize("name", OWN)
def test_loss_of_the_template(name: str) -> None:
    outputs.assert_agrees(f"template_{name}", recomputed()["template"][name], rtol=TOLERANCE)


@pytest.mark.parametrize("run", RUNS)
def test_stored_losses_follow_from_the_logits(run: str) -> None:
    found = recomputed()[run]
    assert found["worst"] < TOLERANCE * found["chance_loss"]


@pytest.mark.parametrize("run", RUNS)
def test_control_has_the_loss_of_a_fair_guess(run: str) -> None:
    found = recomputed()[run]
    assert found["worst_control"] < TOLERANCE * found["chance_loss"]
    assert (
        abs(outputs.measurement("loss", f"artifacts/{run}")["value"] - found["chance_loss"]) > 1e-6
    )


@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize("name", OWN)
def test_own_result_of_each_run(run: str, name: str) -> None:
    outputs.assert_agrees(name, recomputed()[run][name], rtol=TOLERANCE, of=f"artifacts/{run}")


@pytest.mark.parametrize("run", RUNS)
def test_each_run_keeps_the_contract(run: str) -> None:
    place = f"artifacts/{run}"
    outputs.assert_files_match(place)
    outputs.assert_report_matches(place)
    outputs.assert_figures_match(place)
    result = outputs.result(place)
    assert result["experiment"] == "first_experiment"
    for part in ("question", "hypothesis", "method"):
        assert len(result[part].split()) >= 5, f"{part} says too little: {result[part]!r}"
    assert result["findings"]


def test_the_seed_decides() -> None:
    seeds = {run: outputs.result(f"artifacts/{run}")["environment"]["seed"] for run in RUNS}
    assert seeds["template"] == seeds["repeated"] != seeds["other_seed"]
    first, again, other = (outputs.digest_of(outputs.out() / path) for path in ARRAYS)
    assert first == again != other


def test_every_misuse_was_refused() -> None:
    refused = outputs.read_json("artifacts/refusals.json")
    assert len(refused) == 3
    for case in refused:
        assert case["exit_code"] == 2 and case["error"].startswith("error: "), case


def test_figure_shows_both_seeds() -> None:
    first, other, chance = outputs.read_json("figures/two_seeds.json")["series"]
    for series, run in ((first, "template"), (other, "other_seed")):
        assert outputs.same(series["y"], recomputed()[run]["loss"]["values"], TOLERANCE)
    assert outputs.same(chance["y"], [recomputed()["template"]["chance_loss"]] * 2, TOLERANCE)


def test_source_has_the_parts_of_an_experiment() -> None:
    tree = ast.parse((outputs.out() / SOURCE).read_text("utf-8"))
    names = {
        t.id
        for node in tree.body
        if isinstance(node, ast.Assign)
        for t in node.targets
        if isinstance(t, ast.Name)
    }
    names |= {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    assert {"QUESTION", "HYPOTHESIS", "METHOD", "run", "findings"} <= names
