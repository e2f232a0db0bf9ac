"""Functions of the standard library with labels of their tokens, for the probes.

The labels are for free: Python itself says what a character belongs to.
"""

from __future__ import annotations

import ast
import io
import random
import string
import sysconfig
import textwrap
import tokenize
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lab.contract import ContractError
from lab.instruments.docstrings import LEFT_OUT
from lab.representation_analysis.probe_measured import (
    CLASSES,
    PART,
    SPLITS,
    STRING,
    ProbeFunction,
    ProbePlan,
)

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# Every byte is one character, and a line ends where Python and `splitlines` say so alike: a form
# feed ends a line for the latter only.
PLAIN = frozenset(string.printable) - frozenset("\r\v\f")
# what opens and closes a string with fields: f"…" from Python 3.12 on, t"…" from 3.14 on
OPENING = {"FSTRING_START", "TSTRING_START"}
CLOSING = {"FSTRING_END", "TSTRING_END"}


@dataclass(frozen=True)
class Source:
    """A function: its text, dedented, from `def` on, and the class of each character."""

    module: str
    name: str
    text: str
    part: np.ndarray
    string: np.ndarray

    @property
    def signature_end(self) -> int:
        """Return the place behind the colon that ends the signature."""
        return int((self.part == CLASSES[PART].index("body")).argmax())


@dataclass(frozen=True)
class LabelledTokens:
    """The first T tokens of each of F functions: ids [F, T] and property -> labels [F, T]."""

    functions: list[ProbeFunction]
    ids: np.ndarray
    labels: dict[str, np.ndarray]


def labelled_tokens(
    tokenizer: PreTrainedTokenizerBase, plan: ProbePlan, seed: int, root: Path | None = None
) -> LabelledTokens:
    """Return the functions that the seed draws, split by package.

    random.Random(seed) shuffles the top-level packages of the standard library; of each one that
    has functions to use it takes at most `per_package`, by `sample`. They fill training, validation
    and test in this order. Where a split is full, the rest of the package is dropped: no package,
    hence no module, is on two sides.

    A function can be used if it has at least T tokens, at least one default value, and a signature
    that ends before token `signature`. Of functions with the same tokens the first is taken.

    Raises:
        ContractError: the library has too few such functions.
    """
    root = root or Path(sysconfig.get_paths()["stdlib"])
    draw = random.Random(seed)
    packages = library_packages(root)
    names = sorted(packages)
    draw.shuffle(names)

    functions: list[ProbeFunction] = []
    rows: dict[tuple[int, ...], dict[str, list[int]]] = {}
    waiting = [split for split in SPLITS for _ in range(plan.count(split))]
    for name in names:
        usable = _usable(packages[name], root, tokenizer, plan)
        new = {ids: found for ids, found in usable.items() if ids not in rows}
        chosen = draw.sample(list(new), min(plan.per_package, len(new)))
        split = waiting[len(functions)]
        for ids in chosen[: waiting[len(functions) :].count(split)]:
            source, rows[ids] = new[ids]
            functions.append(ProbeFunction(source.module, source.name, split))
        if len(functions) == len(waiting):
            labels = {key: np.array([row[key] for row in rows.values()]) for key in CLASSES}
            return LabelledTokens(functions, np.array(list(rows)), labels)
    msg = f"{root} has {len(functions)} functions for the probes; expected {len(waiting)}"
    raise ContractError(msg)


def library_packages(root: Path) -> dict[str, list[Path]]:
    """Return top-level package or module -> its source files, sorted."""
    packages: dict[str, list[Path]] = {}
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        if not LEFT_OUT.intersection(parts):
            packages.setdefault(parts[0], []).append(path)
    return packages


def _usable(
    paths: list[Path], root: Path, tokenizer: PreTrainedTokenizerBase, plan: ProbePlan
) -> dict[tuple[int, ...], tuple[Source, dict[str, list[int]]]]:
    """Return ids [T] -> the source of a function that can be used, and its tokens' labels."""
    usable: dict[tuple[int, ...], tuple[Source, dict[str, list[int]]]] = {}
    for path in paths:
        for source in sources(path, _module_name(path.relative_to(root))):
            encoded = tokenizer(
                source.text,
                add_special_tokens=False,
                return_offsets_mapping=True,
                verbose=False,
            )
            spans = encoded["offset_mapping"][: plan.tokens]
            is_long_enough = len(spans) == plan.tokens
            if is_long_enough and source.signature_end <= spans[plan.signature][0]:
                ids = tuple(encoded["input_ids"][: plan.tokens])
                labels = {
                    PART: token_labels(source.text, source.part, spans),
                    STRING: token_labels(source.text, source.string, spans),
                }
                usable.setdefault(ids, (source, labels))
    return usable


