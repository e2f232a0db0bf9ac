"""Examples to learn from: loading, splitting, checking, storing, and shuffling for the control."""

import json
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lab.digests import sha256
from lab.instruments import docstrings
from lab.instruments.chat import IGNORE, Encoded, Message, encode, template_for


class DataError(ValueError):
    """The examples cannot be used: too few, leaking, or without supervised tokens."""


@dataclass(frozen=True)
class Example:
    """One conversation: its name, the `group` that no split may cut, its messages and tokens."""

    name: str
    group: str
    messages: tuple[Message, ...]
    encoded: Encoded

    @property
    def target(self) -> str:
        """The text that is learned: the last message."""
        return self.messages[-1]["content"]


@dataclass(frozen=True)
class Split:
    """Training and evaluation examples with no group and no target in common."""

    train: tuple[Example, ...]
    evaluation: tuple[Example, ...]


def load(source: str, tokenizer: Any, *, max_tokens: int) -> list[Example]:
    """Return examples of at most `max_tokens` tokens.

    `source` is "python-docstrings" or the path of a JSONL file of messages. A line of the file is
    {"messages": [{"role", "content"}, …]} with, optionally, "name" and "group" (a
    source that must not be cut by a split; without it every line is a group of its own).
    """
    if source == "python-docstrings":
        rows = _docstring_rows()
    else:
        rows = _jsonl_rows(Path(source))
    template = template_for(tokenizer)
    examples = []
    for row in rows:
        messages = tuple(row["messages"])
        encoded = encode(tokenizer, messages, template)
        if len(encoded.ids) <= max_tokens:
            examples.append(Example(row["name"], row["group"], messages, encoded))
    return examples


def _docstring_rows() -> Iterable[Mapping[str, Any]]:
    for pair in docstrings.pairs():
        messages = (
            {"role": "user", "content": pair.signature},
            {"role": "assistant", "content": pair.summary},
        )
        yield {
            "name": f"{pair.module}.{pair.signature}",
            "group": pair.package,
            "messages": messages,
        }


def _jsonl_rows(path: Path) -> Iterable[Mapping[str, Any]]:
    if not path.is_file():
        msg = (
            f'data source {str(path)!r} is no file; expected "python-docstrings" or a JSONL file '
            "of messages"
        )
        raise DataError(msg)
    for number, line in enumerate(path.read_text("utf-8").splitlines(), start=1):
        try:
            row = json.loads(line)
            messages = [
                {"role": str(m["role"]), "content": str(m["content"])} for m in row["messages"]
            ]
        except (ValueError, KeyError, TypeError) as error:
            msg = f'{path}:{number}: {error!r}; expected {{"messages": [{{"role", "content"}}, …]}}'
            raise DataError(msg) from error
        name = str(row.get("name", f"{path.name}:{number}"))
        yield {"name": name, "group": str(row.get("group", name)), "messages": messages}


def split(examples: Sequence[Example], *, train: int, evaluation: int) -> Split:
    """Draw `evaluation` and `train` examples from different groups.

    They are the same on every machine and for every seed. Groups are ordered by the SHA-256 of
    their name, and the first of them go to evaluation until they have twice the number asked for;
    within each side examples are drawn in the order of the SHA-256 of their name.

    Raises:
        DataError: a side cannot be filled, or the two share a group or a target.
    """
    groups: dict[str, list[Example]] = {}
    for example in examples:
        groups.setdefault(example.group, []).append(example)
    held_out: list[Example] = []
    rest: list[Example] = []
    for group in sorted(groups, key=_hash):
        side = rest
        if len(held_out) < 2 * evaluation:
            side = held_out
        side.extend(groups[group])
    for name, pool, size in (("evaluation", held_out, evaluation), ("training", rest, train)):
        if len(pool) < size:
            msg = (
                f"got {len(pool)} examples for {name}; expected {size}: give more data or raise "
                "max_tokens"
            )
            raise DataError(msg)
    drawn = Split(tuple(_draw(rest, train)), tuple(_draw(held_out, evaluation)))
    check(drawn)
    return drawn


