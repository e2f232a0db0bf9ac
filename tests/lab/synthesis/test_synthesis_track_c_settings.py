"""What track C's questions and candidates say of a run is what the configs say."""

from pathlib import Path
from typing import Any

import yaml

from lab.activation_extraction.numbers import LONG
from lab.config import load_config
from lab.representation_analysis.recording import MASSIVE, TIMES_MEDIAN
from lab.synthesis.tracks import TRACKS

ROOT = Path(__file__).resolve().parents[3]
DOCUMENT = yaml.safe_load(TRACKS["track-c"].questions.read_text("utf-8"))
CANDIDATES = DOCUMENT["candidates"]
ASKED = {question["id"]: " ".join(question["ask"].split()) for question in DOCUMENT["questions"]}
LAYERS = 30  # of SmolLM2-135M
PACKAGES = 18  # of Python 3.11 that the test functions of the probes are in


def config(topic: str) -> dict[str, Any]:
    return dict(load_config(ROOT / "lab" / topic / "experiment.yaml", "cpu"))


def test_examples_are_the_tokens_that_both_settings_read_of_a_text() -> None:
    analysis = config("representation_analysis")
    text, test = analysis["sequences"]["length"], analysis["test"]["length"]
    probes = analysis["probes"]
    package = probes["tokens"] * probes["test"] // PACKAGES
    tokens = {
        "cka_outlier_gap": text,
        "cka_first_token_gap": text,
        "probe_part_over_identity": package,
        "probe_part_selectivity": package,
        "probe_part_over_random_weights": 2 * package,  # two models read it
        "attention_rise": test * (1 + LAYERS),
        "mlp_rise": test * (1 + LAYERS),
        "norm_ablation_correlation": test * (1 + 2 * LAYERS),
    }
    assert by_measurement("examples") == tokens


def test_what_is_read_once_are_the_functions_of_the_fit_and_the_texts_of_the_means() -> None:
    analysis = config("representation_analysis")
    probes, texts = analysis["probes"], analysis["sequences"]
    functions = probes["tokens"] * (probes["train"] + probes["validation"])
    of_means = texts["count"] * texts["length"]
    tokens = {
        "cka_outlier_gap": 0,
        "cka_first_token_gap": 0,
        "probe_part_over_identity": functions,
        "probe_part_selectivity": functions,
        "probe_part_over_random_weights": 2 * functions,
        "attention_rise": of_means,
        "mlp_rise": of_means,
        "norm_ablation_correlation": of_means,
    }
    assert by_measurement("once") == tokens


def by_measurement(field: str) -> dict[str, int]:
    """Return a number of each candidate, by the measurement of its effect."""
    return {item["of"].removeprefix("FEAT-015."): item.get(field, 0) for item in CANDIDATES}


def test_questions_state_the_settings() -> None:
    assert f"Of {LONG:,} tokens" in ASKED["tensors-or-statistics"]
    massive = ASKED["dimensions-with-massive-activations"]
    assert f"above {MASSIVE:g} that is also more than {TIMES_MEDIAN:g} times" in massive

    analysis = config("representation_analysis")
    assert f"texts of {analysis['test']['length']} tokens" in ASKED["replaced-by-the-mean"]
    first, second = analysis["cka"]["layers"]
    for name in ("similar-by-outliers", "without-the-first-token", "most-alike"):
        assert f"layers {first} and {second}" in ASKED[name], name
