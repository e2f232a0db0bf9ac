"""FEAT-012's page read back: its texts, its statistics and its packed patterns."""

from __future__ import annotations

import base64
import json
import re
import zlib
from typing import Any

from gates.attention_comparison.arrays import ARRAYS, PROMPTS, prompts, settings_key, shape, steps
from gates.shared import outputs, stored, trials_model
from gates.shared.documents import shows, stated_numbers
from gates.shared.stored import cached, config
from gates.shared.tokens import texts

NAME = "attention_over_time.html"
DATA = re.compile(r'<script type="application/json" id="data">(.*?)</script>', re.DOTALL)
LEVELS = 255  # a share is a whole number of 255ths


def document() -> dict[str, Any]:
    """Return the data in the page."""
    match = DATA.search((outputs.out() / NAME).read_text("utf-8"))
    assert match, f"{NAME} has no data"
    data: dict[str, Any] = json.loads(match[1])
    return data


def gap(pattern: Any, variant: int) -> float:
    """Return the largest difference of a stored share from a pattern [L, H, T, T], in levels."""
    import numpy as np

    packed = document()["texts"][0]["variants"][variant]["shares"]
    shares = np.frombuffer(zlib.decompress(base64.b64decode(packed)), np.uint8)
    rows, columns = np.tril_indices(pattern.shape[-1])
    expected = LEVELS * pattern[:, :, rows, columns]  # [L, H, T(T+1)/2]
    return float(np.abs(shares.reshape(expected.shape) - expected).max())


def problems() -> list[str]:
    """Return what in the page is not what the arrays and the prompts say."""
    files = (NAME, ARRAYS, PROMPTS)
    compute = lambda: trials_model.without_warnings(_problems)  # noqa: E731
    return list(cached(f"attention comparison page {settings_key()}", files, compute))


def _problems() -> list[str]:
    from transformers import AutoTokenizer

    found = []
    data = document()
    text = data["texts"][0]
    arrays = stored.arrays("arrays")

    # 1. The text, and one variant per model.
    tokenizer = AutoTokenizer.from_pretrained(outputs.inputs()[config()["model"]])
    labels = texts(tokenizer.decode, prompts()[0]["ids"])
    expected = [label.replace("\n", "⏎").replace(" ", "·") for label in labels]
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
