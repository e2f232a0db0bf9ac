"""Quick repositories: built and run once, copied for each test that disturbs them."""

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
    """Return a function that makes a fresh quick repository."""

    def make(document: dict[str, Any] | None = None, name: str = "quick") -> Quick:
        return Quick(tmp_path / name, document)

    return make


@pytest.fixture(scope="session")
def _fresh(tmp_path_factory: pytest.TempPathFactory) -> Quick:
    return Quick(tmp_path_factory.mktemp("fresh") / "quick")


@pytest.fixture
def quick(_fresh: Quick, tmp_path: Path) -> Quick:
    """Return a quick repository of one phase and one feature where nothing was run yet."""
    return _fresh.copy(tmp_path / "quick")


@pytest.fixture(scope="session")
def _waiting(_fresh: Quick, tmp_path_factory: pytest.TempPathFactory) -> Quick:
    quick = _fresh.copy(tmp_path_factory.mktemp("waiting") / "quick")
    quick.run("run", "--next")
    return quick


@pytest.fixture
def waiting(_waiting: Quick, tmp_path: Path) -> Quick:
    """Return the same, run to its checkpoint."""
    return _waiting.copy(tmp_path / "quick")


@pytest.fixture(scope="session")
def undisturbed(_waiting: Quick) -> dict[str, Any]:
    """Return the end of an undisturbed run."""
    return shape(_waiting.root)
