"""FEAT-012's prompts made again: held-out examples, windows of text, repeated random tokens."""

from __future__ import annotations

from typing import Any

from gates.attention_comparison.arrays import PROMPTS, features, prompts, settings_key
from gates.shared import outputs, stored, trials, trials_model
from gates.shared.stored import config


def as_planned() -> dict[str, bool]:
    """Return whether the prompts of each kind are those that the settings describe."""
    files = (PROMPTS, *trials.frozen_files("evaluation"))
    name = f"attention comparison prompts {settings_key()}"
    compute = lambda: trials_model.without_warnings(_as_planned)  # noqa: E731
    return dict(stored.cached(name, files, compute))


def _as_planned() -> dict[str, bool]:
    from transformers import AutoConfig, AutoTokenizer

    settings = config()["prompts"]
    model = outputs.inputs()[config()["model"]]
    tokenizer = AutoTokenizer.from_pretrained(model)
    first_token = AutoConfig.from_pretrained(model).bos_token_id
    examples = trials.rows("evaluation", features())[: settings["task"]]
    expected = {
        "task": [example["ids"] for example in examples],
        "text": _windows(tokenizer, settings["text"], settings["text_tokens"]),
        "repeated": _repeated(len(tokenizer), first_token, settings),
    }
    by_kind: dict[str, list[list[int]]] = {}
    for prompt in prompts():
        by_kind.setdefault(prompt["kind"], []).append(prompt["ids"])
    holds = {kind: by_kind.get(kind) == rows for kind, rows in expected.items()}
    order = [prompt["kind"] for prompt in prompts()]
    return holds | {"order": order == sorted(order, key=list(expected).index)}


def _windows(tokenizer: Any, count: int, length: int) -> list[list[int]]:
    """Return windows of Python's own documentation that begin at even distances."""
    from pydoc_data import topics

    running = "\n".join(topics.topics[name].strip() for name in sorted(topics.topics))
    ids = tokenizer.encode(running, add_special_tokens=False, verbose=False)
    distance = len(ids) // count
    return [ids[i * distance : i * distance + length] for i in range(count)]


def _repeated(vocabulary: int, first_token: int, settings: dict[str, Any]) -> list[list[int]]:
    """Return sequences of a first token and the same random tokens twice, from the stated seed.

    Tokens 100 to 19,999, or the upper half of a vocabulary of at most 200.
    """
    import torch

    low, high = vocabulary // 2, vocabulary
    if vocabulary > 200:
        low, high = 100, min(20_000, vocabulary)
    size = (settings["repeated"], settings["period"])
    generator = torch.Generator().manual_seed(settings["seed"])
    halves = torch.randint(low, high, size, generator=generator).tolist()
    return [[first_token, *half, *half] for half in halves]
