"""The loss along base + t·ΔW: two known points, the model left as it was, where it is lowest."""

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lab.instruments import adapters, data, evaluation, landscape, models, trials
from lab.instruments.adapters import LoraSettings
from lab.instruments.training import Settings
from lab.instruments.trials import SweepContext, Trial

TRIAL = Trial(
    0,
    Settings(steps=4, batch_size=2, learning_rate=1e-2, warmup_steps=1),
    LoraSettings(4, 8),
    examples=6,
)


@pytest.fixture(scope="module")
def open_context(tiny_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("landscape")
    drawn = data.split(
        data.load("python-docstrings", models.tiny(0).tokenizer, max_tokens=110),
        train=8,
        evaluation=6,
    )
    data.freeze(folder / "train.jsonl", drawn.train)
    data.freeze(folder / "evaluation.jsonl", drawn.evaluation)
    return SweepContext(
        tiny_folder, folder / "train.jsonl", folder / "evaluation.jsonl", "float32", "cpu", curve=3
    )


@pytest.fixture(scope="module")
def ran(sweep_context, tmp_path_factory):
    return trials.run([TRIAL], sweep_context, tmp_path_factory.mktemp("ran"), workers=1)[TRIAL]


def test_a_stored_trial_is_the_model_that_was_evaluated(sweep_context, ran):
    stage = trials.Stage(sweep_context)
    held_out = [e.encoded for e in stage.evaluation]
    model = stage.adapted(TRIAL, ran.folder)
    assert np.array_equal(evaluation.evaluate(model, held_out).losses, ran.evaluation.losses)
    model.unload()
    start = evaluation.evaluate(stage.adapted(TRIAL, None), held_out).losses
    assert not np.array_equal(start, ran.evaluation.losses)


def test_the_line_goes_through_the_base_and_the_trained_model(sweep_context, ran):
    stage = trials.Stage(sweep_context)
    held_out = [e.encoded for e in stage.evaluation]
    base = evaluation.evaluate(stage.loaded.model, held_out).losses
    model = stage.adapted(TRIAL, ran.folder)
    found = landscape.line(model, held_out, (-0.5, 0.0, 1.0, 2.0))
    assert found.shape == (4, len(base))
    assert np.allclose(found[1], base, atol=1e-6)
    assert np.array_equal(found[2], ran.evaluation.losses)
    doubled = {k: 2 * v if "lora_B" in k else v for k, v in adapters.state(model).items()}
    adapters.restore(model, doubled)
    assert np.array_equal(evaluation.evaluate(model, held_out).losses, found[3])


def test_the_model_is_left_as_it_was(sweep_context, ran):
    model = trials.Stage(sweep_context).adapted(TRIAL, ran.folder)
    before = adapters.state(model)
    with pytest.raises(RuntimeError, match="on the way"), landscape.scaled(model, 0.3):
        assert any(not torch.equal(before[k], v) for k, v in adapters.state(model).items())
        raise RuntimeError("on the way")
    assert all(torch.equal(before[k], v) for k, v in adapters.state(model).items())


@given(st.floats(-0.24, 1.74), st.floats(0.1, 5), st.floats(-3, 3))
def test_the_lowest_place_of_a_parabola_is_its_vertex(vertex, bend, height):
    at = [-0.5 + 0.25 * i for i in range(11)]
    assert landscape.lowest(at, [bend * (t - vertex) ** 2 + height for t in at]) == pytest.approx(
        vertex, abs=1e-6
    )


def test_beyond_the_line_nothing_is_claimed():
    at = [0.0, 0.5, 1.0]
    assert landscape.lowest(at, [3.0, 2.0, 1.0]) == 1.0
    assert landscape.lowest(at, [1.0, 2.0, 3.0]) == 0.0


def test_another_seed_starts_elsewhere(sweep_context):
    stage = trials.Stage(sweep_context)
    one = adapters.state(stage.adapted(TRIAL, None))
    stage = trials.Stage(sweep_context)
    two = adapters.state(stage.adapted(dataclasses.replace(TRIAL, seed=1), None))
    assert all(torch.equal(one[k], two[k]) == ("lora_B" in k) for k in one)
