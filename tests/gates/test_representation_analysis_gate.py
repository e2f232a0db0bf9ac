"""FEAT-015's gate on a real run of a tiny model: it passes, and sees every lie told of it.

A lie is told as an experiment would tell it: what was measured is altered before it is stored, and
all that follows is made anew by the lab's own code, digests included.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gates.representation_analysis import words
from lab.config import load_config
from lab.contract import Context, Inputs, Outcome, conduct
from lab.instruments import models
from lab.representation_analysis import experiment, recording
from lab.representation_analysis.measured import (
    RANDOM_WEIGHTS,
    RAW,
    SHUFFLED,
    WITHOUT_OUTLIERS,
    Observations,
)
from tests.gates import warm
from tests.gates.conftest import ROOT, assert_judges_every_measurement
from tests.soak import mark_soak

GATE = "representation_analysis/test_representation_analysis.py"
CONFIG = ROOT / "lab/representation_analysis/experiment.yaml"
LAYERS, ONSET, DIMENSION = 30, 4, 5  # of the model below
STREAM = "test_stream_agrees_with_the_model[stream]"
CONTROL = "test_stream_agrees_with_the_model[stream_random_weights]"
LOSSES = "test_losses_of_every_intervention_agree_with_the_model"
TARGET = "test_target_is_the_largest_number_of_the_first_token"
SIMILARITY = "test_similarity_agrees_with_the_model"
WRITES = "test_writes_agree_with_the_model"
LENS = "test_lens_agrees_with_the_model"
SIZES = "test_files_have_the_arrays_of_the_plan_and_no_others"
PLAN = "test_run_was_the_planned_one"


def massive_model() -> models.Loaded:
    """Return a random model of 30 layers in which a few tokens get a massive activation.

    The MLP of layer ONSET writes it to one dimension, for three letters; some texts begin so.
    """
    from transformers import LlamaForCausalLM

    loaded = models.tiny(0)
    config = loaded.model.config
    config.num_hidden_layers = LAYERS
    config.tie_word_embeddings = False
    torch.manual_seed(3)  # of seed 0 are the random weights
    model = LlamaForCausalLM(config).eval()
    with torch.no_grad():
        model.model.embed_tokens.weight[:, 7] = 0
        for letter in "AIT":
            (token,) = loaded.tokenizer.encode(letter)
            model.model.embed_tokens.weight[token, 7] = 2.0
        for layer in model.model.layers:  # dimension 7 is the embedding's alone
            layer.self_attn.o_proj.weight[7] = 0
            layer.mlp.down_proj.weight[7] = 0
        mlp = model.model.layers[ONSET].mlp
        for projection in (mlp.gate_proj, mlp.up_proj):
            projection.weight[0] = 0
            projection.weight[0, 7] = 2.0
        mlp.down_proj.weight[:, 0] = 0
        mlp.down_proj.weight[DIMENSION, 0] = 2.0
        for layer in model.model.layers[13:]:  # else layers 12 and 27 are too much alike
            layer.mlp.down_proj.weight *= 30
    return replace(loaded, model=model)


@dataclass(frozen=True)
class Case:
    """An honest run: its observations and outputs."""

    observations: Observations
    environment: dict[str, Any]
    config: Any
    inputs: Path
    out: Path

    def told(self, out: Path, alter: Callable[[Observations], Observations]) -> Path:
        """Write the outputs of altered observations, as the experiment writes them."""
        altered = alter(self.observations)

        def run(ctx: Context) -> Outcome:
            original = experiment.measure
            experiment.measure = lambda _ctx: (altered, self.environment)
            try:
                return experiment.run(ctx)
            finally:
                experiment.measure = original

        return self.conducted(out, run)

    def conducted(self, out: Path, run: Callable[[Context], Outcome]) -> Path:
        """Run an experiment by the lab's own code; return its outputs."""
        out.mkdir(parents=True)
        run.__module__ = experiment.__name__
        entries = json.loads(self.inputs.read_text())
        ctx = Context(self.config, "cpu", 0, Inputs(entries), out, lambda *_: None)
        conduct(experiment.EXPERIMENT, run, ctx)
        return out

    def failing(self, out: Path, *checks: str) -> set[str]:
        """Return which checks fail, by default of all, those marked integrity left out."""
        return warm.failing(GATE, out, self.inputs, checks=checks)


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    """Return an honest run at the planned size."""
    folder = tmp_path_factory.mktemp("representation_analysis")
    models.save(massive_model(), folder / "model")
    inputs = folder / "inputs.json"
    entries = {"smollm2-135m": {"kind": "input", "path": str(folder / "model")}}
    inputs.write_text(json.dumps(entries))
    config = load_config(CONFIG, "cpu")
    ctx = Context(config, "cpu", 0, Inputs(entries), folder, lambda *_: None)
    observations, environment = experiment.measure(ctx)
    case = Case(observations, environment, config, inputs, folder / "out")
    case.told(case.out, lambda honest: honest)
    return case


