"""What a gate's Python processes cannot import: the code of the repository that they judge.

This file is never imported there, as `phases` is blocked too. `gate_run` copies its text beside
each run and appends the call of `install`; so it uses the standard library only. Whoever wants to
get around it can: it keeps an honest gate honest, and is no sandbox.
"""

from __future__ import annotations

import os
import site
import sys

TYPE_CHECKING = False  # as typing has it; that would be one more import in each process
if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType


class ImportBlock:
    """A finder that asks all others where a top module is, and refuses the repository's."""

    def __init__(self, roots: Sequence[str], names: Sequence[str], gates_dir: str):
        self.roots = [os.path.realpath(root) for root in roots]
        self.names = frozenset(names)
        self.allowed = [os.path.realpath(f"{gates_dir}/gates")]
        # The virtual environment is often in the repository; the repository may be below /usr.
        for folder in (*site.getsitepackages(), sys.prefix, sys.base_prefix):
            library = os.path.realpath(folder)
            if library not in self.roots and self._is_of_repository(library):
                self.allowed.append(library)

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return the spec of a top module; ImportError if a gate cannot import it."""
        # 1. pytest puts a finder in front, which would find test_*.py of the repository.
        if sys.meta_path[0] is not self:
            sys.meta_path.remove(self)
            sys.meta_path.insert(0, self)

        # 2. What is decided by the name; a submodule follows its top module.
        top = name.partition(".")[0]
        if top in sys.stdlib_module_names:
            return None
        if top in self.names:
            reason = f"a gate judges files, and {top} is the code that wrote them"
            message = f"a gate cannot import {top}: {reason} (docs/gates.md)"
            raise ImportError(message, name=name)
        if top != name:
            return None

        # 3. What is decided by the place, as the other finders know it.
        for finder in sys.meta_path[1:]:
            spec = finder.find_spec(name, path, target)
            if spec is not None:
                self._check_place(spec)
                return spec
        return None

    def _check_place(self, spec: ModuleSpec) -> None:
        """Raise ImportError for a module of the repository; cut such folders off a namespace."""
        places = list(spec.submodule_search_locations or ())
        if spec.origin and spec.has_location:
            places = [spec.origin]
        others = [place for place in places if not self._is_blocked(place)]
        if places and not others:
            reason = f"{places[0]} is in the repository, and a gate has gates/ alone"
            message = f"a gate cannot import {spec.name}: {reason} (docs/gates.md)"
            raise ImportError(message, name=spec.name)
        if len(others) < len(places):
            spec.submodule_search_locations = others

    def _is_blocked(self, place: str) -> bool:
        path = os.path.realpath(place)
        is_allowed = any(_is_inside(path, folder) for folder in self.allowed)
        return self._is_of_repository(path) and not is_allowed

    def _is_of_repository(self, path: str) -> bool:
        return any(_is_inside(path, root) for root in self.roots)


def _is_inside(path: str, folder: str) -> bool:
    return path == folder or path.startswith(f"{folder}/")


def install(roots: Sequence[str], names: Sequence[str], gates_dir: str) -> None:
    """Block imports in this process.

    Args:
        roots: the repository's work trees.
        names: top modules that are blocked wherever they are.
        gates_dir: holds the folder `gates/` of this judgement.
    """
    sys.meta_path.insert(0, ImportBlock(roots, names, gates_dir))


def load_next_sitecustomize(file: str) -> None:
    """Load the sitecustomize that Python would have loaded without the one in `file`."""
    from importlib.machinery import PathFinder
    from importlib.util import module_from_spec

    sys.path.remove(file.rpartition("/")[0])
    spec = PathFinder.find_spec("sitecustomize")
    if spec is not None and spec.loader is not None:
        spec.loader.exec_module(module_from_spec(spec))
