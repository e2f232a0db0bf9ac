"""Chat messages to token ids, with the completion alone supervised."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Message = Mapping[str, str]  # {"role": "user" | "assistant" | "system", "content": text}

IGNORE = -100  # the label that torch's cross-entropy leaves out

CHATML = (
    "{% for message in messages %}"
    "<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


class ChatError(ValueError):
    """Messages cannot be turned into a prompt and a completion."""


@dataclass(frozen=True)
class Encoded:
    """One example as tokens.

    `ids` holds prompt and completion; `labels` (same length) repeats the id where the loss counts,
    else it is -100. `labels[t]` is the token at t, predicted from position t - 1: the shift is made
    where the loss is computed.
    """

    ids: tuple[int, ...]
    labels: tuple[int, ...]

    def __post_init__(self) -> None:
        """Refuse another number of labels than of tokens."""
        if len(self.ids) != len(self.labels):
            msg = f"{len(self.ids)} ids but {len(self.labels)} labels; expected one label per id"
            raise ChatError(msg)

    @property
    def supervised(self) -> int:
        """Return the number of tokens that the loss counts; the first is never predicted."""
        return sum(label != IGNORE for label in self.labels[1:])

    @property
    def prompt(self) -> tuple[int, ...]:
        """Return the ids before the first supervised one: what a generation starts from."""
        for t, label in enumerate(self.labels):
            if label != IGNORE:
                return self.ids[:t]
        return self.ids


def template_for(tokenizer: Any) -> str:
    """Return the tokenizer's chat template, without the system prompt that some of them add.

    SmolLM2's adds "You are a helpful AI assistant named SmolLM…": 24 tokens before every example
    that teach nothing and would double the cost of a short one. Where the template's output ends in
    plain ChatML, plain ChatML is used.

    Raises:
        ChatError: the tokenizer has no chat template.
    """
    own = tokenizer.chat_template
    if own is None:
        msg = (
            f"tokenizer {tokenizer.name_or_path!r} has no chat template; expected an "
            "instruction-tuned model"
        )
        raise ChatError(msg)
    probe = [{"role": "user", "content": "probe"}]
    with_own = tokenizer.apply_chat_template(probe, tokenize=False, add_generation_prompt=True)
    plain = tokenizer.apply_chat_template(
        probe, chat_template=CHATML, tokenize=False, add_generation_prompt=True
    )
    if with_own.endswith(plain):
        return CHATML
    return str(own)


def encode(tokenizer: Any, messages: Sequence[Message], template: str) -> Encoded:
    """Return a conversation's tokens, its last message (the assistant's) supervised to its end.

    `template` is what `template_for` returned. Prompt and completion are tokenised apart, as at
    generation, where there is no completion yet.

    Raises:
        ChatError: the last message is not the assistant's, or the template changes the prompt once
            it is answered.
    """
    if not messages or messages[-1]["role"] != "assistant":
        roles = [message["role"] for message in messages]
        msg = f"got messages of the roles {roles}; expected the assistant's as the last"
        raise ChatError(msg)

    def render(part: Sequence[Message], *, open_turn: bool) -> str:
        text: str = tokenizer.apply_chat_template(
            list(part), chat_template=template, tokenize=False, add_generation_prompt=open_turn
        )
        return text

    # 1. Prompt and completion as text: the completion is what the template adds to the prompt.
    prompt = render(messages[:-1], open_turn=True)
    whole = render(messages, open_turn=False)
    if not whole.startswith(prompt):
        msg = (
            f"the chat template renders the prompt as {prompt!r}, but differently once it is "
            "answered"
        )
        raise ChatError(msg)
    completion = whole[len(prompt) :]
    end = completion.rfind(tokenizer.eos_token)
    # What follows the end of the turn (ChatML: a line break) comes from the template, not from the
    # model.
    if end >= 0:
        completion = completion[: end + len(tokenizer.eos_token)]

    # 2. Their tokens; the completion's alone are labels.
    prompt_ids = tokenizer.encode(prompt, add_special_tokens=False)
    completion_ids = tokenizer.encode(completion, add_special_tokens=False)
    return Encoded(
        ids=(*prompt_ids, *completion_ids),
        labels=(*[IGNORE] * len(prompt_ids), *completion_ids),
    )
