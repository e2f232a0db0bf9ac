"""FEAT-012's prompts made again: held-out examples, windows of text, repeated random tokens."""

from __future__ import annotations

from gates.attention_comparison.arrays import PROMPTS, features, prompts, settings_key
from gates.shared import outputs, sequences, stored, trials, trials_model
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
    text = tokenizer.encode(sequences.documentation(), add_special_tokens=False, verbose=False)
    size = (settings["repeated"], settings["period"])
    halves = sequences.random_tokens(len(tokenizer), *size, settings["seed"])
    examples = trials.rows("evaluation", features())[: settings["task"]]
    expected = {
        "task": [example["ids"] for example in examples],
        "text": sequences.windows(text, settings["text"], settings["text_tokens"]),
        "repeated": sequences.repeated(first_token, halves),
    }
    by_kind: dict[str, list[list[int]]] = {}
    for prompt in prompts():
        by_kind.setdefault(prompt["kind"], []).append(prompt["ids"])
    holds = {kind: by_kind.get(kind) == rows for kind, rows in expected.items()}
    order = [prompt["kind"] for prompt in prompts()]
    return holds | {"order": order == sorted(order, key=list(expected).index)}
