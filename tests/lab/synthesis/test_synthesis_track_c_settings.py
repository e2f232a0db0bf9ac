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
ASKED = {question["id"]: " ".join(question["ask"].split()) for question in DOCUMENT["questions"]}
LAYERS = 30  # of SmolLM2-135M


def config(topic: str) -> dict[str, Any]:
    return dict(load_config(ROOT / "lab" / topic / "experiment.yaml", "cpu"))


def test_examples_are_the_tokens_that_both_settings_read_of_a_text() -> None:
    analysis = config("representation_analysis")
    text, test = analysis["sequences"]["length"], analysis["test"]["length"]
    function = analysis["probes"]["tokens"]
    tokens = {
        "FEAT-015.cka_outlier_gap": text,
        "FEAT-015.cka_first_token_gap": text,
        "FEAT-015.probe_part_over_identity": function,
        "FEAT-015.probe_part_selectivity": function,
        "FEAT-015.probe_part_over_random_weights": 2 * function,  # two models read it
        "FEAT-015.attention_rise": test * (1 + LAYERS),
        "FEAT-015.mlp_rise": test * (1 + LAYERS),
        "FEAT-015.norm_ablation_correlation": test * (1 + 2 * LAYERS),
    }
    assert {item["of"]: item["examples"] for item in DOCUMENT["candidates"]} == tokens


def test_questions_state_the_settings() -> None:
    assert f"Of {LONG:,} tokens" in ASKED["tensors-or-statistics"]
    massive = ASKED["dimensions-with-massive-activations"]
    assert f"above {MASSIVE:g} that is also more than {TIMES_MEDIAN:g} times" in massive

    analysis = config("representation_analysis")
    assert f"texts of {analysis['test']['length']} tokens" in ASKED["replaced-by-the-mean"]
    first, second = analysis["cka"]["layers"]
    for name in ("similar-by-outliers", "without-the-first-token", "most-alike"):
        assert f"layers {first} and {second}" in ASKED[name], name
