"""What a Python would import from the repository, and how it imports it from a copy instead.

An editable install (`pip install -e .`) offers the work tree to every Python of its environment.
This file is copied beside an experiment as the text of a `sitecustomize.py`, and is started by the
Pythons of other environments; so it imports nothing but the standard library.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
import sysconfig
from collections.abc import Collection, Mapping, Sequence
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType

LIBRARIES = tuple(
    os.path.realpath(sysconfig.get_path(name))
    for name in ("stdlib", "platstdlib", "purelib", "platlib")
)
"""Folders of the environment's libraries: they may be in the repository, as in `.venv`."""


def is_of_repository(place: str, root: str) -> bool:
    """Return whether a path is below the repository, and is none of the environment's libraries."""
    place = os.path.realpath(place)
    return _is_below(place, root) and not _is_library(place)


def offered_packages(root: str, names: Collection[str]) -> dict[str, str]:
    """Return package -> where it is, of those that this Python would import from the repository.

    `names` are asked for, and everything in the repository's folders on the path.
    """
    asked = set(names)
    for folder in sys.path:
        if folder and is_of_repository(folder, root) and os.path.isdir(folder):
            asked.update(importable_names(folder))
    offered = {}
    for name in sorted(asked):
        try:
            spec = importlib.util.find_spec(name)
        except (ImportError, ValueError):
            continue
        for place in _places(spec):
            if is_of_repository(place, root):
                offered[name] = place
    return offered


def importable_names(folder: str) -> set[str]:
    """Return the names of packages and modules in a folder."""
    names = set()
    for entry in os.scandir(folder):
        name, suffix = os.path.splitext(entry.name)
        if entry.is_dir():
            has_source = any(file.endswith(".py") for file in os.listdir(entry.path))
            if has_source and entry.name.isidentifier():
                names.add(entry.name)
        elif suffix == ".py" and name.isidentifier():
            names.add(name)
    return names


class CopyFinder:
    """Finds in the copy what Python would import from the repository or another checkout of it."""

    def __init__(self, root: str, copy: str, packages: Mapping[str, str]):
        self._root = root
        self._copy = copy
        self._packages = packages
        """Top package of the commit -> its folder in the copy."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return the module of the copy; None where another finder's is right."""
        if path is not None or name in getattr(sys, "stdlib_module_names", ()):
            return None
        spec = None
        for finder in sys.meta_path:
            if finder is not self:
                spec = spec or finder.find_spec(name, path, target)
        for place in _places(spec):
            folder = self._folder_in_copy(name, place)
            if folder is not None:
                found = PathFinder.find_spec(name, [folder])
                if found is None:
                    raise ImportError(f"{name} would come from {place}, which is not committed")
                return found
        return None

    def _folder_in_copy(self, name: str, place: str) -> str | None:
        """Return where to look in place of a module's origin; None where that may stay."""
        place = os.path.realpath(place)
        if _is_below(place, self._copy):
            return None
        if is_of_repository(place, self._root):
            inside = os.path.relpath(place, self._root).split(os.sep)
            positions = [i for i, part in enumerate(inside) if part.partition(".")[0] == name]
            return os.path.join(self._copy, *inside[: max(positions, default=0)])
        if name in self._packages and not _is_library(place):
            return self._packages[name]  # another checkout of the same project
        return None


def import_from_copy(root: str, copy: str, packages: Mapping[str, str]) -> None:
    """Put the copy in the place of the repository, on the path and for every finder."""
    for position, entry in enumerate(sys.path):
        if entry and is_of_repository(entry, root):
            sys.path[position] = os.path.join(copy, os.path.relpath(os.path.realpath(entry), root))
    sys.meta_path.insert(0, CopyFinder(root, copy, packages))


def _places(spec: ModuleSpec | None) -> list[str]:
    """Return the files and folders that a module would come from."""
    if spec is None:
        return []
    origin = [spec.origin] if spec.origin and spec.has_location else []
    return [*origin, *(spec.submodule_search_locations or ())]


def _is_library(place: str) -> bool:
    """Return whether a path without links is below a folder of the environment's libraries."""
    return any(_is_below(place, folder) for folder in LIBRARIES)


def _is_below(place: str, folder: str) -> bool:
    return f"{place}/".startswith(f"{folder}/")


if __name__ == "__main__":
    print(json.dumps(offered_packages(sys.argv[1], sys.argv[2:])))
