"""docs/architecture.md lists every file of the runner, and draws the imports that there are."""

from __future__ import annotations

import re
from pathlib import Path

from tests.style import import_circles, import_graph, reached_modules, read_modules

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "docs" / "architecture.md").read_text("utf-8")
DOORS = {
    "judge": {"gate", "verdict", "committed_gates", "predictions", "mutations"},
    "audit": {"audit", "clean", "findings", "unrecorded"},
}
"""Packages that others enter through a few modules only."""


def listed_files() -> list[str]:
    """Return the files of the tables below "## Files", relative to phases/."""
    section = TEXT.split("\n## Files\n")[1].split("\n## ")[0]
    files = []
    for part in section.split("\n### ")[1:]:
        heading = part.splitlines()[0]
        folder = re.match(r"`(\w+/)`", heading)
        names = re.findall(r"^\| `(\w+\.py)` \| \S", part, re.MULTILINE)
        files += [f"{folder[1] if folder else ''}{name}" for name in names]
    return files


def actual_files() -> list[str]:
    """Return the files of the runner; a package's __init__.py says only what the heading says."""
    paths = [path.relative_to(ROOT / "phases") for path in (ROOT / "phases").rglob("*.py")]
    return [path.as_posix() for path in paths if len(path.parts) == 1 or path.stem != "__init__"]


def test_every_file_is_listed_once_and_no_other() -> None:
    assert sorted(listed_files()) == sorted(actual_files())


def test_the_files_of_the_path_exist() -> None:
    section = TEXT.split("## The path of one feature\n")[1].split("\n## ")[0]
    named = re.findall(r"`(\w+/\w+\.py)`", section)
    assert len(named) > 20
    assert set(named) <= set(actual_files())


def drawn_arrows() -> dict[str, set[str]]:
    """Return the arrows of the picture: package -> packages."""
    arrows: dict[str, set[str]] = {}
    for source, target in re.findall(r"^    (\w+) --> (\w+)$", TEXT, re.MULTILINE):
        arrows.setdefault(source, set()).add(target)
        arrows.setdefault(target, set())
    return arrows


def package_imports() -> dict[str, set[str]]:
    """Return the imports between packages, those for type checking included."""
    imports: dict[str, set[str]] = {}
    for name, targets in import_graph(read_modules("phases"), type_checking=True).items():
        source = name.split(".")[1] if "." in name else name
        for target in targets:
            package = target.split(".")[1] if "." in target else target
            if package != source:
                imports.setdefault(source, set()).add(package)
    return imports


def test_the_picture_draws_the_imports_that_there_are() -> None:
    drawn, imports = drawn_arrows(), package_imports()
    for source, targets in drawn.items():
        assert targets <= imports.get(source, set()), f"{source}: drawn, but not imported"
    for source, targets in imports.items():
        if source in drawn:  # `__main__` and the package itself are not drawn
            implied = reached_modules(source, drawn)
            assert targets - {"phases"} <= implied, f"{source}: imported, but not drawn"


def test_there_are_no_import_circles() -> None:
    graph = import_graph(read_modules("phases"), type_checking=True)
    assert import_circles(graph) == []
    graph["phases.errors"].add("phases.cli")  # the control: a circle is seen
    assert import_circles(graph) != []


def test_rooms_are_entered_through_their_doors() -> None:
    entered: dict[str, set[str]] = {package: set() for package in DOORS}
    for name, targets in import_graph(read_modules("phases"), type_checking=True).items():
        for target in targets:
            _, package, *module = target.split(".") if "." in target else (target, "", "")
            if package in DOORS and not name.startswith(f"phases.{package}") and module:
                entered[package].add(module[0])
    assert entered == DOORS
