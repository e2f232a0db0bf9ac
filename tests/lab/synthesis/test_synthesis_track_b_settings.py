"""What track B's questions and candidates say of a run is what the configs say."""

from pathlib import Path
from typing import Any

import yaml

from lab.config import load_config
from lab.synthesis.tracks import TRACKS

ROOT = Path(__file__).resolve().parents[3]
DOCUMENT = yaml.safe_load(TRACKS["track-b"].questions.read_text("utf-8"))
ASKED = {question["id"]: " ".join(question["ask"].split()) for question in DOCUMENT["questions"]}


def config(topic: str) -> dict[str, Any]:
    return dict(load_config(ROOT / "lab" / topic / "experiment.yaml", "cpu"))


def test_examples_are_those_of_the_trainings_that_are_compared() -> None:
    plan = config("induction_heads")["plan"]
    of_one_training = plan["steps"] * plan["batch"]
    for candidate in DOCUMENT["candidates"]:
        trainings = 1 if "ablation" in candidate["of"] else 2
        assert candidate["examples"] == trainings * of_one_training, candidate["name"]


def test_questions_state_the_settings() -> None:
    induction = config("induction_heads")["plan"]
    assert f"for {induction['steps']} steps" in ASKED["step-of-copying"]
    assert induction["loss_share"] == 0.5, "half of that of guessing"

    views = config("attention_views")
    assert f"text of {views['sequences']['length']} tokens" in ASKED["a-token-repeated"]
    assert f"layers from {views['layers']['late']} on" in ASKED["how-far-back"]
    assert f"more than {views['thresholds']['induction']} " in ASKED["how-many-induction-heads"]
    assert views["ablation"]["heads"] == 10, "the ten heads"

    comparison = config("attention_comparison")
    assert (
        f"training of {comparison['training']['steps']} steps" in ASKED["attention-or-loss-first"]
    )
    assert comparison["snapshot_every"] == 2, "every two steps"
    assert comparison["ablation"]["heads"] == 10, "the ten heads"

    assert f"moved by {config('attention_extraction')['shift']}," in ASKED["only-the-distance"]
