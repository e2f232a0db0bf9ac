"""Multiple choice: one packed pass gives what every choice gives as a sequence by itself."""

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


def alone(model, tokens: Tokens) -> list[float]:
    """Each choice as a sequence of its own."""
    found = []
    for choice in tokens.choices:
        ids = [*tokens.prompt, *choice]
        with torch.no_grad():
            log_p = model(torch.tensor([ids])).logits[0].log_softmax(-1)
        first = len(tokens.prompt)
        found.append(sum(float(log_p[t - 1, ids[t]]) for t in range(first, len(ids))))
    return found


def test_packed_is_what_each_choice_is_alone(family_model):
    tokenizer = models.tiny(0).tokenizer
    tokens = [multiple_choice.encode(tokenizer, one) for one in ITEMS]
    found = multiple_choice.log_likelihoods(family_model, tokens)
    assert np.allclose(found, [alone(family_model, one) for one in tokens], atol=2e-5)


def test_how_items_share_packs_changes_nothing(tiny, monkeypatch):
    tokens = [multiple_choice.encode(tiny.tokenizer, one) for one in ITEMS * 5]
    found = multiple_choice.log_likelihoods(tiny.model, tokens)
    monkeypatch.setattr(multiple_choice, "TOKENS_PER_PACK", 1)
    assert np.allclose(found, multiple_choice.log_likelihoods(tiny.model, tokens), atol=2e-5)
    assert np.allclose(found, np.tile(found[:3], (5, 1)), atol=2e-5)


def test_choices_of_one_token_need_no_place(tiny):
    one = Tokens((5, 6, 7), ((8,), (9,)))
    assert one.size == 3
    assert np.allclose(
        multiple_choice.log_likelihoods(tiny.model, [one])[0], alone(tiny.model, one), atol=2e-5
    )


def test_tokens_across_the_border_are_refused():
    class Merging:
        def encode(self, text: str, add_special_tokens: bool) -> list[int]:
            assert not add_special_tokens
            return [1] if text == "a b" else [2]

    with pytest.raises(ChoiceError, match="other tokens than its two parts"):
        multiple_choice.encode(Merging(), item("a", "b", "c"))


def test_scores_follow_their_definitions():
    found = np.log(np.array([[0.5, 0.25, 0.125, 0.1], [0.3, 0.2, 0.2, 0.3], [0.1, 0.1, 0.1, 0.5]]))
    scores = multiple_choice.score(ITEMS, found)
    assert scores.acc.tolist() == [1, 1, 0]
    per_byte = found / [[2, 1, 2, 3], [4, 1, 5, 3], [1, 3, 2, 5]]
    wanted = [per_byte[0, 0] - max(per_byte[0, 1:]), per_byte[1, 0] - max(per_byte[1, 1:])]
    assert np.allclose(scores.margin[:2], wanted)
    assert ((scores.margin > 0) == scores.acc_norm.astype(bool)).all()


def test_margin_changes_sign_with_the_gold_choice():
    found = np.log(np.array([[0.9, 0.1]]))
    right, wrong = (
        multiple_choice.score([item("p", "a", "b", gold=gold)], found).margin[0] for gold in (0, 1)
    )
    assert right == -wrong == pytest.approx(np.log(9))