def _module_name(relative: Path) -> str:
    return ".".join(relative.with_suffix("").parts).removesuffix(".__init__")


def token_labels(text: str, characters: np.ndarray, spans: list[tuple[int, int]]) -> list[int]:
    """Return the class of each token: that of its first character that is not blank.

    A token of blanks has the class of its first character.
    """
    labels = []
    for start, end in spans:
        blanks = len(text[start:end]) - len(text[start:end].lstrip())
        first = start + blanks if start + blanks < end else start
        labels.append(int(characters[first]))
    return labels


def sources(path: Path, module: str) -> Iterator[Source]:
    """Yield the functions of a file that have a default value, without functions inside functions.

    Left out are `async def`, functions with a line that is less indented than their `def`, and
    files with a character that is not in PLAIN.
    """
    with warnings.catch_warnings():
        # Old modules contain escapes of which newer Pythons warn; they are not ours to fix.
        warnings.simplefilter("ignore")
        try:
            content = path.read_bytes().decode("ascii")
            tree = ast.parse(content)
        except (SyntaxError, UnicodeDecodeError):  # a template, or code for another Python
            return
        if not PLAIN.issuperset(content):
            return
        lines = content.splitlines(keepends=True)
        for name, node in _functions(tree, ()):
            text = textwrap.dedent("".join(lines[node.lineno - 1 : node.end_lineno]))
            has_default = any([*node.args.defaults, *node.args.kw_defaults])
            if has_default and text.startswith("def "):
                yield Source(module, name, text, *_classes(text))


def _functions(node: ast.AST, outer: tuple[str, ...]) -> Iterator[tuple[str, ast.FunctionDef]]:
    for child in ast.iter_child_nodes(node):
        match child:
            case ast.FunctionDef():
                yield ".".join((*outer, child.name)), child
            case ast.ClassDef():
                yield from _functions(child, (*outer, child.name))
            case ast.If() | ast.Try() | ast.With():
                yield from _functions(child, outer)


def _classes(text: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the classes of each character by both properties."""
    (node,) = ast.parse(text).body
    assert isinstance(node, ast.FunctionDef)
    starts = np.cumsum([0, *(len(line) for line in text.splitlines(keepends=True))])
    tokens = list(tokenize.generate_tokens(io.StringIO(text).readline))

    # 1. The signature: punctuation, if it is nothing else; keywords and comments are too.
    part = np.full(len(text), CLASSES[PART].index("body"))
    part[: _end_of_signature(tokens, starts)] = CLASSES[PART].index("punctuation")

    def mark(line: int, column: int, length: int, name: str) -> None:
        place = starts[line - 1] + column
        part[place : place + length] = CLASSES[PART].index(name)

    mark(*tokens[1].start, len(node.name), "name")
    arguments = node.args
    values = [*arguments.defaults, *arguments.kw_defaults, node.returns]
    everything = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
    for argument in filter(None, [*everything, arguments.vararg, arguments.kwarg]):
        mark(argument.lineno, argument.col_offset, len(argument.arg), "parameter")
        values.append(argument.annotation)
    for value in filter(None, values):
        end = starts[(value.end_lineno or 0) - 1] + (value.end_col_offset or 0)
        start = starts[value.lineno - 1] + value.col_offset
        mark(value.lineno, value.col_offset, end - start, "value")
    return part, _strings(tokens, starts, len(text))


def _end_of_signature(tokens: list[tokenize.TokenInfo], starts: np.ndarray) -> int:
    """Return the place behind the first colon that is in no bracket."""
    depth = 0
    for token in tokens:
        if token.type == tokenize.OP:
            depth += (token.string in "([{") - (token.string in ")]}")
            if token.string == ":" and depth == 0:
                return int(starts[token.end[0] - 1]) + token.end[1]
    msg = "a function without a colon"
    raise AssertionError(msg)


def _strings(tokens: list[tokenize.TokenInfo], starts: np.ndarray, length: int) -> np.ndarray:
    """Return which characters are in a string, its prefix and quotes included, [length]."""
    inside = np.zeros(length, dtype=np.int64)
    depth, begin = 0, 0
    for token in tokens:
        kind = tokenize.tok_name[token.type]
        start = int(starts[token.start[0] - 1]) + token.start[1]
        if kind in OPENING:
            begin = begin if depth else start
            depth += 1
        elif kind in CLOSING:
            depth -= 1
        is_whole = kind in CLOSING and depth == 0
        if kind == "STRING" and depth == 0:
            begin, is_whole = start, True
        if is_whole:
            inside[begin : int(starts[token.end[0] - 1]) + token.end[1]] = 1
    return inside