def _hash(text: str) -> str:
    return sha256(text.encode())


def _draw(examples: Sequence[Example], count: int) -> list[Example]:
    return sorted(examples, key=lambda example: _hash(example.name))[:count]


def check(drawn: Split) -> None:
    """Refuse evaluation data in the training data, and labels that supervise nothing or everything.

    Both errors are silent otherwise: a leak gives a good evaluation loss, an empty mask a plausible
    training curve.
    """
    shared = {e.group for e in drawn.train} & {e.group for e in drawn.evaluation}
    if shared:
        msg = (
            f"training and evaluation share {len(shared)} groups, such as "
            f"{min(shared)!r}; expected none"
        )
        raise DataError(msg)
    targets = {_words(e.target) for e in drawn.train} & {_words(e.target) for e in drawn.evaluation}
    if targets:
        msg = (
            f"training and evaluation share {len(targets)} targets, such as "
            f"{min(targets)!r}; expected none"
        )
        raise DataError(msg)
    for side in (drawn.train, drawn.evaluation):
        supervised_share(side)


def _words(text: str) -> str:
    return " ".join(text.casefold().split())


def supervised_share(examples: Sequence[Example]) -> float:
    """Return supervised tokens / all tokens.

    Raises:
        DataError: the share is 0 (nothing is learned) or all tokens that can be (the prompt
            is learned too).
    """
    total = sum(len(e.encoded.ids) for e in examples)
    supervised = sum(e.encoded.supervised for e in examples)
    predictable = total - len(examples)  # nothing predicts a first token
    if supervised == 0 or supervised >= predictable:
        msg = (
            f"{supervised} of {predictable} tokens are supervised; expected some and not all: the "
            "completion alone. Check the chat template"
        )
        raise DataError(msg)
    return supervised / total


def shuffled(examples: Sequence[Example], seed: int) -> tuple[Example, ...]:
    """Return the control: every prompt stays and gets another example's target, each used once.

    The order of targets is one random cycle (Sattolo 1986), so none stays where it was.

    Raises:
        DataError: fewer than two examples, or a target that many share came back to its own prompt.
    """
    if len(examples) < 2:
        msg = f"{len(examples)} examples cannot be shuffled; expected at least 2"
        raise DataError(msg)
    order = list(range(len(examples)))
    generator = random.Random(seed)
    for i in range(len(order) - 1, 0, -1):
        j = generator.randrange(i)  # below i and never i itself: that makes one cycle
        order[i], order[j] = order[j], order[i]
    mixed = tuple(
        _with_target(example, examples[j]) for example, j in zip(examples, order, strict=True)
    )
    same = [m.name for e, m in zip(examples, mixed, strict=True) if e.target == m.target]
    if same:
        msg = (
            f"{len(same)} shuffled targets equal the true one, such as that of "
            f"{same[0]!r}; drop repeats"
        )
        raise DataError(msg)
    return mixed


def _with_target(example: Example, donor: Example) -> Example:
    prompt = example.encoded.prompt
    completion = donor.encoded.ids[len(donor.encoded.prompt) :]
    labels = (*[IGNORE] * len(prompt), *completion)
    messages = (*example.messages[:-1], donor.messages[-1])
    return replace(example, messages=messages, encoded=Encoded((*prompt, *completion), labels))


def write_examples(path: Path, examples: Sequence[Example]) -> None:
    """Write examples as JSONL, tokens included: to check them takes no tokenizer and no source."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as file:
        for e in examples:
            row = {
                "name": e.name,
                "group": e.group,
                "messages": list(e.messages),
                "ids": list(e.encoded.ids),
                "labels": list(e.encoded.labels),
            }
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


def read_examples(path: Path) -> tuple[Example, ...]:
    """Read what `write_examples` wrote."""
    rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    return tuple(
        Example(
            r["name"],
            r["group"],
            tuple(r["messages"]),
            Encoded(tuple(r["ids"]), tuple(r["labels"])),
        )
        for r in rows
    )
