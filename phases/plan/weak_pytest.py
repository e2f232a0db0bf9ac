"""Why a pytest file judges nothing: its checks read no number, assert nothing, or there is none.

The files are parsed, never imported. A check is followed by name into the functions and classes of
its file and of the modules of `gates` that it imports; a parameter names a fixture. It judges if
what it reaches

- calls anything that this module does not know: it may do anything; or
- asserts, and reads a number: it parses a file (`json.loads`, `float`), or reads the text of one
  and compares more of it than its length and the words in it.

So a check that asserts only `path.exists()`, `st_size > 0`, `len(files) == 3` or `"loss" in text`
judges nothing; nor does one marked `integrity`, which compares digests and knows no number.
"""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path

NO_CHECK = "has no check"
NO_ASSERTION = "no check asserts anything"
NO_NUMBER = "no check reads a number"

_TEXT = {"open", "read", "read_bytes", "read_text", "readline", "readlines"}
"""Calls that return what is in a file."""
_PARSE = {"load", "loads", "float", "int", "reader", "DictReader", "safe_load"}
"""Calls that make numbers of it, and assert nothing about them."""
_ASSERT = {
    "assertTrue", "assertFalse", "assertIn", "assertNotIn", "assertIsNone", "assertIsNotNone",
    "fail", "raises",
}  # fmt: skip
_LOOK = {
    # paths and folders
    "Path", "PurePath", "PurePosixPath", "absolute", "as_posix", "basename", "dirname", "exists",
    "getenv", "getsize", "glob", "is_dir", "is_file", "isdir", "isfile", "iterdir", "joinpath",
    "listdir", "relative_to", "resolve", "rglob", "scandir", "stat", "walk", "with_suffix",
    # texts and collections
    "abs", "add", "all", "any", "append", "bool", "decode", "endswith", "enumerate", "extend",
    "format", "get", "isinstance", "items", "join", "keys", "len", "list", "lower", "max", "min",
    "print", "range", "repr", "round", "set", "sorted", "split", "splitlines", "startswith", "str",
    "strip", "sum", "tuple", "upper", "values", "zip",
    # pytest
    "fixture", "parametrize",
}  # fmt: skip
"""Calls that neither read a number nor assert anything."""
_COMPARE = (ast.Eq, ast.NotEq, ast.Lt, ast.LtE, ast.Gt, ast.GtE)  # not `in` and not `is`
_ENCODINGS = ("utf-8", "utf8")

_Function = ast.FunctionDef | ast.AsyncFunctionDef
_Definitions = dict[str, list[ast.AST]]
"""Name -> the functions and classes of that name in the gate file and its modules."""


def pytest_weakness(root: Path, file: str) -> str | None:
    """Return why a gate file judges nothing; None if it may judge or is not understood."""
    modules = _read_modules(root, file)
    if file not in modules:
        return None
    gate = modules[file]
    definitions = _find_definitions(modules.values())
    before = list(_run_before_checks(gate, definitions))
    # A check that is imported from elsewhere, or made by a call, cannot be read.
    if not definitions.keys() >= set(_imported_checks(gate)):
        return None
    if _unknown_calls(_reach(before, definitions), definitions):
        return None
    reasons = {NO_CHECK}
    for check in _find_checks(gate, definitions):
        reason = _check_weakness(check, before, definitions)
        if reason is None:
            return None
        reasons.add(reason)
    for reason in (NO_NUMBER, NO_ASSERTION):
        if reason in reasons:
            return reason
    return NO_CHECK


#### files


def _read_modules(root: Path, file: str) -> dict[str, ast.Module]:
    """Return the gate file and the modules of `gates` that it leads to, by path."""
    modules: dict[str, ast.Module] = {}
    waiting = [file]
    while waiting:
        path = waiting.pop()
        if path in modules:
            continue
        tree = _parse(root / path)
        if tree is not None:
            modules[path] = tree
            waiting += _imported_files(tree)
    return modules


def _parse(path: Path) -> ast.Module | None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the text that is parsed
            return ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _imported_files(tree: ast.Module) -> Iterator[str]:
    """Yield the files that imports of `gates` may mean, whether or not they exist."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    for name in names:
        if name.startswith("gates."):
            path = name.replace(".", "/")
            yield f"{path}.py"
            yield f"{path}/__init__.py"


#### checks


def _find_definitions(trees: Iterable[ast.Module]) -> _Definitions:
    definitions: _Definitions = {}
    for tree in trees:
        for node in ast.walk(tree):
            if isinstance(node, _Function | ast.ClassDef):
                definitions.setdefault(node.name, []).append(node)
    return definitions


def _find_checks(gate: ast.Module, definitions: _Definitions) -> Iterator[ast.AST]:
    """Yield what pytest may collect: functions, classes, what is imported or assigned by name."""
    for name in _imported_checks(gate):
        yield from definitions[name]
    for statement in gate.body:
        if any(_is_check(node) for node in ast.walk(statement)):
            yield statement


def _imported_checks(gate: ast.Module) -> Iterator[str]:
    for statement in gate.body:
        if isinstance(statement, ast.ImportFrom):
            for alias in statement.names:
                if alias.name == "*" or _is_check_name(alias.asname or alias.name):
                    yield alias.name


def _is_check(node: ast.AST) -> bool:
    match node:
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
            return _is_check_name(name)
        case ast.ClassDef(name=name, bases=bases):
            return _is_check_name(name) or bool(bases)  # a base may be unittest.TestCase
        case ast.Name(id=name, ctx=ast.Store()):
            return _is_check_name(name)
    return False


def _is_check_name(name: str) -> bool:
    return name.startswith(("test", "Test"))


def _run_before_checks(gate: ast.Module, definitions: _Definitions) -> Iterator[ast.AST]:
    """Yield what counts for every check: the module's own statements, fixtures and set-up."""
    for statement in gate.body:
        if not isinstance(statement, _Function | ast.ClassDef | ast.Import | ast.ImportFrom):
            yield statement
    for nodes in definitions.values():
        for node in nodes:
            if isinstance(node, _Function) and _is_unasked(node):
                yield node


