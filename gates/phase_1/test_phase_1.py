"""Exit gate of phase 1: four results hold together, a run beats its control, a template is usable.

PHASES_OUT holds one folder per feature. What the features' own gates computed is not repeated here;
one claim of each result is computed anew from its stored files, so that no result can be exchanged
for another after it was judged.
"""

from __future__ import annotations

import math
from typing import Any

import pytest

from gates.shared import outputs
from gates.shared.documents import fillings, read, shows

FEATURES = ("FEAT-001", "FEAT-002", "FEAT-003", "FEAT-004")
QLORA, DOCUMENTS, QUESTIONS, TEMPLATE = FEATURES
PARTS = {
    "experiment",
    "question",
    "hypothesis",
    "method",
    "measurements",
    "tables",
    "findings",
    "environment",
    "files",
}
LOSSES = {"eval_loss_base": "base", "eval_loss_true": "true", "eval_loss_shuffled": "shuffled"}
ARRAYS = f"{QLORA}/artifacts/evaluation.safetensors"
MARGIN = 0.2  # nats per token; the shuffled control learns the format of answers, and only that


def token_losses() -> dict[str, dict[str, Any]]:
    """Give evaluation (base, true, shuffled) -> what the stored arrays say of it.

    The mean loss and, per example, sum and count.
    """
    return dict(outputs.cached("phase 1 losses", [ARRAYS], _losses))


def _losses() -> dict[str, dict[str, Any]]:
    import numpy as np
    from safetensors.numpy import load_file

    arrays = load_file(outputs.out() / ARRAYS)
    counts = np.bincount(arrays["example_ids"])  # supervised tokens of each example, [examples]
    found = {}
    for name in LOSSES.values():
        losses = arrays[f"{name}.losses"].astype(np.float64)  # [supervised tokens]
        sums = np.bincount(arrays["example_ids"], losses)
        found[name] = {
            "mean": float(losses.mean()),
            "sums": sums.tolist(),
            "counts": counts.tolist(),
        }
    return found


@pytest.mark.integrity
@pytest.mark.parametrize("feature", FEATURES)
def test_outputs_are_those_that_the_feature_wrote(feature: str) -> None:
    outputs.assert_files_match(feature)
    outputs.assert_report_matches(feature)
    outputs.assert_figures_match(feature)


@pytest.mark.parametrize("feature", FEATURES)
def test_result_is_present_and_well_formed(feature: str) -> None:
    result = outputs.result(feature)
    assert set(result) >= PARTS, f"{feature} lacks {sorted(PARTS - set(result))}"
    assert result["measurements"] and result["findings"]
    for part in ("question", "hypothesis", "method"):
        assert len(result[part].split()) >= 5, f"{feature}: {part} says too little"


@pytest.mark.parametrize("feature", FEATURES)
def test_measurements_are_consistent_in_themselves(feature: str) -> None:
    for name, found in outputs.result(feature)["measurements"].items():
        value, stderr, values = found["value"], found.get("stderr"), found.get("values")
        assert isinstance(found["unit"], str), f"{feature} {name} has no unit"
        assert not (found.get("exact") and stderr is not None), (
            f"{feature} {name} is exact and has a standard error"
        )
        assert stderr is None or stderr >= 0, f"{feature} {name} has a negative standard error"
        if values is not None:
            wanted = outputs.sample(values)
            assert found["n"] == len(values), (
                f"{feature} {name} has {len(values)} values and n = {found['n']}"
            )
            assert outputs.same(value, wanted["value"], 1e-6), (
                f"{feature} {name} is not the mean of its values"
            )
            assert outputs.same(stderr, wanted["stderr"], 1e-6), f"{feature} {name}: standard error"


@pytest.mark.parametrize(("measurement", "run"), LOSSES.items())
def test_loss_follows_from_the_stored_tokens(measurement: str, run: str) -> None:
    assert abs(outputs.value(measurement, QLORA) - token_losses()[run]["mean"]) < 0.01


def test_instrumented_run_beats_its_control() -> None:
    true, shuffled = token_losses()["true"], token_losses()["shuffled"]
    gap = shuffled["mean"] - true["mean"]
    # Ratio estimator over examples: the tokens of one example depend on each other,
    # examples do not.
    parts = zip(shuffled["sums"], true["sums"], true["counts"], strict=True)
    examples, tokens = len(true["counts"]), sum(true["counts"])
    spread = (
        math.sqrt(sum((s - t - gap * n) ** 2 for s, t, n in parts) * examples / (examples - 1))
        / tokens
    )
    assert gap - 1.96 * spread >= MARGIN, (
        f"gap {gap:.3f} ± {spread:.3f} nats, wanted at least {MARGIN} beyond doubt"
    )
    assert abs(outputs.value("control_gap", QLORA) - gap) < 0.01
    stated = outputs.value("eval_loss_shuffled", QLORA) - outputs.value("eval_loss_true", QLORA)
    assert stated >= MARGIN and abs(stated - gap) < 0.02


def test_training_lowered_the_loss() -> None:
    losses = token_losses()
    assert losses["true"]["mean"] < losses["base"]["mean"]
    assert outputs.value("eval_loss_true", QLORA) < outputs.value("eval_loss_base", QLORA)


def test_documents_show_the_numbers_of_this_phase() -> None:
    folder = outputs.out() / DOCUMENTS
    shown = 0
    for path in sorted((folder / "rendered").glob("*.md")):
        page = read(path.name, (folder / "documents" / path.name).read_text("utf-8"))
        for (feature, name), text in fillings(page, path.read_text("utf-8")):
            assert feature in FEATURES, (
                f"{path.name} takes a number from {feature}, which this phase has not"
            )
            assert shows(text, outputs.value(name, feature)), (
                f"{path.name} shows {feature}.{name} as {text!r}"
            )
            shown += 1
    assert (
        shown == outputs.value("placeholders", DOCUMENTS) == outputs.value("filled", DOCUMENTS) > 0
    )
    assert outputs.value("problems", DOCUMENTS) == 0


def test_questions_are_those_that_were_counted() -> None:
    heads = [
        line
        for line in _text(f"{QUESTIONS}/QUESTIONS.md").splitlines()
        if line.startswith("### Q-")
    ]
    assert len(heads) == outputs.value("questions", QUESTIONS) >= 20
    assert outputs.value("experiments_with_a_question", QUESTIONS) == outputs.value(
        "experiments", QUESTIONS
    )
    assert outputs.value("problems", QUESTIONS) == 0


def test_template_is_usable() -> None:
    run = outputs.result(f"{TEMPLATE}/artifacts/template")
    assert set(run) >= PARTS and run["measurements"]
    for name, found in run["measurements"].items():
        outputs.assert_agrees(f"template_{name}", found["value"], of=TEMPLATE)
    for part, whole in (("runs_ended_well", "runs"), ("misuses_refused", "misuses")):
        assert outputs.value(part, TEMPLATE) == outputs.value(whole, TEMPLATE) == 3
    source = _text(f"{TEMPLATE}/artifacts/source/first_experiment.py")
    assert len(source.splitlines()) == outputs.value("source_lines", TEMPLATE)
    compile(source, "first_experiment.py", "exec")


def _text(path: str) -> str:
    return (outputs.out() / path).read_text("utf-8")
