"""The loss along an update: two known points, the model restored, where it is lowest."""

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lab.instruments import adapters, data, evaluation, landscape, trials
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
def sweep_context(tiny_folder, chat_examples, tmp_path_factory):
    folder = tmp_path_factory.mktemp("landscape")
    drawn = data.split(chat_examples, train=8, evaluation=6)
    data.write_examples(folder / "train.jsonl", drawn.train)
    data.write_examples(folder / "evaluation.jsonl", drawn.evaluation)
    return SweepContext(
        tiny_folder, folder / "train.jsonl", folder / "evaluation.jsonl", "float32", "cpu", curve=3
    )


@pytest.fixture(scope="module")
def result(sweep_context, tmp_path_factory):
    return trials.run([TRIAL], sweep_context, tmp_path_factory.mktemp("result"), workers=1)[TRIAL]


def test_a_stored_trial_is_the_model_that_was_evaluated(sweep_context, result):
    stage = trials.Stage(sweep_context)
    held_out = [e.encoded for e in stage.evaluation]
    model = stage.adapted(TRIAL, result.folder)
    assert np.array_equal(evaluation.evaluate(model, held_out).losses, result.evaluation.losses)
    model.unload()
    start = evaluation.evaluate(stage.adapted(TRIAL, None), held_out).losses
    assert not np.array_equal(start, result.evaluation.losses)


def test_the_line_goes_through_the_base_and_the_trained_model(sweep_context, result):
    stage = trials.Stage(sweep_context)
    held_out = [e.encoded for e in stage.evaluation]
    base = evaluation.evaluate(stage.loaded.model, held_out).losses
    model = stage.adapted(TRIAL, result.folder)
    losses = landscape.loss_along_update(model, held_out, (-0.5, 0.0, 1.0, 2.0))
    assert losses.shape == (4, len(base))
    assert np.allclose(losses[1], base, atol=1e-6)
    assert np.array_equal(losses[2], result.evaluation.losses)
    doubled = {k: 2 * v if "lora_B" in k else v for k, v in adapters.state(model).items()}
    adapters.restore(model, doubled)
    assert np.array_equal(evaluation.evaluate(model, held_out).losses, losses[3])


def test_the_model_is_restored_after_an_error(sweep_context, result):
    model = trials.Stage(sweep_context).adapted(TRIAL, result.folder)
    before = adapters.state(model)
    with pytest.raises(RuntimeError, match="on the way"), landscape.scaled_update(model, 0.3):
        assert any(not torch.equal(before[k], v) for k, v in adapters.state(model).items())
        raise RuntimeError("on the way")
    assert all(torch.equal(before[k], v) for k, v in adapters.state(model).items())


@given(st.floats(-0.24, 1.74), st.floats(0.1, 5), st.floats(-3, 3))
def test_the_minimum_of_a_parabola_is_its_vertex(vertex, bend, height):
    alphas = [-0.5 + 0.25 * i for i in range(11)]
    losses = [bend * (alpha - vertex) ** 2 + height for alpha in alphas]
    assert landscape.lowest_alpha(alphas, losses) == pytest.approx(vertex, abs=1e-6)


def test_beyond_the_line_nothing_is_claimed():
    alphas = [0.0, 0.5, 1.0]
    assert landscape.lowest_alpha(alphas, [3.0, 2.0, 1.0]) == 1.0
    assert landscape.lowest_alpha(alphas, [1.0, 2.0, 3.0]) == 0.0


def test_another_seed_starts_elsewhere(sweep_context):
    stage = trials.Stage(sweep_context)
    one = adapters.state(stage.adapted(TRIAL, None))
    stage = trials.Stage(sweep_context)
    two = adapters.state(stage.adapted(dataclasses.replace(TRIAL, seed=1), None))
    assert all(torch.equal(one[k], two[k]) == ("lora_B" in k) for k in one)
