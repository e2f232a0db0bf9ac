"""Mutants of a file, by the operators of mutmut.

mutmut's own runner makes none in properties and none outside of functions, and counts no test that
reaches the code through a child process. So its operators are used, and the running is ours.

What tells no mutant from the original is left out by these rules alone:

- annotations, decorators, imports and docstrings: no behaviour depends on them;
- text for people, which is a literal with two words, or a word and a value, in a row: wording is
  free, and a test that compared it would only copy it;
- the case of an encoding's name: Python takes both;
- arguments of `len` and `isinstance`: such a mutant always dies, and would only better the share.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import libcst as cst
from libcst.metadata import CodeRange, MetadataWrapper, PositionProvider
from mutmut.mutation.mutators import mutation_operators

_SKIPPED_NODES = (cst.Annotation, cst.Decorator, cst.Import, cst.ImportFrom)
_WORDS = re.compile(r"[A-Za-z]{2,}[,:;.)]? ([A-Za-z]{2,}|0)|0 [A-Za-z]{2,}")
"""Two words in a row, or a word and a value, for which `_is_for_people` writes 0."""
_ENCODINGS = ("utf-8", "ascii")


@dataclass(frozen=True)
class Mutant:
    """One small change of a file."""

    path: str
    number: int
    """Its number among the mutants of the file."""
    line: int
    function: str | None
    """The function or method that it is in, `Class.method`; None for what an import runs."""
    code: str
    """The whole file with the change."""


def make_mutants(path: str, code: str) -> list[Mutant]:
    """Return the mutants of a file, in the order of its lines; each is another program."""
    wrapper = MetadataWrapper(cst.parse_module(code))
    module = wrapper.module
    texts = [module.code_for_node(statement) for statement in module.body]
    # What is before the first statement and after the last one.
    start, end = code.split("".join(texts))
    mutants = []
    for index, statement in enumerate(module.body):
        visitor = _Visitor(wrapper.resolve(PositionProvider))
        statement.visit(visitor)
        seen = {_parse(texts[index])}
        for line, function, original, mutated in visitor.found:
            changed = statement.deep_replace(original, mutated)
            assert isinstance(changed, cst.CSTNode)
            text = module.code_for_node(changed)
            tree = _parse(text)
            if tree is None or tree in seen:
                continue
            seen.add(tree)
            whole = "".join((start, *texts[:index], text, *texts[index + 1 :], end))
            mutants.append(Mutant(path, len(mutants) + 1, line, function, whole))
    return mutants


def _parse(code: str) -> str | None:
    """Return the syntax tree as text; None for what is no program."""
    try:
        compile(code, "mutant", "exec", dont_inherit=True)
    except SyntaxError:
        return None
    return ast.dump(ast.parse(code))


class _Visitor(cst.CSTVisitor):
    """Collects line, function, node and changed node of each mutant."""

    def __init__(self, positions: Mapping[cst.CSTNode, CodeRange]) -> None:
        super().__init__()
        self._positions = positions
        self.found: list[tuple[int, str | None, cst.CSTNode, cst.CSTNode]] = []
        self._names: list[str] = []
        self._functions: list[str] = []
        """The functions around the node; a class inside of a function is none of its own."""

    def on_visit(self, node: cst.CSTNode) -> bool:
        if isinstance(node, _SKIPPED_NODES) or _is_docstring(node) or _is_for_people(node):
            return False
        if isinstance(node, cst.Call) and _is_size_or_type(node):
            return False
        for kind, operator in mutation_operators:
            if isinstance(node, kind):
                self._add(node, operator(node))
        if isinstance(node, cst.FunctionDef | cst.ClassDef):
            self._names.append(node.name.value)
        if isinstance(node, cst.FunctionDef):
            self._functions.append(".".join(self._names))
        return True

    def on_leave(self, original_node: cst.CSTNode) -> None:
        if isinstance(original_node, cst.FunctionDef):
            self._functions.pop()
        if isinstance(original_node, cst.FunctionDef | cst.ClassDef):
            self._names.pop()

    def _add(self, node: cst.CSTNode, changed: Iterable[cst.CSTNode]) -> None:
        function = self._functions[0] if self._functions else None
        for mutated in changed:
            if isinstance(node, cst.SimpleString) and _is_other_case_of_encoding(node, mutated):
                continue
            line = self._positions[node].start.line
            self.found.append((line, function, node, mutated))


def _is_docstring(node: cst.CSTNode) -> bool:
    return isinstance(node, cst.Expr) and isinstance(node.value, cst.BaseString)


def _is_for_people(node: cst.CSTNode) -> bool:
    """Return whether a literal is text: neither bytes nor a raw string, with two words in a row."""
    if isinstance(node, cst.ConcatenatedString):
        return _is_for_people(node.left) or _is_for_people(node.right)
    if isinstance(node, cst.FormattedString):
        texts = []
        for part in node.parts:
            texts.append(part.value if isinstance(part, cst.FormattedStringText) else "0")
        return _WORDS.search("".join(texts)) is not None
    if not isinstance(node, cst.SimpleString) or {"b", "r"} & set(node.prefix.lower()):
        return False
    return _WORDS.search(node.value) is not None


def _is_size_or_type(node: cst.Call) -> bool:
    return isinstance(node.func, cst.Name) and node.func.value in ("len", "isinstance")


def _is_other_case_of_encoding(node: cst.SimpleString, mutated: cst.CSTNode) -> bool:
    assert isinstance(mutated, cst.SimpleString)
    return node.raw_value in _ENCODINGS and mutated.raw_value.lower() in _ENCODINGS
