"""Tiny models of ten families: the same for a seed, each with what makes it special."""

import pytest
import torch

from lab.instruments import residual_stream
from lab.instruments.families import CHANGES, VOCABULARY, build


@pytest.mark.parametrize("family", CHANGES)
def test_a_seed_decides_the_model(family):
    one, same, other = (build(family, seed) for seed in (0, 0, 1))
    ids = torch.arange(2, 26)[None]
    with torch.no_grad():
        logits, again, others = (model(ids).logits for model in (one, same, other))
    assert torch.equal(logits, again)
    assert not torch.allclose(logits, others, atol=0.1)
    assert logits.shape == (1, 24, VOCABULARY)
    assert one.config.model_type == family
    for name, value in CHANGES[family].items():
        assert getattr(one.config, name) == value


def test_every_family_has_a_known_residual_stream():
    assert set(residual_stream.FAMILIES) == set(CHANGES)
