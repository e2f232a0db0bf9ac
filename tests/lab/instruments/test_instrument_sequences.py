"""Token sequences: what each kind has, and what it must not have."""

import re

import pytest
import torch

from lab.instruments import sequences


def test_natural_text_is_text_and_its_windows_differ(tiny):
    ids = sequences.natural(tiny.tokenizer, 3, 64)
    assert ids.shape == (3, 64)
    assert not torch.equal(ids[0], ids[1])
    assert tiny.tokenizer.decode(ids[0]) in sequences.text()
    with pytest.raises(ValueError, match="tokens; expected at least 1000000 x 64"):
        sequences.natural(tiny.tokenizer, 1_000_000, 64)


def test_a_character_of_several_tokens_is_said_by_each_of_them():
    # Bytes as ids: what a byte-level vocabulary gives for what it has no token for.
    class Bytes:
        def decode(self, ids):
            return bytes(ids).decode("utf-8", errors="replace")

    def texts(data):
        return sequences.token_texts(Bytes(), list(data))

    assert texts("aé".encode()) == ["a", "é(1/2)", "é(2/2)"]
    assert texts("🙂b".encode()) == ["🙂(1/4)", "🙂(2/4)", "🙂(3/4)", "🙂(4/4)", "b"]
    assert texts(b"\xf0ab\xc3") == ["\ufffd", "a", "b", "\ufffd"]
    assert texts(b"") == []


def test_texts_of_tokens_are_the_text_again(tiny):
    text = "Grüße 日本 🙂, def f(x):\n    return x"
    ids = tiny.tokenizer.encode(text, add_special_tokens=False)
    texts = sequences.token_texts(tiny.tokenizer, ids)
    assert len(texts) == len(ids)
    of_characters = [one for one in texts if not re.search(r"\([2-9]/\d\)$", one)]
    assert "".join(re.sub(r"\(1/\d\)$", "", one) for one in of_characters) == text


def test_random_tokens_are_drawn_from_the_plain_ids_by_the_seed():
    ids = sequences.random_tokens(49_152, 4, 500, seed=0)
    assert ids.min() >= 100 and ids.max() < 20_000
    assert len(ids.unique()) > 1_800
    assert torch.equal(ids, sequences.random_tokens(49_152, 4, 500, seed=0))
    assert not torch.equal(ids, sequences.random_tokens(49_152, 4, 500, seed=1))
    assert sequences.random_tokens(97, 4, 500, seed=0).min() >= 48


def test_one_token_has_nothing_to_tell_keys_apart():
    ids = sequences.one_token(49_152, 5, 30, seed=0)
    assert (ids == ids[:, :1]).all()
    assert len(ids[:, 0].unique()) == 5


def test_the_second_copy_repeats_the_first_and_the_first_repeats_nothing():
    ids = sequences.repeated(49_152, 3, 20, first_token=1, seed=0)
    assert ids.shape == (3, 41)
    assert (ids[:, 0] == 1).all()
    assert torch.equal(ids[:, 1:21], ids[:, 21:])
    assert not torch.equal(ids[:, 1:20], ids[:, 2:21])
