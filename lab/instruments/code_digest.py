"""The code that a module runs: the files it imports, to the end, and one digest over them."""

import ast
from collections.abc import Iterator
from pathlib import Path

from lab.digests import digest_of, sha256

ROOT = Path(__file__).parents[2]  # the folder of the package `lab`


def code_digest(module: str, root: Path = ROOT) -> str:
    """Return the SHA-256 (hex) of all files of `imported_files`: their paths and digests."""
    lines = []
    for path in imported_files(module, root):
        lines.append(f"{path.relative_to(root).as_posix()} {digest_of(path)}\n")
    return sha256("".join(lines).encode())


def imported_files(module: str, root: Path = ROOT) -> list[Path]:
    """Return the files below `root` that a module imports, directly or not, its own included.

    Imports inside functions count; imports for the type checker alone don't. A package counts with
    its __init__.py, because an import of any part of it runs that too. Sorted.
    """
    files: set[Path] = set()
    waiting = [module]
    while waiting:
        name = waiting.pop()
        path = _file_of(name, root)
        if path is None or path in files:
            continue
        files.add(path)
        waiting += _imported_names(ast.parse(path.read_bytes()))
        # "lab.instruments.trials" runs "lab.instruments" and "lab" first.
        waiting.append(name.rpartition(".")[0])
    return sorted(files)


def _file_of(name: str, root: Path) -> Path | None:
    """Return a module's file; None for a class, or a module of a library."""
    if not name:
        return None
    base = root.joinpath(*name.split("."))
    for path in (base.with_name(f"{base.name}.py"), base / "__init__.py"):
        if path.is_file():
            return path
    return None


def _imported_names(node: ast.AST) -> Iterator[str]:
    """Yield the names of the modules that the code imports, and of what it imports from them."""
    for child in ast.iter_child_nodes(node):
        match child:
            case ast.Import(names=aliases):
                yield from (alias.name for alias in aliases)
            case ast.ImportFrom(module=str(module), names=aliases, level=0):
                # `from lab.instruments import data` names a module, `from … import Step` a class.
                yield module
                yield from (f"{module}.{alias.name}" for alias in aliases)
            case ast.ImportFrom():
                msg = f"line {child.lineno}: a relative import; name the module in full"
                raise ValueError(msg)
            case ast.If(test=ast.Name(id="TYPE_CHECKING")):
                for statement in child.orelse:
                    yield from _imported_names(statement)
            case _:
                yield from _imported_names(child)
