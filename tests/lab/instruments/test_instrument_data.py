"""Data: stored splits without leaks, and a control that is really shuffled."""

import json
from collections import Counter
from dataclasses import replace

import pytest

from lab.instruments import data, models
from lab.instruments.chat import IGNORE


@pytest.fixture(scope="module")
def tokenizer():
    return models.tiny(0).tokenizer


def test_python_docstrings_fit_and_have_short_prompts(tokenizer):
    examples = data.load("python-docstrings", tokenizer, max_tokens=80)
    assert len(examples) > 300
    assert max(len(e.encoded.ids) for e in examples) <= 80
    for example in examples[:50]:
        assert tokenizer.decode(example.encoded.ids).startswith("<|im_start|>user\n")


def test_a_split_shares_no_group_and_is_the_same_in_any_order(chat_examples):
    first = data.split(chat_examples, train=20, evaluation=10)
    from_reversed = data.split(chat_examples[::-1], train=20, evaluation=10)
    assert [e.name for e in first.train] == [e.name for e in from_reversed.train]
    assert [e.name for e in first.evaluation] == [e.name for e in from_reversed.evaluation]
    assert (len(first.train), len(first.evaluation)) == (20, 10)
    assert not {e.group for e in first.train} & {e.group for e in first.evaluation}


def test_too_little_data_is_reported_with_the_numbers(chat_examples):
    with pytest.raises(data.DataError, match=r"examples for training; expected 500"):
        data.split(chat_examples, train=500, evaluation=10)


def test_evaluation_data_in_the_training_data_is_refused(chat_examples):
    good = data.split(chat_examples, train=20, evaluation=10)
    leak = replace(good.evaluation[0], group="elsewhere", messages=good.train[0].messages)
    with pytest.raises(data.DataError, match="share 1 targets"):
        data.check(data.Split(good.train, (*good.evaluation, leak)))
    with pytest.raises(data.DataError, match="share 1 groups"):
        data.check(data.Split((*good.train, good.evaluation[0]), good.evaluation))


@pytest.mark.parametrize("supervise", [lambda ids: tuple(IGNORE for _ in ids), tuple])
def test_labels_that_supervise_nothing_or_all_are_refused(chat_examples, supervise):
    wrong = [
        replace(e, encoded=replace(e.encoded, labels=supervise(e.encoded.ids)))
        for e in chat_examples
    ]
    with pytest.raises(data.DataError, match="expected some and not all"):
        data.supervised_share(wrong)
    assert 0 < data.supervised_share(chat_examples) < 1


def test_the_control_has_the_same_prompts_and_targets_none_in_place(chat_examples):
    mixed = data.shuffled(chat_examples, seed=3)
    assert [m.encoded.prompt for m in mixed] == [e.encoded.prompt for e in chat_examples]
    assert Counter(m.target for m in mixed) == Counter(e.target for e in chat_examples)
    assert all(m.target != e.target for m, e in zip(mixed, chat_examples, strict=True))
    assert sum(len(m.encoded.ids) for m in mixed) == sum(len(e.encoded.ids) for e in chat_examples)
    assert sum(m.encoded.supervised for m in mixed) == sum(
        e.encoded.supervised for e in chat_examples
    )
    assert mixed == data.shuffled(chat_examples, seed=3) != data.shuffled(chat_examples, seed=4)


def test_a_control_that_cannot_be_shuffled_is_refused(chat_examples):
    with pytest.raises(data.DataError, match="expected at least 2"):
        data.shuffled(chat_examples[:1], seed=0)
    with pytest.raises(data.DataError, match="equal the true one"):
        data.shuffled(
            [replace(e, messages=chat_examples[0].messages) for e in chat_examples[:5]], seed=0
        )


def test_storing_loses_nothing(chat_examples, tmp_path):
    data.write_examples(tmp_path / "deep/train.jsonl", chat_examples)
    assert list(data.read_examples(tmp_path / "deep/train.jsonl")) == chat_examples


@pytest.mark.parametrize("line", ["{", '{"messages": [{"role": "user"}]}', "[]"])
def test_a_bad_line_is_named_by_file_and_number(tokenizer, tmp_path, line):
    good = json.dumps(
        {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}
    )
    (tmp_path / "chats.jsonl").write_text(f"{good}\n{line}\n")
    with pytest.raises(data.DataError, match=r"chats\.jsonl:2"):
        data.load(str(tmp_path / "chats.jsonl"), tokenizer, max_tokens=100)


def test_an_unknown_source_is_refused(tokenizer, tmp_path):
    with pytest.raises(data.DataError, match='expected "python-docstrings" or a JSONL file'):
        data.load(str(tmp_path / "none.jsonl"), tokenizer, max_tokens=100)
