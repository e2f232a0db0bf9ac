"""Ablation: the named heads contribute nothing, all others what they did."""

import pytest
import torch

from lab.instruments import adapters, models, sequences
from lab.instruments.ablation import zeroed
from lab.instruments.attention import CaptureError

VOCABULARY = 259


def ids():
    return sequences.random_tokens(VOCABULARY, 2, 20, seed=0)


def logits(model):
    with torch.no_grad():
        return model(ids(), use_cache=False).logits


def test_an_ablated_head_contributes_nothing(family_model):
    """Its columns of the output projection no longer matter; those of another head do."""
    model = family_model.eval()
    width = model.config.hidden_size // model.config.num_attention_heads

    def without_columns(head):
        """Set the columns that read a head to 0, as an independent way to ablate it."""
        names = ("o_proj", "dense", "c_proj")
        part = next(
            getattr(m, n)
            for m in model.modules()
            if getattr(m, "layer_idx", None) == 1
            for n in names
            if hasattr(m, n)
        )
        is_transposed = type(part).__name__ == "Conv1D"
        weight = part.weight.data.T if is_transposed else part.weight.data
        kept = weight[:, head * width : (head + 1) * width].clone()
        weight[:, head * width : (head + 1) * width] = 0
        result = logits(model)
        weight[:, head * width : (head + 1) * width] = kept
        return result

    with zeroed(model, [(1, 2)]):
        ablated = logits(model)
    torch.testing.assert_close(ablated, without_columns(2))
    assert not torch.allclose(ablated, logits(model))
    assert not torch.allclose(ablated, without_columns(3))


def test_no_head_is_no_change_and_nothing_is_left(tiny):
    plain = logits(tiny.model)
    with zeroed(tiny.model, []):
        assert torch.equal(plain, logits(tiny.model))
    with pytest.raises(ZeroDivisionError), zeroed(tiny.model, [(0, 0), (1, 3)]):
        _ = 1 / 0
    assert torch.equal(plain, logits(tiny.model))


def test_with_an_adapter(tiny_folder):
    loaded = models.load(tiny_folder, dtype=torch.float32)
    adapted = adapters.attach(loaded, adapters.LoraSettings(r=4, lora_alpha=8), 0)
    every = [(layer, head) for layer in range(2) for head in range(4)]
    with zeroed(adapted, every):
        none = logits(adapted)
    with zeroed(adapted, every[:1]):
        one = logits(adapted)
    assert not torch.allclose(none, one)
    assert not torch.allclose(one, logits(adapted))


@pytest.mark.parametrize("head", [(2, 0), (0, 4), (-1, 0)])
def test_a_head_that_does_not_exist_is_refused(tiny, head):
    with pytest.raises(CaptureError, match="does not exist; the model has 2 layers of 4 heads"):
        zeroed(tiny.model, [head]).__enter__()
