"""Chat messages to tokens: the completion is supervised, the prompt is not."""

import pytest

from lab.instruments import chat, models

ASK = {"role": "user", "content": "double(x)"}
SAY = {"role": "assistant", "content": "Twice x."}
SYSTEM_FIRST = (
    "{% if messages[0]['role'] != 'system' %}"
    "<|im_start|>system\nYou are kind.<|im_end|>\n{% endif %}" + chat.CHATML
)


@pytest.fixture
def tokenizer():
    return models.tiny(0).tokenizer


def spoken(tokenizer, encoded):
    return tokenizer.decode([label for label in encoded.labels if label != chat.IGNORE])


def test_the_answer_and_the_end_of_the_turn_are_supervised(tokenizer):
    encoded = chat.encode(tokenizer, [ASK, SAY], chat.CHATML)
    assert spoken(tokenizer, encoded) == "Twice x.<|im_end|>"
    assert (
        tokenizer.decode(encoded.prompt)
        == "<|im_start|>user\ndouble(x)<|im_end|>\n<|im_start|>assistant\n"
    )
    assert encoded.supervised == len("Twice x.") + 1
    assert encoded.ids[len(encoded.prompt) :] == encoded.labels[len(encoded.prompt) :]


def test_only_the_last_answer_counts(tokenizer):
    encoded = chat.encode(
        tokenizer, [ASK, {"role": "assistant", "content": "?"}, ASK, SAY], chat.CHATML
    )
    assert spoken(tokenizer, encoded) == "Twice x.<|im_end|>"


def test_a_default_system_prompt_is_left_out_and_a_given_one_is_kept(tokenizer):
    tokenizer.chat_template = SYSTEM_FIRST
    template = chat.template_for(tokenizer)
    assert "kind" not in tokenizer.decode(chat.encode(tokenizer, [ASK, SAY], template).ids)
    given = [{"role": "system", "content": "You are kind."}, ASK, SAY]
    assert "kind" in tokenizer.decode(chat.encode(tokenizer, given, template).prompt)


def test_another_format_than_chatml_is_kept(tokenizer):
    tokenizer.chat_template = (
        "{% for m in messages %}[{{ m['role'] }}]{{ m['content'] }}"
        "{% if m['role'] == 'assistant' %}<|im_end|>"
        "{% endif %}{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}"
    )
    encoded = chat.encode(tokenizer, [ASK, SAY], chat.template_for(tokenizer))
    assert tokenizer.decode(encoded.ids) == "[user]double(x)[assistant]Twice x.<|im_end|>"


@pytest.mark.parametrize(
    ("messages", "said"),
    [([ASK], r"roles \['user'\]; expected the assistant"), ([], r"roles \[\]; expected")],
)
def test_a_conversation_without_an_answer_is_refused(tokenizer, messages, said):
    with pytest.raises(chat.ChatError, match=said):
        chat.encode(tokenizer, messages, chat.CHATML)


def test_a_template_that_rewrites_the_prompt_is_refused(tokenizer):
    two_faced = "{% if messages|length > 1 %}B{% else %}A{% endif %}" + chat.CHATML
    with pytest.raises(chat.ChatError, match="differently once it is answered"):
        chat.encode(tokenizer, [ASK, SAY], two_faced)


def test_a_tokenizer_without_a_template_is_refused(tokenizer):
    tokenizer.chat_template = None
    with pytest.raises(chat.ChatError, match="no chat template"):
        chat.template_for(tokenizer)


def test_a_first_token_never_counts():
    assert chat.Encoded((5, 6), (5, 6)).supervised == 1
    with pytest.raises(chat.ChatError, match="2 ids but 1 labels"):
        chat.Encoded((5, 6), (5,))
