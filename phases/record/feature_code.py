"""Which files of a commit are a feature's code, and the digests that its receipt has of them."""

from __future__ import annotations

import ast
import os
from collections.abc import Collection, Iterable, Mapping, Sequence

from phases.base import durable
from phases.git.tree import CommitTree
from phases.plan.schema import Feature, Plan, canonical_json
from phases.record.decision_check import APPROVALS

Code = Mapping[str, Sequence[str]]
"""URI of each part of the code, `code:PACKAGE` or `code` -> its files."""


def feature_code(tree: CommitTree, plan: Plan, feature: Feature) -> Code:
    """Return the code of a feature in a commit.

    Of a module these are its top packages, those that it imports included. A command may read
    every file, so its code is the whole commit. Results, progress.txt and decisions are left out.
    """
    if feature.module:
        packages = module_packages(tree, feature.module, plan.results)
        return {f"code:{name}": files for name, files in packages.items()}
    record = (f"{plan.results}/", f"{APPROVALS}/", "progress.txt")
    return {"code": [path for path in tree.entries if not path.startswith(record)]}


def code_digest(paths: Iterable[str], contents: Mapping[str, str]) -> str:
    """Return the digest of one part of the code.

    Args:
        paths: its files.
        contents: path -> SHA-256 of every file of a layout; what is not laid out does not count.
    """
    part = {_utf8(path): contents[path] for path in paths if path in contents}
    return durable.sha256(canonical_json(part))


def _utf8(path: str) -> str:
    """Return a path in which bytes that are no UTF-8 are written out: JSON has no other bytes."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


#### the packages of a module


def module_packages(
    tree: CommitTree, module: str, results: str, others: Collection[str] = ()
) -> dict[str, list[str]]:
    """Return top package -> its files, of a module and of all that it imports in the commit.

    What links in a package lead to is among its files.

    Of `others`, names that the commit does not have, those that it imports have no files.

    Imports are read from the sources, directly or through each other; one that a program composes
    at run time is not seen. Results are left out.
    """
    candidates: dict[str, list[str]] = {name: [] for name in others}
    candidates |= top_packages(tree, results)
    packages: dict[str, list[str]] = {}
    waiting = [module.split(".", 1)[0]]
    while waiting:
        name = waiting.pop()
        if name in packages or name not in candidates:
            continue
        packages[name] = candidates[name]
        if tree.has_links(name):
            packages[name] = sorted(entry.path for entry in tree.select([name]))
        sources = [path for path in packages[name] if _is_source(tree, path)]
        for data in tree.read_files(sources).values():
            waiting += _imported_names(data, candidates.keys() - packages.keys())
    return packages


def _is_source(tree: CommitTree, path: str) -> bool:
    return path.endswith(".py") and tree.entries[path].is_file


def top_packages(tree: CommitTree, results: str) -> dict[str, list[str]]:
    """Return every name at the top of the commit that Python can import -> its files."""
    files: dict[str, list[str]] = {}
    for path, entry in sorted(tree.entries.items()):
        if not entry.is_file or path.startswith(f"{results}/"):
            continue
        top, slash, _rest = path.partition("/")
        if slash or top.endswith(".py"):
            files.setdefault(top.removesuffix(".py"), []).append(path)
    return {
        name: paths
        for name, paths in files.items()
        if name.isidentifier() and any(path.endswith(".py") for path in paths)
    }


def _imported_names(source: bytes, names: set[str]) -> list[str]:
    """Return which of the names a source file imports."""
    # Parsing is slow; most files do not even contain one of the names.
    if not any(name.encode() in source for name in names):
        return []
    try:
        module = ast.parse(source)
    except (SyntaxError, ValueError):
        return []
    imported: set[str] = set()
    for node in ast.walk(module):
        if isinstance(node, ast.Import):
            imported.update(alias.name.split(".", 1)[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            imported.add(node.module.split(".", 1)[0])
    return sorted(names & imported)
