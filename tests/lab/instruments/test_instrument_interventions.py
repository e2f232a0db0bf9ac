"""Interventions: what is set to what it is changes no bit; what is changed reaches later tokens."""

from contextlib import contextmanager

import pytest
import torch

from lab.instruments import models, sequences
from lab.instruments.interventions import coordinate_set, started_at, write_replaced

VOCABULARY = 259


def ids():
    return sequences.random_tokens(VOCABULARY, 2, 20, seed=0)


def logits(model):
    with torch.no_grad():
        return model(ids(), use_cache=False).logits


def stream_entering(model, layer):
    with torch.no_grad():
        return model(ids(), use_cache=False, output_hidden_states=True).hidden_states[layer]


@contextmanager
def recorded(module):
    """Record the output of a module in a list."""
    outputs = []

    def hook(_module, _inputs, output):
        outputs.append(output[0] if isinstance(output, tuple) else output)

    handle = module.register_forward_hook(hook)
    try:
        yield outputs
    finally:
        handle.remove()


def part_of(model, layer, part):
    family = models.architecture(model.config)
    name = family.attention if part == "attention" else family.mlp
    return model.get_submodule(f"{family.layers}.{layer}.{name}")


def test_a_coordinate_set_to_what_it_is_changes_no_bit(family_model):
    plain = logits(family_model)
    stream = stream_entering(family_model, 1)
    value = float(stream[0, 3, 5])
    with coordinate_set(family_model, 0, 3, 5, value):
        assert torch.equal(logits(family_model)[0], plain[0])


def test_a_changed_coordinate_reaches_this_token_and_later_ones_only(family_model):
    plain = logits(family_model)
    with coordinate_set(family_model, 0, 7, 5, 50.0):
        changed = logits(family_model)
        assert torch.equal(stream_entering(family_model, 1)[:, 7, 5], torch.tensor([50.0, 50.0]))
    torch.testing.assert_close(changed[:, :7], plain[:, :7])
    assert not torch.allclose(changed[:, 7], plain[:, 7])
    assert not torch.allclose(changed[:, 8:], plain[:, 8:])
    assert torch.equal(logits(family_model), plain), "nothing is left"


@pytest.mark.parametrize("part", ["attention", "mlp"])
def test_a_replaced_write_is_the_vector_from_the_first_position_on(family_model, part):
    plain = logits(family_model)
    vector = torch.arange(family_model.config.hidden_size) / 100
    with (
        write_replaced(family_model, 1, part, vector, first=4),
        recorded(part_of(family_model, 1, part)) as outputs,
    ):
        changed = logits(family_model)
    assert torch.equal(outputs[0][:, 4:], vector.expand(2, 16, -1))
    assert torch.equal(changed[:, :4], plain[:, :4])
    assert not torch.allclose(changed[:, 4:], plain[:, 4:])
    assert torch.equal(logits(family_model), plain), "nothing is left"


@pytest.mark.parametrize("part", ["attention", "mlp"])
def test_a_write_replaced_nowhere_changes_no_bit(family_model, part):
    plain = logits(family_model)
    vector = torch.ones(family_model.config.hidden_size)
    with write_replaced(family_model, 0, part, vector, first=20):
        assert torch.equal(logits(family_model), plain)


@pytest.mark.parametrize("layer", [0, 1])
def test_started_at_a_layer_with_its_own_stream_changes_no_bit(family_model, layer):
    plain = logits(family_model)
    stream = stream_entering(family_model, layer)
    with started_at(family_model, layer, stream):
        assert torch.equal(logits(family_model), plain)
    with started_at(family_model, layer, stream + 1):
        assert not torch.allclose(logits(family_model), plain)
    with started_at(family_model, 1, stream_entering(family_model, 1)):
        family = models.architecture(family_model.config)
        with torch.no_grad():
            first = family_model.get_submodule(f"{family.layers}.0")
            assert torch.equal(first(stream), stream), "an earlier layer does nothing"
    assert torch.equal(logits(family_model), plain), "nothing is left"


def test_an_error_leaves_the_model_as_it_was(tiny):
    plain = logits(tiny.model)
    stream = stream_entering(tiny.model, 1)
    vector = torch.ones(tiny.model.config.hidden_size)
    for changed in (
        coordinate_set(tiny.model, 0, 0, 0, 9.0),
        write_replaced(tiny.model, 0, "mlp", vector, first=0),
        started_at(tiny.model, 1, stream + 1),
    ):
        with pytest.raises(ZeroDivisionError), changed:
            _ = 1 / 0
        assert torch.equal(logits(tiny.model), plain)


def test_a_layer_that_does_not_exist_is_refused(tiny):
    with pytest.raises(IndexError), coordinate_set(tiny.model, 9, 0, 0, 0.0):
        pass
