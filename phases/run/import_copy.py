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
from collections.abc import Collection, Sequence
from functools import cache
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

    def __init__(self, root: str, copy: str, names: Collection[str]):
        self._root = root
        self._copy = copy
        self._names = frozenset(names)
        """What Python can import at the top of the commit."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return the module of the copy; None where another finder's is right.

        Raises:
            ModuleNotFoundError: it would come from the repository, and the copy does not have it.
        """
        # 1. Most submodules are a library's.
        if name.partition(".")[0] in getattr(sys, "stdlib_module_names", ()):
            return None
        if path is not None and all(_is_library(os.path.realpath(entry)) for entry in path):
            return None

        # 2. Where all other finders would take it from.
        spec = None
        for finder in sys.meta_path:
            if finder is not self:
                spec = spec or finder.find_spec(name, path, target)

        # 3. The same place in the copy.
        for place in map(os.path.realpath, _places(spec)):
            if not _is_below(place, self._copy) and self._is_of_project(name, place):
                found = PathFinder.find_spec(name, self._folders_in_copy(name, path, place))
                if found is None:
                    message = f"{name} would come from {place}, which is not committed"
                    raise ModuleNotFoundError(message, name=name)
                return found
        return None

    def _is_of_project(self, name: str, place: str) -> bool:
        """Return whether a module would come from the repository, or is a copy of its code."""
        if is_of_repository(place, self._root):
            return True
        top = name.partition(".")[0]
        if top not in self._names:
            return False
        if _is_library(place):
            return top in installed_names(self._root)
        return _is_in_checkout(place)

    def _folders_in_copy(self, name: str, path: Sequence[str] | None, place: str) -> list[str]:
        """Return where the copy would have a module that another finder finds at `place`."""
        if path is not None:
            return [folder for entry in path for folder in self._folder_in_copy(entry)]
        if not is_of_repository(place, self._root):
            return [self._copy]
        inside = os.path.relpath(place, self._root).split(os.sep)
        positions = [i for i, part in enumerate(inside) if part.partition(".")[0] == name]
        return [os.path.join(self._copy, *inside[: max(positions, default=0)])]

    def _folder_in_copy(self, folder: str) -> list[str]:
        folder = os.path.realpath(folder)
        if _is_below(folder, self._copy):
            return [folder]
        if is_of_repository(folder, self._root):
            return [os.path.join(self._copy, os.path.relpath(folder, self._root))]
        return []


@cache
def installed_names(root: str) -> frozenset[str]:
    """Return the names that were installed among the libraries from the repository.

    pip notes where it took them from: https://packaging.python.org/specifications/direct-url
    """
    import importlib.metadata
    from urllib.request import url2pathname

    names = set()
    for distribution in importlib.metadata.distributions():
        try:
            url = json.loads(distribution.read_text("direct_url.json") or "{}").get("url", "")
        except ValueError:
            continue
        place = url2pathname(url.removeprefix("file://"))
        if url.startswith("file://") and _is_below(os.path.realpath(place), root):
            for file in distribution.files or ():
                names.add(file.parts[0].partition(".")[0])
    return frozenset(names)


def import_from_copy(root: str, copy: str, names: Collection[str]) -> None:
    """Put the copy in the place of the repository, on the path and for every finder."""
    for position, entry in enumerate(sys.path):
        if entry and is_of_repository(entry, root):
            sys.path[position] = os.path.join(copy, os.path.relpath(os.path.realpath(entry), root))
    sys.meta_path.insert(0, CopyFinder(root, copy, names))

    # What a .pth file or another sitecustomize has imported before.
    for name, module in list(sys.modules.items()):
        places = _places(getattr(module, "__spec__", None))
        if any(is_of_repository(place, root) for place in places):
            del sys.modules[name]


def load_next_sitecustomize(file: str) -> None:
    """Load the sitecustomize that Python would have loaded without the one in `file`."""
    folder = os.path.dirname(os.path.realpath(file))
    search_path = [entry for entry in sys.path if os.path.realpath(entry or ".") != folder]
    spec = PathFinder.find_spec("sitecustomize", search_path)
    if spec is not None and spec.loader is not None:
        spec.loader.exec_module(importlib.util.module_from_spec(spec))


def _places(spec: ModuleSpec | None) -> list[str]:
    """Return the files and folders that a module would come from."""
    if spec is None:
        return []
    origin = [spec.origin] if spec.origin and spec.has_location else []
    return [*origin, *(spec.submodule_search_locations or ())]


def _is_in_checkout(place: str) -> bool:
    """Return whether a path is in a work tree of git, and not in an environment there."""
    while os.path.dirname(place) != place:
        place, name = os.path.split(place)
        if name in ("site-packages", "dist-packages"):
            return False
        if os.path.exists(os.path.join(place, ".git")):
            return True
    return False


def _is_library(place: str) -> bool:
    """Return whether a path without links is below a folder of the environment's libraries."""
    return any(_is_below(place, folder) for folder in LIBRARIES)


def _is_below(place: str, folder: str) -> bool:
    return f"{place}/".startswith(f"{folder}/")


if __name__ == "__main__":
    print(json.dumps(offered_packages(sys.argv[1], sys.argv[2:])))
