"""What the run's seed draws, drawn again: token sequences, shown texts, random sets of heads.

The rules are those that lab/attention_views/README.md states. torch is imported inside functions.
"""

from __future__ import annotations

import random
from functools import partial
from typing import Any

from gates.attention_views import arrays, model
from gates.shared import sequences as token_sequences
from gates.shared import stored
from gates.shared.stored import cached, config

Ids = list[list[int]]


def sequences() -> dict[str, Ids]:
    """Return set -> the token sequences that it must have, [B][T], of "ablation" too."""
    return dict(_tokens()["sequences"])


def texts_of_page() -> list[dict[str, Any]]:
    """Return the texts that the page must show, as texts.json has them."""
    return list(_tokens()["texts"])


def _tokens() -> dict[str, Any]:
    return dict(cached(f"drawn tokens {arrays.settings_key()}", [], _draw_tokens))


def _draw_tokens() -> dict[str, Any]:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(model.folder() / "tokenizer.json"))
    sets = _draw_sequences(tokenizer)
    return {"sequences": sets, "texts": _draw_texts(tokenizer, sets["natural"][0])}


def _draw_sequences(tokenizer: Any) -> dict[str, Ids]:
    settings = config()
    count, length = settings["sequences"]["count"], settings["sequences"]["length"]
    period = settings["repeated"]["period"]
    start = 10 * arrays.seed()
    text = tokenizer.encode(token_sequences.documentation(), add_special_tokens=False).ids
    natural = token_sequences.windows(text, count, length)
    repeated = _repeated(settings["repeated"]["count"], period, start + 2)
    return {
        "natural": natural,
        "random_tokens": _random_tokens(count, length, start),
        "one_token": [row * length for row in _random_tokens(count, 1, start + 1)],
        "repeated": repeated,
        "natural_random_weights": natural,
        "repeated_random_weights": repeated,
        "ablation": _repeated(settings["ablation"]["count"], period, start + 3),
    }


def _random_tokens(count: int, length: int, seed: int) -> Ids:
    return token_sequences.random_tokens(model.document()["vocab_size"], count, length, seed)


def _repeated(count: int, period: int, seed: int) -> Ids:
    first = model.document()["bos_token_id"]
    return token_sequences.repeated(first, _random_tokens(count, period, seed))


def _draw_texts(tokenizer: Any, natural: list[int]) -> list[dict[str, Any]]:
    settings = config()
    length, period = settings["sequences"]["length"], settings["repeated"]["shown_period"]
    start = 10 * arrays.seed()
    (repeated,) = _repeated(1, period, start + 4)
    (random_tokens,) = _random_tokens(1, length, start + 5)
    ((token,),) = _random_tokens(1, 1, start + 6)
    rows: list[tuple[str, str, str, list[int]]] = [
        (
            "natural",
            "running text",
            f"The first {length} tokens of Python's documentation of its topics.",
            natural,
        ),
        (
            "repeated",
            "a random sequence twice",
            f"One first token, {period} random tokens, and the same again: what can be foretold of "
            "the second copy, can be foretold by copying alone.",
            repeated,
        ),
        (
            "random_tokens",
            "random tokens",
            "No order to find: a pattern here is not about content.",
            random_tokens,
        ),
        (
            "one_token",
            "one token repeated",
            "Control of the sink: no token differs from another but by its position.",
            [token] * length,
        ),
    ]
    for number, own in enumerate(settings["texts"]):
        ids = tokenizer.encode(own["text"], add_special_tokens=False).ids
        rows.append((f"own_{number}", own["label"], "", ids))

    decode = partial(tokenizer.decode, skip_special_tokens=False)
    shown: list[dict[str, Any]] = []
    for key, label, note, ids in rows:
        tokens = token_sequences.texts(decode, ids)
        text = {"key": key, "label": label, "note": note, "ids": ids, "tokens": tokens}
        shown.append(text | {"period": period if key == "repeated" else None})
    return shown


def ablation_heads() -> dict[str, list[list[int]]]:
    """Return ablation -> [layer, head] that must be switched off, by scores and seed.

    The random sets are drawn one after the other from the heads, in the order of layer and head,
    that are not the induction heads.
    """
    scores = arrays.score_map("repeated", "induction")
    order = arrays.order(scores)
    top = config()["ablation"]["heads"]
    others = sorted(order[top:])
    sets = {
        "nothing": [],
        "induction": sorted(order[:top]),
        "previous": [arrays.previous_before(order[0])],
    }
    draw = random.Random(arrays.seed())
    for name in arrays.random_sets():
        sets[name] = sorted(draw.sample(others, min(top, len(others))))
    return {name: [list(head) for head in heads] for name, heads in sets.items()}


def sizes() -> dict[str, list[int]]:
    """Return array -> the shape that it must have by the config, of every stored array."""
    settings = config()
    layers, heads = model.shape()
    count, length = settings["sequences"]["count"], settings["sequences"]["length"]
    total = 1 + 2 * settings["repeated"]["period"]
    shapes = {"norms norms": [count, layers, length]}
    for kind in arrays.SETS:
        is_repeated = "repeated" in kind
        size = [count, layers, heads, length]
        if is_repeated:
            size = [settings["repeated"]["count"], layers, heads, total]
        names = [*arrays.STATISTICS, *(arrays.OF_REPEATED if is_repeated else ())]
        shapes |= {f"statistics_{kind} {name}": size for name in names}
    for name in ("nothing", "induction", "previous", *arrays.random_sets()):
        shapes[f"ablation_losses {name}"] = [settings["ablation"]["count"], total - 1]
    return shapes


def stored_sizes() -> dict[str, list[int]]:
    """Return array -> the shape that it has, in the files of `sizes`."""
    shapes: dict[str, list[int]] = {}
    for file in ("norms", "ablation_losses", *(f"statistics_{kind}" for kind in arrays.SETS)):
        header = stored.header(stored.artifact(f"{file}.safetensors"))
        shapes |= {f"{file} {name}": entry["shape"] for name, entry in header.items()}
    return shapes