@pytest.fixture
def mutant(case: Case, tmp_path: Path) -> Path:
    return Path(shutil.copytree(case.out, tmp_path / "copy"))


def test_an_unchanged_run_passes(case):
    assert case.failing(case.out) == set()


def test_the_model_has_what_the_gate_looks_for(case):
    """Else no verdict would be tried on it."""
    measured = json.loads((case.out / "result.json").read_text())["measurements"]
    assert measured["massive_onset_layer"]["value"] == ONSET
    assert measured["massive_layers"]["value"] == LAYERS - ONSET
    assert measured["massive_dimensions"]["value"] == 1
    assert 0 < measured["massive_at_first_token"]["value"] < 1
    assert measured["outlier_tokens_behind_first"]["value"] > 0


def test_it_can_fail_for_every_output_and_every_measurement(case, gates_dir):
    assert_judges_every_measurement(GATE, case.out, case.inputs, gates_dir)


#### lies that are made anew throughout


def altered(part: str, **changes: Callable[[Any], Any]) -> Callable[[Observations], Observations]:
    """Return what changes fields of one part of the observations."""

    def alter(honest: Observations) -> Observations:
        old = getattr(honest, part)
        new = {name: change(getattr(old, name)) for name, change in changes.items()}
        return replace(honest, **{part: replace(old, **new)})

    return alter


def times(factor: float, *index: Any) -> Callable[[np.ndarray], np.ndarray]:
    """Return what multiplies the numbers at an index."""

    def change(array: np.ndarray) -> np.ndarray:
        array = array.copy()
        array[index] = (array[index] * factor).astype(array.dtype)
        return array

    return change


def plus(number: float, *index: Any) -> Callable[[np.ndarray], np.ndarray]:
    """Return what adds to the numbers at an index."""

    def change(array: np.ndarray) -> np.ndarray:
        array = array.copy()
        array[index] += np.asarray(number, dtype=array.dtype)
        return array

    return change


