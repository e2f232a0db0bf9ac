"""python-docstrings: a function's signature → first docstring line, from this Python's library.

The sources are parsed, never imported: importing would run code, depend on what the platform can
import, and let one module's import change another's. The order is that of the sorted paths, so one
Python version gives one list.
"""

import ast
import copy
import sysconfig
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

# Tests, vendored and generated trees, whose docstrings are not the library's; and packages that a
# distribution may leave out (tkinter) or a later Python has dropped (distutils).
LEFT_OUT = {
    "test",
    "tests",
    "site-packages",
    "dist-packages",
    "lib2to3",
    "idlelib",
    "turtledemo",
    "ensurepip",
}
LEFT_OUT |= {"tkinter", "distutils"}


@dataclass(frozen=True)
class Pair:
    """One public function: module ("queue"), signature ("Queue.put(item, block=True)"), summary."""

    module: str
    signature: str
    summary: str

    @property
    def package(self) -> str:
        """Return the top-level name: modules of one package describe things in similar words."""
        return self.module.partition(".")[0]


def pairs(root: Path | None = None) -> list[Pair]:
    """Return all pairs below `root` (default: the standard library), each summary once.

    Of equal summaries the first in the order of the paths is taken. Summaries are
    compared by their words, whatever their case and spacing: one documented function in twelve
    repeats another's line, and a repeat on both sides of a split is evaluation data in the training
    data.
    """
    root = root or Path(sysconfig.get_paths()["stdlib"])
    first: dict[str, Pair] = {}
    for path in sorted(root.rglob("*.py")):
        relative = path.relative_to(root)
        if not LEFT_OUT.intersection(relative.parts):
            for pair in _pairs_of(path, _module_name(relative)):
                first.setdefault(" ".join(pair.summary.casefold().split()), pair)
    return list(first.values())


def _module_name(relative: Path) -> str:
    parts = relative.with_suffix("").parts
    if parts[-1] == "__init__" and len(parts) > 1:
        parts = parts[:-1]
    return ".".join(parts)


def _pairs_of(path: Path, module: str) -> Iterator[Pair]:
    with warnings.catch_warnings():
        # Old modules contain escapes of which newer Pythons warn; they are not ours to fix.
        warnings.simplefilter("ignore")
        try:
            tree = ast.parse(path.read_bytes(), filename=str(path))
        except SyntaxError:  # a template, or code for another Python: no functions to show
            return
    for names, function in _public_functions(tree, ()):
        summary = (ast.get_docstring(function) or "").strip().partition("\n")[0].strip()
        if summary:
            name = ".".join(names)
            yield Pair(module, f"{name}({_parameters(function.args)})", summary)


def _parameters(arguments: ast.arguments) -> str:
    """Return the parameters as a caller sees them, without `self`, `cls` and annotations."""
    plain = copy.deepcopy(arguments)
    everything = [*plain.posonlyargs, *plain.args, *plain.kwonlyargs, plain.vararg, plain.kwarg]
    for argument in filter(None, everything):
        argument.annotation = None
    named = plain.posonlyargs or plain.args
    # A default belongs to the last parameters: where all have one, the first is no bound `self`.
    without_default = len(plain.posonlyargs + plain.args) > len(plain.defaults)
    if named and named[0].arg in {"self", "cls"} and without_default:
        del named[0]
    return ast.unparse(plain)


def _public_functions(
    node: ast.AST, outer: tuple[str, ...]
) -> Iterator[tuple[tuple[str, ...], ast.FunctionDef | ast.AsyncFunctionDef]]:
    """Yield functions and methods without a leading underscore, named from the outside in.

    Functions inside functions are left out.
    """
    for child in ast.iter_child_nodes(node):
        match child:
            case ast.FunctionDef() | ast.AsyncFunctionDef() if not child.name.startswith("_"):
                yield (*outer, child.name), child
            case ast.ClassDef() if not child.name.startswith("_"):
                yield from _public_functions(child, (*outer, child.name))
            case ast.If() | ast.Try() | ast.With():
                yield from _public_functions(child, outer)
