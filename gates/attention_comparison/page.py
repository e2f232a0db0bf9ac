"""FEAT-012's page read back: its texts, its statistics and its packed patterns."""

from __future__ import annotations

from typing import Any

from gates.attention_comparison.arrays import ARRAYS, PROMPTS, prompts, settings_key, shape, steps
from gates.shared import attention_page, outputs, stored, trials_model
from gates.shared.documents import shows, stated_numbers
from gates.shared.sequences import texts
from gates.shared.stored import cached, config

NAME = "attention_over_time.html"


def gap(pattern: Any, variant: int) -> float:
    """Return the largest difference of a stored share from a pattern [L, H, T, T], in levels."""
    variants = attention_page.data(NAME)["texts"][0]["variants"]
    return attention_page.share_gap(variants[variant], pattern)


def problems() -> list[str]:
    """Return what in the page is not what the arrays and the prompts say."""
    files = (NAME, ARRAYS, PROMPTS)
    compute = lambda: trials_model.without_warnings(_problems)  # noqa: E731
    return list(cached(f"attention comparison page {settings_key()}", files, compute))


def _problems() -> list[str]:
    from transformers import AutoTokenizer

    found = []
    data = attention_page.data(NAME)
    text = data["texts"][0]
    arrays = stored.arrays("arrays")

    # 1. The text, and one variant per model.
    tokenizer = AutoTokenizer.from_pretrained(outputs.inputs()[config()["model"]])
    labels = texts(tokenizer.decode, prompts()[0]["ids"])
    expected = [attention_page.shown_token(label) for label in labels]
    if text["tokens"] != expected:
        found.append(f"tokens {text['tokens']}; expected {expected}")
    labels = [variant["label"] for variant in text["variants"]]
    losses = arrays["snapshots.losses"].astype(float).mean(1)
    names = ["base", *(f"step {step}" for step in steps())]
    if labels != [f"{name}, loss {loss:.2f}" for name, loss in zip(names, losses, strict=True)]:
        found.append(f"variants {labels}")
    fall = float(losses[0] - losses[-1])
    if not any(shows(str(number), fall) for number in stated_numbers(data["introduction"])):
        found.append(f"the introduction does not say that the loss fell by {fall}")
    if len(data["texts"]) != 1 or not text["is_full"]:
        found.append("expected one text with whole maps")

    # 2. The numbers of every head.
    for i, variant in enumerate(text["variants"]):
        sink, moved = arrays["base.sink"], 0 * arrays["base.sink"]
        if i:
            sink = arrays["snapshots.sink"][i - 1]
            moved = 1000 * arrays["snapshots.divergence"][i - 1]
        for key, values in (("sink", sink[:, 0]), ("js", moved[:, 0])):
            rows = values.reshape(shape()).tolist()
            if not outputs.same(
                variant["statistics"][key],
                [[round(float(value), 4) for value in row] for row in rows],
                1e-9,
            ):
                found.append(f"{key} of {variant['label']} differs from the arrays")

    return found + _problems_of_opening(data, arrays["snapshots.divergence"][-1][:, 0])


def _problems_of_opening(data: dict[str, Any], moved: Any) -> list[str]:
    """Check that it opens at the head that moved furthest by the last step; moved: [heads]."""
    found = []
    layer, head = divmod(int(moved.argmax()), shape()[1])
    opens_at = [*data["first_head"], data["first_variant"]]
    if opens_at != [layer, head, len(data["texts"][0]["variants"]) - 1]:
        found.append(f"opens at {opens_at}; expected layer {layer}, head {head} of the last step")
    if f"layer {layer}, head {head}." not in data["introduction"]:
        found.append(f"the introduction does not name layer {layer}, head {head}")
    return found
