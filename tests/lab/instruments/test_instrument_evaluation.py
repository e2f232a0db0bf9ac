"""Evaluation: every supervised token once, in order; generation greedy whatever the padding."""

import random

import numpy as np
import pytest
import torch

from lab.instruments import evaluation
from lab.instruments.chat import IGNORE, Encoded


def example(seed):
    draw = random.Random(seed)
    ids = tuple(draw.randrange(3, 259) for _ in range(draw.randrange(5, 40)))
    prompt = draw.randrange(1, len(ids) - 1)
    return Encoded(ids, (*[IGNORE] * prompt, *ids[prompt:]))


EXAMPLES = [example(seed) for seed in range(30)]  # more tokens than one pack holds


def test_every_token_is_evaluated_as_transformers_does(tiny):
    scores = evaluation.evaluate(tiny.model, EXAMPLES)
    assert sum(len(e.ids) for e in EXAMPLES) > evaluation.TOKENS_PER_PACK
    assert np.bincount(scores.example_ids).tolist() == [e.supervised for e in EXAMPLES]
    assert (np.diff(scores.example_ids) >= 0).all()
    for i, e in enumerate(EXAMPLES):
        with torch.no_grad():
            out = tiny.model(input_ids=torch.tensor([e.ids]), labels=torch.tensor([e.labels]))
        of_example = scores.example_ids == i
        assert scores.losses[of_example].mean() == pytest.approx(float(out.loss), rel=1e-4)
        before = [t - 1 for t, label in enumerate(e.labels) if label != IGNORE]
        hits = out.logits[0, before].argmax(-1) == torch.tensor(e.ids)[[t + 1 for t in before]]
        assert scores.hits[of_example].tolist() == hits.int().tolist()
        p = out.logits[0, before].softmax(-1)
        assert scores.entropies[of_example] == pytest.approx(
            -(p * p.log()).sum(-1).numpy(), rel=1e-4
        )


def test_arrays_of_different_length_are_refused():
    with pytest.raises(ValueError, match="expected one"):
        evaluation.Evaluation(np.zeros(3), np.zeros(3), np.zeros(2), np.zeros(3))


def test_generation_is_greedy_and_padding_changes_nothing(tiny):
    prompts = [[5, 6, 7], [9, 10, 11, 12, 13, 14, 15], [200]]
    together = evaluation.generate(tiny.model, prompts, max_new_tokens=8)
    for prompt, continued in zip(prompts, together, strict=True):
        assert continued == evaluation.generate(tiny.model, [prompt], max_new_tokens=8)[0]
        ids = list(prompt)
        # The definition: each token is the most likely one after all tokens before it.
        for token in continued:
            with torch.no_grad():
                assert int(tiny.model(torch.tensor([ids])).logits[0, -1].argmax()) == token
            ids.append(token)


def test_a_continuation_ends_with_the_turn():
    assert evaluation._up_to([4, 2, 2, 2], end=2) == [4, 2]
    assert evaluation._up_to([4, 5], end=2) == [4, 5]
