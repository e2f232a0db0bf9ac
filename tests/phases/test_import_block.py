"""Which modules the import block refuses, by name and by place, and a whole run under it.

Judgements under it are in test_gate.py (case I-18).
"""

from __future__ import annotations

import importlib
import site
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from toy import EXIT_GATE, GATE, Toy, toy_plan

from phases.judge.import_block import ImportBlock, install


@pytest.fixture
def block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., ImportBlock]]:
    """Return a function that blocks imports in this process until the test is over."""
    modules = set(sys.modules)
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    monkeypatch.setattr(sys, "path", list(sys.path))

    def start(root: Path, names: tuple[str, ...] = ()) -> ImportBlock:
        install([str(root)], names, str(tmp_path / "judge"))
        finder = sys.meta_path[0]
        assert isinstance(finder, ImportBlock)
        return finder

    yield start
    for name in set(sys.modules) - modules:
        del sys.modules[name]
    importlib.invalidate_caches()


def write_module(path: Path) -> str:
    """Write an empty module and put its folder on the path; return its name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("")
    sys.path.insert(0, str(path.parent))
    importlib.invalidate_caches()
    return path.stem


def test_i_18_a_repository_is_told_from_a_folder_whose_name_begins_like_it(
    tmp_path: Path, block: Callable[..., ImportBlock]
) -> None:
    block(tmp_path / "repo")
    with pytest.raises(ImportError, match=r"a gate cannot import i18_inside: .*/repo/i18_inside"):
        importlib.import_module(write_module(tmp_path / "repo/i18_inside.py"))
    importlib.import_module(write_module(tmp_path / "repository/i18_beside.py"))


def test_i_18_symbolic_links_are_followed(
    tmp_path: Path, block: Callable[..., ImportBlock]
) -> None:
    (tmp_path / "repo").mkdir()
    (tmp_path / "link").symlink_to("repo")
    block(tmp_path / "link")
    write_module(tmp_path / "repo/i18_target.py")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/i18_link.py").symlink_to(tmp_path / "repo/i18_target.py")
    sys.path.insert(0, str(tmp_path / "elsewhere"))
    for name in ("i18_target", "i18_link"):
        with pytest.raises(ImportError, match="a gate cannot import"):
            importlib.import_module(name)


def test_i_18_an_environment_in_the_repository_is_no_part_of_it(
    tmp_path: Path, block: Callable[..., ImportBlock], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "repo/.venv"))
    block(tmp_path / "repo")
    importlib.import_module(write_module(tmp_path / "repo/.venv/lib/i18_library.py"))
    with pytest.raises(ImportError, match="a gate cannot import"):
        importlib.import_module(write_module(tmp_path / "repo/i18_own.py"))


@pytest.mark.parametrize("prefix", ["repo", "."], ids=["is the prefix", "is below the prefix"])
def test_i_18_a_repository_that_the_prefix_holds_is_blocked_all_the_same(
    tmp_path: Path,
    block: Callable[..., ImportBlock],
    monkeypatch: pytest.MonkeyPatch,
    prefix: str,
) -> None:
    libraries = tmp_path / prefix / "lib/site-packages"
    monkeypatch.setattr(sys, "prefix", str(tmp_path / prefix))
    monkeypatch.setattr(site, "getsitepackages", lambda: [str(libraries)])
    block(tmp_path / "repo")
    importlib.import_module(write_module(libraries / "i18_library.py"))
    with pytest.raises(ImportError, match="a gate cannot import"):
        importlib.import_module(write_module(tmp_path / "repo/i18_own.py"))


def test_i_18_a_name_of_the_standard_library_is_never_blocked(
    tmp_path: Path, block: Callable[..., ImportBlock]
) -> None:
    # A plan may name a package `code` of its own; pytest needs Python's.
    finder = block(tmp_path, ("code", "i18_named"))
    assert finder.find_spec("code") is None
    with pytest.raises(ImportError, match="a gate cannot import i18_named"):
        importlib.import_module("i18_named.part")


def test_i_18_what_nobody_has_is_not_found_as_ever(
    tmp_path: Path, block: Callable[..., ImportBlock]
) -> None:
    block(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="No module named 'i18_absent'"):
        importlib.import_module("i18_absent")


#### a whole run

EXPERIMENT = """
import runpy
runpy.run_path("experiment.py", run_name="__main__")
"""


@pytest.mark.parametrize("gate", ["test_count", "test_exit"])
def test_i_18_the_plans_modules_are_blocked_in_every_gate_of_a_phase(
    make_toy: Callable[..., Toy], gate: str
) -> None:
    plan = toy_plan(features=1)
    feature = plan["phases"][0]["features"][0]
    del feature["command"]
    feature |= {"module": "counting.experiment", "config": "counting.json"}
    plan["phases"][0]["exit"] = [{"pytest": "gates/test_exit.py"}]
    toy = make_toy(plan)
    toy.write("counting/__init__.py", "")
    toy.write("counting/experiment.py", EXPERIMENT)
    toy.write("counting.json", "{}")
    source = {"test_count": GATE, "test_exit": EXIT_GATE}[gate]
    toy.write(f"gates/{gate}.py", f"import counting\n{source}")
    toy.commit("a gate imports the experiment")
    toy.run("run", "--next", code=1)
    assert "ImportError: a gate cannot import counting: a gate judges files" in toy.progress
    state = {"test_count": "errored", "test_exit": "verified"}[gate]
    assert toy.states() == {"TOY-001": state}