def _is_unasked(function: _Function) -> bool:
    """Return whether pytest may call a function whose name no check says."""
    calls = [item for item in function.decorator_list if isinstance(item, ast.Call)]
    is_named_elsewhere = any(_name(call.func) == "fixture" for call in calls)
    return is_named_elsewhere or function.name.lower().startswith("setup")


#### what a check does


def _check_weakness(check: ast.AST, before: list[ast.AST], definitions: _Definitions) -> str | None:
    """Return why one check judges nothing; None if it may judge."""
    if _is_integrity(check):
        return NO_NUMBER
    nodes = _reach([check, *before], definitions)
    if _unknown_calls(nodes, definitions):
        return None
    calls = _called_names(nodes)
    has_statement = any(isinstance(node, ast.Assert | ast.Raise) for node in nodes)
    if not has_statement and not calls & _ASSERT:
        return NO_ASSERTION
    if calls & _PARSE or (calls & _TEXT and _compares_content(nodes)):
        return None
    return NO_NUMBER


def _is_integrity(check: ast.AST) -> bool:
    if not isinstance(check, _Function):
        return False
    return any(_name(decorator) == "integrity" for decorator in check.decorator_list)


def _unknown_calls(nodes: list[ast.AST], definitions: _Definitions) -> set[str]:
    """Return the called names that may mean anything; those of the gate's own were followed."""
    names = _called_names(nodes) - _LOOK - _TEXT - _PARSE - _ASSERT - definitions.keys()
    return {name for name in names if not name.endswith("Error")}


def _reach(starts: list[ast.AST], definitions: _Definitions) -> list[ast.AST]:
    """Return every node of these and of the definitions that they lead to by name."""
    nodes: list[ast.AST] = []
    reached = set()
    waiting = list(starts)
    while waiting:
        start = waiting.pop()
        if start in reached:
            continue
        reached.add(start)
        for node in ast.walk(start):
            nodes.append(node)
            waiting += definitions.get(_name(node), [])
    return nodes


def _called_names(nodes: Iterable[ast.AST]) -> set[str]:
    return {_name(node.func) for node in nodes if isinstance(node, ast.Call)}


def _name(node: ast.AST) -> str:
    """Return the name that a node says: `f` of `f`, of `x.f` and of a parameter f; else nothing."""
    match node:
        case ast.Name(id=name) | ast.Attribute(attr=name) | ast.arg(arg=name):
            return name
    return ""


def _compares_content(nodes: list[ast.AST]) -> bool:
    """Return whether a value is compared that is no size, or a text with a digit is named.

    Sets may be compared by `^`, `-` and `&`, and texts by `startswith` with a value.
    """
    docstrings = {node.value for node in nodes if isinstance(node, ast.Expr)}
    for node in nodes:
        match node:
            case ast.Compare():
                if _compares_value(node):
                    return True
            case ast.BinOp(op=ast.BitXor() | ast.Sub() | ast.BitAnd()):
                return True
            case ast.Call(func=ast.Attribute(attr="startswith" | "endswith"), args=[argument, *_]):
                if not isinstance(argument, ast.Constant):
                    return True
            case ast.Constant(value=str() | bytes() as text):
                is_named = node not in docstrings and text not in _ENCODINGS
                if is_named and re.search(r"\d", str(text)):
                    return True
    return False


def _compares_value(comparison: ast.Compare) -> bool:
    sides = [comparison.left, *comparison.comparators]
    if isinstance(comparison.ops[0], ast.In | ast.NotIn):
        return not isinstance(comparison.left, ast.Constant)
    if not all(isinstance(operator, _COMPARE) for operator in comparison.ops):
        return False
    return not all(isinstance(side, ast.Constant) or _is_size(side) for side in sides)


def _is_size(value: ast.AST) -> bool:
    """Return whether an expression is a length, or calculated from one."""
    match value:
        case ast.Call(func=function):
            return _name(function) in ("len", "getsize")
        case ast.Attribute(attr="st_size"):
            return True
        case ast.BinOp(left=left, right=right):
            return _is_size(left) or _is_size(right)
    return False
