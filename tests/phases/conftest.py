"""The toy world for the runner's tests; built and run once, copied for each test that changes it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from toy import Toy


@pytest.fixture
def make_toy(tmp_path: Path) -> Callable[..., Toy]:
    """Makes a fresh toy repository."""
    return lambda plan=None, name="toy": Toy(tmp_path / name, plan)


@pytest.fixture(scope="session")
def _halted(tmp_path_factory: pytest.TempPathFactory) -> Toy:
    toy = Toy(tmp_path_factory.mktemp("halted") / "toy")
    toy.run("run", "--next")
    return toy


@pytest.fixture
def halted(_halted: Any, tmp_path: Path) -> Toy:
    """A toy repository whose only phase was run and awaits approval."""
    return _halted.copy(tmp_path / "toy")
