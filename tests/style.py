"""Figures of structure and density, to be judged by reading: `python -m tests.style`.

For each package: Python files on its top level; modules reached from its entry function (the
imports of the module that holds it, followed to the end, without those for type checking only);
conditional expressions and comprehensions per 1,000 lines of code; comments per 100; lines over 100
characters; import circles, those for type checking included, each named. Lines of code are neither
empty nor comments nor docstrings. The figures fail nothing.
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
"""Package -> the module of its entry function (`run_next` for `phases`); None if it has several."""
AIM = "aim: at most 30 modules, 8 conditional expressions, 25 comprehensions; at least 4 comments"
MAX_LINE = 100  # characters
_COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)


@dataclass(frozen=True)
class Module:
    """One module: its source text and its syntax tree."""

    text: str
    tree: ast.Module

    @property
    def code_lines(self) -> int:
        """Lines of code."""
        lines = set()
        for number, line in enumerate(self.text.splitlines(), start=1):
            if line.strip() and not line.strip().startswith("#"):
                lines.add(number)
        for node in ast.walk(self.tree):
            if _is_docstring(node):
                lines -= set(range(node.lineno, node.end_lineno + 1))  # type: ignore[attr-defined]
        return len(lines)

    @property
    def comments(self) -> int:
        """Comments, those behind code included; `# noqa` and its like are orders to tools."""
        count = 0
        for token in tokenize.generate_tokens(io.StringIO(self.text).readline):
            is_comment = token.type == tokenize.COMMENT
            if is_comment and not token.string.startswith(("# noqa", "# fmt:", "# type:")):
                count += 1
        return count

    def count(self, *kinds: type[ast.AST]) -> int:
        """Return how many nodes of these kinds the tree has."""
        return sum(isinstance(node, kinds) for node in ast.walk(self.tree))

    def imports(self, names: set[str], *, type_checking: bool) -> set[str]:
        """Return which of these modules it imports, inside functions too."""
        targets = set()
        for node in _nodes(self.tree, type_checking=type_checking):
            if isinstance(node, ast.Import):
                targets.update(alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                members = {f"{node.module}.{alias.name}" for alias in node.names}
                targets.update(members)
                if members - names:  # not modules: names of the package or module itself
                    targets.add(node.module)
        return targets & names


def _is_docstring(node: ast.AST) -> bool:
    """Return whether a node is a bare string: a docstring, of an attribute too."""
    if not isinstance(node, ast.Expr) or not isinstance(node.value, ast.Constant):
        return False
    return isinstance(node.value.value, str)


def _nodes(tree: ast.AST, *, type_checking: bool) -> Iterator[ast.AST]:
    """Yield all nodes, those below `if TYPE_CHECKING` only where asked."""
    for node in ast.iter_child_nodes(tree):
        is_guard = isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")
        if is_guard and not type_checking:
            continue
        yield node
        yield from _nodes(node, type_checking=type_checking)


def read_modules(package: str) -> dict[str, Module]:
    """Return every module of a package by its dotted name."""
    modules = {}
    for path in sorted((ROOT / package).rglob("*.py")):
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        text = path.read_text("utf-8")
        modules[name.removesuffix(".__init__")] = Module(text, ast.parse(text))
    return modules


#### the graph of imports


def import_graph(modules: dict[str, Module], *, type_checking: bool) -> dict[str, set[str]]:
    """Return module -> the modules of the package that it imports."""
    names = set(modules)
    graph = {}
    for name, module in modules.items():
        graph[name] = module.imports(names, type_checking=type_checking)
    return graph


def reached_modules(entry: str, graph: dict[str, set[str]]) -> set[str]:
    """Return every module that the entry's imports lead to, the entry included."""
    reached: set[str] = set()
    waiting = [entry]
    while waiting:
        name = waiting.pop()
        if name not in reached:
            reached.add(name)
            waiting += graph[name]
    return reached


def import_circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Return groups of modules each of which leads back to itself."""
    leads = {}
    for name, targets in graph.items():
        leads[name] = set().union(*(reached_modules(target, graph) for target in targets))
    circles = set()
    for name in graph:
        if name in leads[name]:
            circles.add(frozenset(other for other in leads[name] if name in leads[other]))
    return sorted(sorted(circle) for circle in circles)


#### the table


def row(package: str) -> str:
    """Return the figures of one package, and a line for each of its import circles."""
    modules = read_modules(package)
    graph = import_graph(modules, type_checking=False)
    circles = import_circles(import_graph(modules, type_checking=True))
    code_lines = sum(module.code_lines for module in modules.values())
    conditionals = sum(module.count(ast.IfExp) for module in modules.values())
    comprehensions = sum(module.count(*_COMPREHENSIONS) for module in modules.values())
    comments = sum(module.comments for module in modules.values())
    long_lines = 0
    for module in modules.values():
        long_lines += sum(len(line) > MAX_LINE for line in module.text.splitlines())
    reached = "-"
    entry = ENTRIES[package]
    if entry in graph:
        reached = f"{len(reached_modules(entry, graph))} of {len(graph)}"
    files = len(list((ROOT / package).glob("*.py")))
    figures = (
        f"{package:<8}{files:>6}{reached:>12}"
        f"{1000 * conditionals / code_lines:>14.1f}{1000 * comprehensions / code_lines:>16.1f}"
        f"{100 * comments / code_lines:>10.1f}{long_lines:>10}{len(circles):>9}"
    )
    return "\n".join([figures, *(f"  circle: {', '.join(circle)}" for circle in circles)])


def main() -> None:
    """Print the table."""
    print("package  files     modules   conditional  comprehensions  comments     lines   import")
    print("        on top     reached   expr./1,000          /1,000      /100  over 100  circles")
    for package in ENTRIES:
        print(row(package))
    print(AIM)


if __name__ == "__main__":
    main()
