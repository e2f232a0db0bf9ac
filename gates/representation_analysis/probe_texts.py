"""FEAT-015's probes: functions, tokens and labels, drawn and labelled again.

The rules are those that lab/representation_analysis/probe_texts.py states. The functions are those
of the standard library of the Python that judges, which is the one that ran the experiment.
"""

from __future__ import annotations

import ast
import bisect
import io
import json
import random
import string
import sysconfig
import textwrap
import tokenize
import warnings
from pathlib import Path
from typing import Any

from gates.shared import outputs
from gates.shared.stored import cached, config

PARTS = ("name", "parameter", "value", "punctuation", "body")
KINDS = ("code", "string")
CLASSES = {"part": PARTS, "string": KINDS}
SPLITS = ("train", "validation", "test")
NO_LIBRARY = {
    "test",
    "tests",
    "site-packages",
    "dist-packages",
    "lib2to3",
    "idlelib",
    "turtledemo",
    "ensurepip",
    "tkinter",
    "distutils",
}
PLAIN = set(string.printable) - set("\r\v\f")  # of these alone a file may be made
Drawn = dict[str, Any]


def settings() -> dict[str, Any]:
    """Return the settings of the probes."""
    return dict(config()["probes"])


def seed() -> int:
    """Return the seed of the run."""
    return int(outputs.result()["environment"]["seed"])


def key() -> str:
    """Return what all that is drawn depends on, as text."""
    return json.dumps([config()["model"], settings(), seed()], sort_keys=True)


def drawn() -> Drawn:
    """Return functions (module, name, split), ids [F][T], and of each property labels, control."""
    return dict(cached(f"probe texts {key()}", [], _draw))


def rows(split: str) -> slice:
    """Return which of the F functions are those of a split."""
    first = sum(settings()[other] for other in SPLITS[: SPLITS.index(split)])
    return slice(first, first + settings()[split])


def labels(prop: str, kind: str = "labels") -> Any:
    """Return the labels of a property, or of its control task, [F, T]."""
    import numpy as np

    return np.array(drawn()[f"{prop}.{kind}"])


def ids() -> Any:
    """Return the token ids, [F, T]."""
    import numpy as np

    return np.array(drawn()["ids"])


def _draw() -> Drawn:
    functions, chosen = _functions()
    found: Drawn = {"functions": functions, "ids": [one["ids"] for one in chosen]}
    for prop, classes in CLASSES.items():
        found[f"{prop}.labels"] = [one[prop] for one in chosen]
        # each token type has one class, wherever it stands; classes are as frequent as in training
        seen = [label for one in chosen[rows("train")] for label in one[prop][1:]]
        types = sorted({token for one in chosen for token in one["ids"]})
        generator = random.Random(f"{prop} {seed()}")
        frequencies = [seen.count(place) for place in range(len(classes))]
        drawn_classes = generator.choices(range(len(classes)), weights=frequencies, k=len(types))
        class_of = dict(zip(types, drawn_classes, strict=True))
        found[f"{prop}.control"] = [[class_of[token] for token in one["ids"]] for one in chosen]
    return found


def _functions() -> tuple[list[dict[str, str]], list[Drawn]]:
    """Return the functions that the seed draws, and the tokens of each with their labels."""
    from tokenizers import Tokenizer

    # 1. The packages of the library, in an order that the seed draws.
    tokenizer = Tokenizer.from_file(str(outputs.inputs()[config()["model"]] / "tokenizer.json"))
    tokenizer.no_truncation()
    root = Path(sysconfig.get_paths()["stdlib"])
    packages: dict[str, list[Path]] = {}
    for path in sorted(root.rglob("*.py")):
        names = path.relative_to(root).with_suffix("").parts
        if NO_LIBRARY.isdisjoint(names):
            packages.setdefault(names[0], []).append(path)
    generator = random.Random(seed())
    order = sorted(packages)
    generator.shuffle(order)

    # 2. Some functions of each, until every split is full; a package is in one of them.
    counts = settings()
    functions: list[dict[str, str]] = []
    chosen: list[Drawn] = []
    taken: set[tuple[int, ...]] = set()
    for package in order:
        candidates: dict[tuple[int, ...], Drawn] = {}
        for path in packages[package]:
            module = ".".join(path.relative_to(root).with_suffix("").parts)
            for one in _candidates(path, module.removesuffix(".__init__"), tokenizer):
                if tuple(one["ids"]) not in taken:
                    candidates.setdefault(tuple(one["ids"]), one)
        size = min(counts["per_package"], len(candidates))
        sample = generator.sample(list(candidates), size)
        split, left = _open_split(len(chosen))
        for tokens in sample[:left]:
            one = candidates[tokens]
            taken.add(tokens)
            chosen.append(one)
            functions.append({"module": one["module"], "name": one["name"], "split": split})
        if len(chosen) == sum(counts[split] for split in SPLITS):
            return functions, chosen
    msg = f"the standard library has {len(chosen)} functions for the probes"
    raise AssertionError(msg)


