"""Full fine-tuning: only the linear layers move, and what is evaluated is what is stored."""

import pytest
import torch

from lab.instruments import evaluation, full_tuning, models, training
from lab.instruments.full_tuning import FullTuningError
from lab.instruments.training import Settings

SETTINGS = Settings(steps=3, batch_size=2, learning_rate=1e-3, warmup_steps=1)


@pytest.fixture(scope="module")
def examples(chat_examples):
    return [e.encoded for e in chat_examples[:8]]


def silent(done, step, optimizer):
    pass


def weights(model):
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def test_linear_layers_move_and_nothing_else_does(examples):
    loaded = models.tiny(0)
    before = weights(loaded.model)
    steps, update = full_tuning.tune(loaded, examples, SETTINGS, silent)
    after = weights(loaded.model)
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved == {f"{name}.weight" for name in update}
    assert len(update) == 14
    assert len(steps) == 3
    assert not any(p.requires_grad for p in loaded.model.parameters())


def test_the_model_is_left_as_base_plus_the_returned_update(examples):
    loaded = models.tiny(0)
    before = {
        name: weight.detach().clone()
        for name, weight in full_tuning.linear_parameters(loaded.model).items()
    }
    _, update = full_tuning.tune(loaded, examples, SETTINGS, silent)
    losses = evaluation.evaluate(loaded.model, examples).losses
    for name, weight in full_tuning.linear_parameters(loaded.model).items():
        assert update[name].dtype == torch.bfloat16
        assert torch.equal(weight, before[name] + update[name].float())
    full_tuning.set_weights(
        loaded.model, before, {name: torch.zeros_like(delta) for name, delta in update.items()}
    )
    assert (evaluation.evaluate(loaded.model, examples).losses != losses).any()
    full_tuning.set_weights(loaded.model, before, update)
    assert (evaluation.evaluate(loaded.model, examples).losses == losses).all()


def test_it_learns_what_it_is_shown(examples):
    loaded = models.tiny(0)
    before = float(evaluation.evaluate(loaded.model, examples).losses.mean())
    full_tuning.tune(loaded, examples, Settings(30, 8, 3e-3, 2), silent)
    assert float(evaluation.evaluate(loaded.model, examples).losses.mean()) < before - 0.5


def test_the_gradient_is_the_slope_of_the_loss(examples):
    loaded, batch, step = models.tiny(0), examples[:3], 1e-2
    G = full_tuning.gradient(loaded.model, batch)
    assert set(G) == set(full_tuning.linear_parameters(loaded.model))
    name = "model.layers.1.mlp.down_proj"
    weight = full_tuning.linear_parameters(loaded.model)[name]
    direction = G[name] / torch.linalg.norm(G[name])

    def loss(t: float) -> float:
        with torch.no_grad():
            weight.add_(t * direction)
            mean = float(evaluation.evaluate(loaded.model, batch).losses.mean(dtype="float64"))
            weight.sub_(t * direction)
        return mean

    slope = (loss(step) - loss(-step)) / (2 * step)
    assert slope == pytest.approx(float(torch.linalg.norm(G[name])), rel=0.02)


def test_the_gradient_leaves_the_model_without_gradients(examples):
    model = models.tiny(0).model
    full_tuning.gradient(model, examples[:2])
    assert all(p.grad is None and not p.requires_grad for p in model.parameters())


def test_the_first_step_is_the_loops_own(examples):
    """The recorded gradient norm of step 0 is the norm of what `gradient` returns."""
    G = full_tuning.gradient(models.tiny(0).model, examples[:2])
    steps, _ = full_tuning.tune(models.tiny(0), examples, SETTINGS, silent)
    norm = sum(float((g.double() ** 2).sum()) for g in G.values()) ** 0.5
    assert steps[0].grad_norm == pytest.approx(norm, rel=1e-5)
    assert steps[0].learning_rate == training.learning_rate(0, SETTINGS)


def test_weights_that_cannot_hold_small_steps_are_refused(examples):
    loaded = models.tiny(0)
    loaded.model.to(torch.bfloat16)
    with pytest.raises(FullTuningError, match=r"bfloat16; expected torch\.float32"):
        full_tuning.tune(loaded, examples, SETTINGS, silent)
