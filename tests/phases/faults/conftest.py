"""Quick worlds, built and run once, copied for each test that disturbs them."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from invariants import shape
from quick import Quick


@pytest.fixture
def make_quick(tmp_path: Path) -> Callable[..., Quick]:
    """Makes a fresh quick repository."""
    return lambda document=None, name="quick": Quick(tmp_path / name, document)


@pytest.fixture(scope="session")
def _pristine(tmp_path_factory: pytest.TempPathFactory) -> Quick:
    return Quick(tmp_path_factory.mktemp("pristine") / "quick")


@pytest.fixture
def quick(_pristine: Quick, tmp_path: Path) -> Quick:
    """A quick repository of one phase and one feature where nothing was run yet."""
    return _pristine.copy(tmp_path / "quick")


@pytest.fixture(scope="session")
def _waiting(_pristine: Quick, tmp_path_factory: pytest.TempPathFactory) -> Quick:
    world = _pristine.copy(tmp_path_factory.mktemp("waiting") / "quick")
    world.run("run", "--next")
    return world


@pytest.fixture
def waiting(_waiting: Quick, tmp_path: Path) -> Quick:
    """The same, run to its checkpoint."""
    return _waiting.copy(tmp_path / "quick")


@pytest.fixture(scope="session")
def undisturbed(_waiting: Quick) -> dict[str, Any]:
    """The end of a run that nobody disturbed."""
    return shape(_waiting.root)
