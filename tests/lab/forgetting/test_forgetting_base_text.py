"""The base's own text: drawn from its distribution, with divergence 0 where nothing was changed."""

import math

import numpy as np
import pytest
import torch

from lab.forgetting import base_text
from lab.instruments import adapters, models
from lab.instruments.adapters import LoraSettings


@pytest.fixture(scope="module")
def texts(tiny):
    return base_text.sample(tiny.model, tiny.tokenizer, 8, tokens=12, seed=0)


def changed(seed: int):
    """Return a tiny model with an adapter that changes its output."""
    model = adapters.attach(models.tiny(0), LoraSettings(4, 8), seed)
    with torch.no_grad():
        for name, parameter in adapters.parameters(model).items():
            if "lora_B" in name:
                parameter.normal_(0, 0.1)
    return model


def log_probabilities(model, ids: list[int]) -> torch.Tensor:
    with torch.no_grad():
        return model(torch.tensor([ids])).logits[0].double().log_softmax(-1)


def test_texts_begin_with_their_openings_and_only_what_was_drawn_counts(tiny, texts):
    for opening, text in zip(base_text.OPENINGS, texts, strict=False):
        assert tiny.tokenizer.decode(text.prompt) == opening
        assert 1 <= text.supervised <= 12
        assert len(text.ids) == len(text.prompt) + text.supervised


def test_the_seed_decides_the_text(tiny, texts):
    assert base_text.sample(tiny.model, tiny.tokenizer, 8, tokens=12, seed=0) == texts
    assert base_text.sample(tiny.model, tiny.tokenizer, 8, tokens=12, seed=1) != texts


def test_the_text_has_the_losses_that_its_distribution_says(tiny):
    """−log p(x) − H(p) has mean 0 where x is drawn from p; another temperature would move it."""
    drawn = base_text.sample(tiny.model, tiny.tokenizer, 32, tokens=40, seed=3)
    excess = variance = 0.0
    for text in drawn:
        log_p = log_probabilities(tiny.model, list(text.ids))[len(text.prompt) - 1 : -1]
        p = log_p.exp()
        entropy = -(p * log_p).sum(1)
        ids = list(text.ids[-text.supervised :])
        excess += float((-log_p[range(text.supervised), ids] - entropy).sum())
        variance += float(((p * log_p**2).sum(1) - entropy**2).sum())
    assert abs(excess / math.sqrt(variance)) < 4


def test_the_base_is_not_away_from_itself(tiny, texts):
    count = sum(text.supervised for text in texts)
    assert base_text.distance(tiny.model, texts).divergences.tolist() == [0.0] * count


def test_an_adapter_that_changes_nothing_is_not_away_from_the_base(texts):
    model = adapters.attach(models.tiny(0), LoraSettings(4, 8), 0)
    assert base_text.distance(model, texts).divergences.max() < 1e-6


def test_losses_and_divergences_are_those_of_the_plain_formulas(texts):
    model = changed(0)
    distance = base_text.distance(model, texts)
    for i, text in enumerate(texts):
        predicted = slice(len(text.prompt) - 1, -1)
        log_q = log_probabilities(model, list(text.ids))[predicted]
        with model.disable_adapter():
            log_p = log_probabilities(model, list(text.ids))[predicted]
        of_text = distance.example_ids == i
        drawn = list(text.ids[-text.supervised :])
        losses = -log_q[range(len(drawn)), drawn]
        assert np.allclose(distance.losses[of_text], losses, atol=1e-4)
        divergences = (log_p.exp() * (log_p - log_q)).sum(1)
        assert np.allclose(distance.divergences[of_text], divergences, atol=1e-4)
    assert (distance.divergences > 0).all()