def _open_split(count: int) -> tuple[str, int]:
    """Return the split that function `count` is for, and how many it has still room for."""
    for split in SPLITS:
        if count < rows(split).stop:
            return split, rows(split).stop - count
    msg = f"{count} functions are enough"
    raise AssertionError(msg)


def _candidates(path: Path, module: str, tokenizer: Any) -> list[Drawn]:
    """Return the functions of a file that can be used."""
    try:
        content = path.read_bytes().decode("ascii")
        if set(content) - PLAIN:
            return []
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(content)
            found = [
                _labelled(text, tokenizer) | {"module": module, "name": name}
                for name, text in _texts(tree, content.splitlines(keepends=True), "")
            ]
    except (SyntaxError, UnicodeDecodeError):
        return []
    return [one for one in found if one["is_usable"]]


def _texts(node: ast.AST, lines: list[str], prefix: str) -> list[tuple[str, str]]:
    """Return name and text of functions with a default value; not those inside functions."""
    texts = []
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef):
            text = textwrap.dedent("".join(lines[child.lineno - 1 : child.end_lineno]))
            defaults = child.args.defaults + [value for value in child.args.kw_defaults if value]
            if defaults and text.startswith("def "):
                texts.append((prefix + child.name, text))
        elif isinstance(child, ast.ClassDef):
            texts += _texts(child, lines, f"{prefix}{child.name}.")
        elif isinstance(child, (ast.If, ast.Try, ast.With)):
            texts += _texts(child, lines, prefix)
    return texts


def _labelled(text: str, tokenizer: Any) -> Drawn:
    """Return the first T tokens of a function with their labels, and whether it can be used."""
    total, last = settings()["tokens"], settings()["signature"]
    encoded = tokenizer.encode(text, add_special_tokens=False)
    spans = encoded.offsets[:total]
    if len(spans) < total:
        return {"is_usable": False}
    spans_of_part, end = _signature(text)
    if end > spans[last][0]:
        return {"is_usable": False}
    strings = _strings(text)
    part, inside_string = [], []
    for start, stop in spans:
        shown = [place for place in range(start, stop) if not text[place].isspace()]
        place = shown[0] if shown else start
        inside_string.append(int(any(a <= place < b for a, b in strings)))
        inside = [name for a, b, name in spans_of_part if a <= place < b]
        other = "punctuation" if place < end else "body"
        part.append(PARTS.index(inside[0] if inside else other))
    found = {"is_usable": True, "ids": encoded.ids[:total]}
    return found | {"part": part, "string": inside_string}


class Places:
    """From (line, column), as Python counts them, to the place of a character in a text."""

    def __init__(self, text: str) -> None:
        self.starts = [0]
        for line in text.splitlines(keepends=True):
            self.starts.append(self.starts[-1] + len(line))

    def at(self, line: int, column: int) -> int:
        """Return the place of a line, counted from 1, and a column, from 0."""
        return self.starts[line - 1] + column

    def of(self, node: Any) -> tuple[int, int]:
        """Return start and end of a node."""
        begin = self.at(node.lineno, node.col_offset)
        return begin, self.at(node.end_lineno, node.end_col_offset)


def _signature(text: str) -> tuple[list[tuple[int, int, str]], int]:
    """Return (start, end, part) of what has a name, and the place behind the signature's colon."""
    (node,) = ast.parse(text).body
    assert isinstance(node, ast.FunctionDef)
    places = Places(text)
    begin = text.index(node.name, len("def"))
    spans = [(begin, begin + len(node.name), "name")]
    for one in ast.walk(node.args):
        if isinstance(one, ast.arg) and not _is_inside(places.of(one)[0], spans, "value"):
            start = places.of(one)[0]
            spans.append((start, start + len(one.arg), "parameter"))
            if one.annotation:
                spans.append((*places.of(one.annotation), "value"))
        # `ast.walk` goes from the outside in: defaults come before what is inside them
        if one is node.args:
            values = [*node.args.defaults, *node.args.kw_defaults, node.returns]
            spans += [(*places.of(value), "value") for value in values if value]

    # The colon is the first one behind all of these that is no part of a comment.
    behind = max(end for _, end, _ in spans)
    colons = []
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.OP and token.string == ":":
            colons.append(places.at(*token.end))
    return spans, colons[bisect.bisect_right(colons, behind)]


def _is_inside(place: int, spans: list[tuple[int, int, str]], name: str) -> bool:
    """Return whether a place is in a span of this name: a lambda's argument is part of a value."""
    return any(start <= place < end and part == name for start, end, part in spans)


def _strings(text: str) -> list[tuple[int, int]]:
    """Return start and end of every string, its prefix and its quotes included."""
    places = Places(text)
    found: list[tuple[int, int]] = []
    opened: list[int] = []
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        name = tokenize.tok_name[token.type]
        begin, end = places.at(*token.start), places.at(*token.end)
        if name.endswith("STRING_START"):  # a string with fields, from Python 3.12 on
            opened.append(begin)
        elif name.endswith("STRING_END"):
            found.append((opened.pop(), end))
        elif name == "STRING":
            found.append((begin, end))
    return found
