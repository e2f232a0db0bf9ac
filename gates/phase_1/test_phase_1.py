"""Exit gate of phase 1: four results agree, a run beats its control, a template is usable.

PHASES_OUT holds one folder per feature. What the features' own gates computed is not repeated here;
one claim of each result is recomputed from its stored files, so that no result can be exchanged for
another after it was judged.
"""

from __future__ import annotations

import math
from typing import Any

import pytest

from gates.shared import outputs, standard
from gates.shared.documents import fillings, read, shows

FEATURES = ("FEAT-001", "FEAT-002", "FEAT-003", "FEAT-004")
QLORA, DOCUMENTS, QUESTIONS, TEMPLATE = FEATURES
PARTS = {
    "experiment",
    "title",
    "question",
    "hypothesis",
    "method",
    "headline",
    "measurements",
    "tables",
    "findings",
    "environment",
    "files",
}
LOSSES = {"eval_loss_base": "base", "eval_loss_true": "true", "eval_loss_shuffled": "shuffled"}
ARRAYS = f"{QLORA}/artifacts/evaluation.safetensors"
MARGIN = 0.2  # nats per token; the shuffled control learns the format of answers, and only that
MIN_QUESTIONS = 20


def token_losses() -> dict[str, dict[str, Any]]:
    """Return evaluation (base, true, shuffled) -> what the stored arrays say of it.

    {"mean": nats per token, "sums": nats of each example, "counts": tokens of each example}.
    """
    return dict(outputs.cached("phase 1 losses", [ARRAYS], compute_token_losses))


def compute_token_losses() -> dict[str, dict[str, Any]]:
    import numpy as np
    from safetensors.numpy import load_file

    arrays = load_file(outputs.out() / ARRAYS)
    example_ids = arrays["example_ids"]  # [supervised tokens]
    counts = np.bincount(example_ids)  # supervised tokens of each example, [examples]
    summaries = {}
    for name in LOSSES.values():
        losses = arrays[f"{name}.losses"].astype(np.float64)  # [supervised tokens]
        sums = np.bincount(example_ids, losses)  # [examples]
        summaries[name] = {
            "mean": float(losses.mean()),
            "sums": sums.tolist(),
            "counts": counts.tolist(),
        }
    return summaries


@pytest.mark.integrity
@pytest.mark.parametrize("feature", FEATURES)
def test_outputs_are_those_that_the_feature_wrote(feature: str) -> None:
    standard.assert_outputs_are_those_of_the_feature(feature)


@pytest.mark.parametrize("feature", FEATURES)
def test_result_is_present_and_well_formed(feature: str) -> None:
    standard.assert_feature_is_whole(feature, PARTS)


@pytest.mark.parametrize("feature", FEATURES)
def test_measurements_are_consistent_in_themselves(feature: str) -> None:
    for name, measurement in outputs.result(feature)["measurements"].items():
        # 1. A unit, and a standard error only where there can be one.
        what = f"{feature} {name}"
        stderr, values = measurement.get("stderr"), measurement.get("values")
        assert isinstance(measurement["unit"], str), f"{what} has no unit"
        assert not (measurement.get("exact") and stderr is not None), (
            f"{what} is exact and has a standard error"
        )
        assert stderr is None or stderr >= 0, f"{what} has a negative standard error"

        # 2. A sample agrees with its values.
        if values is not None:
            standard.assert_sample_agrees(what, measurement)


@pytest.mark.parametrize(("measurement", "run"), LOSSES.items())
def test_loss_follows_from_the_stored_tokens(measurement: str, run: str) -> None:
    assert abs(outputs.value(measurement, QLORA) - token_losses()[run]["mean"]) < 0.01


def test_instrumented_run_beats_its_control() -> None:
    # 1. The gap, with the standard error of a ratio estimator over examples: the tokens of one
    # example depend on each other, examples do not (Cochran, Sampling Techniques, 1977, ch. 6).
    true, shuffled = token_losses()["true"], token_losses()["shuffled"]
    gap = shuffled["mean"] - true["mean"]
    squares = 0.0
    for of_shuffled, of_true, n in zip(shuffled["sums"], true["sums"], true["counts"], strict=True):
        squares += (of_shuffled - of_true - gap * n) ** 2
    examples, tokens = len(true["counts"]), sum(true["counts"])
    stderr = math.sqrt(squares * examples / (examples - 1)) / tokens
    assert gap - 1.96 * stderr >= MARGIN, (
        f"got a gap of {gap:.3f} ± {stderr:.3f} nats; expected at least {MARGIN} at its lower end"
    )

    # 2. The stated gap, and the one between the stated losses, are this gap.
    assert abs(outputs.value("control_gap", QLORA) - gap) < 0.01
    stated = outputs.value("eval_loss_shuffled", QLORA) - outputs.value("eval_loss_true", QLORA)
    assert stated >= MARGIN
    assert abs(stated - gap) < 0.02


def test_training_lowered_the_loss() -> None:
    losses = token_losses()
    assert losses["true"]["mean"] < losses["base"]["mean"]
    assert outputs.value("eval_loss_true", QLORA) < outputs.value("eval_loss_base", QLORA)


def test_documents_show_the_numbers_of_this_phase() -> None:
    folder = outputs.out() / DOCUMENTS
    count = 0
    for path in sorted((folder / "rendered").glob("*.md")):
        page = read(path.name, (folder / "documents" / path.name).read_text("utf-8"))
        for (feature, name), text in fillings(page, path.read_text("utf-8")):
            assert feature in FEATURES, (
                f"{path.name} takes a number from {feature}, which this phase has not"
            )
            measurement = outputs.measurement(name, feature)
            assert shows(text, measurement["value"], measurement["unit"]), (
                f"{path.name} shows {feature}.{name} as {text!r}"
            )
            count += 1
    assert count > 0
    assert outputs.value("placeholders", DOCUMENTS) == count
    assert outputs.value("filled", DOCUMENTS) == count
    assert outputs.value("problems", DOCUMENTS) == 0


def test_questions_are_those_that_were_counted() -> None:
    lines = read_text(f"{QUESTIONS}/QUESTIONS.md").splitlines()
    count = sum(line.startswith("### Q-") for line in lines)
    assert count == outputs.value("questions", QUESTIONS) >= MIN_QUESTIONS
    with_question = outputs.value("experiments_with_a_question", QUESTIONS)
    assert with_question == outputs.value("experiments", QUESTIONS)
    assert outputs.value("problems", QUESTIONS) == 0


def test_template_is_usable() -> None:
    # 1. The run of the copied template, and the measurements made from it.
    result = outputs.result(f"{TEMPLATE}/artifacts/template")
    assert set(result) >= PARTS and result["measurements"]
    for name, measurement in result["measurements"].items():
        outputs.assert_agrees(f"template_{name}", measurement["value"], of=TEMPLATE)

    # 2. Every run ended well, and every misuse was refused.
    for part, whole in (("runs_ended_well", "runs"), ("misuses_refused", "misuses")):
        assert outputs.value(part, TEMPLATE) == outputs.value(whole, TEMPLATE) == 3

    # 3. The source is the one that was counted, and it is Python.
    source = read_text(f"{TEMPLATE}/artifacts/source/first_experiment.py")
    assert len(source.splitlines()) == outputs.value("source_lines", TEMPLATE)
    compile(source, "first_experiment.py", "exec")


def read_text(path: str) -> str:
    return (outputs.out() / path).read_text("utf-8")
