"""Figures of structure and density, for judgement by reading: `python -m tests.style`. It fails nothing.

For each package: Python files on its top level; modules reached from its entry function (the imports of the module that
holds the function, followed to the end; imports for type checking only are left out); conditional expressions and
comprehensions per 1,000 lines; comment lines per 100 lines; lines over 100 characters; import circles, each named.
Lines are those that hold code: no blank lines, no comments, no docstrings.
"""

from __future__ import annotations

import ast
import io
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
ENTRIES = {"phases": "phases.run.runner", "lab": "lab.__main__", "gates": None, "tests": None}
"""Package -> the module of its entry function: `run_next` for `phases`; None where there is no single one."""
AIMS = "aim: modules at most 30, conditional expressions 8, comprehensions 25, comments at least 4"
MAX_LINE = 100  # characters


@dataclass(frozen=True)
class Source:
    """One module: its text, its tree, and what its code consists of."""

    name: str
    text: str
    tree: ast.Module

    @property
    def comments(self) -> int:
        """Comments, those behind code included; orders to tools (`# noqa`, `# fmt`, `# type`) are none."""
        tokens = tokenize.generate_tokens(io.StringIO(self.text).readline)
        texts = [token.string for token in tokens if token.type == tokenize.COMMENT]
        return sum(not text.startswith(("# noqa", "# fmt:", "# type:")) for text in texts)

    @property
    def code_lines(self) -> int:
        """Lines that hold code."""
        lines = self.text.splitlines()
        held = {
            number
            for number, line in enumerate(lines, 1)
            if line.strip() and line.strip()[0] != "#"
        }
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
                if isinstance(node.value.value, str):  # a docstring, of an attribute too
                    held -= set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
        return len(held)

    def count(self, *kinds: type[ast.AST]) -> int:
        """Nodes of these kinds in the tree."""
        return sum(isinstance(node, kinds) for node in ast.walk(self.tree))


def sources(package: str) -> dict[str, Source]:
    """Every module of a package by its dotted name."""
    modules = {}
    for path in sorted((ROOT / package).rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        text = path.read_text("utf-8")
        modules[name] = Source(name, text, ast.parse(text))
    return modules


def imports(source: Source, known: set[str]) -> set[str]:
    """The modules of the package that this one imports when it runs, inside functions too."""
    targets = set()
    for node in _run_nodes(source.tree):
        if isinstance(node, ast.Import):
            targets |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            members = {f"{node.module}.{alias.name}" for alias in node.names}
            submodules = members & known
            targets |= submodules
            if members - submodules:
                targets.add(node.module)
    return targets & known


def _run_nodes(tree: ast.AST) -> Iterator[ast.AST]:
    """All nodes but those below `if TYPE_CHECKING`."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            continue
        yield node
        yield from _run_nodes(node)


def reached(entry: str, graph: dict[str, set[str]]) -> set[str]:
    """Every module that the entry's imports lead to, the entry included."""
    seen, waiting = set(), [entry]
    while waiting:
        name = waiting.pop()
        if name not in seen:
            seen.add(name)
            waiting += graph[name]
    return seen


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Groups of modules each of which leads back to itself."""
    leads = {
        name: set().union(*(reached(target, graph) for target in graph[name])) for name in graph
    }
    groups = {
        frozenset(other for other in leads[name] if name in leads[other])
        for name in graph
        if name in leads[name]
    }
    return sorted(sorted(group) for group in groups)


def figures(package: str) -> str:
    """The row of one package."""
    modules = sources(package)
    graph = {name: imports(source, set(modules)) for name, source in modules.items()}
    lines = sum(source.code_lines for source in modules.values())
    conditionals = sum(source.count(ast.IfExp) for source in modules.values())
    kinds = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
    comprehensions = sum(source.count(*kinds) for source in modules.values())
    comments = sum(source.comments for source in modules.values())
    long = sum(
        len(line) > MAX_LINE for source in modules.values() for line in source.text.splitlines()
    )
    entry = ENTRIES[package]
    files = len(list((ROOT / package).glob("*.py")))
    modules_reached = f"{len(reached(entry, graph))} of {len(modules)}" if entry in graph else "-"
    row = (
        f"{package:<8}{files:>6}{modules_reached:>12}{1000 * conditionals / lines:>14.1f}"
        f"{1000 * comprehensions / lines:>16.1f}{100 * comments / lines:>10.1f}{long:>10}"
    )
    return "\n".join(
        [
            f"{row}{len(circles(graph)):>9}",
            *(f"  circle: {', '.join(group)}" for group in circles(graph)),
        ]
    )


def main() -> None:
    """Prints the table."""
    print("package  files     modules   conditional  comprehensions  comments     lines   import")
    print("        on top     reached   expr./1,000          /1,000      /100  over 100  circles")
    for package in ENTRIES:
        print(figures(package))
    print(AIMS)


if __name__ == "__main__":
    main()
