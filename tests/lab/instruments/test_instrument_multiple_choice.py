"""Multiple choice: one packed pass equals each choice as a sequence by itself."""

import numpy as np
import pytest
import torch

from lab.instruments import models, multiple_choice
from lab.instruments.multiple_choice import ChoiceError, Item, Tokens


def item(prompt: str, *choices: str, gold: int = 0) -> Item:
    return Item("suite", "kind", prompt, choices, gold)


ITEMS = (
    item("7 + 5 =", "12", "2", "11", "130"),
    item("The sky is", "blue", "a", "green", "wet"),
    item("x", "y", "yes", "no", "never", gold=2),
)


def score_alone(model, tokens: Tokens) -> list[float]:
    """Score each choice as a sequence of its own."""
    sums = []
    for choice in tokens.choices:
        ids = [*tokens.prompt, *choice]
        with torch.no_grad():
            log_p = model(torch.tensor([ids])).logits[0].log_softmax(-1)
        first = len(tokens.prompt)
        sums.append(sum(float(log_p[t - 1, ids[t]]) for t in range(first, len(ids))))
    return sums


def test_packed_is_what_each_choice_is_alone(family_model):
    tokenizer = models.tiny(0).tokenizer
    tokens = [multiple_choice.encode(tokenizer, one) for one in ITEMS]
    packed = multiple_choice.log_likelihoods(family_model, tokens)
    assert np.allclose(packed, [score_alone(family_model, one) for one in tokens], atol=2e-5)


def test_how_items_share_packs_changes_nothing(tiny, monkeypatch):
    tokens = [multiple_choice.encode(tiny.tokenizer, one) for one in ITEMS * 5]
    packed = multiple_choice.log_likelihoods(tiny.model, tokens)
    monkeypatch.setattr(multiple_choice, "TOKENS_PER_PACK", 1)
    assert np.allclose(packed, multiple_choice.log_likelihoods(tiny.model, tokens), atol=2e-5)
    assert np.allclose(packed, np.tile(packed[:3], (5, 1)), atol=2e-5)


def test_choices_of_one_token_add_nothing_to_the_row(tiny):
    one = Tokens((5, 6, 7), ((8,), (9,)))
    assert one.size == 3
    packed = multiple_choice.log_likelihoods(tiny.model, [one])[0]
    assert np.allclose(packed, score_alone(tiny.model, one), atol=2e-5)


def test_tokens_across_the_border_are_refused():
    class Merging:
        def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
            assert not add_special_tokens
            return [1] if text == "a b" else [2]

    with pytest.raises(ChoiceError, match="other tokens than its two parts"):
        multiple_choice.encode(Merging(), item("a", "b", "c"))


def test_scores_follow_their_definitions():
    probabilities = [[0.5, 0.25, 0.125, 0.1], [0.3, 0.2, 0.2, 0.3], [0.1, 0.1, 0.1, 0.5]]
    log_likelihoods = np.log(np.array(probabilities))
    scores = multiple_choice.score(ITEMS, log_likelihoods)
    assert scores.acc.tolist() == [1, 1, 0]
    per_byte = log_likelihoods / [[2, 1, 2, 3], [4, 1, 5, 3], [1, 3, 2, 5]]
    margins = [per_byte[0, 0] - max(per_byte[0, 1:]), per_byte[1, 0] - max(per_byte[1, 1:])]
    assert np.allclose(scores.margin[:2], margins)
    assert ((scores.margin > 0) == scores.acc_norm.astype(bool)).all()


def test_margin_changes_sign_with_the_gold_choice():
    log_likelihoods = np.log(np.array([[0.9, 0.1]]))
    right = multiple_choice.score([item("p", "a", "b", gold=0)], log_likelihoods).margin[0]
    wrong = multiple_choice.score([item("p", "a", "b", gold=1)], log_likelihoods).margin[0]
    assert right == -wrong == pytest.approx(np.log(9))
