"""Quick worlds, built and run once, copied for each test that disturbs them."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from invariants import shape
from quick import Quick, plan


@pytest.fixture
def make_quick(tmp_path: Path) -> Callable[..., Quick]:
    """Makes a fresh quick repository."""
    return lambda document=None, name="quick": Quick(tmp_path / name, document)


@pytest.fixture(scope="session")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Quick:
    """A quick repository of one phase and two features where nothing was run yet; copy it."""
    return Quick(tmp_path_factory.mktemp("pristine") / "quick", plan(features=2))


@pytest.fixture(scope="session")
def undisturbed(pristine: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The end of a run of it that nobody disturbs."""
    quick = pristine.copy(tmp_path_factory.mktemp("undisturbed") / "quick")
    quick.run("run", "--next")
    return shape(quick.root)
