"""What a commit's Python code imports, and where a child process would find it.

An editable install (`pip install -e .`) offers the packages of the work tree to every Python that
the runner starts. In a copy of a commit they must come from the copy.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from phases.git.tree import CommitTree
from phases.record.feature_code import top_packages
from phases.run import import_copy
from phases.run.import_copy import offered_packages

ASK_S = 60.0
"""Seconds that another Python may take to say what it offers."""
_PYTHON = re.compile(r"python[\d.]*")
_IMPORT_COPY = Path(import_copy.__file__).resolve()


#### where a Python would find it


@dataclass(frozen=True)
class Interpreter:
    """A Python that a child process may start."""

    python: str

    def offered_packages(self, root: Path, names: Collection[str]) -> dict[str, Path]:
        """Return package -> where it is, of those that this Python imports from the repository.

        Asked without PYTHONPATH, as `python -I` is: nothing that the runner sets is in its way.
        """
        root = root.resolve()
        if self.python == sys.executable:
            offered = offered_packages(str(root), names)
        else:
            offered = self._ask(str(root), sorted(names))
        return {name: Path(place) for name, place in offered.items()}

    def _ask(self, root: str, names: Sequence[str]) -> dict[str, str]:
        """Ask another Python; {} where it gives no answer."""
        try:
            answer = subprocess.run(
                [self.python, "-I", str(_IMPORT_COPY), root, *names],
                capture_output=True,
                text=True,
                timeout=ASK_S,
                check=True,
            )
            offered: dict[str, str] = json.loads(answer.stdout.splitlines()[-1])
        except (OSError, subprocess.SubprocessError, ValueError, IndexError):
            return {}
        return offered


OWN_INTERPRETER = Interpreter(sys.executable)
"""The Python that runs this, which is the first on the PATH of every child."""


def other_interpreter(program: Path) -> Interpreter | None:
    """Return the Python of the environment that a program belongs to; None if there is none.

    That is the program itself, or the `python` beside it, as a script of an environment starts it.
    """
    if _PYTHON.fullmatch(program.name):
        return Interpreter(str(program))
    if (program.parent.parent / "pyvenv.cfg").is_file():
        return Interpreter(str(program.with_name("python")))
    return None


def offered_paths(
    interpreters: Iterable[Interpreter], tree: CommitTree, results: str
) -> dict[str, str]:
    """Return package -> its file or folder in the repository, of what any of these Pythons offers.

    An editable install offers them from the work tree. In an experiment the copy takes their place
    (import_copy.py); but a command can start a Python that does not know of it (`python -I`,
    another PYTHONPATH), so the work tree must have the bytes of the commit there.
    """
    root = tree.repo.root.resolve()
    names = top_packages(tree, results)
    paths = {}
    for interpreter in interpreters:
        for name, place in interpreter.offered_packages(root, names).items():
            path = place.resolve().relative_to(root)
            if path.name == "__init__.py":
                path = path.parent
            paths[name] = path.as_posix()
    return paths


def write_sitecustomize(folder: Path, root: Path, copy: Path, names: Iterable[str]) -> None:
    """Write what makes every Python that has this folder on its path import from the copy."""
    folder.mkdir(exist_ok=True)
    text = _IMPORT_COPY.read_text("utf-8").partition("\n\nif __name__")[0]
    text += "\n\nload_next_sitecustomize(__file__)\n"
    text += f"import_from_copy({str(root)!r}, {str(copy)!r}, {sorted(names)!r})\n"
    (folder / "sitecustomize.py").write_text(text, "utf-8")


PROBE = """
import importlib.util, json, sys
origins = {}
for name in sys.argv[1:]:
    spec = importlib.util.find_spec(name)
    places = [] if spec is None else [spec.origin or "", *(spec.submodule_search_locations or [])]
    origins[name] = [place for place in places if place]
print(json.dumps(origins))
"""
"""Prints where this Python would import packages from; it imports none of them."""


def package_origins(output: str) -> dict[str, list[Path]]:
    """Return package -> where it would come from, of what PROBE printed."""
    origins = json.loads(output)
    return {name: [Path(place).resolve() for place in places] for name, places in origins.items()}