def in_dict(name: str, change: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Return what changes one value of a mapping."""
    return lambda values: dict(values) | {name: change(values[name])}


def another_seed(honest: Observations) -> Observations:
    """Return observations whose random weights are those of seed 1."""
    model = recording.untrained(massive_model().model, 1)
    stream = recording.record(model, torch.from_numpy(honest.ids)).stream
    return replace(honest, random_stream=recording.stream_of(stream))


EVERY = slice(None)
SWAPPED = np.array([0, 2, 1, *range(3, LAYERS)])  # layers
MOVED = np.array([-8e-4, 8e-4], dtype=np.float32)  # logits of each write
LIES: dict[str, tuple[Callable[[Observations], Observations], str]] = {
    "norms grow more": (altered("stream", norms=times(1.01, EVERY, LAYERS)), STREAM),
    "one layer of one text is longer": (altered("stream", norms=times(1.01, 3, 9)), STREAM),
    "a larger massive activation": (altered("stream", top=times(1.02, 2, EVERY)), STREAM),
    "a smaller median": (altered("stream", median=times(0.9)), STREAM),
    "the largest number is elsewhere": (altered("stream", top_dimension=plus(1, 4)), STREAM),
    "only hits at the first token": (
        altered("stream", hits=lambda hits: hits[hits[:, 2] == 0]),
        STREAM,
    ),
    "a hit more": (
        altered("stream", hits=lambda hits: np.concatenate([[[0, 0, 0, 0]], hits])),
        STREAM,
    ),
    "the control is the model": (
        lambda honest: replace(
            honest, random_stream=replace(honest.stream, hits=np.zeros((0, 4), dtype=np.int64))
        ),
        CONTROL,
    ),
    "random weights of another seed": (another_seed, CONTROL),
    "a smaller control": (altered("random_stream", top=times(0.5)), CONTROL),
    "the parts of a layer change places": (
        altered("writes", norms=lambda norms: norms[:, ::-1].copy()),
        WRITES,
    ),
    "a longer write": (altered("writes", norms=times(1.01, 0, 1, 17)), WRITES),
    "attribution of the other sign": (
        altered("writes", attribution=lambda parts: -parts, embedding=lambda e: -e),
        WRITES,
    ),
    "other directions": (altered("writes", cosine=lambda cosine: -cosine), WRITES),
    "the embedding is kept": (altered("writes", stream_cosine=plus(0.05, EVERY, 0)), WRITES),
    "attribution moved to the MLP": (
        altered("writes", attribution=lambda parts: parts[:, ::-1].copy()),
        WRITES,
    ),
    "a little attribution moved to the MLP": (
        altered("writes", attribution=lambda parts: parts + MOVED[None, :, None, None]),
        WRITES,
    ),
    "the lens agrees earlier": (
        altered(
            "lens",
            agrees=lambda agrees: np.maximum(
                agrees, agrees[:, -1:] * (np.arange(LAYERS + 1) > 20)[None, :, None]
            ),
        ),
        LENS,
    ),
    "a divergence that is smoothed": (
        altered("lens", kl=lambda kl: np.concatenate([kl[:, :1], (kl[:, 1:] + kl[:, :-1]) / 2], 1)),
        LENS,
    ),
    "a steadily falling divergence": (
        altered("lens", kl=lambda kl: -np.sort(-kl, axis=1)),
        LENS,
    ),
    "a larger gap by outliers": (
        altered("similarity", pair=in_dict(WITHOUT_OUTLIERS, lambda value: value - 0.01)),
        SIMILARITY,
    ),
    "a smaller error of similarity": (
        altered(
            "similarity", left_out=in_dict(WITHOUT_OUTLIERS, lambda v: v * 0 + v.mean() + 0.01)
        ),
        SIMILARITY,
    ),
    "a smaller error of similarity that is nearly one": (
        altered("similarity", left_out=in_dict(RAW, lambda v: v.mean() + (v - v.mean()) / 2)),
        SIMILARITY,
    ),
    "tokens in another order agree less": (
        altered("similarity", pair=in_dict(SHUFFLED, lambda value: value / 2)),
        SIMILARITY,
    ),
    "the control of similarity is another one": (
        altered("similarity", pair=in_dict(RANDOM_WEIGHTS, lambda value: value - 0.01)),
        SIMILARITY,
    ),
    "a prettier map": (
        altered("similarity", matrices=in_dict("raw", lambda m: m * 0.999)),
        SIMILARITY,
    ),
    "fewer outliers": (
        altered(
            "similarity", outliers=lambda outliers: outliers * (np.arange(outliers.shape[1]) == 0)
        ),
        "test_outliers_are_those_of_the_stream",
    ),
    "another perplexity": (
        altered("interventions", losses=in_dict("zeroed", lambda losses: losses + 0.05)),
        LOSSES,
    ),
    "every loss is a little lower": (
        altered("interventions", losses=in_dict("mean", lambda losses: losses * (1 - 1.5e-4))),
        LOSSES,
    ),
    "the mean costs nothing": (
        altered("interventions", losses=lambda losses: dict(losses) | {"mean": losses["base"]}),
        LOSSES,
    ),
    "a control that is the run": (
        altered(
            "interventions", losses=lambda losses: dict(losses) | {"other_1": losses["other_0"]}
        ),
        LOSSES,
    ),
    "chosen control dimensions": (
        altered("interventions", target=lambda target: replace(target, others=(1, 2, 3))),
        TARGET,
    ),
    "another mean": (
        altered("interventions", target=lambda target: replace(target, mean=target.mean * 1.01)),
        TARGET,
    ),
    "another layer": (
        altered("interventions", target=lambda target: replace(target, layer=target.layer + 1)),
        TARGET,
    ),
    "a layer that costs more": (
        altered("interventions", ablated=plus(0.1, EVERY, 1, 7)),
        LOSSES,
    ),
    "attention and MLP change places": (
        altered("interventions", ablated=lambda losses: losses[:, ::-1].copy()),
        LOSSES,
    ),
    "two layers' costs change places": (
        altered("interventions", ablated=lambda losses: losses[:, :, SWAPPED]),
        LOSSES,
    ),
    "fewer replaced texts": (altered("interventions", ablated=lambda losses: losses[:4]), SIZES),
    "other tokens": (
        lambda honest: replace(honest, ids=np.roll(honest.ids, 1, axis=0)),
        "test_tokens_are_those_of_the_text[ids]",
    ),
    "other kinds": (
        lambda honest: replace(honest, kinds=(honest.kinds + 1) % 5),
        "test_tokens_are_those_of_the_text[kinds]",
    ),
    "the text of the interventions is another one": (
        lambda honest: replace(honest, test_ids=honest.test_ids[::-1].copy()),
        "test_tokens_are_those_of_the_text[test_ids]",
    ),
}


SHORT = {  # one of each check, and those that only tight tolerances see
    "norms grow more",
    "only hits at the first token",
    "random weights of another seed",
    "the parts of a layer change places",
    "a little attribution moved to the MLP",
    "a divergence that is smoothed",
    "a smaller error of similarity that is nearly one",
    "the control of similarity is another one",
    "fewer outliers",
    "every loss is a little lower",
    "two layers' costs change places",
    "chosen control dimensions",
    "fewer replaced texts",
    "other tokens",
    "the text of the interventions is another one",
}


@pytest.mark.parametrize("lie", mark_soak(LIES, short=SHORT))
def test_a_lie_told_by_the_labs_own_code_is_seen(case, tmp_path, lie):
    alter, check = LIES[lie]
    out = case.told(tmp_path / "out", alter)
    assert case.failing(out, check) == {check}


#### outputs that are changed afterwards


def changed_result(mutant: Path, mutate: Callable[[dict[str, Any]], Any]) -> None:
    """Change result.json, and nothing else."""
    path = mutant / "result.json"
    result = json.loads(path.read_text())
    mutate(result)
    path.write_text(json.dumps(result))


@pytest.mark.parametrize(
    ("path", "other"),
    [
        ("config sequences count", 6),
        ("config sequences length", 64),
        ("config test count", 8),
        ("config test ablated", 4),
        ("config lens every", 16),
        ("config cka layers", [12, 13]),
        ("config interventions dimensions", 1),
        ("config probes ridge", 1.0),
        ("config dtype", "bfloat16"),
        ("seed", 1),
        ("profile", "gpu"),
    ],
)
def test_other_settings_than_planned_are_seen(case, mutant, path, other):
    def change(result: dict[str, Any]) -> None:
        *parts, last = path.split()
        settings = result["environment"]
        for part in parts:
            settings = settings[part]
        settings[last] = other

    changed_result(mutant, change)
    check = "test_probe_settings_are_those_of_the_plan" if "probes" in path else PLAN
    assert case.failing(mutant, check) == {check}


VERDICTS = (
    ("stream grows from", "stream does not grow from"),
    ("stream does not grow from", "stream grows from"),
    (" of them at the first token", " of them behind the first token"),
    ("training made them", "so this text says nothing about training"),
    (
        "the model does not need this number",
        "the model needs this number, and its mean is not enough",
    ),
    ("word starts", "blanks"),
    ("are unlike, mean", "are alike, mean"),
    ("tells little of what it is worth", "does not tell what it is worth"),
    ("does not tell what it is worth", "tells little of what it is worth"),
    ("is not what it is worth either", "is what it is worth"),
    ("is part of what it is worth", "is what it is worth"),
    ("before the last layer", "in the middle"),
    ("make the layers look alike", "do not make the layers look alike"),
    ("the likeness is not that of a few tokens", "the likeness is that of a few tokens"),
    ("layers are less alike than random ones", "layers are more alike than random ones"),
    ("layers are more alike than random ones", "layers are less alike than random ones"),
)


def test_every_verdict_that_is_turned_around_is_seen(case, tmp_path, monkeypatch):
    """The gate's comparison is called in this process, on each finding of its own."""
    monkeypatch.setenv("PHASES_OUT", str(case.out))
    monkeypatch.setenv("PHASES_INPUTS", str(case.inputs))
    findings = json.loads((case.out / "result.json").read_text())["findings"]
    expected = words.findings()
    turned = set()
    for old, new in VERDICTS:
        for number, honest in enumerate(expected):
            assert words.agree(findings[number], honest)
            lie = findings[number].replace(old, new)
            if lie != findings[number]:
                turned.add(number)
                assert not words.agree(lie, honest), new
    assert turned == set(range(len(expected))), "a verdict of each finding is turned around"


@pytest.mark.parametrize(
    ("lie", "honest"),
    [
        ("Dimension 508 of 24 texts", "Dimension 507 of 24 texts"),
        ("at depth 300", "at depth 301"),
        ("times 1.234", "times 1.33"),
        ("grows", "does not grow"),
    ],
)
def test_a_number_or_word_that_is_another_one_is_seen(lie, honest):
    assert not words.agree(lie, honest)


def test_a_rounding_is_no_lie():
    assert words.agree("times 1.234 and 23,969", "times 1.235 and 23,968")


def test_findings_in_another_place_are_seen(case, mutant):
    changed_result(mutant, lambda result: result["findings"].reverse())
    check = "test_findings_say_what_follows_from_the_numbers"
    assert case.failing(mutant, check) == {check}


@pytest.mark.parametrize("name", ["stream_norms", "causal_test", "write_costs"])
def test_labels_that_change_places_are_seen(case, mutant, name):
    path = mutant / f"figures/{name}.json"
    figure = json.loads(path.read_text())
    if name == "causal_test":
        figure["series"][0]["x"].reverse()
    else:
        first, second = figure["series"][:2]
        first["label"], second["label"] = second["label"], first["label"]
    path.write_text(json.dumps(figure))
    check = f"test_figure_shows_what_was_stored[{name}]"
    assert case.failing(mutant, check) == {check}
